import numpy as np
import pytest

from dal_jax.evaluation import metrics

SAMPLING = 0.01  # of a share, over 40,000 draws: four standard errors


def test_normal_errors_are_covered_as_the_normal_distribution_says():
    random = np.random.default_rng(0)
    deviation = random.uniform(5.0, 50.0, (2500, 16, 3))
    found = metrics.coverage(random.normal(0.0, deviation), deviation)
    for axis in metrics.AXES:
        assert found[axis]["within_1_sd"] == pytest.approx(0.6827, abs=SAMPLING)
        assert found[axis]["within_2_sd"] == pytest.approx(0.9545, abs=SAMPLING)


def test_axes_are_kept_apart():
    error, deviation = np.zeros((1, 2, 3)), np.ones((1, 2, 3))
    error[0, :, 1], error[0, 0, 2], deviation[..., 0] = [3.0, 4.0], 1.5, 7.0
    found = metrics.coverage(error, deviation)
    assert found["x"] == {"within_1_sd": 1.0, "within_2_sd": 1.0, "mean_sd_mm": 7.0, "rms_error_mm": 0.0}
    assert found["y"]["within_2_sd"] == 0.0
    assert found["y"]["rms_error_mm"] == pytest.approx(np.sqrt(12.5))
    assert (found["z"]["within_1_sd"], found["z"]["within_2_sd"]) == (0.5, 1.0)
