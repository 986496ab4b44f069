"""Annotated key points, in the places that their set names."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dal_jax.body import skeleton

UNLABELLED, HIDDEN, SEEN = 0, 1, 2
"""COCO's flags of a key point."""


class Keypoints(NamedTuple):
    """One person's key points, px, in the order of their set; confidence 0 = unknown or hidden.

    flag: COCO's of each. keypoint_set: a name of `skeleton.KEYPOINT_SETS`.
    """

    position_px: Float[np.ndarray, "k 2"]
    confidence: Float[np.ndarray, "k"]
    flag: Int[np.ndarray, "k"]
    keypoint_set: str


_SYNONYMS = {"head_bottom": "upper_neck"}  # PoseTrack's


def from_coco(coco: Float[np.ndarray, "17 3"]) -> Keypoints:
    """Return COCO's 17 (x, y, v) as BODY_25B's, the other eight unknown."""
    return from_named(skeleton.COCO_NAMES, coco)


def from_named(names: Sequence[str], values: Float[np.ndarray, "k 3"]) -> Keypoints:
    """Return named (x, y, v) as BODY_25B's; v = 2 is visible, 1 labelled but hidden, 0 unlabelled.

    Names are COCO's, and PoseTrack's for the head; others are left out. Hidden ones keep their place with confidence 0.
    """
    row = {_SYNONYMS.get(name, name): index for index, name in enumerate(names)}
    found = missing()
    for place, name in enumerate(skeleton.BODY_25B_NAMES):
        if name in row and values[row[name], 2] > UNLABELLED:
            found.position_px[place] = values[row[name], :2]
            found.flag[place] = int(values[row[name], 2])
            found.confidence[place] = found.flag[place] == SEEN
    return found


def missing(keypoint_set: str = "body_25b") -> Keypoints:
    """Return key points of which none is known: every key point and depth term is then masked."""
    count = len(skeleton.KEYPOINT_SETS[keypoint_set])
    return Keypoints(np.zeros((count, 2), np.float32), np.zeros(count, np.float32), np.zeros(count, int), keypoint_set)
