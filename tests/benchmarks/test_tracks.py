"""Clips show a person in motion, annotated as said; the truth at another size has no error."""

import numpy as np
import pytest

from benchmarks import tracks
from dal_jax.synthetic import view


def test_a_clip_is_a_smooth_motion_annotated_with_errors():
    keypoints_px, joints_mm, joints_px = tracks.clip("S9", "Walking", 0, 8)
    assert keypoints_px.shape == (8, 25, 3) and joints_mm.shape == (8, 17, 3)
    step = np.linalg.norm(np.diff(joints_mm, axis=0), axis=-1)
    bent = np.linalg.norm(np.diff(joints_mm, n=2, axis=0), axis=-1)
    assert step.max() > 20 and bent.mean() < 0.3 * step.mean()
    seen_px = view.project(joints_mm / 1000)
    side_px = np.ptp(seen_px, axis=1).max(axis=1)[:, None]
    ankles = np.linalg.norm(keypoints_px[:, [15, 16], :2] - seen_px[:, [6, 3]], axis=-1) / side_px
    assert 0.002 < np.median(ankles) < 0.05
    assert 0.02 < np.mean(keypoints_px[..., 2] == 0) < 0.25
    off = np.linalg.norm(joints_px[..., :2] - seen_px, axis=-1) / side_px
    assert 0.01 < np.median(off) < 0.03 and 0.02 < np.mean(joints_px[..., 2] == 0) < 0.25


def test_the_truth_at_another_size_has_no_error():
    _, joints_mm, _ = tracks.clip("S11", "Eating", 1, 8)
    truth_mm = joints_mm[None]
    assert max(tracks.scores(0.002 * truth_mm, truth_mm).values()) < 0.1
    jitter = np.random.default_rng(0).normal(0, 5, truth_mm.shape)
    found = tracks.scores(truth_mm + jitter, truth_mm)
    # second differences of independent errors of 5 mm have deviations of 5 sqrt(6) mm; errors of the pelvis come on top
    assert found["acceleration_error_mm"] == pytest.approx(np.sqrt(2 * 6) * 5 * np.sqrt(8 / np.pi), rel=0.15)
