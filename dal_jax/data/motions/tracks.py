"""A moving skeleton, whatever file it came from, and Human3.6M's 17 joints on it, found by name."""

import functools
import os
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dal_jax.body import skeleton
from dal_jax.body.formats import load
from dal_jax.runtime.errors import InputError


class Tracks(NamedTuple):
    """Named points and the frames that rotate with them; y up, any unit of length.

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


_FACE = ("head",)  # with whose frame nose and top of the head move, in every format


def h36m_joints(
    tracks: Tracks, names: Names, file_name: str, bones_end: bool = False
) -> Float[np.ndarray, "frames 17 3"]:
    """Return Human3.6M's joints; the hip is between the hips, the spine half-way along the back.

    The thorax is between the shoulders, where the chest carries their middle on average: files begin a neck anywhere.
    Nose and top of the head sit on the head as they do on the free body, in proportion to the trunk: files end a head
    anywhere.

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
    points = {joint: tracks.positions[:, row] for joint, row in rows.items()}
    points["hip"] = (points["right_hip"] + points["left_hip"]) / 2
    chest = tracks.rotations[:, neck if bones_end else max(tracks.parents[neck], 0)]
    points["thorax"] = _carried(
        (points["right_shoulder"] + points["left_shoulder"]) / 2, tracks.positions[:, neck], chest
    )
    back = tracks.positions[:, _between(tracks.parents, neck)]
    points["spine"] = _half_way(points["hip"], back, points["thorax"])
    across = tracks.rest[rows["left_hip"]] - tracks.rest[rows["right_hip"]]
    up = tracks.rest[neck] - (tracks.rest[rows["left_hip"]] + tracks.rest[rows["right_hip"]]) / 2
    size = np.linalg.norm(points["thorax"] - points["hip"], axis=-1).mean()
    face_rotation = tracks.rotations[:, face] @ _frame(up, across, file_name)
    for joint, place in _on_the_head().items():
        points[joint] = tracks.positions[:, head] + size * face_rotation @ place
    return np.stack([points[name] for name in skeleton.H36M_JOINT_NAMES], axis=1)


def bone_sum(joints: Float[np.ndarray, "*b 17 3"]) -> Float[np.ndarray, "*b"]:
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
def _on_the_head() -> dict[str, np.ndarray]:
    """Return where joints are from the head's: left, up, forward, in lengths of the trunk, hip to thorax."""
    body = load.load_body()
    places = np.asarray(body.h36m_regressor, np.float64) @ np.asarray(body.vertices, np.float64)
    rows = {name: row for row, name in enumerate(skeleton.H36M_JOINT_NAMES)}
    head = np.asarray(body.joints[skeleton.SMPL_JOINT_NAMES.index("head")], np.float64)
    trunk = np.linalg.norm(places[rows["thorax"]] - places[rows["hip"]])
    return {name: (places[rows[name]] - head) / trunk for name in ("neck_nose", "head")}
