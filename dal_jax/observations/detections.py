"""People in photographs by a detector's or an annotator's boxes or key points, in any form that `pose_files` reads.

Beside the files of detectors these are read:

    {"a.jpg": [[x, y, width, height], ...], ...}     by the picture's name
    [[x, y, width, height], ...]                     of the only picture

Without a file each photograph shows one person.
"""

import functools
import os
import pathlib
import reprlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from dal_jax.observations import coco, keypoints, person, photographs
from dal_jax.observations.coco import BadEntry, Content, Labelling
from dal_jax.observations.keypoints import Keypoints
from dal_jax.observations.person import CROP_MARGIN, AnnotatedPerson, Annotations, Rejected
from dal_jax.runtime import files
from dal_jax.runtime.errors import InputError

_LARGEST_PX = 1e6
_LARGEST_BOX = 3.0  # over the picture: a box may pass the border, not dwarf the picture

Path = str | os.PathLike[str]


Detected = tuple[str, AnnotatedPerson | Rejected]
"""File and entry of a person, to begin a line with; the person as the file describes it, or why it cannot be used."""


def list_photographs(images: Path) -> list[pathlib.Path]:
    """Return a folder's photographs in the order of their names, or one picture alone.

    Raises:
      errors.InputError: there is no such folder or picture, or no photograph in it.
    """
    path = pathlib.Path(images)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder")
    found = sorted(one for one in path.iterdir() if one.suffix.lower() in photographs.ENDINGS and one.is_file())
    found = [one for one in found if not one.name.lower().endswith(photographs.DENSEPOSE_OUTPUT)]
    if not found:
        endings = ", ".join(ending for ending in photographs.ENDINGS if ending.islower())
        raise InputError(f"{path}: holds no photograph ({endings})")
    return found


def people(
    pictures: Sequence[pathlib.Path], found: Sequence[Detected] | None = None, skip_invalid: bool = False
) -> Annotations:
    """Return the people of photographs, checked against the pictures' sizes; they have no dense points.

    Args:
      pictures: photographs of one folder.
      found: people by box or key points (`read_boxes`, `read_keypoints`). None: each picture shows one person, and its
        square crop is the picture itself, without a margin.
      skip_invalid: keep going over bad entries and list them as rejected.

    Raises:
      errors.InputError: the first bad entry, or no person is left, or the boxes are [x1, y1, x2, y2].
    """
    paths, size_of = {path.name: path for path in pictures}, functools.cache(_size)
    if found is None:
        found = [(path.name, _whole(path.name, row, size_of(path))) for row, path in enumerate(pictures)]
    entries: list[AnnotatedPerson | Rejected] = []
    for where, one in found:
        entry = one if isinstance(one, Rejected) else _checked(where, one, paths, size_of)
        if isinstance(entry, Rejected) and not skip_invalid:
            raise InputError(entry.message)
        entries.append(entry)
    used = [(where, one) for (where, _), one in zip(found, entries, strict=True) if isinstance(one, AnnotatedPerson)]
    sizes = [size_of(paths[one.file_name]) for _, one in used]
    person.refuse_corners(
        (where, one, size) for (where, one), size in zip(used, sizes, strict=True) if isinstance(size, tuple)
    )
    notes = keypoints.notes((where, one.keypoints) for where, one in found if isinstance(one, AnnotatedPerson))
    notes += person.box_notes(used)
    annotations = Annotations(entries, images=str(pictures[0].parent) if pictures else "", notes=notes)
    if not annotations.people:
        rejected = annotations.rejected
        raise InputError(
            f"{rejected[0].message} (none of {len(entries)} people can be used)" if entries else "there are no people"
        )
    return annotations


def read_boxes(path: Path, pictures: Sequence[Path]) -> list[Detected]:
    """Read people's boxes; `pictures` are the photographs. Bad entries come back as rejected.

    Raises:
      errors.InputError: the file is of no known format.
    """
    return _read(path, pictures, "bbox")


def read_keypoints(path: Path, pictures: Sequence[Path]) -> list[Detected]:
    """Read people's key points; the box is the entry's own `bbox` or, without one, drawn round them with a margin.

    Entries without a known key point are left out.

    Raises:
      errors.InputError: the file is of no known format.
    """
    return _read(path, pictures, "keypoints")


def _read(path: Path, pictures: Sequence[Path], field: str) -> list[Detected]:
    content = coco.read(pathlib.Path(path), pictures)
    found: list[Detected] = []
    seen: set[str] = set()
    for row, (where, entry) in enumerate(zip(content.where, content.entries, strict=True)):
        one = None if _is_no_person(entry, content.labels) else _person(where, row, entry, field, content)
        if one is None:
            continue
        if str(one.annotation_id) in seen and isinstance(one, AnnotatedPerson):
            problem = f"{where}: id {one.annotation_id!r} appears twice"
            one = Rejected(one.image_id, one.annotation_id, one.file_name, _BAD, problem)
        seen.add(str(one.annotation_id))
        found.append((where, one))
    if not found:
        raise InputError(f"{path}: no entry has '{field}'")
    return found


def _is_no_person(entry: Any, labels: Labelling) -> bool:
    """Tell whether an entry is of a crowd, or of another category than people, where the file has these."""
    fields = entry if isinstance(entry, dict) else {}
    kind = fields.get("category_id")
    other = labels.person_ids and coco.is_id(kind) and kind not in labels.person_ids
    return bool(other or fields.get("iscrowd"))


def _person(where: str, row: int, entry: Any, field: str, content: Content) -> AnnotatedPerson | Rejected | None:
    """Return what an entry tells, or None where it has no labelled key point."""
    fields = entry if isinstance(entry, dict) else {}
    picture = coco.picture_of(content.pictures, entry) or {}
    ids: Any = fields.get("image_id"), fields.get("id", row + 1)
    image_id, annotation_id = (value if coco.is_id(value) else -1 for value in ids)
    name: Any = picture.get("file_name")
    name = name if isinstance(name, str) and name.isprintable() else ""
    name = files.name_inside(name) or name
    try:
        kind = fields.get("category_id")
        if kind is not None and not coco.is_id(kind):
            raise _bad(f"category_id is {_short(kind)}, expected a number")
        if not isinstance(entry, dict):
            raise _bad(f"is {_short(entry)}, expected an object")
        if not name:
            raise _bad(f"image_id {_short(ids[0])} names no picture")
        labelled, box = keypoints.missing(), None
        if field == "keypoints":
            labelled = coco.parse(fields, content.labels)
            if not (labelled.flag > 0).any() and not labelled.left_out:
                return None
            box = coco.box_round(labelled)
        if box is None or "bbox" in fields:
            box = _box(fields)
    except BadEntry as bad:
        return Rejected(image_id, annotation_id, name, _BAD, f"{where}: {bad.detail}")
    return _without_points(image_id, annotation_id, name, coco.picture_size(picture), box, labelled)


def _without_points(
    image_id: int | str,
    annotation_id: int | str,
    file_name: str,
    picture_size: tuple[int, int] | None,
    bbox_px: Float[np.ndarray, "4"],
    labelled: Keypoints,
    crop_margin: float = CROP_MARGIN,
) -> AnnotatedPerson:
    part, uv = np.zeros(0, np.int64), np.zeros((0, 2))
    return AnnotatedPerson(
        image_id, annotation_id, file_name, picture_size, bbox_px, np.zeros((0, 2)), part, uv, labelled, crop_margin
    )


_BAD = "bad entry"


def _bad(detail: str) -> BadEntry:
    return BadEntry(_BAD, detail)


def _box(fields: dict) -> Float[np.ndarray, "4"]:
    box = _numbers(fields, "bbox", 4)
    if min(box[2:]) < coco.SMALLEST_BOX_PX:
        raise _bad(f"bbox {box.tolist()} is less than {coco.SMALLEST_BOX_PX:.0f} px wide or high")
    return box


def _numbers(fields: dict, name: str, length: int) -> Float[np.ndarray, "n"]:
    values = fields.get(name)
    if not isinstance(values, list) or len(values) != length:
        message = f"has {len(values)} values" if isinstance(values, list) else f"is {_short(values)}"
        raise _bad(f"{name} {message}, expected {length} numbers")
    for index, value in enumerate(values):
        # bool is an int in Python, and Python's JSON reads NaN and Infinity
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST_PX:
            raise _bad(f"{name}[{index}] is {_short(value)}")
    return np.array(values, np.float64)


def _short(value: Any) -> str:
    return reprlib.repr(value)


def _whole(name: str, row: int, size: tuple[int, int] | str) -> AnnotatedPerson | Rejected:
    """Return the one person of a picture of a size, or of a fault."""
    if isinstance(size, str):
        return Rejected(row, row + 1, name, "unreadable picture", size)
    return _without_points(row, row + 1, name, None, np.array([0.0, 0.0, *size]), keypoints.missing(), crop_margin=1.0)


def _checked(
    where: str,
    one: AnnotatedPerson,
    paths: dict[str, pathlib.Path],
    size_of: Callable[[pathlib.Path], tuple[int, int] | str],
) -> AnnotatedPerson | Rejected:
    """Return a person, or why it cannot be used; size_of: returns a picture's (width, height), or its fault."""

    def reject(kind: str, message: str) -> Rejected:
        return Rejected(one.image_id, one.annotation_id, one.file_name, kind, message)

    if one.file_name not in paths:
        folder = next(iter(paths.values())).parent
        return reject("image missing", f"{where}: there is no photograph '{one.file_name}' in {folder}")
    size = size_of(paths[one.file_name])
    if isinstance(size, str):
        return reject("unreadable picture", size)
    size, bbox = one.picture_size or size, one.bbox_px
    if np.any(bbox[:2] >= size) or np.any(bbox[:2] + bbox[2:] <= 0):
        return reject("box outside", f"{where}: {bbox.tolist()} lies outside the {size[0]}x{size[1]} picture")
    if np.any(bbox[2:] > _LARGEST_BOX * np.array(size)):
        return reject("box outside", f"{where}: {bbox.tolist()} dwarfs the {size[0]}x{size[1]} picture")
    return one


def _size(path: pathlib.Path) -> tuple[int, int] | str:
    try:
        return photographs.upright_size(path)
    except InputError as error:
        return str(error)
