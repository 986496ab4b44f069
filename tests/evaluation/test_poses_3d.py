"""Pose files: what is wrong with one is named, and two are compared in the truth's unit."""

import numpy as np
import pytest

from dal_jax.body import cameras
from dal_jax.evaluation import poses_3d
from dal_jax.evaluation.poses_3d import Poses3D
from dal_jax.runtime.errors import InputError

_MM = 2e-3  # float32 rounding around a metre, in mm
_ROTATED_MM = 0.01  # the same after a rotation
INTRINSICS = np.array([[1000.0, 1000.0, 500.0, 500.0]] * 3)
BOXES = np.array([[400.0, 400.0, 200.0, 200.0], [900.0, 300.0, 150.0, 150.0], [0.0, 900.0, 90.0, 90.0]])


def _joints(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=300, size=(4, 17, 3))


def _nan(joints: np.ndarray) -> np.ndarray:
    joints[2, 5, 1] = np.nan
    return joints


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"unit": "mm"}, "no field 'joints'"),
        ({"joints": _joints()}, "no field 'unit'"),
        ({"joints": _joints(), "unit": "inch"}, "unit is 'inch'"),
        ({"joints": _joints()[:, :16], "unit": "mm"}, r"joints has shape \(4, 16, 3\)"),
        ({"joints": _joints()[:0], "unit": "mm"}, r"joints has shape \(0, 17, 3\)"),
        ({"joints": _joints().astype(str), "unit": "mm"}, "not a real number"),
        ({"joints": _nan(_joints()), "unit": "mm"}, r"joints\[2, 5\] is \[.*nan"),
        ({"joints": _joints(), "unit": "mm", "action": np.array(["Eating"])}, r"action has shape \(1,\)"),
        ({"joints": np.array([{}], object), "unit": "mm"}, "not a readable .npz"),
        ({"joints": _joints(), "unit": "mm", "box_px": np.ones((3, 4))}, r"box_px has shape \(3, 4\)"),
        (
            {"joints": _joints(), "unit": "mm", "box_px": np.array([0, 0, 9, 0])},
            r"box_px\[0\] is \[0.0, 0.0, 9.0, 0.0\]",
        ),
        ({"joints": _joints(), "unit": "mm", "intrinsics_px": np.full(4, np.nan)}, r"intrinsics_px\[0\] is \[nan"),
    ],
)
def test_a_bad_field_is_named_with_its_file(tmp_path, fields, message):
    path = tmp_path / "poses.npz"
    np.savez(path, **fields)
    with pytest.raises(InputError, match=message) as raised:
        poses_3d.read(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04truncated"])
def test_a_file_that_is_no_npz_is_named(tmp_path, content):
    path = tmp_path / "poses.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a readable .npz"):
        poses_3d.read(path)
    with pytest.raises(InputError, match="missing.npz: no such file"):
        poses_3d.read(tmp_path / "missing.npz")


def test_a_plain_array_is_no_npz(tmp_path):
    path = tmp_path / "poses.npy"
    np.save(path, _joints())
    with pytest.raises(InputError, match="not a readable .npz"):
        poses_3d.read(path)


def test_fields_come_back(tmp_path):
    np.savez(tmp_path / "poses.npz", joints=_joints(), unit="px", action=np.array(list("abcd")))
    poses = poses_3d.read(tmp_path / "poses.npz")
    np.testing.assert_allclose(poses.joints, _joints(), rtol=1e-6)
    assert poses.unit == "px" and poses.action.tolist() == list("abcd")


def test_raw_error_needs_millimetres_on_both_sides():
    joints = _joints().astype(np.float32)
    truth = Poses3D(joints, "mm")
    moved = joints + np.float32([0, 0, 1500])
    assert poses_3d.score(Poses3D(moved, "mm"), truth, 4000.0)["mpjpe"].max() < _MM
    assert "mpjpe" not in poses_3d.score(Poses3D(moved, "px"), truth, 4000.0)


def test_reversed_depths_are_counted_where_the_truth_has_any():
    joints = _joints().astype(np.float32)
    found = joints * np.float32([[[1, 1, -1]], [[1, 1, 1]], [[1, 1, -1]], [[1, 1, 1]]])
    joints[3, :, 2] = 4000.0  # flat
    scores = poses_3d.score(Poses3D(found, "mm"), Poses3D(joints, "mm"), 4000.0)
    np.testing.assert_array_equal(scores["depth_reversed_percent"], [100, 0, 100, np.nan])
    assert scores["pa_mpjpe_reflected"][0] < _MM < 10 < scores["pa_mpjpe"][0]


def test_two_files_of_different_length_are_refused():
    joints = _joints().astype(np.float32)
    with pytest.raises(InputError, match="3 poses, but 4 true ones"):
        poses_3d.score(Poses3D(joints[:3], "mm"), Poses3D(joints, "mm"), 4000.0)


@pytest.fixture
def scored():
    """Poses in their crops' frames, and the truth, which is the same poses in the cameras' frames."""
    joints = np.random.default_rng(0).normal(scale=300, size=(3, 17, 3))
    rotations = [np.asarray(cameras.crop_rotation(box, camera)) for box, camera in zip(BOXES, INTRINSICS, strict=True)]
    true = np.stack([one @ rotation.T for one, rotation in zip(joints, rotations, strict=True)]) + 4000.0
    return joints, true


def test_turned_joints_are_the_camera_s(scored):
    joints, true = scored
    np.testing.assert_allclose(cameras.rotate_from_crop(joints, BOXES, INTRINSICS), true - 4000.0, atol=_ROTATED_MM)


def test_every_mpjpe_is_given_both_ways_where_the_cameras_are_known(scored):
    joints, true = scored
    truth = Poses3D(true, "mm", intrinsics_px=INTRINSICS)
    scores = poses_3d.score(Poses3D(joints, "mm", box_px=BOXES), truth, 4000.0)
    assert scores["turned_mpjpe"].max() < _ROTATED_MM and scores["pa_mpjpe"].max() < _ROTATED_MM
    assert scores["mpjpe"][0] < _ROTATED_MM, "the first crop is centred on the principal point"
    angle = np.arctan(np.linalg.norm((BOXES[1:, :2] + BOXES[1:, 2:] / 2 - 500.0) / 1000.0, axis=1))
    assert np.all(scores["mpjpe"][1:] > 0.3 * angle * 300), "of the order of angle times size"
    assert {name for name in scores if name.startswith("turned_")} == {
        "turned_mpjpe", "turned_mpjpe_bone_sum", "turned_mpjpe_scale_matched", "turned_mpjpe_norm_matched",
        "turned_depth_reversed_percent",
    }  # fmt: skip
    for poses in (Poses3D(joints, "mm"), Poses3D(joints, "px")):
        assert not any(name.startswith("turned_") for name in poses_3d.score(poses, truth, 4000.0))
