"""The places of key points on the free body, and the lengths of bones between them in other poses."""

import jax
import numpy as np
import pytest

from dal_jax.body import kinematics, skeleton, skinning
from dal_jax.body.formats.load import load_body

SAME_PLACE_M = 5e-4

# Where Human3.6M's joints lie on the free body's T-pose: measured on a registered body of known shape, metres
H36M = {
    "hip": (0.000, 0.050, 0.021), "right_hip": (-0.132, 0.059, 0.029), "right_knee": (-0.135, -0.351, 0.035),
    "right_foot": (-0.171, -0.774, -0.029), "left_hip": (0.130, 0.045, 0.014), "left_knee": (0.144, -0.364, 0.035),
    "left_foot": (0.157, -0.784, -0.030), "spine": (-0.009, 0.294, 0.008), "thorax": (-0.001, 0.540, 0.008),
    "neck_nose": (0.007, 0.622, 0.082), "head": (0.002, 0.720, 0.042), "left_shoulder": (0.160, 0.511, 0.000),
    "left_elbow": (0.440, 0.523, 0.024), "left_wrist": (0.673, 0.499, 0.021), "right_shoulder": (-0.161, 0.513, -0.001),
    "right_elbow": (-0.437, 0.519, 0.015), "right_wrist": (-0.674, 0.490, 0.037),
}  # fmt: skip
BONES = {  # lengths in the T-pose
    "h36m": [("left_hip", "left_knee"), ("left_knee", "left_foot"), ("left_shoulder", "left_elbow"),
             ("left_elbow", "left_wrist"), ("neck_nose", "head"), ("hip", "left_hip")],
    "body_25b": [("left_hip", "left_knee"), ("left_knee", "left_ankle"), ("left_shoulder", "left_elbow"),
                 ("left_elbow", "left_wrist"), ("left_ear", "right_ear"), ("left_ankle", "left_heel")],
}  # fmt: skip


def _places(keypoint_set):
    body = load_body()
    return dict(zip(skeleton.KEYPOINT_SETS[keypoint_set], body.regressor(keypoint_set) @ body.vertices, strict=True))


def test_human36m_s_joints_lie_where_they_were_measured():
    places = _places("h36m")
    for name, measured in H36M.items():
        assert np.linalg.norm(places[name] - measured) < 0.015, name  # left and right averaged
    assert np.mean([np.linalg.norm(places[name] - H36M[name]) for name in H36M]) < 0.007


def test_face_feet_and_head_top_lie_on_the_skin():
    vertices = np.asarray(load_body().vertices)
    for name, place in _places("body_25b").items():
        if name.split("_", 1)[-1] in ("nose", "eye", "ear", "head_top", "big_toe", "small_toe", "heel"):
            assert np.linalg.norm(vertices - place, axis=1).min() < 0.012, name


@pytest.mark.parametrize("keypoint_set", skeleton.KEYPOINT_SETS)
def test_rows_are_convex_and_each_other_s_mirror_image(keypoint_set):
    rows, mirror = np.asarray(load_body().regressor(keypoint_set)), np.asarray(load_body().mirror)
    assert rows.min() >= 0 and rows.sum(axis=1) == pytest.approx(1, abs=1e-5)
    other = list(skeleton.KEYPOINT_MIRROR[keypoint_set])
    np.testing.assert_allclose(rows[other], rows[:, mirror], atol=1e-6)


@pytest.mark.parametrize("keypoint_set", BONES)
def test_bones_keep_their_mean_length_in_other_poses(keypoint_set):
    body, names = load_body(), skeleton.KEYPOINT_SETS[keypoint_set]
    pose = np.random.default_rng(0).normal(0, 0.4, (100, 23, 3)).astype(np.float32)

    @jax.jit
    @jax.vmap
    def place(angles):
        start = kinematics.t_pose()
        segments = kinematics.pose_skeleton(body, start.rotation, angles, start.segment_scale)
        return skinning.keypoints(body, segments, keypoint_set)

    posed, rest = np.asarray(place(pose)), _places(keypoint_set)
    for first, second in BONES[keypoint_set]:
        length = np.linalg.norm(posed[:, names.index(first)] - posed[:, names.index(second)], axis=1)
        at_rest = np.linalg.norm(rest[first] - rest[second])
        assert length.mean() == pytest.approx(at_rest, rel=0.05, abs=0.005), (first, second)
