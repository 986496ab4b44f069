"""theta: the T-pose start and the gauge of the segment scales."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.body import cameras, kinematics, skinning
from dal_jax.body.kinematics import BodyParameters
from tests.body import reference

ROUNDING = 2e-6  # crop units and logarithms: float32 of size 1 through two products


def _person(seed):
    problem, rng = reference.random_problem(seed, log_scale_sd=0.4), np.random.default_rng(seed)
    values = problem.pose, problem.segment_scale, problem.rotation, rng.uniform(0.5, 2.0), rng.normal(size=2)
    return BodyParameters(*(jnp.asarray(value, jnp.float32) for value in values))


def _see(template, person):
    """Return the projected vertices, and the depths of Human3.6M's joints in crop units."""
    segments = kinematics.pose_skeleton(template, person.rotation, person.pose, person.segment_scale)
    points = cameras.project(skinning.skin_vertices(template, segments), person.camera_scale, person.translation)
    return points, person.camera_scale * skinning.h36m_joints(template, segments)[:, 2]


@pytest.mark.parametrize("seed", range(3))
def test_fixing_the_gauge_leaves_the_picture_unchanged(made_up_body, seed):
    """Dense points, key points and their z of eq. 3 and 4: no term of the energy can tell."""
    person = _person(seed)
    see = jax.jit(_see)
    before, after = see(made_up_body, person), see(made_up_body, kinematics.fix_gauge(person))
    np.testing.assert_allclose(after[0], before[0], atol=10 * ROUNDING)
    np.testing.assert_allclose(after[1], before[1], atol=10 * ROUNDING)


def test_the_gauge_is_mean_log_zero():
    fixed = kinematics.fix_gauge(_person(3))
    assert abs(float(jnp.mean(jnp.log(fixed.segment_scale)))) < ROUNDING
    assert float(fixed.camera_scale) != pytest.approx(float(_person(3).camera_scale), abs=1e-3)


def test_fixing_the_gauge_twice_is_fixing_it_once():
    once = kinematics.fix_gauge(_person(4))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=ROUNDING), kinematics.fix_gauge(once), once
    )  # fmt: skip


def test_the_gauge_keeps_ratios_of_scales_and_all_else():
    person = _person(5)
    fixed = kinematics.fix_gauge(person)
    ratio = np.asarray(fixed.segment_scale / person.segment_scale)
    np.testing.assert_allclose(ratio, ratio[0], rtol=ROUNDING)
    for name in ("pose", "rotation", "translation"):
        np.testing.assert_array_equal(getattr(fixed, name), getattr(person, name))


def test_leading_axes_batch():
    people = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(_person, range(4)))
    together = kinematics.fix_gauge(people)
    for i in range(4):
        alone = kinematics.fix_gauge(_person(i))
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=ROUNDING), together, alone)


def test_t_pose_is_the_first_start_of_the_paper():
    person = kinematics.t_pose(camera_scale=0.7)
    np.testing.assert_array_equal(person.pose, np.zeros((23, 3)))
    np.testing.assert_array_equal(person.segment_scale, np.ones(24))
    np.testing.assert_array_equal(person.rotation, np.diag([1, -1, -1]))
    np.testing.assert_array_equal(person.translation, np.zeros(2))
    assert float(person.camera_scale) == np.float32(0.7)
    assert {leaf.dtype for leaf in jax.tree.leaves(person)} == {np.dtype(np.float32)}
