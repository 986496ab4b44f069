"""Files that say where people are: boxes or key points, of an annotator or of a detector, in the usual JSON shapes.

    {"a.jpg": [[x, y, width, height], ...], ...}                          by the picture's name
    [[x, y, width, height], ...]                                          of the only picture
    [{"image_id": "a.jpg" or 139, "bbox": [...], "keypoints": [...]}]     a detector's results ("file_name" will do)
    {"images": [...], "annotations": [...], "categories": [...]}          COCO's

Key points are COCO's 17 as 51 numbers x, y, v, where v is 0, 1 or 2 or, if any is no whole number, a confidence.
"""

import dataclasses
import json
import os
import pathlib
import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from dal_jax.observations.keypoints import COCO_NAMES, Keypoints, h36m_from_coco
from dal_jax.runtime.errors import InputError

KEYPOINTS_MARGIN = 1.25
"""Person's box over the box of the key points. Note: our choice; head, hands and feet reach beyond the joints."""

_SEEN_CONFIDENCE = 0.3  # of a detector's key point; below it the point counts as unknown
_SMALLEST_BOX_PX = 2.0
_LARGEST_PX = 1e6


@dataclasses.dataclass(frozen=True, eq=False)
class Detection:
    """One person as a file says. where: file and entry, to begin a line with; problem: why it cannot be used, or ''.

    bbox_px: x, y, width, height; None: the whole picture. picture_size: (width, height) if the file tells.
    """

    file_name: str
    image_id: int | str
    annotation_id: int | str
    where: str
    bbox_px: Float[np.ndarray, "4"] | None = None
    keypoints: Keypoints | None = None
    picture_size: tuple[int, int] | None = None
    problem: str = ""


def read_boxes(path: str | os.PathLike[str], names: Sequence[str]) -> list[Detection]:
    """Read people's boxes; `names` are the photographs'. Bad entries come back with their `problem`.

    Raises:
      errors.InputError: the file is no JSON of a known shape.
    """
    return _read(path, names, "bbox")


def read_keypoints(path: str | os.PathLike[str], names: Sequence[str]) -> list[Detection]:
    """Read people's key points; the box is the entry's own `bbox` or, without one, drawn round them with a margin.

    Entries without a known key point are left out.

    Raises:
      errors.InputError: the file is no JSON of a known shape.
    """
    return _read(path, names, "keypoints")


@dataclasses.dataclass
class _Raw:
    name: Any
    image_id: Any
    annotation_id: Any
    where: str
    fields: Any
    size: tuple[int, int] | None = None


def _read(path: str | os.PathLike[str], names: Sequence[str], field: str) -> list[Detection]:
    try:
        content = json.loads(pathlib.Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON: {' '.join(str(error).split())[:200]}") from error
    found = [_detection(raw, field) for raw in _entries(path, content, names, field)]
    found = [one for one in found if one is not None]
    if not found:
        raise InputError(f"{path}: no entry has '{field}'")
    seen: set[str] = set()
    for row, one in enumerate(found):
        if str(one.annotation_id) in seen and not one.problem:
            found[row] = dataclasses.replace(one, problem=f"id {one.annotation_id!r} appears twice")
        seen.add(str(one.annotation_id))
    return found


def _entries(path, content: Any, names: Sequence[str], field: str) -> list[_Raw]:
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        return _coco(path, content)
    if isinstance(content, dict) and "annotations" not in content:
        return _by_name(path, content, names, field)
    if isinstance(content, list) and all(isinstance(entry, dict) for entry in content):
        return _results(path, content, names)
    if isinstance(content, list):
        if len(names) != 1:
            raise InputError(f"{path}: is a list without names of pictures, but there are {len(names)} pictures")
        return _by_name(path, {names[0]: content}, names, field)
    raise InputError(f"{path}: is neither a list, nor an object of lists, nor COCO's images and annotations")


def _coco(path, content: dict) -> list[_Raw]:
    images = content.get("images")
    if not isinstance(images, list) or not all(isinstance(one, dict) for one in images):
        raise InputError(f"{path}: 'images' is missing or not a list of objects")
    pictures = {str(one.get("id")): one for one in images}
    kinds = content.get("categories") or []
    people = {kind.get("id") for kind in kinds if isinstance(kind, dict) and kind.get("name") == "person"}
    raws = []
    for row, entry in enumerate(content["annotations"]):
        fields = entry if isinstance(entry, dict) else {}
        if (people and fields.get("category_id") not in people) or fields.get("iscrowd"):
            continue
        picture = pictures.get(str(fields.get("image_id")), {})
        size = picture.get("width"), picture.get("height")
        known = all(type(value) is int and value > 0 for value in size)
        where = f"{path}: annotation {fields['id']}" if "id" in fields else f"{path}: annotations[{row}]"
        raws.append(_Raw(picture.get("file_name"), fields.get("image_id"), fields.get("id", row + 1), where, entry,
                         size if known else None))  # fmt: skip
    return raws


def _by_name(path, content: dict, names: Sequence[str], field: str) -> list[_Raw]:
    raws, rows = [], {name: row for row, name in enumerate(names)}
    for name, values in content.items():
        if not isinstance(values, list):
            raise InputError(f"{path}: '{name}' is {_short(values)}, expected a list with one entry a person")
        image_id = rows.get(name, len(names))
        for row, value in enumerate(values):
            raws.append(_Raw(name, image_id, len(raws) + 1, f"{path}: '{name}'[{row}]", {field: value}))
    return raws


def _results(path, content: list[dict], names: Sequence[str]) -> list[_Raw]:
    stems = {pathlib.PurePath(name).stem: name for name in names}
    numbers = {int(stem): name for stem, name in stems.items() if stem.isdecimal()}
    raws, known = [], set(names)
    for row, entry in enumerate(content):
        if entry.get("category_id", 1) != 1:  # COCO's number of a person
            continue
        image_id = entry.get("image_id", entry.get("file_name"))
        name = entry.get("file_name", image_id)
        if isinstance(name, int):
            name = numbers.get(name, str(name))
        elif isinstance(name, str) and name not in known:
            name = stems.get(name, name)
        raws.append(_Raw(name, image_id, entry.get("id", row + 1), f"{path}: entry {row}", entry))
    return raws


class _Bad(Exception):
    pass


def _detection(raw: _Raw, field: str) -> Detection | None:
    """Return what an entry says, or None where it has nothing to say."""
    identity = [value if _is_id(value) else -1 for value in (raw.image_id, raw.annotation_id)]
    name = raw.name if isinstance(raw.name, str) and raw.name.isprintable() else ""
    try:
        if not isinstance(raw.fields, dict):
            raise _Bad(f"is {_short(raw.fields)}, expected an object")
        if not name:
            raise _Bad(f"image_id {_short(raw.image_id)} names no picture")
        keypoints, box = None, None
        if field == "keypoints":
            keypoints = _keypoints(raw.fields)
            if keypoints is None:
                return None
            box = _box_of(keypoints)
            keypoints = h36m_from_coco(keypoints)
        if field == "bbox" or "bbox" in raw.fields:
            box = _box(raw.fields)
    except _Bad as bad:
        return Detection(name, *identity, raw.where, problem=str(bad))
    return Detection(name, *identity, raw.where, box, keypoints, raw.size)


def _box(fields: dict) -> Float[np.ndarray, "4"]:
    box = _numbers(fields, "bbox", 4)
    if min(box[2:]) < _SMALLEST_BOX_PX:
        raise _Bad(f"bbox {box.tolist()} is less than {_SMALLEST_BOX_PX:.0f} px wide or high")
    return box


def _keypoints(fields: dict) -> Float[np.ndarray, "17 3"] | None:
    if fields.get("keypoints") is None:
        return None
    if isinstance(fields["keypoints"], list) and len(fields["keypoints"]) == 17:  # one list a joint
        joints = [joint if isinstance(joint, list) else [joint] for joint in fields["keypoints"]]
        fields = {"keypoints": [value for joint in joints for value in joint]}
    coco = _numbers(fields, "keypoints", 3 * len(COCO_NAMES)).reshape(-1, 3)
    flags = coco[:, 2]
    if (flags < 0).any() or (flags > 2).any():
        raise _Bad(f"keypoints: a visibility is {flags[(flags < 0) | (flags > 2)][0]:g}, expected 0 to 2")
    if (flags != np.round(flags)).any():
        coco[:, 2] = np.where(flags >= _SEEN_CONFIDENCE, 2, 0)
    return coco if coco[:, 2].any() else None


def _box_of(coco: Float[np.ndarray, "17 3"]) -> Float[np.ndarray, "4"]:
    known = coco[coco[:, 2] > 0, :2]
    low, high = known.min(axis=0), known.max(axis=0)
    side = KEYPOINTS_MARGIN * (high - low)
    if max(side) < _SMALLEST_BOX_PX:
        raise _Bad(f"keypoints: all that are known lie at {low.tolist()}")
    side = np.maximum(side, _SMALLEST_BOX_PX)
    return np.array([*((low + high - side) / 2), *side])


def _numbers(fields: dict, name: str, length: int) -> Float[np.ndarray, "n"]:
    values = fields.get(name)
    if not isinstance(values, list) or len(values) != length:
        told = f"has {len(values)} values" if isinstance(values, list) else f"is {_short(values)}"
        raise _Bad(f"{name} {told}, expected {length} numbers")
    for index, value in enumerate(values):
        # bool is an int in Python, and Python's JSON reads NaN and Infinity
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST_PX:
            raise _Bad(f"{name}[{index}] is {_short(value)}")
    return np.array(values, np.float64)


def _is_id(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= 200 and value.isprintable()
    return type(value) is int and abs(value) < 2**63


def _short(value: Any) -> str:
    return reprlib.repr(value)
