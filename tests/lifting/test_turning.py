"""Turns as laws: a turn by nothing, lengths, the vertical that stays, how far it goes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.lifting import turning

_FLOAT32 = 1e-6  # products of three float32 rotations of numbers of order 1
_POINTS = jnp.asarray(np.random.default_rng(0).normal(size=(17, 2)), jnp.float32)
_DEPTH = jnp.asarray(np.random.default_rng(1).normal(size=17), jnp.float32)


def test_turning_by_0_changes_nothing():
    points, depth = turning.turn_pose(turning.turn_heading(jnp.array(0.0)), _POINTS, _DEPTH)
    np.testing.assert_array_equal(points, _POINTS)
    np.testing.assert_array_equal(depth, _DEPTH)


def test_turn_is_the_published_one():
    angle = 0.7
    points, depth = turning.turn_pose(turning.turn_heading(jnp.array(angle)), _POINTS, _DEPTH)
    np.testing.assert_allclose(points[:, 0], _POINTS[:, 0] * np.cos(angle) + _DEPTH * np.sin(angle), atol=_FLOAT32)
    np.testing.assert_array_equal(points[:, 1], _POINTS[:, 1])
    before = np.linalg.norm(np.c_[_POINTS, _DEPTH], axis=-1)
    np.testing.assert_allclose(np.linalg.norm(np.c_[points, depth], axis=-1), before, rtol=_FLOAT32)


def _sampled(count, elevation=0.0, **settings):
    keys = jax.random.split(jax.random.key(0), count)
    sample = lambda key: turning.sample_turn(key, jnp.array(elevation), **settings)  # noqa: E731
    return np.asarray(jax.vmap(sample)(keys))


@pytest.mark.parametrize("elevation", [0.0, 0.3, -0.2])
@pytest.mark.parametrize("heading_range", [math.pi, 0.5])
def test_a_sampled_turn_is_about_the_worlds_vertical(elevation, heading_range):
    """A camera that looks down by e sees the world's up at (0, -cos e, -sin e)."""
    turns = _sampled(20, elevation, heading_range=heading_range)
    up = np.array([0, -np.cos(elevation), -np.sin(elevation)])
    np.testing.assert_allclose(turns @ up, np.tile(up, (20, 1)), atol=_FLOAT32)
    np.testing.assert_allclose(turns @ turns.mT, np.tile(np.eye(3), (20, 1, 1)), atol=_FLOAT32)
    np.testing.assert_allclose(np.linalg.det(turns), 1, atol=10 * _FLOAT32)


def test_a_whole_turn_is_uniform_over_the_circle():
    turns = _sampled(1000)
    angle = np.arctan2(turns[:, 0, 2], turns[:, 0, 0])
    resultant = np.abs(np.exp(1j * angle[:, None] * np.arange(1, 4)).mean(axis=0))
    np.testing.assert_array_less(resultant, 0.1)  # 1 / sqrt(1000) = 0.03 for a uniform one


def test_turns_go_as_far_as_the_range_and_no_further():
    turns = _sampled(500, heading_range=0.5)
    angle = np.arctan2(turns[:, 0, 2], turns[:, 0, 0])
    assert np.abs(angle).max() <= 0.5 + _FLOAT32
    np.testing.assert_allclose(np.abs(angle).mean(), 0.25, rtol=0.1)  # uniform: 2.6% standard error


def test_the_tilt_is_drawn_with_its_standard_deviation():
    turns = _sampled(500, elevation_sd=0.1)
    up = turns @ np.array([0, -1, 0])  # only the tilts move the vertical
    assert np.arccos(np.clip(-up[:, 1], -1, 1)).max() > 0.1
    still = _sampled(5)
    np.testing.assert_array_equal(still @ np.array([0, -1.0, 0]), np.tile([0, -1.0, 0], (5, 1)))
