"""Named key points in Human3.6M's 17 places: some are annotated, some are derived from them, some stay unknown."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from dal_jax.body import skeleton

COCO_NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
UNLABELLED, HIDDEN, SEEN = 0, 1, 2
"""COCO's flags of a key point."""

DERIVED_CONFIDENCE = 0.5
"""Confidence of a derived joint. Note: our choice; a mid-point is not where an annotator would have clicked."""


class Keypoints(NamedTuple):
    """Human3.6M's 17 joints, px; confidence 0 = unknown or hidden; derived = computed from other key points.

    flag: COCO's of a joint, of a derived one the lowest of those that it comes from.
    """

    position_px: Float[np.ndarray, "17 2"]
    confidence: Float[np.ndarray, "17"]
    derived: Bool[np.ndarray, "17"]
    flag: Int[np.ndarray, "17"]


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


def h36m_from_coco(coco: Float[np.ndarray, "17 3"]) -> Keypoints:
    """Map (x, y, v) of COCO to Human3.6M's order; COCO has no top of the head: it stays unknown."""
    return h36m_from_named(COCO_NAMES, coco)


def h36m_from_named(names: Sequence[str], values: Float[np.ndarray, "k 3"]) -> Keypoints:
    """Map named (x, y, v) to Human3.6M's order; v = 2 is visible, 1 labelled but hidden, 0 unlabelled.

    Names are COCO's, and PoseTrack's `head_top`; others are left out. Hidden joints keep their place with confidence 0.
    Hip, thorax and spine are mid-points of the labelled hips and shoulders and are marked as derived.
    """
    row = {name: index for index, name in enumerate(names)}
    found = missing()
    for joint, name in enumerate(skeleton.H36M_JOINT_NAMES):
        sources = [row.get(source) for source in _MEAN.get(name) or (_SAME[name],)]
        flag = UNLABELLED if None in sources else int(min(values[source, 2] for source in sources))
        if flag > UNLABELLED:
            found.position_px[joint] = np.mean([values[source, :2] for source in sources], axis=0)
            found.flag[joint] = flag
        if flag == SEEN:
            found.confidence[joint] = DERIVED_CONFIDENCE if found.derived[joint] else 1.0
    return found


def missing() -> Keypoints:
    """Return key points of which none is known: every key point and depth term is then masked."""
    derived = np.array([name in _MEAN for name in skeleton.H36M_JOINT_NAMES])
    return Keypoints(np.zeros((17, 2), np.float32), np.zeros(17, np.float32), derived, np.zeros(17, np.int64))
