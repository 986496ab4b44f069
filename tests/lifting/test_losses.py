"""Each term's sign, value and finite gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.lifting import losses, turning
from tests.lifting import stick_people

_FLOAT32 = 1e-6
_ALL = np.ones(17, bool)
_POINTS = jnp.asarray(stick_people.STANDING[:, :2], jnp.float32)
_DEPTH = jnp.asarray(stick_people.STANDING[:, 2], jnp.float32)


def test_someone_who_faces_the_camera_scores_1_and_with_depth_reversed_minus_1():
    np.testing.assert_allclose(losses.facing(_POINTS, _DEPTH), 1, atol=_FLOAT32)
    np.testing.assert_allclose(losses.facing(_POINTS, -_DEPTH), -1, atol=_FLOAT32)
    assert losses.mirror_ambiguity(_POINTS, _DEPTH, _ALL) == 0
    np.testing.assert_allclose(losses.mirror_ambiguity(_POINTS, -_DEPTH, _ALL), 1, atol=_FLOAT32)


@pytest.mark.parametrize("angle", [0.4, 1.5, 3.0, -2.0])
def test_facing_does_not_depend_on_the_heading(angle):
    points, depth = turning.turn_pose(turning.turn_heading(jnp.array(angle)), _POINTS, _DEPTH)
    np.testing.assert_allclose(losses.facing(points, depth), 1, atol=_FLOAT32)


@pytest.mark.parametrize("joint", [8, 9, 11, 14])
def test_no_opinion_where_a_joint_is_missing(joint):
    assert losses.mirror_ambiguity(_POINTS, -_DEPTH, _ALL & (np.arange(17) != joint)) == 0


def test_mirror_gradient_is_finite_where_neck_or_shoulders_have_no_length():
    for points, depth in ((jnp.zeros((17, 2)), jnp.zeros(17)), (_POINTS.at[14].set(_POINTS[11]), jnp.zeros(17))):
        gradients = jax.grad(losses.mirror_ambiguity, argnums=(0, 1))(points, depth, _ALL)
        assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_realism_is_the_softplus_gan():
    real, fake = np.array([-30.0, -1.0, 0.0, 2.0, 30.0]), np.array([3.0, 0.5, 0.0, -1.0, -40.0])
    np.testing.assert_allclose(losses.generator_realism(jnp.asarray(fake)), np.log1p(np.exp(-fake)), rtol=_FLOAT32)
    expected = np.log1p(np.exp(-real)) + np.log1p(np.exp(fake))
    np.testing.assert_allclose(losses.discriminator_realism(jnp.asarray(real), jnp.asarray(fake)), expected, rtol=1e-5)


def test_lift_turn_lift_is_the_distance_after_turning_back():
    """What Chen et al. compute: turn, lift again, turn back, compare in 3D."""
    random = np.random.default_rng(0)
    turn = np.asarray(turning.turn_heading(jnp.array(2.0)) @ turning.tilt(jnp.array(0.2)), np.float64)
    pose = random.normal(size=(17, 3))
    turned, again = pose @ turn.T, random.normal(size=17)
    lifted_again = np.c_[turned[:, :2], again]
    visible = np.arange(17) % 3 > 0
    expected = np.sum((lifted_again @ turn - pose)[visible] ** 2, axis=-1).mean()
    loss = losses.lift_turn_lift(jnp.asarray(turned[:, 2]), jnp.asarray(again), visible)
    np.testing.assert_allclose(loss, expected, rtol=10 * _FLOAT32)
    assert losses.lift_turn_lift(jnp.asarray(turned[:, 2]), jnp.asarray(again), np.zeros(17, bool)) == 0
