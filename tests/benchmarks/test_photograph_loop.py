"""The folder that the loop on photographs reads, and which test pictures count where."""

import json

import numpy as np
import pytest

import dal_jax as dal
from benchmarks import photograph_loop
from dal_jax.body import skeleton

SIZE = (640, 480)


def test_detections_are_read_again_as_they_were_and_what_was_not_found_is_not_annotated(tmp_path):
    detected = np.column_stack([np.random.default_rng(0).uniform(100, 300, (25, 2)), np.full(25, 0.8)])
    detected[[3, 7]] = [[0, 0, 0], [600, 400, 0.05]]
    labels = photograph_loop._as_coco([photograph_loop._labelled("cam01_007.jpg", SIZE, detected)])
    (tmp_path / "train.json").write_text(json.dumps(labels))
    (person,) = dal.read_annotations(tmp_path / "train.json").people
    assert len(skeleton.BODY_25B_NAMES) == len(person.keypoints.position_px) == 25
    seen = detected[:, 2] > 0.5
    np.testing.assert_array_equal(np.asarray(person.keypoints.confidence) > 0, seen)
    np.testing.assert_allclose(person.keypoints.position_px[seen], detected[seen, :2], atol=1e-3)
    x, y, width, height = person.bbox_px
    low, high = detected[seen, :2].min(axis=0), detected[seen, :2].max(axis=0)
    assert np.all([x, y] < low) and np.all([x + width, y + height] > high), "with a margin about the points"


def test_test_pictures_count_by_what_they_share_with_the_trained_ones():
    names = ["cam01_080.jpg", "cam04_000.jpg", "cam04_099.jpg"]
    pose = np.random.default_rng(0).normal(0, 300, (12, 3))
    truth = {f"cam0{camera}_{frame:03d}.jpg": pose for camera in (1, 2, 3, 4) for frame in (0, 80, 99)}
    joints = np.stack([pose, pose, pose + np.random.default_rng(1).normal(0, 50, (12, 3))]) / 1000
    found = photograph_loop._by_part(names, joints, truth)
    assert found["later_frames_scale_matched_mm"] == pytest.approx(0, abs=0.1)
    wrong = found["both_scale_matched_mm"]
    assert wrong > 20
    assert found["other_camera_scale_matched_mm"] == pytest.approx(wrong / 2, abs=0.1)
    assert found["test_scale_matched_mm"] == pytest.approx(wrong / 3, abs=0.1)
