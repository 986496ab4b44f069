"""DensePose-COCO annotation (`densepose_coco_2014_*.json`, or your own in that form): entries to annotated people."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from dal_jax.observations import coco, keypoints, person
from dal_jax.observations.coco import BadEntry, Content, Labelling
from dal_jax.observations.keypoints import Keypoints
from dal_jax.observations.person import AnnotatedPerson, Annotations
from dal_jax.observations.pose_files import Images
from dal_jax.runtime.errors import InputError

_BOX_UNITS = 255.0  # dp_x and dp_y run over the person's box
_BOX_LIMIT = 256.0  # some tools scale the box to 256
_MANY_POINTS, _SMALLEST_SHARE = 10, 0.05  # so many points span more of the box than this, along one side. Note: ours
_LARGEST_BOX = 3.0  # over the image: boxes may pass the border, not dwarf the picture
_DENSE_FIELDS = ("dp_I", "dp_U", "dp_V", "dp_x", "dp_y")


PictureCheck = Callable[[str, tuple[int, int] | None], str | None]
"""Says what is wrong with a photograph of this name and (width, height), or None."""


def read(
    path: str | pathlib.Path,
    check_picture: PictureCheck | None = None,
    skip_invalid: bool = False,
    images: Images = None,
) -> Annotations:
    """Read a COCO-style file with dp_I, dp_U, dp_V, dp_x, dp_y and bbox, or keypoints; or a file of a pose detector.

    An entry needs dense points or five labelled key points; groups of people (`iscrowd`) are left out.

    Args:
      check_picture: asked about every person's photograph; without it photographs are not needed.
      skip_invalid: keep going over bad entries and list them as rejected.
      images: photographs, whose names a detector's file means.

    Raises:
      errors.InputError: the file is no such JSON, nothing in it can be used or, without `skip_invalid`, the first bad
        entry; one line with file, annotation, field and value.
    """
    content = coco.read(path, images)
    refuse_corners(content)
    entries, seen, without, parsed = [], set(), 0, []
    for where, raw in zip(content.where, content.entries, strict=True):
        if isinstance(raw, dict) and not has_points(raw) and not _has_keypoints(raw):
            without += 1
            continue
        picture = coco.picture_of(content.pictures, raw)
        try:
            one = parse_person(raw, picture, content.labels, check_picture is not None)
            parsed.append((where, one))
            if not has_points(raw) and np.sum(one.keypoints.flag > 0) < FEWEST_KEYPOINTS:
                without += 1
                continue
            if check_picture is not None:
                problem = check_picture(one.file_name, one.picture_size)
                coco.require(problem is None, "image missing or unreadable", str(problem))
            coco.require(one.annotation_id not in seen, "duplicate id", f"id {one.annotation_id!r} appears twice")
            seen.add(one.annotation_id)
            entries.append(one)
        except BadEntry as bad:
            entries.append(coco.reject(where, raw, picture, bad))
            if not skip_invalid:
                raise InputError(entries[-1].message) from bad
    notes = keypoints.notes((where, one.keypoints) for where, one in parsed) + person.box_notes(parsed)
    annotations = Annotations(entries, without, notes=notes)
    if not annotations.people:
        if entries:
            raise InputError(f"{entries[0].message} (none of {len(entries)} people can be used)")
        needed = f"dense points (dp_I, dp_U, dp_V, dp_x, dp_y) or {FEWEST_KEYPOINTS} key points"
        raise InputError("; ".join([f"{path}: no annotation has {needed}", *annotations.notes]))
    return annotations


def refuse_corners(content: Content) -> None:
    """Refuse a file whose boxes are [x1, y1, x2, y2] (`person.refuse_corners`); one that is none ends the search.

    Raises:
      errors.InputError: they are.
    """
    people = []
    for where, entry in zip(content.where, content.entries, strict=True):
        try:
            one = parse_person(entry, coco.picture_of(content.pictures, entry), content.labels, needs_file=False)
        except BadEntry:
            continue
        if not person.may_be_corners(one, one.picture_size):
            return
        people.append((where, one, one.picture_size))
    person.refuse_corners(people)


def has_points(entry: dict[str, Any]) -> bool:
    """Tell whether an entry says anything of dense points, right or wrong."""
    return any(name in entry for name in _DENSE_FIELDS)


FEWEST_KEYPOINTS = 5
"""Labelled key points below which a person needs dense points; as many as lifting needs."""


def _has_keypoints(entry: dict[str, Any]) -> bool:
    """Tell whether an entry has key points enough; whether they are right is for `coco.parse` to say."""
    labelled = [isinstance(value, int | float) and value > 0 for value in coco.visibilities(entry)]
    return entry.get("iscrowd") != 1 and sum(labelled) >= FEWEST_KEYPOINTS


def parse_person(
    entry: Any,
    picture: dict[str, Any] | None,
    labels: Labelling = coco.COCO,
    needs_file: bool = True,
) -> AnnotatedPerson:
    """Return the person of an entry; one without any dp_ field has no dense points.

    Args:
      entry, picture: an annotation and its image, as they stand in the file.
      labels: how its file labels people.
      needs_file: its image must have a file's name.

    Raises:
      coco.BadEntry: something is not as it must be.
    """
    coco.require_ids(entry)
    if picture is None:
        raise BadEntry("image not listed", f"image_id {entry['image_id']!r} is not in 'images'")
    size = coco.picture_size(picture)
    file_name = coco.file_name(picture, needs_file)
    labelled = coco.parse(entry, labels)
    drawn = "bbox" not in entry and not has_points(entry)
    bbox = coco.box_round(labelled) if drawn else coco.numbers(entry, "bbox", 4)
    require_box(bbox, size)
    part, uv, inside = _dense(entry) if has_points(entry) else _no_points()
    _require_near(labelled, size)
    track = entry.get("track_id")
    coco.require(track is None or coco.is_id(track), "without a track", f"track_id is {coco.short(track)}")
    return AnnotatedPerson(
        image_id=entry["image_id"],
        annotation_id=entry["id"],
        file_name=file_name,
        picture_size=size,
        bbox_px=bbox,
        point_px=bbox[:2] + inside / _BOX_UNITS * bbox[2:],
        part=part,
        uv=uv,
        keypoints=labelled,
        track_id=track,
    )


def require_box(box: Float[np.ndarray, "4"], size: tuple[int, int] | None) -> None:
    """Check that a person's box is one, and near the picture of (width, height), if that is known.

    Raises:
      coco.BadEntry: it is not.
    """
    small = min(box[2:]) < coco.SMALLEST_BOX_PX
    text = f"bbox {box.tolist()} is less than {coco.SMALLEST_BOX_PX:.0f} px wide or high"
    coco.require(not small, "degenerate box", text)
    limit = np.array(size or (1e5, 1e5))
    within = np.all(box[:2] < limit) and np.all(box[:2] + box[2:] > 0)
    place = f"the image of {limit[0]:.0f}x{limit[1]:.0f} px"
    coco.require(within, "box outside", f"bbox {box.tolist()} lies outside {place}")
    large = np.any(box[2:] > _LARGEST_BOX * limit)
    coco.require(not large, "box outside", f"bbox {box.tolist()} dwarfs {place}")


def _require_near(labelled: Keypoints, size: tuple[int, int] | None) -> None:
    """Check that labelled key points lie as near the picture of (width, height) as a box must."""
    limit = _LARGEST_BOX * np.array(size or (1e5, 1e5))
    far = (labelled.flag > keypoints.UNLABELLED) & (np.abs(labelled.position_px) > limit).any(axis=1)
    place = labelled.position_px[np.argmax(far)].tolist()
    coco.require(not far.any(), "wrong key point", f"keypoints: {place} lies far outside the image")


def _dense(entry: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (part, uv, position in the box's 0..255)."""
    values = {name: coco.numbers(entry, name, None) for name in _DENSE_FIELDS}
    count = len(values["dp_I"])
    coco.require(count > 0, "no points", "dp_I is empty")
    for name in _DENSE_FIELDS:
        same = len(values[name]) == count
        coco.require(same, "wrong length", f"{name} has {len(values[name])} values where dp_I has {count}")
    _check_range(values["dp_I"], "dp_I", "unknown part", 1, 24, "a part is 1 to 24")
    whole = values["dp_I"] == np.round(values["dp_I"])
    coco.require(whole.all(), "unknown part", f"dp_I[{np.argmin(whole)}] is {values['dp_I'][np.argmin(whole)]:g}")
    for name in ("dp_U", "dp_V"):
        _check_range(values[name], name, "outside the chart", 0, 1, "the chart is 0 to 1")
    for name in ("dp_x", "dp_y"):
        _check_range(values[name], name, "point outside the box", 0, _BOX_LIMIT, "the person's box is 0 to 255")
    uv = np.stack([values["dp_U"], values["dp_V"]], axis=-1)
    inside = np.stack([values["dp_x"], values["dp_y"]], axis=-1)
    _require_spread(inside)
    return values["dp_I"].astype(np.int64), uv, inside


def _no_points() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros(0, np.int64), np.zeros((0, 2)), np.zeros((0, 2))


def _require_spread(inside: Float[np.ndarray, "p 2"]) -> None:
    """Check that points span more of the box than a body of a few pixels would."""
    width, height = np.ptp(inside, axis=0)
    if len(inside) > 1 and inside.max() <= 1.0:
        end = f"dp_x and dp_y end at {inside.max():.3g}"
        raise BadEntry("points too close", f"{end}: the points fill 1/255 of the box; it is 0 to 255, not 0 to 1")
    small = len(inside) >= _MANY_POINTS and max(width, height) < _SMALLEST_SHARE * _BOX_UNITS
    detail = f"dp_x and dp_y span {width:.3g} x {height:.3g} of the box's 255: too little for {len(inside)} points"
    coco.require(not small, "points too close", detail)


def _check_range(values: np.ndarray, name: str, kind: str, low: float, high: float, law: str) -> None:
    slack = 1e-4 * (high - low)  # float32 round-off of whoever wrote the file
    outside = np.flatnonzero((values < low - slack) | (values > high + slack))
    if len(outside):
        raise BadEntry(kind, f"{name}[{outside[0]}] is {values[outside[0]]:g}, {law}")
