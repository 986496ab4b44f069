"""Human3.6M's 17 joints, which lifters read, of key points of any set, and back.

Some are another set's own, some are midpoints of others, some stay unknown.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.body import skeleton
from dal_jax.observations.observation import Observation

DERIVED_CONFIDENCE = 0.5
"""Confidence of a Human3.6M joint that is computed from others. Note: our choice."""

_SAME = {
    "right_hip": "right_hip", "right_knee": "right_knee", "right_foot": "right_ankle", "left_hip": "left_hip",
    "left_knee": "left_knee", "left_foot": "left_ankle", "neck_nose": "nose", "head": "head_top",
    "left_shoulder": "left_shoulder", "left_elbow": "left_elbow", "left_wrist": "left_wrist",
    "right_shoulder": "right_shoulder", "right_elbow": "right_elbow", "right_wrist": "right_wrist",
}  # fmt: skip
_MEAN = {
    "hip": ("left_hip", "right_hip"),
    "thorax": ("left_shoulder", "right_shoulder"),
    "spine": ("left_hip", "right_hip", "left_shoulder", "right_shoulder"),
}


def _h36m_shares() -> Float[np.ndarray, "17 25"]:
    shares = np.zeros((len(skeleton.H36M_JOINT_NAMES), len(skeleton.BODY_25B_NAMES)), np.float32)
    for joint, name in enumerate(skeleton.H36M_JOINT_NAMES):
        sources = _MEAN.get(name) or (_SAME[name],)
        shares[joint, [skeleton.BODY_25B_NAMES.index(source) for source in sources]] = 1.0 / len(sources)
    return shares


_SHARES = _h36m_shares()
_DERIVED = np.array([name in _MEAN for name in skeleton.H36M_JOINT_NAMES])


def to_h36m(observed: Observation) -> tuple[Float[Array, "*batch 17 2"], Float[Array, "*batch 17"]]:
    """Return Human3.6M's 17 joints of an observation's key points, crop units, and the confidence in each.

    Hip, thorax and spine are midpoints of hips and shoulders where all of them are known, the nose stands for the
    joint between neck and nose. They are near Human3.6M's places, not on them.
    """
    position, confidence = jnp.asarray(observed.keypoint_position), jnp.asarray(observed.keypoint_confidence)
    if observed.keypoint_set == "h36m":
        return position, confidence
    return h36m_places(position, confidence)


def h36m_places(
    position: Float[Array | np.ndarray, "*batch 25 2"], confidence: Float[Array | np.ndarray, "*batch 25"]
) -> tuple[Float[Array, "*batch 17 2"], Float[Array, "*batch 17"]]:
    """Return the same of BODY_25B's key points in any unit."""
    position, confidence = jnp.asarray(position), jnp.asarray(confidence)
    used = _SHARES > 0
    lowest = jnp.min(jnp.where(used, confidence[..., None, :], jnp.inf), axis=-1)
    shares = jnp.broadcast_to(jnp.asarray(_SHARES), (*position.shape[:-2], *_SHARES.shape))
    known = jnp.where(confidence[..., None] > 0, position, 0.0)
    return jnp.matmul(shares, known, precision="highest"), jnp.where(_DERIVED, DERIVED_CONFIDENCE * lowest, lowest)


def from_h36m(
    keypoint_set: str, depth: Float[Array | np.ndarray, "*batch 17"], confidence: Float[Array | np.ndarray, "*batch 17"]
) -> tuple[Float[Array, "*batch k"], Float[Array, "*batch k"]]:
    """Return the depths, with confidences, of a set's key points from those of Human3.6M's joints.

    A key point that is no joint of Human3.6M's (eyes, ears, toes, heels) has confidence 0, and so has the nose, which
    stood for another place.
    """
    depth, confidence = jnp.asarray(depth), jnp.asarray(confidence)
    if keypoint_set == "h36m":
        return depth, confidence
    row = {name: joint for joint, name in enumerate(skeleton.H36M_JOINT_NAMES)}
    source = [row.get(_H36M_NAME.get(name, "")) for name in skeleton.BODY_25B_NAMES]
    known = np.array([joint is not None for joint in source])
    rows = np.array([joint or 0 for joint in source])
    return jnp.where(known, depth[..., rows], 0.0), jnp.where(known, confidence[..., rows], 0.0)


_H36M_NAME = {name: joint for joint, name in _SAME.items() if joint not in ("neck_nose", "head")}
