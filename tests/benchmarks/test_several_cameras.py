import numpy as np
import pytest

from benchmarks import several_cameras
from dal_jax.body import skeleton


def _pose(seed=0):
    return np.random.default_rng(seed).normal(0, 0.3, (1, 12, 3))


def test_size_and_place_cost_nothing_and_rotation_costs_only_what_pa_forgives():
    truth, angle = 1000 * _pose(), np.radians(20)
    found = several_cameras.scores(0.3 * truth + 5, truth)
    assert found["scale_matched_mm"] == pytest.approx(0, abs=1e-6)
    assert found["pa_mm"] == pytest.approx(0, abs=0.1) and found["trunk_degrees"] == pytest.approx(0, abs=1e-4)
    rotation = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    turned = several_cameras.scores(truth @ rotation.T, truth)
    assert turned["pa_mm"] == pytest.approx(0, abs=0.1) and turned["scale_matched_mm"] > 10


def test_a_joint_without_truth_is_left_out():
    truth = 1000 * _pose()
    found = truth.copy()
    found[0, 3] += 500
    truth[0, 3] = np.nan
    assert several_cameras.scores(found, truth)["scale_matched_mm"] == pytest.approx(0, abs=1e-6)


def test_distortion_is_undone():
    """Brown's formula applied to straight points, and undone."""
    matrix = [[1681.0, 0.0, 533.0], [0.0, 1680.0, 948.0], [0.0, 0.0, 1.0]]
    camera = {"K": matrix, "distortion_k1k2p1p2k3": [-0.046, 0.14, 0.0006, 0.0007, 0.01]}
    matrix, (k1, k2, p1, p2, k3) = np.array(camera["K"]), camera["distortion_k1k2p1p2k3"]
    straight = np.random.default_rng(0).uniform((100, 100), (950, 1800), (30, 2))
    x, y = ((straight - matrix[:2, 2]) / matrix[[0, 1], [0, 1]]).T
    square = x**2 + y**2
    radial = 1 + k1 * square + k2 * square**2 + k3 * square**3
    bent = np.stack(
        [x * radial + 2 * p1 * x * y + p2 * (square + 2 * x**2), y * radial + p1 * (square + 2 * y**2) + 2 * p2 * x * y]
    ).T
    seen = np.column_stack([bent * matrix[[0, 1], [0, 1]] + matrix[:2, 2], np.ones(len(bent))])
    np.testing.assert_allclose(several_cameras.undistorted(seen, camera)[:, :2], straight, atol=1e-3)


def test_joints_are_projected_where_a_camera_sees_them():
    """Two metres ahead of a camera that looks along the world's y axis, one to its right and half below."""
    turn = [[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]
    camera = {
        "K": [[1000.0, 0, 500], [0, 1100, 400], [0, 0, 1]],
        "R_world_to_camera": turn,
        "t_world_to_camera_m": [0, 0, 1],
    }
    joints = np.tile(np.array([1.0, 1.0, -0.5]), (25, 1))
    joints[3] = np.nan
    seen = several_cameras.projected(joints, camera)
    np.testing.assert_allclose(seen[0], [500 + 1000 / 2, 400 + 1100 * 0.25, 1])
    np.testing.assert_array_equal(seen[3], 0)


def test_wrong_detections_are_told_by_their_neighbours_in_time():
    """Of a person 700 px high who drifts: two joints are lost, one jumps, a pair is exchanged."""
    random = np.random.default_rng(0)
    standing = random.uniform((200, 100), (600, 800), (25, 2))
    keypoints = np.concatenate([np.tile(standing, (2, 20, 1, 1)), np.ones((2, 20, 25, 1))], axis=-1)
    keypoints[..., 0] += 3 * np.arange(20)[:, None]
    wrist, other, ankle = (skeleton.BODY_25B_NAMES.index(name) for name in ("left_wrist", "right_wrist", "left_ankle"))
    assert set(several_cameras.wrong_shares(keypoints).values()) == {0.0}
    keypoints[0, 3, ankle, 2] = keypoints[1, 19, ankle, 2] = 0.1
    keypoints[0, 8, ankle, 0] += 60  # and the middles of its neighbours by half of it, which is too little
    found = several_cameras.wrong_shares(keypoints)
    assert found["missing"] == 2 / 480 and found["exchanged"] == 0
    assert found["jumped"] == pytest.approx(1 / 428)
    keypoints[1, 9, [wrist, other]] = keypoints[1, 9, [other, wrist]]
    assert several_cameras.wrong_shares(keypoints)["exchanged"] > 0
