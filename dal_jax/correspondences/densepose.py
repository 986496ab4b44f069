"""DensePose-COCO annotation (`densepose_coco_2014_*.json`, or your own in that form): entries to annotated people."""

import json
import pathlib
import reprlib
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from dal_jax.correspondences import keypoints as keypoints_lib, person
from dal_jax.runtime import errors

_BOX_UNITS = 255.0  # dp_x and dp_y run over the person's box
_BOX_LIMIT = 256.0  # some tools scale the box to 256
_SMALLEST_BOX_PX = 2.0
_LARGEST_BOX = 3.0  # over the image: boxes may pass the border, not dwarf the picture
_DENSE_FIELDS = ("dp_I", "dp_U", "dp_V", "dp_x", "dp_y")


PictureCheck = Callable[[str, tuple[int, int] | None], str | None]
"""Says what is wrong with a photograph of this name and (width, height), or None."""


def read_annotations(
    path: str | pathlib.Path, check_picture: PictureCheck | None = None, skip_invalid: bool = False
) -> person.Annotations:
    """Read a COCO-style file with dp_I, dp_U, dp_V, dp_x, dp_y, bbox and (optional) keypoints.

    Args:
      check_picture: asked about every person's photograph; without it photographs are not needed.
      skip_invalid: keep going over bad entries and list them as rejected.
    Raises:
      errors.InputError: the file is no such JSON, nothing in it can be used or, without `skip_invalid`, the first bad
        entry; one line with file, annotation, field and value.
    """
    pictures, raw_entries = _read_json(path)
    entries, seen, without = [], set(), 0
    for position, raw in enumerate(raw_entries):
        if isinstance(raw, dict) and not any(name in raw for name in _DENSE_FIELDS):
            without += 1
            continue
        try:
            one = _person(raw, pictures, check_picture)
            _require(one.annotation_id not in seen, "duplicate id", f"id {one.annotation_id!r} appears twice")
            seen.add(one.annotation_id)
            entries.append(one)
        except _BadEntry as bad:
            entries.append(_reject(path, position, raw, pictures, bad))
            if not skip_invalid:
                raise errors.InputError(entries[-1].message) from bad
    annotations = person.Annotations(entries, without)
    if not annotations.people:
        if entries:
            raise errors.InputError(f"{entries[0].message} (none of {len(entries)} people can be used)")
        raise errors.InputError(f"{path}: no annotation has dense points (dp_I, dp_U, dp_V, dp_x, dp_y)")
    return annotations


class _BadEntry(Exception):
    def __init__(self, kind: str, detail: str):
        super().__init__(detail)
        self.kind, self.detail = kind, detail


def _require(condition: object, kind: str, detail: str) -> None:
    if not condition:
        raise _BadEntry(kind, detail)


def _read_json(path: str | pathlib.Path) -> tuple[dict, list]:
    """Return (image entries by id, annotation entries)."""
    try:
        content = json.loads(pathlib.Path(path).read_bytes())
    except OSError as error:
        raise errors.InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # truncated, not UTF-8, nested too deep
        raise errors.InputError(f"{path}: not valid JSON: {' '.join(str(error).split())[:200]}") from error
    for name in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise errors.InputError(f"{path}: field '{name}' is missing or not a list")
    pictures = {}
    for position, picture in enumerate(content["images"]):
        if not isinstance(picture, dict) or not _is_id(picture.get("id")):
            raise errors.InputError(f"{path}: images[{position}]: field 'id' is missing or not a number or a name")
        if picture["id"] in pictures:
            raise errors.InputError(f"{path}: images[{position}]: id {picture['id']!r} appears twice")
        pictures[picture["id"]] = picture
    return pictures, content["annotations"]


def _is_id(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= 200 and value.isprintable()
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _reject(path: str | pathlib.Path, position: int, entry: object, pictures: dict, bad: _BadEntry) -> person.Rejected:
    fields = entry if isinstance(entry, dict) else {}
    annotation_id = fields["id"] if _is_id(fields.get("id")) else -1
    image_id = fields["image_id"] if _is_id(fields.get("image_id")) else -1
    name = pictures.get(image_id, {}).get("file_name", "")
    which = f"annotation {annotation_id}" if annotation_id != -1 else f"annotations[{position}]"
    message = f"{path}: {which}: {bad.detail}".replace("\n", " ")
    return person.Rejected(image_id, annotation_id, name if isinstance(name, str) else "", bad.kind, message)


def _person(entry: object, pictures: dict, check_picture: PictureCheck | None) -> person.AnnotatedPerson:
    _require(isinstance(entry, dict), "wrong type", f"is {_short(entry)}, expected an object")
    for name in ("id", "image_id"):
        _require(name in entry, "missing field", f"field '{name}' is missing")
        _require(_is_id(entry[name]), "wrong type", f"{name} is {_short(entry[name])}, expected a number or a name")
    picture = pictures.get(entry["image_id"])
    _require(picture is not None, "image not listed", f"image_id {entry['image_id']!r} is not in 'images'")
    size = _picture_size(picture)
    file_name = _file_name(picture, size, check_picture)
    bbox = _bbox(entry, size)
    part, uv, inside = _dense(entry)
    return person.AnnotatedPerson(
        image_id=entry["image_id"],
        annotation_id=entry["id"],
        file_name=file_name,
        picture_size=size,
        bbox_px=bbox,
        point_px=bbox[:2] + inside / _BOX_UNITS * bbox[2:],
        part=part,
        uv=uv,
        keypoints=_keypoints(entry),
    )


def _picture_size(picture: dict) -> tuple[int, int] | None:
    """Return (width, height) where the file names both as numbers."""
    size = picture.get("width"), picture.get("height")
    known = all(isinstance(value, int) and not isinstance(value, bool) and value > 0 for value in size)
    return size if known else None


def _file_name(picture: dict, size: tuple[int, int] | None, check_picture: PictureCheck | None) -> str:
    name = picture.get("file_name", "" if check_picture is None else None)
    _require(isinstance(name, str), "missing field", f"file_name of image {picture['id']!r} is {_short(name)}")
    path = pathlib.PurePosixPath(name.replace("\\", "/"))
    inside = not path.is_absolute() and ".." not in path.parts and ":" not in name and name.isprintable()
    _require(inside, "unsafe file name", f"file_name {_short(name)} leaves the images' folder")
    problem = check_picture(name, size) if check_picture else None
    _require(problem is None, "image missing or unreadable", str(problem))
    return name


def _bbox(entry: dict, size: tuple[int, int] | None) -> Float[np.ndarray, "4"]:
    box = _numbers(entry, "bbox", 4)
    small = min(box[2:]) < _SMALLEST_BOX_PX
    _require(not small, "degenerate box", f"bbox {box.tolist()} is less than {_SMALLEST_BOX_PX:.0f} px wide or high")
    limit = np.array(size or (1e5, 1e5))
    within = np.all(box[:2] < limit) and np.all(box[:2] + box[2:] > 0)
    _require(within, "box outside", f"bbox {box.tolist()} lies outside the image of {limit[0]:.0f}x{limit[1]:.0f} px")
    large = np.any(box[2:] > _LARGEST_BOX * limit)
    _require(not large, "box outside", f"bbox {box.tolist()} dwarfs the image of {limit[0]:.0f}x{limit[1]:.0f} px")
    return box


def _dense(entry: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (part, uv, position in the box's 0..255)."""
    values = {name: _numbers(entry, name, None) for name in _DENSE_FIELDS}
    count = len(values["dp_I"])
    _require(count > 0, "no points", "dp_I is empty")
    for name in _DENSE_FIELDS:
        same = len(values[name]) == count
        _require(same, "wrong length", f"{name} has {len(values[name])} values where dp_I has {count}")
    _check_range(values["dp_I"], "dp_I", "unknown part", 1, 24, "a part is 1 to 24")
    whole = values["dp_I"] == np.round(values["dp_I"])
    _require(whole.all(), "unknown part", f"dp_I[{np.argmin(whole)}] is {values['dp_I'][np.argmin(whole)]:g}")
    for name in ("dp_U", "dp_V"):
        _check_range(values[name], name, "outside the chart", 0, 1, "the chart is 0 to 1")
    for name in ("dp_x", "dp_y"):
        _check_range(values[name], name, "point outside the box", 0, _BOX_LIMIT, "the person's box is 0 to 255")
    uv = np.stack([values["dp_U"], values["dp_V"]], axis=-1)
    return values["dp_I"].astype(np.int64), uv, np.stack([values["dp_x"], values["dp_y"]], axis=-1)


def _check_range(values: np.ndarray, name: str, kind: str, low: float, high: float, law: str) -> None:
    slack = 1e-4 * (high - low)  # float32 round-off of whoever wrote the file
    outside = np.flatnonzero((values < low - slack) | (values > high + slack))
    if len(outside):
        raise _BadEntry(kind, f"{name}[{outside[0]}] is {values[outside[0]]:g}, {law}")


def _keypoints(entry: dict) -> keypoints_lib.Keypoints:
    if entry.get("keypoints") is None:
        return keypoints_lib.missing()
    coco = _numbers(entry, "keypoints", 3 * len(keypoints_lib.COCO_NAMES)).reshape(-1, 3)
    _require(np.abs(coco[:, :2]).max() < 1e6, "wrong key point", f"keypoints reach {np.abs(coco).max():g} px")
    known = np.isin(coco[:, 2], (0, 1, 2))
    wrong = coco[np.argmin(known), 2]
    _require(known.all(), "wrong key point", f"keypoints: a visibility is {wrong:g}, expected 0, 1 or 2")
    return keypoints_lib.h36m_from_coco(coco)


def _numbers(entry: dict, name: str, length: int | None) -> Float[np.ndarray, "n"]:
    _require(name in entry, "missing field", f"field '{name}' is missing")
    value = entry[name]
    _require(isinstance(value, list), "wrong type", f"{name} is {_short(value)}, expected a list of numbers")
    if length is not None:
        _require(len(value) == length, "wrong length", f"{name} has {len(value)} values, expected {length}")
    for index, number in enumerate(value):
        is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
        _require(is_number, "wrong type", f"{name}[{index}] is {_short(number)}, expected a number")
        finite = -1e300 < number < 1e300  # also false for NaN, and for an integer no float can hold
        _require(finite, "not finite", f"{name}[{index}] is {_short(number)}")
    return np.array(value, np.float64)


def _short(value: object) -> str:
    return reprlib.repr(value)[:60]
