"""Covariances: an inverse is one, the sandwich is Bayes' where weights state the noise, shared errors are shared."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.body import skeleton
from dal_jax.observations import residuals
from dal_jax.uncertainty import sandwich
from tests.registration import linear_fits, small_problem

FLOAT32_INVERSE = 1e-3  # relative to the largest entry: condition numbers of some 1e3


@pytest.fixture(scope="module")
def person():
    truth, seen, _, pulls = linear_fits.people()
    template = small_problem.small_template()
    body, seen = jax.tree.map(lambda leaf: jnp.asarray(leaf)[0], (truth, seen))
    target = residuals.make_target(template, seen)
    return template, target, jax.jit(sandwich.linearise)(template, target, body, pulls.rest), pulls


@pytest.mark.parametrize("size", [1, 5, 98])
def test_sweeps_invert(size):
    random = np.random.default_rng(size).normal(size=(size, 2 * size + 1)) * np.logspace(-2, 2, size)[:, None]
    matrix = (random @ random.T).astype(np.float32)
    expected = np.linalg.inv(matrix.astype(np.float64))
    scale = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(sandwich.invert(jnp.asarray(matrix)) / np.outer(scale, scale),
                               expected / np.outer(scale, scale), atol=FLOAT32_INVERSE)  # fmt: skip


def test_with_weights_that_state_the_noise_it_is_the_inverse_of_h(person):
    template, target, linear, pulls = person
    shape, limb = sandwich.shape_covariance(target), sandwich.limb_covariance(template, target)
    sides = sandwich.bread(linear, shape, limb, pulls)
    variance = jnp.where(jnp.array([1, 0, 1, 1, 0, 1]) > 0, 1.0 / pulls.of_kinds(), 0.0)
    filling = sandwich.filling(sides, variance, jnp.linalg.inv(pulls.joint))
    covariance = sides.inverse @ filling @ sides.inverse
    assert np.abs(covariance - sides.inverse).max() < FLOAT32_INVERSE * np.abs(sides.inverse).max()


def test_shared_errors_widen_and_never_narrow(person):
    template, target, linear, pulls = person
    sides = sandwich.bread(linear, sandwich.shape_covariance(target), sandwich.limb_covariance(template, target), pulls)
    for kind in sandwich.KINDS:
        one = jnp.array([name == kind for name in sandwich.KINDS], jnp.float32)
        filling = np.asarray(sandwich.filling(sides, one, jnp.zeros((23, 3, 3))), np.float64)
        eigenvalues = np.linalg.eigvalsh((filling + filling.T) / 2)
        assert eigenvalues[-1] > 0
        assert eigenvalues[0] > -FLOAT32_INVERSE * eigenvalues[-1]


def test_points_share_with_their_neighbours_on_the_same_segment(person):
    _, target, _, _ = person
    covariance = np.asarray(sandwich.shape_covariance(target))
    weight, rest = np.asarray(target.points.weight), np.asarray(target.points.rest)
    np.testing.assert_allclose(np.diag(covariance), np.sum(weight**2, axis=1), rtol=1e-5)
    apart = (weight @ weight.T) == 0
    assert apart.any()
    assert not covariance[apart].any()
    i, j = np.unravel_index(np.argmax(np.where(np.eye(len(rest)) > 0, 0, covariance)), covariance.shape)
    distance = np.linalg.norm(rest[i] - rest[j])
    expected = weight[i] @ weight[j] * np.exp(-(distance**2) / (2 * sandwich.SHARED_LENGTH_M**2))
    assert covariance[i, j] == pytest.approx(expected, rel=1e-4)


def test_lifted_depths_share_the_way_from_the_hip(person):
    template, target, _, _ = person
    covariance = np.asarray(sandwich.limb_covariance(template, target))
    names = skeleton.H36M_JOINT_NAMES
    hip, knee, foot, other = (names.index(n) for n in ("hip", "right_knee", "right_foot", "left_foot"))
    assert not covariance[hip].any()
    assert covariance[foot, other] == 0
    assert covariance[foot, knee] == pytest.approx(covariance[knee, knee])
    joints = template.h36m_regressor @ template.vertices
    way = sum(np.linalg.norm(joints[a] - joints[b]) for a, b in ((0, 1), (1, 2), (2, 3)))
    assert covariance[foot, foot] == pytest.approx(way, rel=1e-5)
