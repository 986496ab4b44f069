"""The people's key points are their joints in the picture, and the truth has no error."""

import types

import numpy as np
import pytest

import dal_jax as dal
from benchmarks import keypoints_alone
from dal_jax.synthetic import view


@pytest.fixture(scope="module")
def made():
    return keypoints_alone._people(3)


def test_key_points_are_where_the_joints_are_seen(made):
    keypoints_px, joints_mm = made
    seen = np.stack([view.project(joints / 1000) for joints in joints_mm])
    apart = np.linalg.norm(keypoints_px["h36m"] - seen, axis=-1) / np.ptp(seen, axis=1).max(axis=1)[:, None]
    assert keypoints_px["coco"].shape == (3, 17, 2)
    assert np.nanmedian(apart) < 0.02 and np.isfinite(apart).mean() > 0.8


@pytest.mark.parametrize("camera", ["weak", "perspective"])
def test_the_truth_at_another_size_has_no_error(made, camera, monkeypatch):
    """The fits are asked for under the camera and the lifter of the row."""
    keypoints_px, joints_mm = made
    asked = []

    def perfect(people, options, lifting, progress):
        asked.append((people.stacked.pinhole is not None, lifting))
        return types.SimpleNamespace(joints_h36m=1.1 * joints_mm)

    monkeypatch.setattr(dal, "fit", perfect, raising=False)
    scores = keypoints_alone._scores("h36m", keypoints_px["h36m"], camera, "none", joints_mm)
    assert scores.keys() == {"scale_matched_mm", "pa_mm", "scale_matched_median_mm", "pa_median_mm"}
    assert max(scores.values()) < 0.1
    assert asked == [(camera == "perspective", "none")]
