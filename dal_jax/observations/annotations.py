"""People from annotation files: a COCO-style JSON, or DensePose's IUV pictures; for `register` and for the loop."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from dal_jax.body.template import Template
from dal_jax.data.files import photograph_of
from dal_jax.data.people import IMAGES_IN_MEMORY_BYTES, People
from dal_jax.observations import densepose, iuv, observation, photographs
from dal_jax.observations.chart import Chart, body_chart, load_densepose_chart
from dal_jax.observations.person import AnnotatedPerson, Annotations, Rejected
from dal_jax.runtime.errors import InputError


@dataclasses.dataclass
class AnnotationFiles:
    """Where annotation comes from; empty strings are absent."""

    annotations: str = ""  # COCO-style .json, an IUV picture, or a folder of *_IUV.png
    inds: str = ""  # INDS picture (one id a person), or a folder of *_INDS.png
    images: str = ""  # folder of the photographs; for one IUV picture also the photograph itself
    chart: str = ""  # DensePose's UV_Processed.mat; without it the annotation is in the body's own chart
    skip_invalid: bool = False  # run the good entries of a file that has bad ones


def read(source: AnnotationFiles) -> Annotations:
    """Read the people of a source and check that their photographs, if given, can be read.

    Raises:
      errors.InputError: one line that names file, entry and value.
    """
    if not source.annotations:
        raise InputError("no annotation file is given: a COCO-style .json, an IUV picture or a folder of them")
    if source.images and not pathlib.Path(source.images).exists():
        raise InputError(f"{source.images}: no such file or folder")
    if source.annotations.lower().endswith(".json"):
        check = functools.lru_cache(1)(functools.partial(_problem, source)) if source.images else None
        return densepose.read_annotations(source.annotations, check, source.skip_invalid)
    return _read_iuv(source)


def picture_path(source: AnnotationFiles, person: AnnotatedPerson) -> pathlib.Path:
    """Return the path of a person's photograph (`source.images` must be given)."""
    return _picture_path(source, person.file_name)


def load_chart(source: AnnotationFiles, template: Template) -> Chart:
    """Return the chart the annotation is made in."""
    if source.chart:
        return load_densepose_chart(source.chart, template)
    return body_chart(template)


def load_annotations(source: AnnotationFiles, template: Template, image_size: int) -> People:
    """Return annotated people with their square crops, for the loop; nobody knows their true joints.

    Raises:
      errors.InputError: as `read`, or there are no photographs.
    """
    if not source.images:
        raise InputError("config.images: the loop learns from photographs; name their folder")
    people = read(source).people
    crops = _Crops(source, people, image_size)
    in_memory = len(people) * 3 * image_size**2 <= IMAGES_IN_MEMORY_BYTES
    return People(
        observations=observation.observe_all(people, load_chart(source, template)),
        images=crops[:] if in_memory else crops,
        names=[f"{one.file_name}#{one.annotation_id}" for one in people],
        truth=None,
    )


class _Crops(Sequence):
    """Square crops by number, slice or array of numbers; people who follow each other share a read photograph."""

    def __init__(self, source: AnnotationFiles, people: list[AnnotatedPerson], image_size: int):
        self._source, self._people, self._size = source, people, image_size
        self._read = functools.lru_cache(1)(photographs.read_picture)

    def __len__(self) -> int:
        return len(self._people)

    def __getitem__(self, index: int | slice | np.ndarray) -> UInt8[np.ndarray, "*n s s 3"]:
        if not isinstance(index, int | np.integer):
            return np.stack([self[int(row)] for row in np.arange(len(self))[index]])
        one = self._people[index]
        photograph = self._read(picture_path(self._source, one), one.picture_size)
        return photographs.crop(photograph, one.crop_px, self._size)


def _picture_path(source: AnnotationFiles, file_name: str) -> pathlib.Path:
    images = pathlib.Path(source.images)
    return images if images.is_file() else images / file_name


def _problem(source: AnnotationFiles, file_name: str, size: tuple[int, int] | None) -> str | None:
    try:
        photographs.read_picture(_picture_path(source, file_name), size)
    except InputError as error:
        return str(error)
    return None


def _read_iuv(source: AnnotationFiles) -> Annotations:
    """Read one IUV picture, or every `NAME_IUV.png` of a folder with `NAME_INDS.png` and `NAME.jpg` (or .png)."""
    path = pathlib.Path(source.annotations)
    files = sorted(path.glob("*_IUV.png")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: no file is named *_IUV.png")
    entries: list[AnnotatedPerson | Rejected] = []
    for image_id, file in enumerate(files):
        try:
            entries += _one_iuv(source, file, image_id).entries
        except InputError as error:
            if not source.skip_invalid or len(files) == 1:
                raise
            entries.append(Rejected(image_id, -1, file.name, "unreadable picture", str(error)))
    annotations = Annotations(entries)
    if not annotations.people:
        first = entries[0].message if entries else f"{path}: no pixel belongs to a person"
        raise InputError(first)
    return annotations


def _one_iuv(source: AnnotationFiles, file: pathlib.Path, image_id: int) -> Annotations:
    stem = file.stem.removesuffix("_IUV")
    inds = pathlib.Path(source.inds) if source.inds else None
    if inds is not None and inds.is_dir():
        inds = inds / f"{stem}_INDS.png"
    if not source.images:
        return iuv.read_iuv(file, inds, file_name=file.name, image_id=image_id)
    images = pathlib.Path(source.images)
    photograph = images if images.is_file() else photograph_of(images, stem)
    found = iuv.read_iuv(file, inds, file_name=photograph.name, image_id=image_id)
    if found.people:
        photographs.read_picture(photograph, found.people[0].picture_size)
    return found
