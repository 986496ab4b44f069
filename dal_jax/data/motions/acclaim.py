"""Acclaim's motion in two text files: the skeleton's .asf, and the .amc of angles (mocap.cs.cmu.edu).

No kept library reads them; the format is small.
"""

import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dal_jax.data.motions import bvh
from dal_jax.data.motions.tracks import Tracks
from dal_jax.runtime import files
from dal_jax.runtime.errors import InputError

RATE = 120.0
"""Frames a second of CMU's recordings; the file does not say."""

_FREEDOMS = ("tx", "ty", "tz", "rx", "ry", "rz")
_LARGEST = 1e7


class Skeleton(NamedTuple):
    """An .asf: bones in the rest pose, parents first; bone 0 is the root, whose parent is -1.

    axes: the bones' frames; freedoms: what an .amc tells of each, in order; to_radians: of the .asf's unit of angles.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: Float[np.ndarray, "bones 3"]
    axes: Float[np.ndarray, "bones 3 3"]
    freedoms: tuple[tuple[str, ...], ...]
    to_radians: float


_Bone = tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3 3"], tuple[str, ...]]
"""A bone's offset, axis and freedoms."""


def read_skeleton(path: pathlib.Path) -> Skeleton:
    """Read an .asf.

    Raises:
      errors.InputError: one line that names file, line or bone, and word.
    """
    sections = _sections(path)
    to_radians = np.pi / 180
    for number, words in sections.get("units", ()):
        if words[0] == "angle" and words[1:] not in (["deg"], ["rad"]):
            raise InputError(f"{path}: line {number}: the unit of angles is '{' '.join(words[1:])[:40]}'")
        if words == ["angle", "rad"]:
            to_radians = 1.0
    bones = {"root": _root(path, sections, to_radians)} | _bones(path, sections, to_radians)
    parents = _parents(path, sections, bones)
    names = ("root", *parents)
    offsets, axes, freedoms = zip(*(bones[name] for name in names), strict=True)
    rows = (-1, *(names.index(parent) for parent in parents.values()))
    return Skeleton(names, rows, np.stack(offsets), np.stack(axes), freedoms, to_radians)


def read_motion(path: pathlib.Path, skeleton: Skeleton) -> Float[np.ndarray, "frames bones 6"]:
    """Read an .amc: tx, ty, tz (the file's length), rx, ry, rz (radians) of each bone and frame, else 0.

    Its `:DEGREES` or `:RADIANS` says what its angles are; without either they are in the skeleton's unit.

    Raises:
      errors.InputError: one line that names file, line or frame, and bone.
    """
    rows = {name: row for row, name in enumerate(skeleton.names)}
    header: set[str] = set()
    frames: list[_Frame] = []
    for number, words in _lines(path):
        if words[0].startswith(":"):
            header.add(words[0].upper())
            continue
        if len(words) == 1 and words[0].isdecimal():
            frames.append((words[0], {}))
            continue
        if words[0] not in rows:
            raise InputError(f"{path}: line {number}: the skeleton has no bone '{words[0][:40]}'")
        if not frames:
            raise InputError(f"{path}: line {number}: bone '{words[0]}' before the first frame's number")
        row = rows[words[0]]
        frames[-1][1][row] = _numbers(path, number, words[1:], len(skeleton.freedoms[row]))
    if not frames:
        raise InputError(f"{path}: holds no frame")
    _require_every_bone(path, skeleton, frames, ":FULLY-SPECIFIED" in header)
    motion = np.zeros((len(frames), len(rows), 6))
    columns = [[_FREEDOMS.index(freedom) for freedom in freedoms] for freedoms in skeleton.freedoms]
    for frame, (_, bones) in enumerate(frames):
        for row, values in bones.items():
            motion[frame, row, columns[row]] = values
    motion[..., 3:] *= _to_radians(path, header, skeleton)
    return motion


_Frame = tuple[str, dict[int, np.ndarray]]
"""A frame's number as the file writes it, and the values of each bone's row."""


def _require_every_bone(path: pathlib.Path, skeleton: Skeleton, frames: list[_Frame], fully: bool) -> None:
    """Refuse a frame without bones that another frame has or, if the file is fully specified, that can move."""
    moving = {row for row, freedoms in enumerate(skeleton.freedoms) if freedoms}
    wanted = moving if fully else {row for _, bones in frames for row in bones}
    for number, bones in frames:
        if missing := sorted(wanted - bones.keys()):
            names = ", ".join(skeleton.names[row] for row in missing[:3])
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise InputError(f"{path}: frame {number[:20]}: no values of {names}{more}; is the file cut off?")


def _to_radians(path: pathlib.Path, header: set[str], skeleton: Skeleton) -> float:
    units = header & {":DEGREES", ":RADIANS"}
    if len(units) > 1:
        raise InputError(f"{path}: says both :DEGREES and :RADIANS")
    return {":DEGREES": np.pi / 180, ":RADIANS": 1.0}[units.pop()] if units else skeleton.to_radians


def pose(skeleton: Skeleton, motion: Float[np.ndarray, "frames bones 6"]) -> Tracks:
    """Return where each bone ends: rotated about its own axes, by the angles in the order of its freedoms.

    The root stands where the motion says.
    """
    rotation = np.broadcast_to(np.eye(3), (*motion.shape[:2], 3, 3)).copy()
    place, rest = np.zeros((*motion.shape[:2], 3)), skeleton.offsets.copy()
    place[:, 0] = motion[:, 0, :3]
    for row, (parent, frame) in enumerate(zip(skeleton.parents, skeleton.axes, strict=True)):
        for axis in ("xyz".index(freedom[1]) for freedom in skeleton.freedoms[row] if freedom[0] == "r"):
            rotation[:, row] = bvh.about(axis, motion[:, row, 3 + axis]) @ rotation[:, row]
        rotation[:, row] = frame @ rotation[:, row] @ frame.T
        if parent >= 0:
            rotation[:, row] = rotation[:, parent] @ rotation[:, row]
            place[:, row] = place[:, parent] + rotation[:, row] @ skeleton.offsets[row]
            rest[row] += rest[parent]
    return Tracks(skeleton.names, skeleton.parents, rest, place, rotation)


def _root(path: pathlib.Path, sections: dict, to_radians: float) -> _Bone:
    fields = {words[0]: (number, words[1:]) for number, words in sections.get("root", ())}
    number, order = fields.get("order", (0, []))
    freedoms = tuple(word.lower() for word in order)
    if not set(freedoms) <= set(_FREEDOMS) or not freedoms:
        raise InputError(f"{path}: line {number}: the root's order is '{' '.join(order)[:40]}'")
    axis_line, axis = fields.get("axis", (0, ["XYZ"]))
    _, angles = fields.get("orientation", (axis_line, ["0", "0", "0"]))
    return np.zeros(3), _axis(path, axis_line, [*angles, *axis], to_radians), freedoms


def _bones(path: pathlib.Path, sections: dict, to_radians: float) -> dict[str, _Bone]:
    bones, fields = {}, {}
    for number, words in sections.get("bonedata", ()):
        if words[0] == "begin":
            fields = {}
        elif words[0] != "end":
            fields.setdefault(words[0], (number, words[1:]))
            continue
        else:
            missing = {"name", "direction", "length", "axis"} - fields.keys()
            if missing:
                raise InputError(f"{path}: line {number}: a bone without {', '.join(sorted(missing))}")
            name = " ".join(fields["name"][1])
            bones[name] = _bone(path, fields, to_radians)
    if not bones:
        raise InputError(f"{path}: no :bonedata")
    return bones


def _bone(path: pathlib.Path, fields: dict[str, tuple[int, list[str]]], to_radians: float) -> _Bone:
    direction = _numbers(path, *fields["direction"], 3)
    length = _numbers(path, *fields["length"], 1)[0]
    number, dof = fields.get("dof", (0, []))
    freedoms = tuple(word.lower() for word in dof)
    if not set(freedoms) <= set(_FREEDOMS):
        raise InputError(f"{path}: line {number}: dof is '{' '.join(dof)[:40]}'")
    return length * direction, _axis(path, *fields["axis"], to_radians), freedoms


def _axis(path: pathlib.Path, number: int, words: list[str], to_radians: float) -> Float[np.ndarray, "3 3"]:
    """Return the frame of three angles and an order: of XYZ x rotates first."""
    if len(words) != 4 or sorted(words[3].upper()) != ["X", "Y", "Z"]:
        raise InputError(f"{path}: line {number}: axis is '{' '.join(words)[:60]}', not three angles and XYZ")
    angles = _numbers(path, number, words[:3], 3) * to_radians
    frame = np.eye(3)
    for letter, angle in zip(words[3].upper(), angles, strict=True):
        frame = bvh.about("XYZ".index(letter), angle) @ frame
    return frame


def _parents(path: pathlib.Path, sections: dict, bones: dict[str, _Bone]) -> dict[str, str]:
    """Return each bone's parent, parents first."""
    parents: dict[str, str] = {}
    for number, words in sections.get("hierarchy", ()):
        if words[0] in ("begin", "end"):
            continue
        for name in words:
            if name not in bones:
                raise InputError(f"{path}: line {number}: no bone '{name[:40]}'")
        if words[0] != "root" and words[0] not in parents:
            raise InputError(f"{path}: line {number}: bone '{words[0]}' hangs on nothing yet")
        for child in words[1:]:
            if child in parents or child == "root":
                raise InputError(f"{path}: line {number}: bone '{child}' hangs on two")
            parents[child] = words[0]
    return parents


def _sections(path: pathlib.Path) -> dict[str, list[tuple[int, list[str]]]]:
    """Return each section's lines, with their numbers."""
    sections: dict[str, list[tuple[int, list[str]]]] = {}
    current: list[tuple[int, list[str]]] = []
    for number, words in _lines(path):
        if words[0].startswith(":"):
            current = sections.setdefault(words[0][1:].lower(), [])
        else:
            current.append((number, words))
    return sections


def _lines(path: pathlib.Path) -> list[tuple[int, list[str]]]:
    text = files.read_text(path).splitlines()
    lines = ((number, line.split("#")[0].split()) for number, line in enumerate(text, start=1))
    return [(number, words) for number, words in lines if words]


def _numbers(path: pathlib.Path, number: int, words: list[str], count: int) -> Float[np.ndarray, "count"]:
    try:
        values = np.array(words, np.float64)
    except ValueError:
        raise InputError(f"{path}: line {number}: '{' '.join(words)[:60]}' are not {count} numbers") from None
    if values.shape != (count,) or not (np.abs(values) <= _LARGEST).all():
        raise InputError(f"{path}: line {number}: '{' '.join(words)[:60]}' are not {count} finite numbers")
    return values
