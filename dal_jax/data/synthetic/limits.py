"""How far the joints of a natural body turn: a range of angle a joint, in radians."""

import numpy as np
from jaxtyping import Float

from dal_jax.body import skeleton

HINGE = {"knee": (0.02, 2.55), "elbow": (0.04, 2.60)}
"""Flexion of the hinge joints (0: straight)."""

_MOST = {
    "hip": 2.45, "spine1": 0.6, "spine2": 0.6, "spine3": 0.6, "knee": 2.6, "ankle": 0.95, "foot": 0.5, "neck": 0.75,
    "head": 0.75, "collar": 0.65, "shoulder": 2.5, "elbow": 2.75, "wrist": 1.4, "hand": 1.2,
}  # fmt: skip


def largest_angle() -> Float[np.ndarray, "23"]:
    """Return the most that each joint (without the pelvis) may turn from the T-pose, about any axis."""
    names = (name.removeprefix("left_").removeprefix("right_") for name in skeleton.SMPL_JOINT_NAMES[1:])
    return np.array([_MOST[name] for name in names])


def clamp(pose: Float[np.ndarray, "23 3"]) -> Float[np.ndarray, "23 3"]:
    """Return the pose with every rotation vector shortened to its joint's largest angle."""
    angle = np.linalg.norm(pose, axis=-1)
    return pose * np.minimum(1.0, largest_angle() / np.maximum(angle, 1e-9))[:, None]
