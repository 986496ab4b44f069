"""The problem near a fit is the energy's; the sandwich is Bayes' where weights state the noise; errors are shared."""

import itertools

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dal_jax.body import kinematics, skeleton, skinning
from dal_jax.observations import residuals
from dal_jax.observations.observation import HEADING
from dal_jax.registration import energy, priors
from dal_jax.registration.energy import Objective
from dal_jax.uncertainty import sandwich
from tests.registration import linear_fits, small_problem

FLOAT32_INVERSE = 1e-3  # relative to the largest entry: condition numbers of some 1e3
DIFFERENCES = 2e-3  # central differences in float32: rounding 1e-6 over a step of 2e-3, curvature below it
STEP = 1e-3
BLIND_POINT, BLIND_DEPTH = 3, 2


@pytest.fixture(scope="module")
def person():
    """Return (target, fit, precisions, linearisation) of one person: a bent pose, a prior that is not the T-pose."""
    _, observations, _, precisions = linear_fits.people()
    precisions = precisions.replace(mean_pose=np.asarray(small_problem.pose_prior().mean))
    bodies = small_problem.random_people(1, seed=2, pose_sd=0.4)
    body, observation = jax.tree.map(lambda leaf: np.array(leaf[0]), (bodies, observations))
    observation.point_confidence[BLIND_POINT] = 0.0
    observation.keypoint_confidence[5] = 0.5
    observation.depth_confidence[BLIND_DEPTH] = 0.0
    target = jax.device_get(jax.jit(residuals.make_target)(small_problem.small_template(), observation))
    linear = jax.jit(sandwich.linearise)(small_problem.small_template(), target, body, precisions)
    return target, body, precisions, jax.device_get(linear)


_score_covariance, _move = jax.jit(sandwich.score_covariance), jax.jit(sandwich.move)


def _terms(target, body, mean_pose, delta):
    moved = sandwich.move(body, delta)
    terms = energy.residuals(small_problem.small_template(), target, moved, Objective())
    return {
        "dense": terms["dense"],
        "keypoint": terms["keypoint"][:, :2],
        "depth": terms["keypoint"][:, 2],
        "scale": terms["scale"],
        "pose": priors.pose_deviation(moved.pose, mean_pose),
    }


def _placed(target, body, mean_pose):
    """Return the terms as a compiled function of the step, on the host."""
    terms = jax.jit(lambda delta: _terms(target, body, mean_pose, delta))
    return lambda delta: jax.device_get(terms(delta.astype(np.float32)))


def test_residuals_and_jacobians_are_those_of_the_energy(person):
    target, body, precisions, linear = person
    place = _placed(target, body, precisions.mean_pose)
    for name, value in place(np.zeros(98, np.float32)).items():
        np.testing.assert_allclose(getattr(linear, name), value, atol=1e-6)
    random = np.random.default_rng(0)
    for _ in range(4):
        delta = random.normal(0, 1, 98).astype(np.float32)
        ahead, behind = place(STEP * delta), place(-STEP * delta)
        for name in ahead:
            slope = (ahead[name] - behind[name]) / (2 * STEP)
            directional = getattr(linear, f"{name}_jacobian") @ delta
            np.testing.assert_allclose(directional, slope, atol=DIFFERENCES * np.abs(slope).max() + DIFFERENCES)


def test_confidence_0_has_no_residual_and_no_slope(person):
    _, _, _, linear = person
    assert not linear.dense[BLIND_POINT].any() and not linear.dense_jacobian[BLIND_POINT].any()
    assert not linear.depth[BLIND_DEPTH].any() and not linear.depth_jacobian[BLIND_DEPTH].any()
    assert linear.dense_jacobian[BLIND_POINT + 1].any()


def test_a_step_leaves_the_cameras_scale_alone(person):
    _, body, _, _ = person
    moved = _move(body, np.full(98, 0.1, np.float32))
    np.testing.assert_allclose(np.exp(moved.log_camera_scale), body.camera_scale, rtol=1e-6)
    np.testing.assert_allclose(moved.translation, body.translation + 0.1, rtol=1e-6)


def test_a_body_that_several_cameras_see_has_the_same_unknowns(person):
    _, parameters, _, _ = person
    girthed = parameters.replace(girth=np.float32(1.1))
    placed = girthed.replace(translation=np.append(np.asarray(girthed.translation), np.float32(4.0)))
    assert sandwich.unknowns(placed) == sandwich.unknowns(girthed) == sandwich.GIRTH + 1
    np.testing.assert_array_equal(sandwich.sizes(placed), sandwich.sizes(girthed))
    delta = np.zeros(sandwich.unknowns(placed), np.float32)
    delta[sandwich.GIRTH] = 0.5
    moved = sandwich.move(placed, delta)
    assert float(moved.log_girth) == pytest.approx(np.log(1.1) + 0.5, abs=1e-6)
    np.testing.assert_allclose(moved.translation, placed.translation)


@pytest.mark.parametrize("size", [1, 5, 98])
def test_sweeps_invert(size):
    random = np.random.default_rng(size).normal(size=(size, 2 * size + 1)) * np.logspace(-2, 2, size)[:, None]
    matrix = (random @ random.T).astype(np.float32)
    expected = np.linalg.inv(matrix.astype(np.float64))
    scale = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(np.asarray(jax.jit(sandwich.invert)(matrix)) / np.outer(scale, scale),
                               expected / np.outer(scale, scale), atol=FLOAT32_INVERSE)  # fmt: skip


def test_with_weights_that_state_the_noise_it_is_the_inverse_of_h(person):
    _, _, precisions, linear = person
    variances = np.where(np.array([1, 0, 1, 1, 0, 0, 1]) > 0, 1.0 / np.asarray(precisions.by_kind()), 0.0)
    score = np.asarray(_score_covariance(linear, variances.astype(np.float32), np.linalg.inv(precisions.joint)))
    covariance = linear.inverse_hessian @ score @ linear.inverse_hessian
    largest = np.abs(linear.inverse_hessian).max()
    assert np.abs(covariance - linear.inverse_hessian).max() < FLOAT32_INVERSE * largest


def test_shared_errors_widen_and_never_narrow(person):
    _, _, _, linear = person
    for kind in sandwich.KINDS:
        one = np.array([name == kind for name in sandwich.KINDS], np.float32)
        score = np.asarray(_score_covariance(linear, one, np.zeros((23, 3, 3), np.float32)), np.float64)
        eigenvalues = np.linalg.eigvalsh((score + score.T) / 2)
        assert eigenvalues[-1] > 0
        assert eigenvalues[0] > -FLOAT32_INVERSE * eigenvalues[-1]


def test_points_share_with_their_neighbours_on_the_same_segment(person):
    target, _, _, linear = person
    covariance = np.asarray(linear.shape)
    weight, rest = np.asarray(target.points.weight), np.asarray(target.points.rest)
    expected = np.where(np.arange(len(rest)) == BLIND_POINT, 0.0, np.sum(weight**2, axis=1))
    np.testing.assert_allclose(np.diag(covariance), expected, rtol=1e-5)
    apart = (weight @ weight.T) == 0
    assert apart.any()
    assert not covariance[apart].any()
    i, j = np.unravel_index(np.argmax(np.where(np.eye(len(rest)) > 0, 0, covariance)), covariance.shape)
    distance = np.linalg.norm(rest[i] - rest[j])
    expected = weight[i] @ weight[j] * np.exp(-(distance**2) / (2 * sandwich.SHARED_LENGTH_M**2))
    assert covariance[i, j] == pytest.approx(expected, rel=1e-4)


def test_a_turn_moves_depths_by_their_places_and_no_further(person):
    """K is the covariance of what a turn of the lifted body by unit angles does to its depths, to first order."""
    target, body, _, linear = person

    @jax.jit
    def posed(body):
        segments = kinematics.pose_segments(small_problem.small_template(), body)
        return skinning.keypoints(small_problem.small_template(), segments, "h36m")

    joints = np.asarray(posed(body), np.float64)
    confidence = np.asarray(target.observation.depth_confidence, np.float64)
    moved, step = [], 1e-5
    for axis in range(2):
        turn = Rotation.from_rotvec(step * np.eye(3)[axis])
        depth = float(body.camera_scale) * (turn.apply(joints) - joints)[:, 2] / step
        moved.append(np.sqrt(confidence) * (depth - np.sum(confidence * depth) / confidence.sum()))
    expected = np.outer(moved[0], moved[0]) + HEADING**2 * np.outer(moved[1], moved[1])
    np.testing.assert_allclose(linear.turn, expected, atol=1e-4)


def test_girth_is_one_more_unknown_where_a_fit_has_one(person):
    """The Jacobian's last column is the derivative by it, and only the prior holds it where nothing is seen."""
    target, body, precisions, without = person
    template = small_problem.small_template()
    wide = body.replace(girth=np.float32(1.2))
    precisions = precisions.replace(girth=np.array([25.0, 0.04], np.float32))
    linear = jax.device_get(jax.jit(sandwich.linearise)(template, target, wide, precisions))
    assert linear.gram.shape == (7, 99, 99) and without.gram.shape == (7, 98, 98)
    place = _placed(target, wide, precisions.mean_pose)
    slope = [place(sign * STEP * np.eye(99)[98])["dense"] for sign in (1, -1)]
    np.testing.assert_allclose(linear.dense_jacobian[..., 98], (slope[0] - slope[1]) / (2 * STEP), atol=DIFFERENCES)
    unseen = jax.tree.map(np.zeros_like, target.observation)
    blind = jax.jit(sandwich.linearise)(template, target.replace(observation=unseen), wide, precisions)
    blind = jax.device_get(blind)
    score = np.asarray(_score_covariance(blind, np.zeros(7, np.float32), np.zeros((23, 3, 3), np.float32)))
    assert (blind.inverse_hessian @ score @ blind.inverse_hessian)[98, 98] == pytest.approx(0.04, rel=1e-3)


def test_lifted_depths_share_the_path_from_the_hip(person):
    _, _, _, linear = person
    covariance, template = np.asarray(linear.limb), small_problem.small_template()
    names = skeleton.H36M_JOINT_NAMES
    hip, knee, foot, other = (names.index(n) for n in ("hip", "left_knee", "left_foot", "right_foot"))
    assert not covariance[hip].any()
    assert covariance[foot, other] == 0
    assert covariance[foot, knee] == pytest.approx(covariance[knee, knee])
    joints = template.h36m_regressor @ template.vertices
    path = (hip, names.index("left_hip"), knee, foot)
    length = sum(np.linalg.norm(joints[a] - joints[b]) for a, b in itertools.pairwise(path))
    assert covariance[foot, foot] == pytest.approx(length, rel=1e-5)
