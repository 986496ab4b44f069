"""People from annotation files: COCO-style JSON, what pose detectors write, or DensePose's IUV pictures."""

import dataclasses
import functools
import os
import pathlib

from dal_jax.observations import densepose, densepose_results, iuv, photographs
from dal_jax.observations.person import AnnotatedPerson, Annotations, Rejected
from dal_jax.runtime.errors import InputError
from dal_jax.runtime.files import below

Path = str | os.PathLike[str]


def read_annotations(
    path: Path,
    images: Path | None = None,
    chart: Path | None = None,
    inds: Path | None = None,
    skip_invalid: bool = False,
) -> Annotations:
    """Read annotated people, and check that their photographs, where given, can be read and have the right size.

    Example:
        people = read_annotations("people.json", images="photos", chart="UV_Processed.mat")
        print(people.summary())
        people.photograph(people.people[0])

    Args:
      path: a COCO-style .json with dense points or key points; what a pose detector writes, a file or a folder with a
        file for each photograph (docs/formats.md); what a DensePose network writes, IUV pictures (one, or a folder of
        NAME_IUV.png), detectron2's dump or results.json.
      images: folder of the photographs; of one IUV picture also the photograph itself.
      chart: DensePose's UV_Processed.mat. None: the annotation is in the body's own chart.
      inds: INDS picture (one id a person) of an IUV picture, or a folder of NAME_INDS.png. None: one person a picture.
      skip_invalid: keep going over bad entries and list them as `rejected`.

    Returns:
      People and rejected entries; `chart` and `images` are kept in it.

    Raises:
      errors.InputError: a file is missing or damaged, or no entry can be used; without `skip_invalid` also the first
        bad entry. One line that names file, entry and value.
    """
    if not os.fspath(path):
        raise InputError("no annotation file is given: what an annotator or a network wrote, or a folder of it")
    path, images = pathlib.Path(path), pathlib.Path(images) if images else None
    for one in (path, images):
        if one is not None and not one.exists():
            raise InputError(f"{one}: no such file or folder")
    if inds and not _holds_pictures(path):
        raise InputError(f"{inds}: INDS pictures belong to IUV pictures, not to {path}")
    if densepose_results.is_one(path):
        found = densepose_results.read(path, images, skip_invalid)
    elif not _holds_pictures(path):
        check = None if images is None else functools.lru_cache(1)(functools.partial(_picture_problem, images))
        found = densepose.read(path, check, skip_invalid, images)
    else:
        found = _read_iuv(path, images, pathlib.Path(inds) if inds else None, skip_invalid)
    return dataclasses.replace(found, images=os.fspath(images or ""), chart=os.fspath(chart or ""))


def _holds_pictures(path: pathlib.Path) -> bool:
    """Tell whether a file is no text of 2D poses, but may be a picture, or a folder has IUV pictures."""
    if path.is_dir():
        return next(path.glob("*_IUV.png"), None) is not None
    return path.suffix.lower() not in (".json", ".txt", ".pkl", ".pt", ".pth")


def _picture_problem(images: pathlib.Path, file_name: str, size: tuple[int, int] | None) -> str | None:
    try:
        photographs.read_picture(images if images.is_file() else below(images, file_name), size)
    except InputError as error:
        return str(error)
    return None


def _read_iuv(
    path: pathlib.Path, images: pathlib.Path | None, inds: pathlib.Path | None, skip_invalid: bool
) -> Annotations:
    """Read one IUV picture, or every `NAME_IUV.png` of a folder with `NAME_INDS.png` and `NAME.jpg` (or .png)."""
    files = sorted(path.glob("*_IUV.png")) if path.is_dir() else [path]
    entries: list[AnnotatedPerson | Rejected] = []
    notes: list[str] = []
    for image_id, file in enumerate(files):
        try:
            found = _one_iuv(file, images, inds, image_id)
            entries, notes = entries + list(found.entries), notes + list(found.notes)
        except InputError as error:
            if not skip_invalid or len(files) == 1:
                raise
            entries.append(Rejected(image_id, -1, file.name, "unreadable picture", str(error)))
    annotations = Annotations(entries, predicted=True, notes=notes)
    if not annotations.people:
        rejected = annotations.rejected
        raise InputError(rejected[0].message if rejected else f"{path}: no pixel belongs to a person")
    return annotations


def _one_iuv(file: pathlib.Path, images: pathlib.Path | None, inds: pathlib.Path | None, image_id: int) -> Annotations:
    stem = file.stem.removesuffix("_IUV")
    if inds is not None and inds.is_dir():
        inds = inds / f"{stem}_INDS.png"
    if images is None:
        return iuv.read_iuv(file, inds, file_name=file.name, image_id=image_id)
    photograph = images if images.is_file() else photographs.of_stem(images, stem)
    name = photograph.name if images.is_file() else photograph.relative_to(images).as_posix()
    found = iuv.read_iuv(file, inds, file_name=name, image_id=image_id)
    if found.people:
        photographs.read_picture(photograph, found.people[0].picture_size)
    return found
