"""Photographs with their annotation in COCO's container: what DensePose-COCO, PoseTrack and one's own files share."""

import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from dal_jax.data.files import Files, make_example, notes, require_pictures, why_unusable
from dal_jax.data.schema import Item, Source
from dal_jax.observations import cameras_file, coco, densepose, masks, moments
from dal_jax.observations.cameras_file import Camera
from dal_jax.observations.coco import BadEntry, Labelling
from dal_jax.observations.person import AnnotatedPerson, Rejected
from dal_jax.observations.photographs import crop_labels, is_grey, read_picture
from dal_jax.runtime.errors import InputError
from dal_jax.runtime.files import below

_FIELDS = (
    "id", "image_id", "category_id", "iscrowd", "bbox", "keypoints", "segmentation", "track_id",
    "dp_I", "dp_U", "dp_V", "dp_x", "dp_y", "dp_masks",
)  # fmt: skip
_PICTURE_FIELDS = (
    "id", "file_name", "width", "height", "vid_id", "frame_id", "has_no_densepose",
    "ignore_regions_x", "ignore_regions_y",
)  # fmt: skip


Entry = tuple[int, Any, bool]
"""An annotation's place in its file, the annotation as it stands there, and whether an earlier one has its id."""


class Photograph(NamedTuple):
    """A unit of work: an image entry (None: annotations of no listed image) and its annotations.

    annotations: the name of their file; images: the folder that the image's file name is meant in.
    labels: how the file labels people.
    """

    annotations: str
    images: str
    picture: dict[str, Any] | None
    entries: list[Entry]
    labels: Labelling


Known = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]
"""Returns the features that an entry and its image tell beside the annotation (subject, video, frame)."""


def photographs(path: pathlib.Path, images: pathlib.Path) -> list[Photograph]:
    """Return a file's photographs that show annotated people, in the file's order.

    Raises:
      errors.InputError: the file is no such JSON, or its boxes are [x1, y1, x2, y2].
    """
    content = coco.read(path, images)
    pictures, entries, labels, _ = content
    densepose.refuse_corners(content)
    seen: set[str | None] = set()
    grouped: dict[int | str | None, list[Entry]] = {}
    for position, entry in enumerate(entries):
        picture = coco.picture_of(pictures, entry)
        proper = isinstance(entry, dict) and coco.is_id(entry.get("id"))
        number = str(entry["id"]) if proper else None  # names of people hold it as text
        repeated = number is not None and number in seen
        seen.add(number)
        grouped.setdefault(None if picture is None else picture["id"], []).append(
            (position, _trimmed(entry, _FIELDS), repeated)
        )
    in_order = [*pictures, *([None] if None in grouped else [])]
    return [
        Photograph(
            path.name,
            str(images),
            _trimmed(None if number is None else pictures[number], _PICTURE_FIELDS),
            grouped[number],
            labels,
        )
        for number in in_order
        if number in grouped
    ]


def _trimmed(entry: Any, fields: tuple[str, ...]) -> Any:
    return {name: entry[name] for name in fields if name in entry} if isinstance(entry, dict) else entry


def read_photograph(
    unit: Photograph,
    files: Files,
    *,
    points_needed: bool = True,
    known: Known = lambda entry, picture: {},
) -> Iterator[Item]:
    """Yield a photograph's people, the rejected ones, and what is worth counting.

    Args:
      unit: the photograph and its annotations.
      files: chart and size of the crops.
      points_needed: reject people without dense points.
      known: returns further features of a person.
    """
    people: list[tuple[Entry, AnnotatedPerson, dict[str, Any]]] = []
    for one in unit.entries:
        try:
            person = _parse(unit, one, points_needed)
            people.append((one, person, known(one[1], unit.picture or {})))
        except BadEntry as bad:
            yield reject(unit, one, bad)
    if not people:
        return
    first = people[0][1]
    try:
        pixels = read_picture(below(unit.images, first.file_name), first.picture_size)
    except InputError as error:
        for one, *_ in people:
            yield reject(unit, one, BadEntry("image missing or unreadable", str(error)))
        return
    if is_grey(pixels):
        yield "grey photograph"
    if len(people) > 1:
        yield "photograph of several people"
    for one, person, features in people:
        try:  # once more: the file may not state the photograph's size
            densepose.require_box(person.bbox_px, pixels.shape[1::-1])
        except BadEntry as bad:
            yield reject(unit, one, bad)
            continue
        yield from notes(person, pixels)
        try:
            mask = _mask_crop(one[1], person, pixels.shape[1::-1], files.image_size)
        except BadEntry:  # the person is good for everything else
            yield "damaged mask"
            mask = None
        yield make_example(person, pixels, files, mask, **features)


def reject(unit: Photograph, one: Entry, bad: BadEntry) -> Rejected:
    """Return why an entry of a photograph is left out."""
    position, entry, _ = one
    named = isinstance(entry, dict) and coco.is_id(entry.get("id"))
    which = f"annotation {entry['id']}" if named else f"annotations[{position}]"
    return coco.reject(f"{unit.annotations}: {which}", entry, unit.picture, bad)


def _parse(unit: Photograph, one: Entry, points_needed: bool) -> AnnotatedPerson:
    """Return an entry's person; raise BadEntry where it cannot be used."""
    _, entry, repeated = one
    coco.require_ids(entry)
    category = entry.get("category_id")
    people = unit.labels.person_ids
    person = not people or not isinstance(category, int) or category in people
    coco.require(person, "not a person", f"category_id is {coco.short(category)}")
    if points_needed and not densepose.has_points(entry):
        coco.require(entry.get("iscrowd") != 1, "crowd", "is a crowd, not a person")
        coco.require(not entry.get("dp_masks"), "masks only", "has dp_masks, but no dp_I, dp_U, dp_V, dp_x, dp_y")
        raise BadEntry("without points", "has no dp_I, dp_U, dp_V, dp_x, dp_y")
    coco.require(not repeated, "duplicate id", f"id {entry['id']!r} appears twice")
    person = densepose.parse_person(entry, unit.picture, unit.labels)
    why = why_unusable(person)
    coco.require(why is None, "too few points", f"has {why}")
    return person


def _mask_crop(
    entry: dict[str, Any], person: AnnotatedPerson, picture_size: tuple[int, int], size: int
) -> UInt8[np.ndarray, "s s"] | None:
    """Return the crop of DensePose's part masks, which lie over the person's box, or of the person's silhouette."""
    parts, box_px = masks.part_map(entry.get("dp_masks")), person.bbox_px
    if parts is None:
        silhouette = masks.segmentation(entry.get("segmentation"), picture_size)
        if silhouette is None:
            return None
        parts, box_px = silhouette.astype(np.uint8) * 255, np.array([0, 0, *picture_size], np.float64)
    return crop_labels(parts, box_px, person.crop_px, size)


# --- The data sets ---

Layout = Callable[[pathlib.Path], dict[str, tuple[pathlib.Path, pathlib.Path]]]
"""Returns, of a data set's folder, each split's annotation file and the folder that its file names are meant in."""


def coco_folder(files: Files, cameras: str = "") -> Source:
    """Return the source of one's own photographs with 2D labels in COCO's form. docs/coco_folder.md.

    Note: dense points or key points are enough; key points alone leave the shape and much of the pose to the priors.

    Args:
      files: the folder, and how people are cut out.
      cameras: calibration of the several cameras that photographed the same moments; '': each photograph shows a moment
        of its own.
    """
    return Source(
        name="coco_folder",
        description="One's own photographs with 2D labels in COCO's form.",
        unit="photograph",
        units_a_chunk=_PHOTOGRAPHS,
        digest=functools.partial(_digest, files, _own_layout, cameras),
        options=functools.partial(_options, files, cameras),
        splits=functools.partial(_splits, files, _own_layout),
        read=functools.partial(_read_own, files, cameras),
    )


def densepose_coco(files: Files) -> Source:
    """Return the source of about 50,000 annotated people of COCO 2014. docs/densepose_coco.md."""
    return Source(
        name="densepose_coco",
        description="People of COCO 2014 with surface points, part masks and key points that humans annotated.",
        unit="photograph",
        units_a_chunk=_PHOTOGRAPHS,
        digest=functools.partial(_digest, files, _official_layout),
        options=files.options,
        splits=functools.partial(_splits, files, _official_layout),
        read=functools.partial(read_photograph, files=files),
    )


_PHOTOGRAPHS = 100  # a chunk


def _digest(files: Files, layout: Layout, cameras: str = "") -> str:
    """Return a name of annotation, chart, body, options, and the photographs' names and sizes."""
    annotations, images = zip(*layout(files.folder).values(), strict=True)
    calibration = [pathlib.Path(cameras)] if cameras else []
    return files.digest([*annotations, *calibration], sorted(set(images)))


def _options(files: Files, cameras: str) -> dict[str, Any]:
    """Return chart, body, size of the crops, and the name of the calibration, if any."""
    return files.options() | ({"cameras": pathlib.Path(cameras).name} if cameras else {})


def _splits(files: Files, layout: Layout) -> Mapping[str, list[Photograph]]:
    """Return the photographs of the splits whose annotation is there."""
    return {split: photographs(*places) for split, places in layout(files.folder).items()}


def _read_own(files: Files, cameras: str, unit: Photograph) -> Iterator[Item]:
    if not cameras:
        return read_photograph(unit, files, points_needed=False)
    items = read_photograph(unit, files, points_needed=False, known=_followed)
    return _before_cameras(items, unit, _calibration(cameras))


def _followed(entry: dict[str, Any], _: dict[str, Any]) -> dict[str, Any]:
    """Return the track that an annotation names: who is who in photographs of several people."""
    return {"moment": f"person {entry['track_id']}"} if coco.is_id(entry.get("track_id")) else {}


_calibration = functools.cache(cameras_file.read)


def _before_cameras(items: Iterable[Item], unit: Photograph, cameras: list[Camera]) -> Iterator[Item]:
    """Yield a photograph's people before its camera, as seen without distortion, at the moment that its name tells.

    Among several people of a photograph their `track_id` tells who is who; one without has a moment of its own.
    """
    name, alone = str((unit.picture or {}).get("file_name", "")), len(unit.entries) == 1
    number, sequence, frame = moments.names_of(name, "", cameras)
    camera = cameras[number]
    for item in items:
        if isinstance(item, dict):
            who = "person" if alone else item["moment"]
            straight = {
                field: camera.undistort(np.asarray(item[field])).astype(np.float32)
                for field in ("point_px", "keypoints_px")
            }
            intrinsics = np.array([camera.focal_px, camera.focal_px, *camera.matrix[:2, 2]], np.float32)
            item |= straight | {
                "intrinsics_px": intrinsics,
                "extrinsics_m": camera.extrinsics.astype(np.float32),
                "moment": f"{sequence} {frame} {who}".strip() if who else "",
            }
            if not who:
                yield "of several people in a photograph, without track_id: seen by one camera alone"
        yield item


def _own_layout(folder: pathlib.Path) -> dict[str, tuple[pathlib.Path, pathlib.Path]]:
    """train.json (and test.json), photographs beside them or in images/."""
    train, test, images = folder / "train.json", folder / "test.json", folder / "images"
    if not train.is_file():
        other = next((path.name for path in sorted(folder.glob("*.json"))), "LABELS.json")
        raise InputError(f"{folder}: has no train.json (2D labels in COCO's form); ln -s {other} {train}")
    place = images if images.is_dir() else folder
    require_pictures(place, images)
    return {path.stem: (path, place) for path in (train, test) if path.is_file()}


_IMAGES = {"train": "train2014", "minival": "val2014", "valminusminival": "val2014"}
"""The folder of each split's pictures in DensePose-COCO."""


def _official_layout(folder: pathlib.Path) -> dict[str, tuple[pathlib.Path, pathlib.Path]]:
    """densepose_coco_2014_{train,minival,valminusminival}.json in the folder or annotations/, and COCO's pictures."""
    found = {}
    for split, pictures in _IMAGES.items():
        name = f"densepose_coco_2014_{split}.json"
        paths = [path for path in (folder / name, folder / "annotations" / name) if path.is_file()]
        if paths and not (folder / pictures).is_dir():
            raise InputError(f"{folder / pictures}: no such folder; COCO's photographs of '{split}' lie in {pictures}/")
        found |= {split: (paths[0], folder / pictures)} if paths else {}
    if not found:
        names = ", ".join(f"densepose_coco_2014_{split}.json" for split in _IMAGES)
        raise InputError(f"{folder}: has none of {names}, nor has annotations/")
    return found
