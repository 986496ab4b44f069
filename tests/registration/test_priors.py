"""The pose prior: L_joint against SciPy and finite differences; sampled poses come back; hidden limbs are found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import transform

from dal_jax.body import kinematics, skeleton
from dal_jax.registration import energy, priors
from dal_jax.registration.register import RegistrationConfig
from dal_jax.uncertainty.noise import alternate, initial
from tests.registration import linear_fits, small_problem

FLOAT32 = 1e-5
FLOAT32_ROTATION = 8e-6
FLOAT64 = 1e-9
DIFFERENCES = 1e-6  # central, in float64
ELBOWS = [skeleton.SMPL_JOINT_NAMES.index(f"{side}_elbow") - 1 for side in ("left", "right")]


def _symmetric(seed=0, sd=0.1):
    """Return poses of which every one has its mirror image among them."""
    random = np.random.default_rng(seed)
    other = np.array(skeleton.SMPL_MIRROR[1:]) - 1
    mean = random.normal(0.0, 0.4, (23, 3))
    mean = (mean + mean[other] * np.array([1.0, -1.0, -1.0])) / 2
    pose = mean + random.normal(0.0, sd, (4000, 23, 3))
    return np.concatenate([pose, pose[:, other] * np.array([1.0, -1.0, -1.0])]).astype(np.float32)


@pytest.mark.parametrize("rotation", [np.zeros((23, 3)), priors.population().mean], ids=["T-pose", "population"])
def test_poses_come_back_from_deviations_from_any_pose(rotation):
    people = _symmetric()
    away = np.asarray(jax.jit(priors.pose_deviation)(people, jnp.asarray(rotation, jnp.float32)), np.float64)
    moment = np.einsum("nki,nkj->kij", away, away) / len(away)
    found = priors.learned(away.mean(axis=0), moment, rotation, len(away), priors.broad(), 0.0)
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
    shipped = priors.population()
    np.testing.assert_allclose(shipped.moment_about(shipped.mean), shipped.covariance, atol=FLOAT32)
    away = np.asarray(jax.jit(priors.pose_deviation)(shipped.mean, np.zeros((23, 3), np.float32)))
    np.testing.assert_allclose(
        shipped.moment_about(np.zeros((23, 3)))[3], shipped.covariance[3] + np.outer(away[3], away[3]), atol=FLOAT32
    )


def test_root_is_that_of_the_inverse_covariance():
    shipped = priors.population()
    root = shipped.root.astype(np.float64)
    np.testing.assert_allclose(
        np.swapaxes(root, 1, 2) @ root @ shipped.covariance, np.tile(np.eye(3), (23, 1, 1)), atol=1e-3
    )


def test_people_let_their_arms_hang_and_bend_knees_forward():
    shipped = priors.population()
    body = kinematics.t_pose().replace(rotation=jnp.eye(3), pose=jnp.asarray(shipped.mean))
    joints = dict(zip(skeleton.SMPL_JOINT_NAMES, np.asarray(_skeleton(body)), strict=True))
    assert joints["left_elbow"][1] < joints["left_shoulder"][1] - 0.1
    assert joints["left_ankle"][2] < joints["left_knee"][2]
    np.testing.assert_allclose(joints["left_wrist"] * [-1, 1, 1], joints["right_wrist"], atol=0.02)


@jax.jit
def _skeleton(body):
    return kinematics.pose_skeleton(
        small_problem.small_template(), body.rotation, body.pose, body.segment_scale
    ).position


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
    assert -1.0 < noise.pose_prior.mean[ELBOWS[0], 1] < -0.6
    hidden = fit.parameters.pose[::2][:, ELBOWS, 1] * [-1.0, 1.0]
    assert 0.6 < np.median(hidden) < 1.0


def _poses(count=4):
    return np.random.default_rng(5).normal(0.0, 0.6, (count, 23, 3))


def test_deviation_is_what_is_left_beyond_the_mean():
    prior = small_problem.pose_prior()
    for pose in _poses():
        expected = transform.Rotation.from_rotvec(prior.mean).inv() * transform.Rotation.from_rotvec(pose)
        found = jax.jit(priors.pose_deviation)(jnp.asarray(pose, jnp.float32), jnp.asarray(prior.mean))
        np.testing.assert_allclose(found, expected.as_rotvec(), atol=FLOAT32_ROTATION)


def test_energy_is_the_sum_of_the_quadratic_forms():
    prior = small_problem.pose_prior()
    precision = np.swapaxes(prior.root, 1, 2) @ prior.root
    with jax.enable_x64(True):
        for pose in _poses():
            away = np.asarray(jax.jit(priors.pose_deviation)(pose, np.float64(prior.mean)))
            expected = np.einsum("ki,kij,kj->", away, np.float64(precision), away)
            found = np.sum(np.asarray(jax.jit(energy.joint_residual)(pose, jax.tree.map(np.float64, prior))) ** 2)
            np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_without_one_it_is_the_papers():
    pose = _poses()[0]
    assert energy.joint_residual(pose) is pose
    paper = priors.gaussian(np.zeros((23, 3)), np.eye(3)[None].repeat(23, axis=0))
    with jax.enable_x64(True):
        np.testing.assert_allclose(jax.jit(energy.joint_residual)(pose, paper), pose, atol=FLOAT64)


def test_slope_is_finite_and_right_at_rest_and_away_from_it():
    with jax.enable_x64(True):
        prior = jax.tree.map(np.float64, small_problem.pose_prior())
        slope = jax.jit(jax.jacfwd(lambda pose: prior.residual(pose)))
        value = jax.jit(lambda pose: prior.residual(pose))
        for pose in (prior.mean, _poses()[1]):
            direction = np.random.default_rng(1).normal(size=(23, 3))
            step = 1e-5 * direction
            expected = (value(pose + step) - value(pose - step)) / 2e-5
            found = np.einsum("kiab,ab->ki", slope(pose), direction)
            np.testing.assert_allclose(found, expected, atol=DIFFERENCES * np.abs(expected).max())
