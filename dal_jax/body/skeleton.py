"""SMPL's 24 joints for the body; the sets of key points: Human3.6M's 17, for metrics too, and BODY_25B's 25.

How far human joints rotate: anatomical ranges of motion as a box on the axis-angle components of every joint.

Ranges are those of the American Academy of Orthopaedic Surgeons ("Joint Motion: Method of Measuring and Recording",
1965; reprinted in Norkin and White, "Measurement of Joint Motion"; Boone and Azen 1979 measured the same), degrees:

    hip        flexion 120, extension 30, abduction 45, adduction 30, rotation 45 either way
    knee       flexion 135-150, hyperextension up to 10          ankle     plantar 50, dorsal 20, in 35, out 15
    spine      flexion 80, extension 25, sideways 35, rotation 45    neck  45 each way, rotation 60-80
    shoulder   flexion 180, extension 60, abduction 180, rotation 70 in, 90 out, across the chest 130
    elbow      flexion 150, hyperextension up to 10              forearm   80 either way
    wrist      flexion 80, extension 70, radial 20, ulnar 30     toes      extension 70, flexion 45

Frame: the T-pose, axes of the body (y up, facing +z, its left to +x), so at the left hip flexion is -x, abduction +z,
rotation of the toes outwards +y; flexion is +x at the knees and -y at the left elbow.

Note: a box is our choice: one subtraction a component, exact for hinges and generous for ball joints. Published ranges
are of one anatomical motion at a time; a composed rotation (a thigh flexed and rotated) has axis-angle components
beyond each alone, and SMPL splits the spine in three, the neck in two and the shoulder in two joints in a way that no
image determines. There the box is widened, up to two thirds of the whole range for a part of a split one.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

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


_RANGE_DEG = {
    "hip": ((-135, 35), (-60, 80), (-60, 70)),
    "knee": ((-10, 150), (-30, 30), (-15, 15)),
    "ankle": ((-30, 55), (-35, 35), (-30, 40)),
    "foot": ((-70, 45), (-15, 15), (-15, 15)),
    "spine1": ((-20, 50), (-30, 30), (-25, 25)),
    "spine2": ((-20, 50), (-30, 30), (-25, 25)),
    "spine3": ((-20, 50), (-30, 30), (-25, 25)),
    "neck": ((-35, 35), (-50, 50), (-35, 35)),
    "head": ((-35, 35), (-50, 50), (-35, 35)),
    "collar": ((-30, 30), (-35, 25), (-15, 45)),
    "shoulder": ((-120, 100), (-130, 70), (-115, 95)),
    "elbow": ((-80, 80), (-155, 10), (-70, 70)),
    "wrist": ((-80, 80), (-65, 45), (-85, 75)),
    "hand": ((-20, 20), (-20, 20), (-95, 40)),
}
"""Lower and upper rotation about x, y, z of midline and left joints, degrees; right ones are their mirror images."""


@functools.cache
def limits_rad() -> tuple[Float[np.ndarray, "23 3"], Float[np.ndarray, "23 3"]]:
    """Return the least and the greatest axis-angle components of SMPL's joints 1..23, radians.

    The mirror image of an axis-angle (a, b, c) in the plane x = 0 is (a, -b, -c).
    """
    lower, upper = np.empty((23, 3)), np.empty((23, 3))
    for joint, name in enumerate(SMPL_JOINT_NAMES[1:]):
        low, high = np.radians(_RANGE_DEG[name.removeprefix("left_").removeprefix("right_")]).T
        if name.startswith("right_"):
            low, high = np.array([low[0], -high[1], -high[2]]), np.array([high[0], -low[1], -low[2]])
        lower[joint], upper[joint] = low, high
    lower.flags.writeable = upper.flags.writeable = False  # shared by every caller
    return lower, upper


def limit_excess(pose: Float[Array | np.ndarray, "*batch 23 3"]) -> Float[Array, "*batch 23 3"]:
    """Return by how much each component lies beyond its range, radians: negative below, positive above, 0 inside."""
    lower, upper = (
        jnp.asarray(bound, pose.dtype).reshape((1,) * (pose.ndim - 2) + bound.shape) for bound in limits_rad()
    )
    return jnp.asarray(pose) - jnp.clip(pose, lower, upper)
