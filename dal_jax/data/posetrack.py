"""DensePose-PoseTrack by its official files; a unit of work is a video, so that tracks keep their time."""

import functools
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dal_jax.data import coco_sets
from dal_jax.data.coco_sets import Photograph
from dal_jax.data.files import Files
from dal_jax.data.schema import Item, Source
from dal_jax.observations import coco, masks
from dal_jax.observations.coco import BadEntry
from dal_jax.observations.person import Rejected
from dal_jax.runtime.errors import InputError

_SPLITS = ("train", "val")
_FORMS = ("densepose_only_posetrack_{}2017.json", "densepose_posetrack_{}2017.json")
"""Both hold the same people with dense points; the first leaves out the frames without."""

_PACKED = 10_000  # PoseTrack's frame_id is 1, six digits of the video, four of the frame
_LARGEST_FRAME = 2**31 - 1

Video = list[Photograph]


def densepose_posetrack(files: Files) -> Source:
    """Return the source of about 13,000 annotated people of 82 videos. docs/densepose_posetrack.md.

    People come track by track, each in the order of its frames: `video` and `frame` tell the time, `subject` the track.
    """
    return Source(
        name="densepose_posetrack",
        description="People of PoseTrack's videos with surface points, part masks and key points, by track.",
        unit="video",
        units_a_chunk=1,
        digest=functools.partial(_digest, files),
        options=files.options,
        splits=functools.partial(_splits, files),
        read=functools.partial(_read, files),
    )


def _digest(files: Files) -> str:
    """Return a name of annotation, chart, body, options, and the frames' names and sizes."""
    return files.digest(_found(files).values(), [_images(files) / "images"])


def _splits(files: Files) -> Mapping[str, list[Video]]:
    """Return the videos of the splits whose file is there: each a list of its frames in time."""
    return {split: _videos(path, _images(files)) for split, path in _found(files).items()}


def _read(files: Files, unit: Video) -> Iterator[Item]:
    """Yield a video's people: track by track, frame by frame."""
    people = []
    for frame in unit:
        for item in _read_frame(frame, files):
            if isinstance(item, Rejected | str):
                yield item
            else:
                people.append(item)
    yield from sorted(people, key=lambda one: (one["subject"], one["frame"]))


def _found(files: Files) -> dict[str, pathlib.Path]:
    found = {}
    for split in _SPLITS:
        names = [form.format(split) for form in _FORMS]
        paths = [path for name in names for path in (files.folder / name, files.folder / "annotations" / name)]
        here = [path for path in paths if path.is_file()]
        found |= {split: here[0]} if here else {}
    if not found:
        names = ", ".join(form.format("train") for form in _FORMS)
        raise InputError(f"{files.folder}: has neither of {names} (or val for train), nor has annotations/")
    return found


def _images(files: Files) -> pathlib.Path:
    """Return the folder that file names are meant in: they begin with images/."""
    if not (files.folder / "images").is_dir():
        raise InputError(f"{files.folder}/images: no such folder; PoseTrack's frames lie there")
    return files.folder


def _videos(path: pathlib.Path, images: pathlib.Path) -> list[Video]:
    videos: dict[str, Video] = {}
    for frame in coco_sets.photographs(path, images):
        videos.setdefault(_video(frame.picture or {}), []).append(frame)
    return [sorted(frames, key=lambda frame: _frame(frame.picture or {})) for frames in videos.values()]


def _read_frame(frame: Photograph, files: Files) -> Iterator[Item]:
    """Yield a frame's people, without those whose boxes lie in a region that was not annotated with care."""
    if (frame.picture or {}).get("has_no_densepose") is True:
        yield "frame without dense annotation"
        return
    try:
        ignored = masks.regions(frame.picture or {}, "ignore_regions_x", "ignore_regions_y")
    except BadEntry:
        yield "frame with damaged ignored regions"
        ignored = []
    kept = []
    for one in frame.entries:
        if ignored and masks.hold(ignored, _middle(one[1])):
            bad = BadEntry("in an ignored region", "lies in a region that the annotators were told to ignore")
            yield coco_sets.reject(frame, one, bad)
        else:
            kept.append(one)
    yield from coco_sets.read_photograph(frame._replace(entries=kept), files, known=_known)


def _middle(entry: Any) -> np.ndarray | None:
    """Return the middle of an entry's box, None where it has no proper one, which is refused elsewhere."""
    try:
        box = coco.numbers(entry, "bbox", 4) if isinstance(entry, dict) else None
    except BadEntry:
        return None
    return None if box is None else box[:2] + box[2:] / 2


def _known(entry: dict[str, Any], picture: dict[str, Any]) -> dict[str, Any]:
    track = entry.get("track_id")
    coco.require(coco.is_id(track), "without a track", f"track_id is {coco.short(track)}")
    frame = _frame(picture)
    coco.require(0 <= frame <= _LARGEST_FRAME, "without a time", f"frame_id is {coco.short(picture.get('frame_id'))}")
    text = f"{track:06d}" if isinstance(track, int) else track  # so that their order as text is that of numbers
    return {"subject": f"track {text}", "video": _video(picture), "frame": np.int32(frame)}


def _video(picture: dict[str, Any]) -> str:
    """Return the name of an image's video; without a name each image is one of its own."""
    for name in ("vid_id", "id"):
        if coco.is_id(picture.get(name)):
            return str(picture[name])
    return ""


def _frame(picture: dict[str, Any]) -> int:
    """Return the number of an image in its video, -1 where it has none."""
    number = picture.get("frame_id")
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        return -1
    return number % _PACKED if number >= 1_000_000 * _PACKED else number
