"""Anatomical limits: mirror-exact, around the T-pose and around the moving actors; unnatural bends lie outside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.body import skeleton
from dal_jax.synthetic import actors, figure

LOWER, UPPER = skeleton.limits_rad()
JOINT = {name: joint - 1 for joint, name in enumerate(skeleton.SMPL_JOINT_NAMES)}
FLOAT32 = 1e-6
# Component and sign of flexion: the actors' own convention (tests of the synthetic motions).
FLEXION = {"left_knee": (0, 1), "right_knee": (0, 1), "left_elbow": (1, -1), "right_elbow": (1, 1)}


def _bent(name, angle_deg):
    component, sign = FLEXION[name]
    pose = np.zeros((23, 3), np.float32)
    pose[JOINT[name], component] = sign * np.radians(angle_deg)
    return pose


def _actors_poses(per_action):
    random = np.random.default_rng(0)
    poses = []
    for subject in ("S1", "S7", "S11"):
        actor = actors.subject(subject)
        for action in actors.ACTIONS:
            for _ in range(per_action):
                seed, time = int(random.integers(1 << 30)), float(random.uniform(0, actors.LENGTH_S))
                poses.append(actors.perform(action, actor.joints, actor.landmarks, (seed, 1), time).pose)
    return np.array(poses, np.float32)


def test_left_and_right_are_exact_mirror_images():
    other = np.array(skeleton.SMPL_MIRROR[1:]) - 1
    np.testing.assert_array_equal(LOWER[other] * [1, 0, 0], LOWER * [1, 0, 0])
    np.testing.assert_array_equal(UPPER[other] * [1, 0, 0], UPPER * [1, 0, 0])
    np.testing.assert_array_equal(LOWER[other][:, 1:], -UPPER[:, 1:])


def test_the_t_pose_is_inside_with_room_either_way():
    assert np.all(LOWER < 0)
    assert np.all(UPPER > 0)
    np.testing.assert_array_equal(skeleton.limit_excess(jnp.zeros((23, 3))), 0.0)


def test_the_actors_stay_inside():
    outside = np.any(np.asarray(skeleton.limit_excess(_actors_poses(per_action=4))) != 0, axis=-1)
    assert np.mean(outside) < 0.002
    assert np.mean(outside, axis=0).max() < 0.02, "of any one joint"


@pytest.mark.parametrize("name", FLEXION)
def test_hinges_do_not_bend_backwards(name):
    component, sign = FLEXION[name]
    excess = np.asarray(skeleton.limit_excess(_bent(name, -30.0)))
    assert sign * excess[JOINT[name], component] == pytest.approx(np.radians(-20.0), abs=FLOAT32)
    assert np.count_nonzero(excess) == 1
    for angle in np.degrees(figure.HINGE[name.split("_")[1]]):
        np.testing.assert_array_equal(skeleton.limit_excess(_bent(name, angle)), 0.0)


def test_excess_leads_back_to_the_nearest_pose_inside():
    poses = np.random.default_rng(1).uniform(-3, 3, (4, 5, 23, 3)).astype(np.float32)
    inside = poses - np.asarray(skeleton.limit_excess(poses))
    np.testing.assert_allclose(inside, np.clip(poses, LOWER, UPPER), atol=FLOAT32)
    np.testing.assert_allclose(skeleton.limit_excess(inside), 0.0, atol=FLOAT32)


def test_gradients_are_finite_everywhere():
    poses = jnp.stack([jnp.zeros((23, 3)), jnp.asarray(UPPER, jnp.float32), jnp.full((23, 3), 3.0)])
    gradient = jax.grad(lambda pose: jnp.sum(skeleton.limit_excess(pose) ** 2))(poses)
    assert np.isfinite(gradient).all()
    assert np.count_nonzero(gradient[0]) == 0
