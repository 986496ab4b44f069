"""Means and covariances of joints: sampled poses come back, mirrored; what is learned from fits finds hidden limbs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import transform

from dal_jax.body import kinematics, parameters, skeleton
from dal_jax.registration import priors
from dal_jax.registration.register import RegistrationConfig
from dal_jax.uncertainty.noise import alternate, initial
from tests.registration import linear_fits, small_problem

FLOAT32 = 1e-5
ELBOWS = [skeleton.SMPL_JOINT_NAMES.index(f"{side}_elbow") - 1 for side in ("left", "right")]


def _symmetric(seed=0, sd=0.1):
    """Return poses of which every one has its mirror image among them."""
    random = np.random.default_rng(seed)
    other = np.array(skeleton.SMPL_MIRROR[1:]) - 1
    mean = random.normal(0.0, 0.4, (23, 3))
    mean = (mean + mean[other] * np.array([1.0, -1.0, -1.0])) / 2
    pose = mean + random.normal(0.0, sd, (4000, 23, 3))
    return np.concatenate([pose, pose[:, other] * np.array([1.0, -1.0, -1.0])]).astype(np.float32)


@pytest.mark.parametrize("turn", [np.zeros((23, 3)), priors.usual().mean], ids=["T-pose", "usual"])
def test_poses_come_back_from_deviations_from_any_rest_pose(turn):
    people = _symmetric()
    away = np.asarray(jax.jit(priors.pose_deviation)(people, jnp.asarray(turn, jnp.float32)), np.float64)
    moment = np.einsum("nki,nkj->kij", away, away) / len(away)
    found = priors.learned(away.mean(axis=0), moment, turn, len(away), priors.broad(), 0.0)
    for joint in range(23):
        expected = transform.Rotation.from_rotvec(people[:, joint]).mean()
        apart = expected.inv() * transform.Rotation.from_rotvec(found.mean[joint])
        assert apart.magnitude() < 0.03, "the mean in one tangent space is that of another up to the spread's cube"
    about = np.asarray(jax.jit(priors.pose_deviation)(people, jnp.asarray(found.mean)), np.float64)
    np.testing.assert_allclose(found.covariance, np.einsum("nki,nkj->kij", about, about) / len(about), atol=4e-3)


def test_a_prior_counts_as_its_people():
    mean, moment = np.zeros((23, 3)), np.tile(0.01 * np.eye(3), (23, 1, 1))
    prior = linear_fits.poses(0.4)
    found = priors.learned(mean, moment, np.zeros((23, 3)), 6, prior, 2.0)
    np.testing.assert_allclose(
        found.covariance, np.tile((0.75 * 0.01 + 0.25 * 0.16) * np.eye(3), (23, 1, 1)), rtol=1e-5
    )


def test_moment_about_another_pose_adds_the_difference():
    usual = priors.usual()
    np.testing.assert_allclose(usual.moment_about(usual.mean), usual.covariance, atol=FLOAT32)
    away = np.asarray(priors.pose_deviation(jnp.asarray(usual.mean), jnp.zeros((23, 3))))
    np.testing.assert_allclose(
        usual.moment_about(np.zeros((23, 3)))[3], usual.covariance[3] + np.outer(away[3], away[3]), atol=FLOAT32
    )


def test_rest_pose_is_the_gaussians():
    usual = priors.usual()
    root = usual.rest_pose().root.astype(np.float64)
    np.testing.assert_allclose(
        np.swapaxes(root, 1, 2) @ root @ usual.covariance, np.tile(np.eye(3), (23, 1, 1)), atol=1e-3
    )


def test_usual_people_let_their_arms_hang_and_bend_knees_forward():
    usual = priors.usual()
    body = parameters.t_pose().replace(rotation=jnp.eye(3), pose=jnp.asarray(usual.mean))
    joints = dict(zip(skeleton.SMPL_JOINT_NAMES, _skeleton(body), strict=True))
    assert joints["left_elbow"][1] < joints["left_shoulder"][1] - 0.1
    assert joints["left_ankle"][2] < joints["left_knee"][2]
    np.testing.assert_allclose(joints["left_wrist"] * [-1, 1, 1], joints["right_wrist"], atol=0.02)


def _skeleton(body):
    return np.asarray(
        kinematics.pose_skeleton(small_problem.small_template(), body.rotation, body.pose, body.segment_scale).position
    )


def test_a_crowd_shows_where_hidden_limbs_are():
    """People who bend their elbows by 60 degrees; half of them show no arm: it is found bent, not straight."""
    people = small_problem.random_people(24, seed=3, pose_sd=0.15, turn=0.6)
    bend = np.zeros((23, 3), np.float32)
    bend[ELBOWS, 1] = [-1.0, 1.0]
    people = people.replace(pose=people.pose + bend)
    seen = small_problem.observe(people, seed=4, points=120, noise=0.003)
    template = small_problem.small_template()
    arms = np.isin(np.argmax(template.skin_weight, axis=1), [18, 19, 20, 21, 22, 23])
    on_arm = arms[template.faces[seen.point_face]].any(axis=-1)
    regressed = (template.h36m_regressor @ template.skin_weight)[:, 18:].sum(axis=1) > 0.01
    half = (np.arange(24) % 2 == 0)[:, None]
    seen = seen.replace(
        point_confidence=np.where(half & on_arm, 0.0, seen.point_confidence).astype(np.float32),
        keypoint_confidence=np.where(half & regressed, 0.0, seen.keypoint_confidence).astype(np.float32),
        depth_confidence=np.where(half & regressed, 0.0, seen.depth_confidence).astype(np.float32),
    )
    config = RegistrationConfig("lm", 20, starts="closed_form", batch=24, devices=1)
    fit, noise = alternate(template, seen, config, rounds=4, prior=initial(priors.broad()))
    # two people of the prior keep their elbows straight, and some of the twelve others are fitted too straight
    assert -1.0 < noise.poses.mean[ELBOWS[0], 1] < -0.6
    hidden = fit.parameters.pose[::2][:, ELBOWS, 1] * [-1.0, 1.0]
    assert 0.6 < np.median(hidden) < 1.0
