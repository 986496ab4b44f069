"""Turns as laws: a turn by nothing, lengths, the vertical that stays, how far it goes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.lifting import rotating
from dal_jax.lifting.config import Config
from tests.lifting import stick_people

_FLOAT32 = 1e-6  # products of three float32 rotations of numbers of order 1
_POINTS = jnp.asarray(np.random.default_rng(0).normal(size=(17, 2)), jnp.float32)
_DEPTH = jnp.asarray(np.random.default_rng(1).normal(size=17), jnp.float32)


def test_turning_by_0_changes_nothing():
    points, depth = rotating.turn_pose(rotating.turn_heading(jnp.array(0.0)), _POINTS, _DEPTH)
    np.testing.assert_array_equal(points, _POINTS)
    np.testing.assert_array_equal(depth, _DEPTH)


def test_turn_is_the_published_one():
    angle = 0.7
    points, depth = rotating.turn_pose(rotating.turn_heading(jnp.array(angle)), _POINTS, _DEPTH)
    np.testing.assert_allclose(points[:, 0], _POINTS[:, 0] * np.cos(angle) + _DEPTH * np.sin(angle), atol=_FLOAT32)
    np.testing.assert_array_equal(points[:, 1], _POINTS[:, 1])
    before = np.linalg.norm(np.c_[_POINTS, _DEPTH], axis=-1)
    np.testing.assert_allclose(np.linalg.norm(np.c_[points, depth], axis=-1), before, rtol=_FLOAT32)


def _sampled(count, elevation=0.0, number=0, headings=None, **settings):
    """Turns drawn for people who stand at these headings (all face the camera where none are given)."""
    config = Config(**settings)
    person = jnp.asarray(stick_people.STANDING, jnp.float32)
    tilted = jax.vmap(lambda angle: rotating.tilt(jnp.float32(elevation)) @ rotating.turn_heading(angle))
    joints = jnp.einsum("nab,jb->nja", tilted(jnp.zeros(count) if headings is None else headings), person)
    key, step = jax.random.key(0), jnp.asarray(number)
    return np.asarray(rotating.sample(config, key, jnp.float32(elevation), joints[..., :2], joints[..., 2], step))


def _angle(turns):
    return np.arctan2(turns[:, 0, 2], turns[:, 0, 0])


@pytest.mark.parametrize("elevation", [0.0, 0.3, -0.2])
@pytest.mark.parametrize("settings", [{}, {"heading_deg": 30.0}, {"matched_headings": 1.0}])
def test_a_sampled_turn_is_about_the_worlds_vertical(elevation, settings):
    """A camera that looks down by e sees the world's up at (0, -cos e, -sin e)."""
    turns = _sampled(20, elevation, 5000, **settings)
    up = np.array([0, -np.cos(elevation), -np.sin(elevation)])
    np.testing.assert_allclose(turns @ up, np.tile(up, (20, 1)), atol=_FLOAT32)
    np.testing.assert_allclose(turns @ turns.mT, np.tile(np.eye(3), (20, 1, 1)), atol=_FLOAT32)
    np.testing.assert_allclose(np.linalg.det(turns), 1, atol=10 * _FLOAT32)


def test_a_whole_turn_is_uniform_over_the_circle():
    angle = _angle(_sampled(1000))
    resultant = np.abs(np.exp(1j * angle[:, None] * np.arange(1, 4)).mean(axis=0))
    np.testing.assert_array_less(resultant, 0.1)  # 1 / sqrt(1000) = 0.03 for a uniform one


def test_turns_go_as_far_as_the_range_and_no_further():
    angle = _angle(_sampled(500, heading_deg=30.0))
    assert np.abs(angle).max() <= np.radians(30) + _FLOAT32
    np.testing.assert_allclose(np.abs(angle).mean(), np.radians(15), rtol=0.1)  # uniform: 2.6% standard error


@pytest.mark.parametrize("elevation", [0.0, 0.25])
def test_heading_is_read_off_hips_and_shoulders(elevation):
    """Someone who faces the camera is at 0; a turn by theta adds theta; the camera's tilt does not matter."""
    angles = jnp.linspace(-3.0, 3.0, 9)
    view = jax.vmap(lambda angle: rotating.tilt(jnp.float32(elevation)) @ rotating.turn_heading(angle))(angles)
    person = stick_people.STANDING - 0.0
    person[:, 2] = np.where(np.isin(np.arange(17), [1, 4, 11, 14]), 0, person[:, 2])  # square to the camera
    joints = jnp.einsum("nab,jb->nja", view, jnp.asarray(person, jnp.float32))
    found = rotating.heading(jnp.float32(elevation), joints[..., :2], joints[..., 2])
    np.testing.assert_allclose(found, angles, atol=10 * _FLOAT32)


def test_heading_of_nobody_is_0_and_its_gradient_finite():
    nothing = jnp.zeros((1, 17, 2)), jnp.zeros((1, 17))
    assert rotating.heading(jnp.float32(0), *nothing)[0] == 0
    gradient = jax.grad(lambda depth: rotating.heading(jnp.float32(0), nothing[0], depth)[0])(nothing[1])
    assert np.isfinite(gradient).all()


def test_matched_fakes_take_the_headings_that_people_have():
    """People who stand at 1 rad, or at -1: turned, they stand there again, give or take the deviation."""
    headings = jnp.where(jnp.arange(400) % 2 == 0, 1.0, -1.0)
    turns = _sampled(400, number=2000, headings=headings, matched_headings=1.0)
    reached = np.asarray(headings) + _angle(turns)
    reached = (reached + np.pi) % (2 * np.pi) - np.pi
    near = np.minimum(np.abs(reached - 1), np.abs(reached + 1))
    assert np.quantile(near, 0.95) < 2.2 * np.radians(20)  # normal, 20 degrees: 1.96
    assert 0.4 < np.mean(np.abs(reached - 1) < 1) < 0.6
    early = _sampled(400, number=1999, headings=headings, matched_headings=1.0)
    np.testing.assert_array_equal(early, _sampled(400, headings=headings))
