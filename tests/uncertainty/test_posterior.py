"""The posterior is right where everything is linear, does not know the gauge, and adds what alternative modes mean."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.body import kinematics, skeleton, skinning
from dal_jax.body.formats import load
from dal_jax.evaluation import metrics
from dal_jax.observations import residuals
from dal_jax.registration import register
from dal_jax.registration.energy import Objective
from dal_jax.uncertainty import modes, posterior
from dal_jax.uncertainty.noise import initial
from dal_jax.uncertainty.posterior import SizePrior
from tests.registration import linear_fits, small_problem
from tests.regressor import people

BONE_SUM_MM = 4000.0
SAMPLING = 0.06  # of a share: 96 people whose 16 joints move together
FLOAT32_MM = 0.1


@pytest.fixture(scope="module")
def noise():
    level = {name: np.float32(value) for name, value in linear_fits.NOISE.items() if name != "pose"}
    return initial().replace(
        **level,
        shape=np.float32(0.0),
        limb=np.float32(0.0),
        pose_prior=linear_fits.poses(),
    )


def _predict(noise, fits=None, modes=None, seed=0, **size):
    _, observations, made, precisions = linear_fits.people(seed=seed)
    size = {"bone_sum_mm": BONE_SUM_MM, "spread": 0.0, "camera_distance_mm": np.inf} | size
    return posterior.laplace_posterior(
        small_problem.small_template(), observations, made if fits is None else fits, noise, precisions, modes,
        SizePrior(**size),
    )  # fmt: skip


@pytest.fixture(scope="module")
def predicted(noise):
    return _predict(noise)


@pytest.fixture(scope="module")
def crowd(noise, predicted):
    """Return truth, fits and posteriors of three times as many people, by the same program."""
    crowds = [(*linear_fits.people(seed=seed)[::2], _predict(noise, seed=seed)) for seed in (10, 20)]
    crowds.append((*linear_fits.people()[::2], predicted))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *crowds)


def _joints_mm(people):
    template = small_problem.small_template()

    def one(body):
        segments = kinematics.pose_skeleton(template, body.rotation, body.pose, body.segment_scale)
        return skinning.h36m_joints(template, segments)

    joints = np.asarray(jax.jit(jax.vmap(one))(jax.tree.map(jnp.asarray, people)))
    bones = joints[:, 1:] - joints[:, np.array(skeleton.H36M_PARENTS[1:])]
    size = np.sum(np.linalg.norm(bones, axis=-1), axis=1)
    return (joints - joints[:, :1]) * (BONE_SUM_MM / size)[:, None, None]


def test_the_truth_lies_where_it_says(crowd):
    truth, fits, predicted = crowd
    np.testing.assert_allclose(predicted.h36m_mm, _joints_mm(fits), atol=FLOAT32_MM)
    found = metrics.coverage((predicted.h36m_mm - _joints_mm(truth))[:, 1:], predicted.h36m_sd_mm[:, 1:])
    for axis in metrics.AXES:
        assert found[axis]["within_1_sd"] == pytest.approx(0.683, abs=SAMPLING), axis
        assert found[axis]["within_2_sd"] == pytest.approx(0.954, abs=SAMPLING / 2), axis


def test_proportions_lie_where_it_says(crowd):
    """Scales but for their mean, which is the camera's, and no girth: these fits have none."""
    truth, fits, predicted = crowd
    apart = np.log(fits.segment_scale) - np.log(truth.segment_scale)
    apart -= apart.mean(axis=1, keepdims=True)
    centre = np.eye(24) - 1 / 24
    covariance = centre @ predicted.shape_covariance[:, :24, :24] @ centre
    deviation = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    for count, share in ((1, 0.683), (2, 0.954)):
        assert np.mean(np.abs(apart) < count * deviation) == pytest.approx(share, abs=SAMPLING / count)
    np.testing.assert_array_equal(predicted.shape_covariance[:, 24], 0.0)


def test_depth_is_known_least_and_the_pelvis_exactly(predicted):
    mean = np.mean(predicted.h36m_sd_mm[:, 1:], axis=(0, 1))
    assert mean[2] > 2.0 * mean[0]
    np.testing.assert_array_equal(predicted.h36m_sd_mm[:, 0], 0.0)
    np.testing.assert_array_equal(predicted.smpl_sd_mm[:, 0], 0.0)
    assert np.all(predicted.smpl_sd_mm[:, 1:] > 0)


def test_the_common_scale_of_segments_and_camera_is_no_error(noise, predicted):
    _, _, fits, _ = linear_fits.people()
    other = fits.replace(segment_scale=fits.segment_scale * 1.25, camera_scale=fits.camera_scale / 1.25)
    found = _predict(noise, other)
    np.testing.assert_allclose(found.h36m_mm, predicted.h36m_mm, atol=FLOAT32_MM)
    np.testing.assert_allclose(found.h36m_sd_mm, predicted.h36m_sd_mm, atol=FLOAT32_MM, rtol=0.01)


def test_size_perspective_and_shape_add_in_quadrature(noise, predicted):
    sized = _predict(noise, spread=0.1)
    added = np.sqrt(np.maximum(sized.h36m_sd_mm**2 - predicted.h36m_sd_mm**2, 0))
    np.testing.assert_allclose(added, 0.1 * np.abs(predicted.h36m_mm), atol=1.0)
    near = _predict(noise, camera_distance_mm=2000.0)
    tilted = np.abs(predicted.h36m_mm * predicted.h36m_mm[..., 2:]) / 2000.0
    added = np.sqrt(np.maximum(near.h36m_sd_mm**2 - predicted.h36m_sd_mm**2, 0))
    np.testing.assert_allclose(added[..., :2], tilted[..., :2], rtol=0.1, atol=3.0)
    np.testing.assert_allclose(added[..., 2], 0.0, atol=FLOAT32_MM)
    shaped = _predict(dataclasses.replace(noise, shape=np.float32(0.005)))
    assert np.all(shaped.h36m_sd_mm[:, 1:] > predicted.h36m_sd_mm[:, 1:])


def test_a_mode_of_equal_energy_adds_half_its_squared_distance(noise, predicted, monkeypatch):
    _, _, fits, _ = linear_fits.people()
    flips = modes._starts(small_problem.small_template(), jax.tree.map(jnp.asarray, fits))
    row = modes.NAMES.index("half_turn")
    pair = jax.tree.map(lambda leaf: np.stack([np.asarray(leaf)[:, row]] * 2, axis=1), flips)  # one minimum, twice
    monkeypatch.setattr(
        register, "score", lambda template, observations, bodies, objective: np.zeros(len(bodies.camera_scale))
    )
    far = iter([0, 0, 0, 60, 60, 0])
    monkeypatch.setattr(
        residuals, "far_points", lambda template, bodies, observations: np.full(len(bodies.camera_scale), next(far))
    )
    found = _predict(noise, modes=pair)
    np.testing.assert_allclose(found.mode_probability, np.tile([0.5, 0.0], (32, 1)), atol=1e-6)
    np.testing.assert_allclose(found.mode_gap, np.tile([0.0, np.inf], (32, 1)))
    other = _joints_mm(jax.tree.map(lambda leaf: leaf[:, 0], pair))
    expected = 0.5 * (other - predicted.h36m_mm) ** 2
    added = (found.h36m_sd_mm**2 - predicted.h36m_sd_mm**2)[..., 2]
    np.testing.assert_allclose(added, expected[..., 2], rtol=0.01, atol=5.0)
    behind = _predict(noise, modes=pair)
    gap = 60 * posterior._FAR_POINT / noise.point_sharing
    np.testing.assert_allclose(behind.mode_gap, np.tile([gap, np.inf], (32, 1)), rtol=1e-5)
    assert behind.mode_probability.max() < 0.01, "annotated points are points that were seen"


def test_a_mode_that_is_the_same_pose_adds_nothing(noise, predicted):
    np.testing.assert_array_equal(predicted.mode_probability, 0.0)
    np.testing.assert_array_equal(predicted.mode_gap, np.inf)
    np.testing.assert_allclose(predicted.mode_distance_mm, 0.0, atol=FLOAT32_MM)


def test_an_unobserved_person_is_as_uncertain_as_people_are_different(noise):
    _, observations, fits, precisions = linear_fits.people()
    blank = observations.replace(**{
        name: np.zeros_like(getattr(observations, name))
        for name in ("point_confidence", "keypoint_confidence", "depth_confidence")
    })  # fmt: skip
    predicted = posterior.laplace_posterior(
        small_problem.small_template(), blank, fits, noise, precisions, size=SizePrior(BONE_SUM_MM)
    )
    assert np.isfinite(predicted.h36m_sd_mm).all()
    assert np.all(predicted.h36m_sd_mm[:, 1:].mean(axis=(0, 1)) > 20.0)


# --- sample weights: a bad fit counts little, a good one as much as another, whatever the errors' scale and unit ---

COUNT = 24


@pytest.fixture(scope="module")
def fits():
    """Fits that are wrong by 2% of the crop; the first one's arms and legs are somewhere else."""
    bodies = people.random_bodies(COUNT, seed=0)
    observed = people.observe(bodies, seed=0)
    rng = np.random.default_rng(1)
    noisy = observed.replace(
        point_position=observed.point_position + rng.normal(0, 0.01, observed.point_position.shape).astype(np.float32),
        keypoint_position=observed.keypoint_position
        + rng.normal(0, 0.01, observed.keypoint_position.shape).astype(np.float32),
    )
    pose = bodies.pose.copy()
    pose[0] += 1.0
    return noisy, bodies.replace(pose=pose)


def _weigh(name, fits):
    return posterior.sample_weights(name, load.load_body(), *fits, Objective())


def test_without_sample_weights_everyone_counts_alike(fits):
    np.testing.assert_array_equal(_weigh("none", fits), np.ones(COUNT, np.float32))


def test_a_bad_fit_counts_little(fits):
    weight = _weigh("residual", fits)
    assert weight.dtype == np.float32 and weight.shape == (COUNT,)
    assert np.all((weight >= 0) & (weight <= 1))
    assert weight[0] < 0.05 and weight[0] < 0.1 * np.median(weight[1:])


def test_residuals_weigh_what_the_formula_says():
    """Median 1, robust deviation of the logarithms 1: e^2 is two deviations above."""
    log_error = np.concatenate([np.linspace(-2, 2, 9) / (1.4826), [2.0]])[np.newaxis]
    log_error = log_error[0] - np.median(log_error[0])
    spread = 1.4826 * np.median(np.abs(log_error))
    expected = 1 / (1 + (np.maximum(log_error, 0) / spread / 2) ** 2)
    np.testing.assert_allclose(posterior.relative_weight(np.exp(log_error)), expected, rtol=1e-6)
    np.testing.assert_allclose(posterior.relative_weight(37.0 * np.exp(log_error)), expected, rtol=1e-6)


def test_people_fitted_equally_well_are_not_told_apart_by_rounding():
    weight = posterior.relative_weight(1.0 + 1e-6 * np.arange(5))
    np.testing.assert_allclose(weight, np.ones(5), atol=1e-8)
    np.testing.assert_array_equal(posterior.relative_weight(np.full(3, np.nan)), np.ones(3))


def test_people_without_observations_or_a_finite_fit_have_no_weight(fits):
    observed, bodies = jax.tree.map(np.copy, fits)
    observed.point_confidence[1] = observed.keypoint_confidence[1] = 0
    bodies.translation[2] = np.nan
    weight = _weigh("residual", (observed, bodies))
    assert weight[1] == weight[2] == 0 and np.all(weight[3:] > 0)


def test_the_posterior_lowers_the_weight_of_people_with_few_observations(fits):
    observed, bodies = jax.tree.map(np.copy, fits)
    observed.point_confidence[3, 4:] = 0
    observed.depth_confidence[3] = 0
    weight = _weigh("posterior", (observed, bodies))
    ratio = weight / _weigh("residual", (observed, bodies))
    assert np.all((ratio >= 0) & (ratio <= 1)) and weight[0] < 0.1 * np.median(weight)
    assert ratio[3] < np.min(np.delete(ratio, 3))


def test_another_name_is_refused(fits):
    with pytest.raises(ValueError, match="sample_weight 'hope' is not one of none, residual, posterior"):
        _weigh("hope", fits)
