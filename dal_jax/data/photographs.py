"""A folder of photographs and the people in them who are not annotated: one a box, one a pose, or one a picture."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from dal_jax.correspondences import keypoints as keypoints_lib, person as person_lib
from dal_jax.data import boxes, pictures
from dal_jax.runtime import errors

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""Of photographs' names, in lower case."""

_DENSEPOSE_OUTPUT = ("_iuv.png", "_inds.png")  # lie beside photographs, and are none
_LARGEST_BOX = 3.0  # over the picture: a box may pass the border, not dwarf the picture


@dataclasses.dataclass(frozen=True)
class Photographs:
    """The pictures of a folder, in the order of their names."""

    folder: pathlib.Path
    names: tuple[str, ...]

    def path(self, name: str) -> pathlib.Path:
        """Return a picture's path."""
        return self.folder / name


def listing(images: str | os.PathLike[str]) -> Photographs:
    """List a folder's photographs, by the endings of `ENDINGS`; or take one picture alone.

    Raises:
      errors.InputError: there is no such folder or picture, or no photograph in it.
    """
    path = pathlib.Path(images)
    if path.is_file():
        return Photographs(path.parent, (path.name,))
    if not path.is_dir():
        raise errors.InputError(f"{path}: no such file or folder")
    found = sorted(one.name for one in path.iterdir() if one.suffix.lower() in ENDINGS and one.is_file())
    names = tuple(name for name in found if not name.lower().endswith(_DENSEPOSE_OUTPUT))
    if not names:
        raise errors.InputError(f"{path}: holds no photograph ({', '.join(ENDINGS)})")
    return Photographs(path, names)


def people(
    photographs: Photographs, found: Sequence[boxes.Found] | None = None, skip_invalid: bool = False
) -> person_lib.Annotations:
    """Return the people of the photographs, checked against the pictures' sizes; nobody has dense points.

    Args:
      found: people by box or key points (`boxes.read_boxes`, `boxes.read_keypoints`). None: each picture is one
        person's, and its square crop is the picture itself, without a margin.
      skip_invalid: keep going over bad entries and list them as rejected.
    Raises:
      errors.InputError: the first bad entry, or nobody is left.
    """
    if found is None:
        found = [boxes.Found(name, row, row + 1, name) for row, name in enumerate(photographs.names)]
    known = frozenset(photographs.names)
    sizes: dict[str, tuple[int, int] | str] = {}
    entries: list[person_lib.AnnotatedPerson | person_lib.Rejected] = []
    for one in found:
        entry = _entry(photographs, known, one, sizes)
        if isinstance(entry, person_lib.Rejected) and not skip_invalid:
            raise errors.InputError(entry.message)
        entries.append(entry)
    annotations = person_lib.Annotations(entries)
    if not annotations.people:
        first = f"{entries[0].message} (none of {len(entries)} people can be used)" if entries else "there is nobody"
        raise errors.InputError(first)
    return annotations


def _entry(
    photographs: Photographs, known: frozenset[str], one: boxes.Found, sizes: dict[str, tuple[int, int] | str]
) -> person_lib.AnnotatedPerson | person_lib.Rejected:
    """Return a person, or why there is none; `sizes` remembers what is known of each picture."""

    def reject(kind: str, message: str) -> person_lib.Rejected:
        return person_lib.Rejected(one.image_id, one.annotation_id, one.file_name, kind, message)

    if one.problem:
        return reject("bad entry", f"{one.where}: {one.problem}")
    if one.file_name not in known:
        return reject("image missing", f"{one.where}: there is no photograph '{one.file_name}' in {photographs.folder}")
    if one.file_name not in sizes:
        sizes[one.file_name] = _size(photographs.path(one.file_name))
    size = sizes[one.file_name]
    if isinstance(size, str):
        return reject("unreadable picture", size)
    size = one.picture_size or size
    whole = one.bbox_px is None
    bbox = np.array([0.0, 0.0, *size]) if whole else one.bbox_px
    if np.any(bbox[:2] >= size) or np.any(bbox[:2] + bbox[2:] <= 0):
        return reject("box outside", f"{one.where}: {bbox.tolist()} lies outside the {size[0]}x{size[1]} picture")
    if np.any(bbox[2:] > _LARGEST_BOX * np.array(size)):
        return reject("box outside", f"{one.where}: {bbox.tolist()} dwarfs the {size[0]}x{size[1]} picture")
    return person_lib.AnnotatedPerson(
        image_id=one.image_id,
        annotation_id=one.annotation_id,
        file_name=one.file_name,
        picture_size=one.picture_size,
        bbox_px=bbox,
        point_px=np.zeros((0, 2)),
        part=np.zeros(0, np.int64),
        uv=np.zeros((0, 2)),
        keypoints=one.keypoints or keypoints_lib.missing(),
        crop_margin=1.0 if whole else person_lib.CROP_MARGIN,
    )


def _size(path: pathlib.Path) -> tuple[int, int] | str:
    try:
        return pictures.upright_size(path)
    except errors.InputError as error:
        return str(error)
