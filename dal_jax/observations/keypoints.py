"""Annotated key points, in the places that their set names."""

import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from dal_jax.body import skeleton
from dal_jax.runtime.errors import one_line

UNLABELLED, HIDDEN, SEEN = 0, 1, 2
"""COCO's flags of a key point."""


class Keypoints(NamedTuple):
    """One person's key points, px, in the order of their set; confidence 0 = unknown or hidden.

    flag: COCO's of each. keypoint_set: a name of `skeleton.KEYPOINT_SETS`.
    left_out: labelled key points that are not used: the file's name of each, and why.
    """

    position_px: Float[np.ndarray, "k 2"]
    confidence: Float[np.ndarray, "k"]
    flag: Int[np.ndarray, "k"]
    keypoint_set: str
    left_out: tuple[tuple[str, str], ...] = ()


UNKNOWN, REPEATED, NOWHERE = "of an unknown name", "of a repeated name", "at 0, 0 or -1, -1 or NaN"
PLACELESS = "without a place on the body"
"""Why a labelled key point is not used. Placeless are names of a known set that ours does not have."""


def set_of(names: Sequence[str]) -> str:
    """Return the set that named key points are of: Human3.6M's if all names are its and spine and thorax among them."""
    letters = {_letters(name) for name in names}
    return "h36m" if {"spine", "thorax"} <= letters <= _PLACES["h36m"].keys() else "body_25b"


def from_named(names: Sequence[str], values: Float[np.ndarray, "k 3"]) -> Keypoints:
    """Return named (x, y, v), px, in the places of `set_of`; v = 2 is visible, 1 labelled but hidden, 0 unlabelled.

    Names are Human3.6M's, or BODY_25B's, of which COCO's are the first, and PoseTrack's for the head. They may be
    spelled in any way: "left_shoulder", "Left-Shoulder", "LShoulder". Others are left out, and so are key points at
    0, 0 or -1, -1 or NaN: tools write so what they have not found. Hidden ones keep their place with confidence 0.
    """
    keypoint_set = set_of(names)
    found, left_out, nowhere = missing(keypoint_set), [], is_nowhere(values)
    for row, name in enumerate(names):
        if not values[row, 2] > UNLABELLED:
            continue
        place = _PLACES[keypoint_set].get(_letters(name))
        if place is None or nowhere[row] or found.flag[place]:
            nobody_s = PLACELESS if _letters(name) in _PLACELESS else UNKNOWN
            left_out.append((name, nobody_s if place is None else NOWHERE if nowhere[row] else REPEATED))
            continue
        found.position_px[place] = values[row, :2]
        found.flag[place] = int(values[row, 2])
        found.confidence[place] = found.flag[place] == SEEN
    return found._replace(left_out=tuple(left_out))


def is_nowhere(values: Float[np.ndarray, "k 3"]) -> Bool[np.ndarray, "k"]:
    """Tell which key points (x, y, v) have a place that stands for none: 0, 0 or -1, -1 or NaN, exactly."""
    x, y = values[:, 0], values[:, 1]
    return ((x == 0) & (y == 0)) | ((x == -1) & (y == -1)) | (np.isnan(x) & np.isnan(y))


def missing(keypoint_set: str = "body_25b") -> Keypoints:
    """Return key points of which none is known: every key point and depth term is then masked."""
    count = len(skeleton.KEYPOINT_SETS[keypoint_set])
    return Keypoints(np.zeros((count, 2)), np.zeros(count, np.float32), np.zeros(count, int), keypoint_set)


def notes(people: Iterable[tuple[str, Keypoints]]) -> list[str]:
    """Return which labelled key points of people are not used: a line for each reason.

    Args:
      people: file and entry, by which the first is named, and the key points of each.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for where, one in people:
        for name, why in one.left_out:
            found.setdefault(why, []).append((where, reprlib.repr(name)))
    lines = []
    for why, places in found.items():
        names = list(dict.fromkeys(name for _, name in places))
        shown = ", ".join([*names[:_SHOWN_NAMES], *["..."] * (len(names) > _SHOWN_NAMES)])
        lines.append(one_line(f"{places[0][0]}: key point {shown} {why}: not used ({len(places)} in all)"))
    return lines


_SHOWN_NAMES = 6


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _places(names: Sequence[str], more: Mapping[str, str]) -> dict[str, int]:
    """Return the number of each name in letters alone, its side written out or not, before or behind.

    more: other words for some of the names.
    """
    found = {}
    for written, name in [*zip(names, names, strict=True), *more.items()]:
        place = names.index(name)
        side, _, rest = written.partition("_")
        if side in ("left", "right"):
            for start in (side, side[0]):
                found[start + _letters(rest)] = found[_letters(rest) + start] = place
        else:
            found[_letters(written)] = place
    return found


_PLACES = {
    "body_25b": _places(skeleton.BODY_25B_NAMES, {"head_bottom": "upper_neck"}),  # PoseTrack's word
    "h36m": _places(
        skeleton.H36M_JOINT_NAMES,
        {
            "root": "hip", "pelvis": "hip", "left_ankle": "left_foot", "right_ankle": "right_foot",
            "neck_base": "neck_nose",
        },
    ),  # MMPose's words
}  # fmt: skip
_PLACELESS = {
    _letters(name)
    for names in (skeleton.OPENPOSE_25_NAMES, skeleton.HALPE_136_NAMES, skeleton.MEDIAPIPE_NAMES)
    for name in names
} - _PLACES["body_25b"].keys()
