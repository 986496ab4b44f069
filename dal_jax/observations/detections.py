"""People in photographs by a detector's or an annotator's boxes or key points, in any form that `pose_files` reads.

Beside the files of detectors these are read:

    {"a.jpg": [[x, y, width, height], ...], ...}     by the picture's name
    [[x, y, width, height], ...]                     of the only picture

Without a file each photograph shows one person.
"""

import dataclasses
import os
import pathlib
import reprlib
from collections.abc import Iterator, Sequence
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


@dataclasses.dataclass(frozen=True, eq=False)
class Detection:
    """One person as a file describes it.

    where: file and entry, to begin a line with. problem: why it cannot be used, or ''.
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
    pictures: Sequence[pathlib.Path], found: Sequence[Detection] | None = None, skip_invalid: bool = False
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
    if found is None:
        found = [Detection(path.name, row, row + 1, path.name) for row, path in enumerate(pictures)]
    paths = {path.name: path for path in pictures}
    sizes: dict[str, tuple[int, int] | str] = {}
    entries: list[AnnotatedPerson | Rejected] = []
    for one in found:
        entry = _entry(paths, one, sizes)
        if isinstance(entry, Rejected) and not skip_invalid:
            raise InputError(entry.message)
        entries.append(entry)
    used = [(one, entry) for one, entry in zip(found, entries, strict=True) if isinstance(entry, AnnotatedPerson)]
    person.refuse_corners(
        (one.where, entry, size) for one, entry in used if isinstance(size := sizes[one.file_name], tuple)
    )
    notes = keypoints.notes((one.where, one.keypoints) for one in found if one.keypoints is not None)
    notes += person.box_notes((one.where, entry) for one, entry in used)
    annotations = Annotations(entries, images=str(pictures[0].parent) if pictures else "", notes=notes)
    if not annotations.people:
        rejected = annotations.rejected
        raise InputError(
            f"{rejected[0].message} (none of {len(entries)} people can be used)" if entries else "there are no people"
        )
    return annotations


def read_boxes(path: Path, pictures: Sequence[Path]) -> list[Detection]:
    """Read people's boxes; `pictures` are the photographs. Bad entries come back with their `problem`.

    Raises:
      errors.InputError: the file is of no known format.
    """
    return _read(path, pictures, "bbox")


def read_keypoints(path: Path, pictures: Sequence[Path]) -> list[Detection]:
    """Read people's key points; the box is the entry's own `bbox` or, without one, drawn round them with a margin.

    Entries without a known key point are left out.

    Raises:
      errors.InputError: the file is of no known format.
    """
    return _read(path, pictures, "keypoints")


def _read(path: Path, pictures: Sequence[Path], field: str) -> list[Detection]:
    content = coco.read(pathlib.Path(path), pictures)
    found = [_detection(bare, fields, field, content.labels) for bare, fields in _entries(content)]
    found = [one for one in found if one is not None]
    if not found:
        raise InputError(f"{path}: no entry has '{field}'")
    seen: set[str] = set()
    for row, one in enumerate(found):
        if str(one.annotation_id) in seen and not one.problem:
            found[row] = dataclasses.replace(one, problem=f"id {one.annotation_id!r} appears twice")
        seen.add(str(one.annotation_id))
    return found


def _entries(content: Content) -> Iterator[tuple[Detection, Any]]:
    """Yield each entry with what its place in the file tells: no box, no key points, and its ids unchecked."""
    for row, (where, entry) in enumerate(zip(content.where, content.entries, strict=True)):
        fields = entry if isinstance(entry, dict) else {}
        kind, people = fields.get("category_id"), content.labels.person_ids
        known = kind is None or coco.is_id(kind)
        other = people and known and kind is not None and kind not in people
        if other or fields.get("iscrowd"):
            continue
        problem = "" if known else f"category_id is {_short(kind)}, expected a number"
        picture = coco.picture_of(content.pictures, entry) or {}
        name: Any = picture.get("file_name")
        image_id: Any = fields.get("image_id")
        size = coco.picture_size(picture)
        yield Detection(name, image_id, fields.get("id", row + 1), where, picture_size=size, problem=problem), entry


def _detection(bare: Detection, fields: Any, field: str, labels: Labelling) -> Detection | None:
    """Return what an entry tells, or None where it has no labelled key point."""
    image_id, annotation_id = (value if coco.is_id(value) else -1 for value in (bare.image_id, bare.annotation_id))
    name = bare.file_name if isinstance(bare.file_name, str) and bare.file_name.isprintable() else ""
    name = files.name_inside(name) or name
    try:
        if bare.problem:
            raise _bad(bare.problem)
        if not isinstance(fields, dict):
            raise _bad(f"is {_short(fields)}, expected an object")
        if not name:
            raise _bad(f"image_id {_short(bare.image_id)} names no picture")
        labelled, box = None, None
        if field == "keypoints":
            labelled = coco.parse(fields, labels)
            if not (labelled.flag > 0).any() and not labelled.left_out:
                return None
            box = coco.box_round(labelled)
        if field == "bbox" or "bbox" in fields:
            box = _box(fields)
    except BadEntry as bad:
        return Detection(name, image_id, annotation_id, bare.where, problem=bad.detail)
    return Detection(name, image_id, annotation_id, bare.where, box, labelled, bare.picture_size)


def _bad(detail: str) -> BadEntry:
    return BadEntry("bad entry", detail)


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


def _entry(
    paths: dict[str, pathlib.Path], one: Detection, sizes: dict[str, tuple[int, int] | str]
) -> AnnotatedPerson | Rejected:
    """Return a person, or why it cannot be used; `sizes` remembers each picture's (width, height) or its fault."""

    def reject(kind: str, message: str) -> Rejected:
        return Rejected(one.image_id, one.annotation_id, one.file_name, kind, message)

    if one.problem:
        return reject("bad entry", f"{one.where}: {one.problem}")
    if one.file_name not in paths:
        folder = next(iter(paths.values())).parent
        return reject("image missing", f"{one.where}: there is no photograph '{one.file_name}' in {folder}")
    if one.file_name not in sizes:
        sizes[one.file_name] = _size(paths[one.file_name])
    size = sizes[one.file_name]
    if isinstance(size, str):
        return reject("unreadable picture", size)
    size = one.picture_size or size
    bbox = np.array([0.0, 0.0, *size]) if one.bbox_px is None else one.bbox_px
    if np.any(bbox[:2] >= size) or np.any(bbox[:2] + bbox[2:] <= 0):
        return reject("box outside", f"{one.where}: {bbox.tolist()} lies outside the {size[0]}x{size[1]} picture")
    if np.any(bbox[2:] > _LARGEST_BOX * np.array(size)):
        return reject("box outside", f"{one.where}: {bbox.tolist()} dwarfs the {size[0]}x{size[1]} picture")
    return AnnotatedPerson(
        image_id=one.image_id,
        annotation_id=one.annotation_id,
        file_name=one.file_name,
        picture_size=one.picture_size,
        bbox_px=bbox,
        point_px=np.zeros((0, 2)),
        part=np.zeros(0, np.int64),
        uv=np.zeros((0, 2)),
        keypoints=one.keypoints or keypoints.missing(),
        crop_margin=1.0 if one.bbox_px is None else CROP_MARGIN,
    )


def _size(path: pathlib.Path) -> tuple[int, int] | str:
    try:
        return photographs.upright_size(path)
    except InputError as error:
        return str(error)
