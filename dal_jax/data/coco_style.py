"""Photographs with their annotation in COCO's container: what DensePose-COCO, PoseTrack and one's own files share."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from dal_jax.correspondences import coco, densepose, keypoints as keypoints_lib, masks, person as person_lib
from dal_jax.data import files as files_lib, photographed, pictures
from dal_jax.data.recording import source as source_lib
from dal_jax.runtime import errors

_FIELDS = (
    "id", "image_id", "category_id", "iscrowd", "bbox", "keypoints", "segmentation", "track_id",
    "dp_I", "dp_U", "dp_V", "dp_x", "dp_y", "dp_masks",
)  # fmt: skip
_PICTURE_FIELDS = (
    "id", "file_name", "width", "height", "vid_id", "frame_id", "has_no_densepose",
    "ignore_regions_x", "ignore_regions_y",
)  # fmt: skip


class Raw(NamedTuple):
    """An annotation as it stands in its file, and where; repeated: an earlier one has the same id."""

    position: int
    entry: Any
    repeated: bool


class Photograph(NamedTuple):
    """A unit of work: an image entry (None: annotations of no listed image) and its annotations.

    annotations: the name of their file; images: the folder that the image's file name is meant in.
    person_ids: see `coco.Container`.
    """

    annotations: str
    images: str
    picture: dict[str, Any] | None
    entries: list[Raw]
    keypoint_names: tuple[str, ...]
    person_ids: frozenset[int]


@dataclasses.dataclass(frozen=True)
class Reading:
    """How people are read: what crops look like, and what a data set's annotation means.

    seen: see `densepose.parse_person`. points_needed: leave out people without dense points.
    known: returns the features that an entry and its image tell beside the annotation (subject, video, frame).
    """

    files: files_lib.Files
    seen: int = keypoints_lib.SEEN
    points_needed: bool = True
    known: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] = lambda entry, picture: {}


class Found(NamedTuple):
    """A person of a photograph: the annotation, and the features that it tells beside."""

    raw: Raw
    person: person_lib.AnnotatedPerson
    known: dict[str, Any]


def photographs(path: pathlib.Path, images: pathlib.Path) -> list[Photograph]:
    """Return a file's photographs that anybody is annotated in, in the file's order.

    Raises:
      errors.InputError: the file is no such JSON.
    """
    container = coco.read(path)
    seen: set[str | None] = set()
    grouped: dict[int | str | None, list[Raw]] = {}
    for position, entry in enumerate(container.entries):
        picture = coco.picture_of(container, entry)
        proper = isinstance(entry, dict) and coco.is_id(entry.get("id"))
        number = str(entry["id"]) if proper else None  # names of people hold it as text
        raw = Raw(position, _trimmed(entry, _FIELDS), number is not None and number in seen)
        seen.add(number)
        grouped.setdefault(None if picture is None else picture["id"], []).append(raw)
    in_order = [*container.pictures, *([None] if None in grouped else [])]
    return [
        Photograph(
            path.name,
            str(images),
            _trimmed(container.pictures.get(number), _PICTURE_FIELDS),
            grouped[number],
            container.keypoint_names,
            container.person_ids,
        )
        for number in in_order
        if number in grouped
    ]


def _trimmed(entry: Any, fields: tuple[str, ...]) -> Any:
    return {name: entry[name] for name in fields if name in entry} if isinstance(entry, dict) else entry


def read_photograph(
    unit: Photograph, reading: Reading
) -> Iterator[source_lib.Example | person_lib.Rejected | source_lib.Noted]:
    """Yield a photograph's people, whom it is rejected for what, and what is worth counting."""
    found: list[Found] = []
    for raw in unit.entries:
        try:
            found.append(_parse(unit, raw, reading))
        except coco.BadEntry as bad:
            yield coco.reject(unit.annotations, raw.position, raw.entry, unit.picture, bad)
    if not found:
        return
    first = found[0].person
    try:
        pixels = pictures.read_picture(pathlib.Path(unit.images, first.file_name), first.picture_size)
    except errors.InputError as error:
        for one in found:
            bad = coco.BadEntry("image missing or unreadable", str(error))
            yield coco.reject(unit.annotations, *one.raw[:2], unit.picture, bad)
        return
    if pictures.is_grey(pixels):
        yield source_lib.Noted("grey photograph")
    if len(found) > 1:
        yield source_lib.Noted("photograph of several people")
    for one in found:
        try:  # once more: the file may not have told the photograph's size
            densepose.require_box(one.person.bbox_px, pixels.shape[1::-1])
        except coco.BadEntry as bad:
            yield coco.reject(unit.annotations, *one.raw[:2], unit.picture, bad)
            continue
        yield from map(source_lib.Noted, photographed.notes(one.person, pixels))
        try:
            mask = _mask_crop(one, pixels.shape[1::-1], reading.files.image_size)
        except coco.BadEntry:  # the person is good for everything else
            yield source_lib.Noted("damaged mask")
            mask = None
        yield photographed.make_example(one.person, pixels, reading.files, mask, **one.known)


def _parse(unit: Photograph, raw: Raw, reading: Reading) -> Found:
    """Return an entry's person; raise BadEntry where there is none to use."""
    coco.require_ids(raw.entry)
    entry = raw.entry
    category = entry.get("category_id")
    person = not unit.person_ids or not isinstance(category, int) or category in unit.person_ids
    coco.require(person, "not a person", f"category_id is {coco.short(category)}")
    if reading.points_needed and not densepose.has_points(entry):
        coco.require(entry.get("iscrowd") != 1, "crowd", "is a crowd, not a person")
        coco.require(not entry.get("dp_masks"), "masks only", "has dp_masks, but no dp_I, dp_U, dp_V, dp_x, dp_y")
        raise coco.BadEntry("without points", "has no dp_I, dp_U, dp_V, dp_x, dp_y")
    coco.require(not raw.repeated, "duplicate id", f"id {entry['id']!r} appears twice")
    person = densepose.parse_person(entry, unit.picture, unit.keypoint_names, seen=reading.seen)
    why = photographed.why_unusable(person)
    coco.require(why is None, "too few points", f"has {why}")
    return Found(raw, person, reading.known(entry, unit.picture))


def _mask_crop(one: Found, picture_size: tuple[int, int], size: int) -> UInt8[np.ndarray, "s s"] | None:
    """Return the crop of DensePose's part masks, which lie over the person's box, or of the person's silhouette."""
    parts, box_px = masks.part_map(one.raw.entry.get("dp_masks")), one.person.bbox_px
    if parts is None:
        silhouette = masks.segmentation(one.raw.entry.get("segmentation"), picture_size)
        if silhouette is None:
            return None
        parts, box_px = silhouette.astype(np.uint8) * 255, np.array([0, 0, *picture_size], np.float64)
    return pictures.crop_labels(parts, box_px, one.person.crop_px, size)
