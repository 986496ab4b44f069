"""Flips: the named bone reversed in depth and nothing else; a flip of a flip is the pose itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.body import kinematics, skeleton
from dal_jax.registration import register
from dal_jax.registration.energy import Objective
from dal_jax.registration.register import Fit
from dal_jax.uncertainty import modes
from tests.registration import linear_fits, small_problem

FLOAT32 = 1e-5


@pytest.fixture(scope="module")
def body():
    people = small_problem.random_people(1, seed=5, pose_sd=0.5, turn=1.0)
    return jax.tree.map(lambda leaf: leaf[0], people)


_flip = jax.jit(modes.flip)
_row = jax.jit(lambda tree, row: jax.tree.map(lambda leaf: leaf[row], tree))


@jax.jit
def _segments(body):
    return kinematics.pose_skeleton(small_problem.small_template(), body.rotation, body.pose, body.segment_scale)


@pytest.mark.parametrize("name", modes.NAMES[2:])
def test_a_flip_reverses_one_bone_in_depth(body, name):
    flips = _flip(small_problem.small_template(), body)
    before, after = (jax.device_get(_segments(one)) for one in (body, _row(flips, modes.NAMES.index(name))))
    joint = skeleton.SMPL_JOINT_NAMES.index(name)
    child = skeleton.SMPL_PARENTS.index(joint)
    bone = before.position[child] - before.position[joint]
    np.testing.assert_allclose(after.position[child] - after.position[joint], bone * [1.0, 1.0, -1.0], atol=FLOAT32)
    others = np.arange(24) != joint
    np.testing.assert_allclose(after.rotation[others], before.rotation[others], atol=FLOAT32)


@pytest.mark.parametrize("name", modes.NAMES)
def test_a_flip_twice_is_none(body, name):
    template, row = small_problem.small_template(), modes.NAMES.index(name)
    once = _row(_flip(template, body), row)
    twice = _row(_flip(template, once), row)
    assert np.abs(np.asarray(_segments(once).rotation) - _segments(body).rotation).max() > 0.1
    np.testing.assert_allclose(_segments(twice).rotation, _segments(body).rotation, atol=10 * FLOAT32)
    np.testing.assert_allclose(np.linalg.det(once.rotation), 1.0, atol=FLOAT32)


def test_a_half_turn_keeps_the_pose(body):
    half = _row(_flip(small_problem.small_template(), body), modes.NAMES.index("half_turn"))
    np.testing.assert_allclose(half.pose, body.pose, atol=10 * FLOAT32)
    np.testing.assert_allclose(half.rotation, np.asarray(body.rotation) @ np.diag([-1.0, 1.0, -1.0]), atol=FLOAT32)


def test_a_bone_along_the_line_of_sight_has_no_flip(body):
    """Straight towards the camera, the shortest way to its opposite is not one way; nothing is divided by 0."""
    rotation = modes._rotation_between(jnp.array([0.0, 0.0, 0.3]), jnp.array([0.0, 0.0, -0.3]))
    np.testing.assert_array_equal(rotation, np.eye(3))


def test_every_flip_is_fitted(monkeypatch):
    _, observations, fits, _ = linear_fits.people()

    def stay(template, observations, config, objective, given):
        count = len(observations.point_face)
        rest = [np.full(count, np.asarray(given[0].pose).sum())] + [np.zeros(count)] * 20
        return Fit(jax.tree.map(np.asarray, given[0]), *rest[: len(dataclasses.fields(Fit)) - 1])

    monkeypatch.setattr(register, "register", stay)
    found = modes.find(small_problem.small_template(), observations, fits, Objective())
    assert found.pose.shape == (len(fits.camera_scale), len(modes.NAMES), 23, 3)
    one = jax.tree.map(lambda leaf: leaf[7], fits)
    expected = _flip(small_problem.small_template(), one)
    np.testing.assert_allclose(found.rotation[7], expected.rotation, atol=10 * FLOAT32)


def test_a_flipped_limb_is_flipped_back(monkeypatch):
    """The flip of a flip is the body itself, whose points are missed by least."""
    template = small_problem.small_template()
    people = small_problem.random_people(2, seed=5, pose_sd=0.5, turn=1.0)
    observations = small_problem.observe(people, 6)
    flips = modes._starts(template, jax.tree.map(jnp.asarray, people))
    flipped = jax.tree.map(lambda leaf: np.asarray(leaf[:, modes.NAMES.index("left_knee")]), flips)
    monkeypatch.setattr(modes, "find", lambda body, seen, fits, _: jax.tree.map(np.asarray, modes._starts(body, fits)))
    found = modes._lowest(template, observations, flipped, Objective())
    np.testing.assert_allclose(_segments_of(found), _segments_of(people), atol=10 * FLOAT32)
    assert np.abs(_segments_of(flipped) - _segments_of(people)).max() > 0.1


@jax.jit
@jax.vmap
def _segments_of(body):
    return _segments(body).rotation
