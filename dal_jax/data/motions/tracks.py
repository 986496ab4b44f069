"""A moving skeleton, whatever file it came from: Human3.6M's 17 joints on it, by name, and which way is up."""

import functools
import os
import pathlib
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dal_jax.body import skeleton
from dal_jax.body.formats import load
from dal_jax.runtime.errors import InputError


class Tracks(NamedTuple):
    """Named points and the frames that rotate with them; in any world and unit of length.

    rotations: each point's frame to the world, the identity in the rest pose.
    rest: the points in the rest pose; parents: -1 for the root; a parent comes before its children.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    rest: Float[np.ndarray, "points 3"]
    positions: Float[np.ndarray, "frames points 3"]
    rotations: Float[np.ndarray, "frames points 3 3"]


Names = dict[str, tuple[str, ...]]
"""How a file format calls Human3.6M's joints, sides together: alternatives, of which the first that is there is meant.

* is the side: right, r, left, l.
"""

BVH: Names = {
    "hip": ("*upleg", "*thigh", "*upperleg", "upperleg*", "thigh*", "*hip"),
    "knee": ("*leg", "*shin", "*lowerleg", "lowerleg*", "calf*", "*calf", "*knee"),
    "foot": ("*ankle", "*foot", "foot*"),
    "shoulder": ("*arm", "*shldr", "*upperarm", "upperarm*", "*shoulder"),
    "elbow": ("*forearm", "*lowerarm", "lowerarm*", "forearm*", "*elbow"),
    "wrist": ("*wrist", "*hand", "hand*"),
    "neck": ("neck",),
    "head": ("head",),
}
"""Of CMU's BVH conversions, Mixamo, LaFAN1, 100STYLE, Bandai Namco's and SMPL's."""

ACCLAIM: Names = {
    "hip": ("*hipjoint",), "knee": ("*femur",), "foot": ("*tibia",), "shoulder": ("*clavicle",),
    "elbow": ("*humerus",), "wrist": ("*radius",), "neck": ("thorax",), "head": ("upperneck",),
}  # fmt: skip
"""Of CMU's .asf skeletons."""


def frame_step(recorded: float, wanted: float) -> int:
    """Return every how many frames of a recording one is taken, both in frames a second."""
    return max(1, round(recorded / wanted))


def at_rest(tracks: Tracks) -> Tracks:
    """Return a single frame: the rest pose."""
    return tracks._replace(positions=tracks.rest[None], rotations=np.tile(np.eye(3), (1, len(tracks.names), 1, 1)))


_FACE = ("head",)  # with whose frame nose and top of the head move, in every format


def h36m_joints(
    tracks: Tracks, names: Names, file_name: str, bones_end: bool = False
) -> Float[np.ndarray, "frames 17 3"]:
    """Return Human3.6M's joints; the hip is between the hips, the spine half-way along the back.

    A file has the ends of bones. The joints lie beside them as they do on the free body in its T-pose, in proportion
    to the trunk, halfway between the frames of the bones above and below; those of the head beside the head's, the
    thorax beside the middle of the shoulders, where the chest carries it on average: files begin a neck anywhere.
    Note: the frames are those of the file's rest pose, taken for a T-pose; of arms that hang in it elbows and wrists
    are some 2 cm off.

    Args:
      tracks: the moving skeleton.
      names: of its points.
      file_name: as errors name it.
      bones_end: whether a point, and the frame of its name, belong to the bone that ends there, else to the one that
        begins.

    Raises:
      errors.InputError: a joint is not there under any of its names.
    """
    find = functools.partial(_find, tracks.names, file_name=file_name)
    rows = {
        f"{side}_{joint}": find(names[joint], side)
        for side in ("right", "left")
        for joint in ("hip", "knee", "foot", "shoulder", "elbow", "wrist")
    }
    neck, head, face = find(names["neck"]), find(names["head"]), find(_FACE)
    ends = {joint: tracks.positions[:, row] for joint, row in rows.items()}
    chest = tracks.rotations[:, neck if bones_end else max(tracks.parents[neck], 0)]
    shoulders = _carried((ends["right_shoulder"] + ends["left_shoulder"]) / 2, tracks.positions[:, neck], chest)
    hips = (ends["right_hip"] + ends["left_hip"]) / 2
    across = tracks.rest[rows["left_hip"]] - tracks.rest[rows["right_hip"]]
    up = tracks.rest[neck] - (tracks.rest[rows["left_hip"]] + tracks.rest[rows["right_hip"]]) / 2
    frame, size = _frame(up, across, file_name), np.linalg.norm(shoulders - hips, axis=-1).mean()

    def beside(end: np.ndarray, rotation: np.ndarray, joint: str) -> np.ndarray:
        return end + size * rotation @ frame @ _beside_bones()[joint]

    points = {joint: beside(ends[joint], _about(tracks, row, bones_end, joint), joint) for joint, row in rows.items()}
    points |= {joint: beside(tracks.positions[:, head], tracks.rotations[:, face], joint) for joint in _ON_THE_HEAD}
    points["thorax"] = beside(shoulders, chest, "thorax")
    points["hip"] = (points["right_hip"] + points["left_hip"]) / 2
    back = tracks.positions[:, _between(tracks.parents, neck)]
    points["spine"] = _half_way(points["hip"], back, points["thorax"])
    return np.stack([points[name] for name in skeleton.H36M_JOINT_NAMES], axis=1)


_ON_THE_HEAD = ("neck_nose", "head")


def _about(tracks: Tracks, row: int, bones_end: bool, joint: str) -> Float[np.ndarray, "frames 3 3"]:
    """Return the mean rotation of the bones above and below a joint: of a hip the pelvis' alone."""
    above = row if bones_end else max(tracks.parents[row], 0)
    below = next((child for child, parent in enumerate(tracks.parents) if parent == row), row) if bones_end else row
    hip = joint.endswith("hip")
    return tracks.rotations[:, above] if hip else (tracks.rotations[:, above] + tracks.rotations[:, below]) / 2


def bone_sum(joints: Float[np.ndarray, "*b 17 3"]) -> Float[np.ndarray, "*b"] | np.floating:
    """Return the summed length of the 16 bones."""
    parents = np.array(skeleton.H36M_PARENTS[1:])
    return np.linalg.norm(joints[..., 1:, :] - joints[..., parents, :], axis=-1).sum(axis=-1)


def _find(names: tuple[str, ...], wanted: Iterable[str], side: str = "", *, file_name: str) -> int:
    shared = os.path.commonprefix(names).rfind("_") + 1  # noqa: RUF071  character by character: 'Character1_'
    plain = [re.sub(r"[^a-z0-9]", "", name[shared:].lower().rpartition(":")[2]) for name in names]
    options = [option.replace("*", word) for option in wanted for word in ((side, side[:1]) if side else ("",))]
    for option in options:
        if option in plain:
            return plain.index(option)
    raise InputError(f"{file_name}: no joint is named {' or '.join(options[:4])}; it has {', '.join(names)}")


def _between(parents: tuple[int, ...], neck: int) -> list[int]:
    """Return the points on the way from the root, which is not among them, up to the neck, which is not either."""
    path = [parents[neck]]
    while path[-1] > 0:
        path.append(parents[path[-1]])
    return [point for point in reversed(path) if point > 0]


def _carried(
    moving: Float[np.ndarray, "frames 3"],
    origin: Float[np.ndarray, "frames 3"],
    rotation: Float[np.ndarray, "frames 3 3"],
) -> Float[np.ndarray, "frames 3"]:
    """Return the point that a frame carries where a moving point is on average, seen from it."""
    place = np.einsum("fji,fj->fi", rotation, moving - origin).mean(axis=0)
    return origin + rotation @ place


def _half_way(
    hip: np.ndarray, back: Float[np.ndarray, "frames k 3"], neck: np.ndarray
) -> Float[np.ndarray, "frames 3"]:
    """Return the point half-way along hip, back, neck."""
    line = np.concatenate([hip[:, None], back, neck[:, None]], axis=1)
    length = np.linalg.norm(np.diff(line, axis=1), axis=-1)
    ends = np.cumsum(length, axis=1)
    wanted = ends[:, -1] / 2
    piece = np.argmax(ends >= wanted[:, None], axis=1)
    row = np.arange(len(line))
    share = 1 - (ends[row, piece] - wanted) / np.maximum(length[row, piece], 1e-9)
    return line[row, piece] + share[:, None] * (line[row, piece + 1] - line[row, piece])


def _frame(up: np.ndarray, left: np.ndarray, file_name: str) -> Float[np.ndarray, "3 3"]:
    """Return the rest skeleton's own axes as columns: left, up, forward."""
    up_length = np.linalg.norm(up)
    up = up / max(up_length, 1e-9)
    left = left - (left @ up) * up
    if min(up_length, np.linalg.norm(left)) < 1e-6:
        raise InputError(f"{file_name}: in the rest pose the hips, or the hips and the neck, are at one place")
    left = left / np.linalg.norm(left)
    return np.stack([left, up, np.cross(left, up)], axis=1)


@functools.cache
def _beside_bones() -> dict[str, np.ndarray]:
    """Return where joints are from the ends of bones: left, up, forward, in lengths of the trunk, hips to shoulders."""
    body = load.load_body()
    places = np.asarray(body.h36m_regressor, np.float64) @ np.asarray(body.vertices, np.float64)
    ends = dict(zip(skeleton.SMPL_JOINT_NAMES, np.asarray(body.joints, np.float64), strict=True))
    shoulders = (ends["left_shoulder"] + ends["right_shoulder"]) / 2
    trunk = np.linalg.norm(shoulders - (ends["left_hip"] + ends["right_hip"]) / 2)
    ends |= {"left_foot": ends["left_ankle"], "right_foot": ends["right_ankle"], "thorax": shoulders}
    ends |= dict.fromkeys(_ON_THE_HEAD, ends["head"])
    rows = zip(skeleton.H36M_JOINT_NAMES, places, strict=True)
    return {name: (place - ends[name]) / trunk for name, place in rows if name in ends}


# --- Which way is up: looked at, because few formats say, and exporters turn worlds as they like ---

TO_Y_UP = {
    "x": np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
    "-x": np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
    "y": np.eye(3),
    "-y": np.diag([1.0, -1.0, -1.0]),
    "z": np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]),
    "-z": np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]),
}
"""The rotation to a world whose y is up, of one where another axis is: that axis is the second row."""

_UPRIGHT = np.cos(np.pi / 4)  # a trunk that leans no further than 45 degrees is upright along one axis at most
_MOST = 0.9  # share of the frames in which the trunk is upright along an axis that is not the usual one
_FAR = 2.0  # lengths of the trunk: people who go further, and not along it, are on their feet
_LEVEL = 3.0  # times as far across the trunk as along it


def find_up(
    path: pathlib.Path,
    trunk: Float[np.ndarray, "frames 3"],
    usual: str,
    places: Float[np.ndarray, "frames 3"] | None = None,
    rest: Float[np.ndarray, "2 3"] | None = None,
) -> tuple[Float[np.ndarray, "3 3"], str]:
    """Return the rotation to a world whose y is up, and a note where up is not what it usually is, else ''.

    The usual axis is up where the trunk is upright along it in half of the frames. Another one is up where the trunk
    is upright along it in nearly all of them and these are not people who lie or swim: it is the usual one upside down,
    the skeleton at rest stands along it, or people go far across their trunks. Else the usual one is kept.

    Args:
      path: of the recording, for the note.
      trunk: from the hips to the shoulders. usual: the format's axis, of `TO_Y_UP`.
      places: of the hips, in the trunk's unit, None if unknown.
      rest: of the skeleton at rest, trunk and legs, both upwards; None of a format that fixes it.
    """
    along = _along(trunk)
    if np.mean(along[usual] > _UPRIGHT) >= 0.5:
        return TO_Y_UP[usual], ""
    best = max(along, key=lambda axis: np.mean(along[axis] > _UPRIGHT))
    upright = along[best] > _UPRIGHT
    if np.mean(upright) >= _MOST and (
        np.array_equal(TO_Y_UP[best][1], -TO_Y_UP[usual][1])
        or (rest is not None and (_along(rest)[best] > _UPRIGHT).all())
        or (places is not None and _walks(places[upright], trunk, TO_Y_UP[best][1]))
    ):
        return TO_Y_UP[best], f"{path}: {best} is up, not {usual} as usual"
    return TO_Y_UP[usual], f"{path}: {usual} is taken for up as usual, though people are not upright along it"


def _along(vectors: Float[np.ndarray, "n 3"]) -> dict[str, Float[np.ndarray, "n"]]:
    """Return the cosine of each vector with each axis; 0 of a vector without length."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
    return {axis: unit @ rotation[1] for axis, rotation in TO_Y_UP.items()}


def _walks(places: Float[np.ndarray, "k 3"], trunk: Float[np.ndarray, "frames 3"], up: Float[np.ndarray, "3"]) -> bool:
    """Tell whether people go far, and hardly up or down."""
    extent = np.ptp(places, axis=0)
    across = np.max(extent * (up == 0))
    size = np.linalg.norm(trunk, axis=-1).mean()
    return bool(across > _FAR * size and across > _LEVEL * np.max(extent * (up != 0)))
