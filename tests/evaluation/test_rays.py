"""Scoring in the camera's frame: a pose seen in a crop at the side is right once it is turned by the crop's ray."""

import numpy as np
import pytest

from dal_jax.body import cameras
from dal_jax.evaluation import pose_files
from dal_jax.evaluation.pose_files import Poses

MM = 0.01  # float32 rounding around a metre, in mm
INTRINSICS = np.array([[1000.0, 1000.0, 500.0, 500.0]] * 3)
BOXES = np.array([[400.0, 400.0, 200.0, 200.0], [900.0, 300.0, 150.0, 150.0], [0.0, 900.0, 90.0, 90.0]])


@pytest.fixture
def scored():
    """Poses in their crops' frames, and the truth, which is the same poses in the cameras' frames."""
    joints = np.random.default_rng(0).normal(scale=300, size=(3, 17, 3))
    rotations = [np.asarray(cameras.crop_rotation(box, camera)) for box, camera in zip(BOXES, INTRINSICS, strict=True)]
    true = np.stack([one @ rotation.T for one, rotation in zip(joints, rotations, strict=True)]) + 4000.0
    return joints, true


def test_turned_joints_are_the_camera_s(scored):
    joints, true = scored
    np.testing.assert_allclose(cameras.turned(joints, BOXES, INTRINSICS), true - 4000.0, atol=MM)


def test_every_mpjpe_is_given_both_ways_where_the_cameras_are_known(scored):
    joints, true = scored
    truth = Poses(true, "mm", intrinsics_px=INTRINSICS)
    scores = pose_files.score(Poses(joints, "mm", box_px=BOXES), truth, 4000.0)
    assert scores["turned_mpjpe"].max() < MM and scores["pa_mpjpe"].max() < MM
    assert scores["mpjpe"][0] < MM, "the first crop is centred on the principal point"
    angle = np.arctan(np.linalg.norm((BOXES[1:, :2] + BOXES[1:, 2:] / 2 - 500.0) / 1000.0, axis=1))
    assert np.all(scores["mpjpe"][1:] > 0.3 * angle * 300), "of the order of angle times size"
    assert {name for name in scores if name.startswith("turned_")} == {
        "turned_mpjpe", "turned_mpjpe_bone_sum", "turned_mpjpe_scale_matched"
    }  # fmt: skip
    for poses in (Poses(joints, "mm"), Poses(joints, "px")):
        assert not any(name.startswith("turned_") for name in pose_files.score(poses, truth, 4000.0))
