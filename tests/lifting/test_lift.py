"""Laws of lifting: what is given stays, the hip is at 0, size and place do what they should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.lifting import lift, training
from tests.lifting import stick_people

_FLOAT32 = 5e-6  # outputs of order 1 in the pose's unit, through three float32 layers
_CONFIG = training.Config(width=32)
_PARAMETERS = jax.tree.map(lambda leaf: 10 * leaf, training.initial_state(_CONFIG, jax.random.key(0)).generator)
_POSES = np.asarray(stick_people.crowd(6, seed=1)[..., :2], np.float32)
_ALL = np.ones((6, 17), bool)


def _lift(poses, visible=_ALL):
    return np.asarray(lift.lift(_CONFIG, _PARAMETERS, jnp.asarray(poses), jnp.asarray(visible)))


def test_x_and_y_are_the_given_ones_and_the_hip_is_the_origin():
    poses = 50 * _POSES + 300
    joints = lift.lift_joints(_CONFIG, _PARAMETERS, jnp.asarray(poses), _ALL)
    np.testing.assert_allclose(joints[..., :2], poses - poses[:, :1], atol=1e-3)  # px, of coordinates around 300
    np.testing.assert_array_equal(joints[:, 0], 0)
    np.testing.assert_array_equal(joints[..., 2], lift.lift(_CONFIG, _PARAMETERS, jnp.asarray(poses), _ALL))


@pytest.mark.parametrize("factor", [4.0, 0.3, 700.0])
def test_a_larger_pose_is_as_much_deeper(factor):
    depth = _lift(_POSES)
    assert np.abs(depth[:, 1:]).min() > 0
    np.testing.assert_allclose(_lift(factor * _POSES), factor * depth, atol=factor * _FLOAT32)


def test_place_does_not_matter():
    np.testing.assert_allclose(_lift(_POSES + np.float32([5, -3])), _lift(_POSES), atol=_FLOAT32)


def test_leading_axes_are_batch():
    folded = _lift(_POSES.reshape(2, 3, 17, 2), _ALL.reshape(2, 3, 17))
    np.testing.assert_allclose(folded.reshape(6, 17), _lift(_POSES), atol=_FLOAT32)
    np.testing.assert_allclose(_lift(_POSES[0], _ALL[0]), _lift(_POSES)[0], atol=_FLOAT32)
    assert _lift(_POSES[:0], _ALL[:0]).shape == (0, 17)


def test_what_a_missing_joint_holds_does_not_matter():
    visible = _ALL.copy()
    visible[:, [3, 10]] = False
    broken = _POSES.copy()
    broken[:, [3, 10]] = np.nan
    np.testing.assert_array_equal(_lift(broken, visible), _lift(_POSES, visible))
    assert np.isfinite(_lift(broken, visible)).all()


@pytest.mark.parametrize("visible", [np.ones(17, bool), np.zeros(17, bool)])
def test_a_pose_of_no_size_has_no_depth(visible):
    np.testing.assert_array_equal(_lift(np.full((17, 2), 3.0, np.float32), visible), 0)


def test_visibility_is_an_input_only_where_it_is_appended():
    config = training.Config(width=32, append_visibility=True)
    parameters = training.initial_state(config, jax.random.key(0)).generator
    pose = _POSES[0].copy()
    pose[3] = pose[2]  # a missing foot is folded onto its knee: only visibility tells these two apart
    counted = np.linalg.norm(pose[1:] - pose[0], axis=-1)
    pose[2] = pose[3] = pose[0] + (pose[2] - pose[0]) * np.delete(counted, 2).mean() / counted[2]
    seen, hidden = np.ones(17, bool), np.arange(17) != 3
    for with_mask, network, weights in ((False, _CONFIG, _PARAMETERS), (True, config, parameters)):
        both = [lift.lift(network, weights, jnp.asarray(pose), jnp.asarray(mask)) for mask in (seen, hidden)]
        assert np.allclose(*both, atol=1e-3 * np.abs(both[0]).max()) is not with_mask
