"""A bad fit counts little, a good one as much as another; scale and unit of all errors do not matter."""

import jax
import numpy as np
import pytest

from dal_jax.body.formats import load
from dal_jax.registration.energy import Objective
from dal_jax.uncertainty import posterior
from tests.regressor import people

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
