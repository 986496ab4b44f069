"""Human3.6M protocol 1: the headline number is the paper's, and bad input is named."""

import dataclasses

import numpy as np
import pytest

from dal_jax.evaluation import metrics, protocols
from dal_jax.runtime.errors import InputError

_MM = 2e-3  # float32 rounding around a metre, in mm


def _poses(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=300, size=(count, 17, 3)).astype(np.float32)


def test_headline_is_the_bone_sum_scaled_error_in_any_unit_of_the_prediction():
    truth, joints = _poses(5), _poses(5, seed=1)
    canonical = protocols.canonical_bone_sum_mm(truth)
    scores = protocols.human36m_protocol_1.score(joints / 1000, truth, canonical)
    expected = [metrics.mpjpe_bone_sum_mm(*pair, canonical) for pair in zip(joints, truth, strict=True)]
    np.testing.assert_allclose(scores["mpjpe_mm"], expected, atol=_MM)
    assert set(scores) == {"mpjpe_mm", "mpjpe_scale_matched_mm", "pa_mpjpe_mm"}
    assert all(values.shape == (5,) and isinstance(values, np.ndarray) for values in scores.values())


def test_truth_scores_zero_for_people_of_average_size():
    truth = np.repeat(_poses(1), 3, axis=0)
    scores = protocols.human36m_protocol_1.score(truth, truth, protocols.canonical_bone_sum_mm(truth))
    assert max(values.max() for values in scores.values()) < _MM


def test_scaling_is_part_of_the_protocol():
    truth, joints = _poses(3), _poses(3, seed=1)
    canonical = protocols.canonical_bone_sum_mm(truth)
    errors_mm = {
        scaling: dataclasses.replace(protocols.human36m_protocol_1, scaling=scaling).score(joints, truth, canonical)
        for scaling in protocols.SCALINGS
    }
    np.testing.assert_array_equal(errors_mm["least_squares"]["mpjpe_mm"], errors_mm["none"]["mpjpe_scale_matched_mm"])
    assert np.all(errors_mm["none"]["mpjpe_mm"] != errors_mm["bone_sum"]["mpjpe_mm"])


def test_canonical_size_is_the_mean_over_training_examples():
    truth = _poses(1)
    mixed = np.concatenate([truth, 2 * truth])
    np.testing.assert_allclose(
        protocols.canonical_bone_sum_mm(mixed), 1.5 * protocols.canonical_bone_sum_mm(truth), rtol=1e-6
    )


def test_split_by_subject():
    protocol = protocols.human36m_protocol_1
    assert protocol.is_test(["S1", "S9", "S11", "S8"]).tolist() == [False, True, True, False]
    with pytest.raises(InputError, match="'S2'"):
        protocol.is_test(["S1", "S2"])


@pytest.mark.parametrize(
    ("joints", "canonical", "message"),
    [
        (np.zeros((2, 16, 3)), 4000.0, r"predicted joints have shape \(2, 16, 3\)"),
        (np.zeros((3, 17, 3)), 4000.0, r"predicted joints have shape \(3, 17, 3\)"),
        (np.zeros((2, 17, 3)), 0.0, "canonical bone-length sum is 0.0"),
        (np.zeros((2, 17, 3)), float("nan"), "canonical bone-length sum is nan"),
    ],
)
def test_bad_input_is_named(joints, canonical, message):
    with pytest.raises(InputError, match=message):
        protocols.human36m_protocol_1.score(joints, _poses(2), canonical)
