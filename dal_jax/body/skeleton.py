"""SMPL's 24 joints for the body; the sets of key points: Human3.6M's 17, for metrics too, and BODY_25B's 25."""

SMPL_JOINT_NAMES = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle",
    "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder",
    "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hand", "right_hand",
)  # fmt: skip
SMPL_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)

H36M_JOINT_NAMES = (
    "hip", "right_hip", "right_knee", "right_foot", "left_hip", "left_knee", "left_foot", "spine", "thorax",
    "neck_nose", "head", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
)  # fmt: skip
H36M_PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)

COCO_NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
BODY_25B_NAMES = (
    *COCO_NAMES, "upper_neck", "head_top", "left_big_toe", "left_small_toe", "left_heel", "right_big_toe",
    "right_small_toe", "right_heel",
)  # fmt: skip
"""OpenPose's: COCO's 17, upper neck and head top, and three places of each foot."""
BODY_25B_PARENTS = (17, 0, 0, 1, 2, 17, 17, 5, 6, 7, 8, 17, 17, 11, 12, 13, 14, -1, 0, 15, 15, 15, 16, 16, 16)

# Orders that files of detectors have; what of them has no place on the body is left out by name.
FEET_NAMES = BODY_25B_NAMES[19:]
WHOLEBODY_NAMES = (
    *COCO_NAMES, *FEET_NAMES, *["face"] * 68, *["left_hand"] * 21, *["right_hand"] * 21,
)  # fmt: skip
"""COCO-WholeBody's 133."""
OPENPOSE_25_NAMES = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
    "right_ear", "left_ear", *FEET_NAMES,
)  # fmt: skip
"""OpenPose's BODY_25. Its neck is between the shoulders, which upper_neck is not."""
OPENPOSE_18_NAMES = (*OPENPOSE_25_NAMES[:8], *OPENPOSE_25_NAMES[9:19])
"""OpenPose's COCO."""
HALPE_26_NAMES = (
    *COCO_NAMES, "head_top", "neck", "hip", "left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe",
    "left_heel", "right_heel",
)  # fmt: skip
"""Halpe's body and feet. Its head is MPII's head_top; its neck is annotated lower than MPII's."""
HALPE_136_NAMES = (*HALPE_26_NAMES, *WHOLEBODY_NAMES[23:])
MEDIAPIPE_NAMES = (
    "nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye", "right_eye_outer",
    "left_ear", "right_ear", "left_mouth", "right_mouth", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_pinky", "right_pinky", "left_index", "right_index", "left_thumb",
    "right_thumb", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "left_heel",
    "right_heel", "left_big_toe", "right_big_toe",
)  # fmt: skip
"""MediaPipe Pose's 33 landmarks; it calls the tips of the feet, the last two, `foot_index`."""

KEYPOINT_SETS = {"h36m": H36M_JOINT_NAMES, "body_25b": BODY_25B_NAMES}
"""The key points that an annotation may have, by the name of their set. COCO's are BODY_25B's, the last 8 missing."""
KEYPOINT_PARENTS = {"h36m": H36M_PARENTS, "body_25b": BODY_25B_PARENTS}


def _mirror(names: tuple[str, ...]) -> tuple[int, ...]:
    def other_side(name: str) -> str:
        if name.startswith("left_"):
            return "right_" + name.removeprefix("left_")
        if name.startswith("right_"):
            return "left_" + name.removeprefix("right_")
        return name

    return tuple(names.index(other_side(name)) for name in names)


SMPL_MIRROR = _mirror(SMPL_JOINT_NAMES)
"""For each joint the index of the joint on the other side (its own for joints on the midline)."""

H36M_MIRROR = _mirror(H36M_JOINT_NAMES)
KEYPOINT_MIRROR = {name: _mirror(names) for name, names in KEYPOINT_SETS.items()}
