"""Formats of 2D poses that annotators and detectors write: what each looks like, and its people in COCO's fields.

A format is a row of `FORMATS`. Content is told apart by what it holds, never by a file's name. Values stay as the file
has them: `coco` checks them. docs/formats.md lists the programs.
"""

import pathlib
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from dal_jax.body import skeleton
from dal_jax.observations import photographs
from dal_jax.runtime.errors import InputError

Names = tuple[str, ...]


class Found(NamedTuple):
    """One person of a file.

    picture: name or stem of the photograph, or COCO's number. fields: `keypoints`, x, y and score of each in one list,
    and `bbox`, x, y, width, height, where the file has them. names: of the key points, if the file states them.
    shares: x, y are shares of the picture, not px.
    """

    where: str
    picture: Any
    fields: Any
    names: Names | None = None
    shares: bool = False


class Format(NamedTuple):
    """One row of the table.

    matches: whether content is of this format. people: yields the people of content; takes the content, what a line
    begins with, and the picture that a file of one picture means. orders: of key points, where the file names none.
    scores: whether the third values of key points are a detector's scores; False: `coco.parse` looks whether they are
    whole numbers.
    """

    name: str
    matches: Callable[[Any], bool]
    people: Callable[[Any, str, str], Iterable[Found]]
    orders: Mapping[str, Names]
    scores: bool = True


def short(value: Any) -> str:
    """Return a value as text that fits a line."""
    return reprlib.repr(value)[:60]


def is_id(value: Any) -> bool:
    """Tell whether a value can be an image's or an annotation's id: a number, or a name that can be printed."""
    if isinstance(value, str):
        return len(value) <= 200 and value.isprintable()
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def are_numbers(values: Iterable[Any]) -> bool:
    """Tell whether values are numbers that floats can hold; NaN is one."""
    return all(type(value) is float or (type(value) is int and abs(value) < 2**63) for value in values)


def flat(fields: Any) -> Any:
    """Return the key points of an annotation: as one list, if they are lists of three; anything else as it is."""
    values = fields.get("keypoints") if isinstance(fields, dict) else None
    if isinstance(values, list) and values and all(isinstance(one, list) for one in values):
        return [value for one in values for value in one]
    return values


def _all(content: Any, name: str, kind: type | tuple[type, ...]) -> bool:
    """Tell whether content is a list of objects whose first has a field of a kind."""
    return _objects(content) and isinstance(content[0].get(name), kind)


def _objects(content: Any) -> bool:
    return isinstance(content, list) and bool(content) and all(isinstance(one, dict) for one in content)


def _openpose(content: Any, where: str, picture: str) -> Iterator[Found]:
    """`write_json`: an object of `people`; AlphaPose's formats open and cmu are alike."""
    own = isinstance(content.get("people"), list)
    key, field = ("people", "pose_keypoints_2d") if own else ("bodies", "joints")
    for row, one in enumerate(content[key]):
        at = f"{where}: {key}[{row}]"
        values = one.get(field) if isinstance(one, dict) else None
        if not isinstance(values, list):
            raise InputError(f"{at}: field '{field}' is missing or not a list")
        if values:  # empty where a face or a hand alone was found
            yield Found(at, picture, {"keypoints": values}, shares=_within_one(values))


def _within_one(values: list[Any]) -> bool:
    """Tell whether all x, y of a list of x, y, score lie in 0..1: OpenPose's `keypoint_scale=3`."""
    places = [value for row, value in enumerate(values) if row % 3 < 2]
    return are_numbers(places) and all(0 <= value <= 1 for value in places) and any(places)


def _mmpose(content: Any, where: str, picture: str) -> Iterator[Found]:
    """The inferencer's list of instances, of a video one a frame; the demos' `instance_info` with `meta_info`."""
    names = None
    if isinstance(content, dict):
        meta = content.get("meta_info")
        named = meta.get("keypoint_id2name") if isinstance(meta, dict) else None
        if isinstance(named, dict) and all(isinstance(name, str) for name in named.values()):
            names = tuple(named.values())
            names = None if names[:17] == skeleton.COCO_NAMES else names  # of what follows, Halpe's are not ours
        content = content["instance_info"]
    if _all(content, "instances", list):
        for one in content:
            frame, instances = one.get("frame_id"), one["instances"]
            if not isinstance(frame, int) or not isinstance(instances, list):
                raise InputError(f"{where}: frame_id is {short(frame)}, expected a number, with a list of instances")
            at, own = f"{where}: frame {frame}", f"{pathlib.PurePath(picture).stem}_{frame:012d}"
            yield from (_instance(entry, f"{at}: instance {row}", own, names) for row, entry in enumerate(instances))
    else:
        yield from (_instance(one, f"{where}: instance {row}", picture, names) for row, one in enumerate(content))


def _instance(entry: Any, where: str, picture: str, names: Names | None) -> Found:
    places, scores = (entry.get(name) if isinstance(entry, dict) else None for name in ("keypoints", "keypoint_scores"))
    if not isinstance(places, list) or not isinstance(scores, list) or len(places) != len(scores):
        raise InputError(f"{where}: keypoints and keypoint_scores are not lists of one length")
    values = [
        [*place[:2], score] if isinstance(place, list) else place for place, score in zip(places, scores, strict=True)
    ]
    box = entry.get("bbox")
    box = box[0] if isinstance(box, list) and len(box) == 1 else box  # the inferencer wraps it
    return Found(where, picture, {"keypoints": values} | _box_of_corners(box), names)


def _box_of_corners(box: Any) -> dict[str, Any]:
    """Return the field of a box x1, y1, x2, y2, as COCO has it; what is no such box stays, for `coco` to name."""
    if box is None:
        return {}
    if isinstance(box, list) and len(box) == 4 and are_numbers(box):
        return {"bbox": [*box[:2], box[2] - box[0], box[3] - box[1]]}
    return {"bbox": box}


def _ultralytics(content: Any, where: str, picture: str) -> Iterator[Found]:
    """`results[0].to_json()`, in px or, normalised, in shares of the picture; boxes of other things are left out."""
    for row, one in enumerate(content):
        at = f"{where}: entry {row}"
        box, points = (one.get(name) for name in ("box", "keypoints"))
        if one.get("name", "person") != "person" and not points:
            continue
        if not isinstance(box, dict) or not isinstance(points or {}, dict):
            raise InputError(f"{at}: box or keypoints is not an object of numbers, as Ultralytics writes it")
        corners: list[Any] = [box.get(name) for name in ("x1", "y1", "x2", "y2")]
        fields = _box_of_corners(corners) | {name: one[name] for name in ("track_id",) if name in one}
        if points:
            x, y = points.get("x"), points.get("y")
            score = points.get("visible", [1.0] * len(x) if isinstance(x, list) else None)
            if not all(isinstance(each, list) and len(each) == len(x) for each in (x, y, score)):
                raise InputError(f"{at}: keypoints: x, y and visible are not lists of one length")
            fields["keypoints"] = [list(each) for each in zip(x, y, score, strict=True)]
        normalised = are_numbers(corners) and max(corners) <= _LARGEST_SHARE
        yield Found(at, picture, fields, shares=normalised)


_LARGEST_SHARE = 1.5
"""Boxes may pass the border of the picture; those in px are larger than this."""


def _yolo(content: Any, where: str, picture: str) -> Iterator[Found]:
    """`save_txt`: class, centre, width, height, then x, y, v or x, y of 17, all shares; score and track behind."""
    for row, values in enumerate(content):
        at, rest = f"{where}: line {row + 1}", len(values) - 5
        if rest < 0 or (rest > 2 and not 51 <= rest <= 53 and not 34 <= rest <= 36):
            raise InputError(f"{at}: {len(values)} numbers, expected YOLO's 5 of a box and 3 of each of 17 key points")
        kind, x, y, width, height = values[:5]
        fields: dict[str, Any] = {"bbox": [x - width / 2, y - height / 2, width, height]}
        if rest >= 51:
            fields["keypoints"] = values[5:56]
        elif rest >= 34:
            fields["keypoints"] = [value for one in range(5, 39, 2) for value in (*values[one : one + 2], 1.0)]
        if kind == 0 or "keypoints" in fields:  # 0 is COCO's person
            yield Found(at, picture, fields, shares=True)


_LANDMARKS = ("landmark", "landmarks", "poseLandmarks", "pose_landmarks")


def _landmarks(content: Any) -> list[Any] | None:
    """Return the lists of landmarks of people in what MediaPipe's programs write; None where it is something else."""
    for _ in range(2):  # of the old solutions: an object in an object
        if isinstance(content, dict):
            content = next((content[name] for name in _LANDMARKS if name in content), None)
    content = [content] if _all(content, "y", (int, float)) else content
    people = isinstance(content, list) and all(_all(one, "y", (int, float)) for one in content)
    return content if people else None


def _mediapipe(content: Any, where: str, picture: str) -> Iterator[Found]:
    """Lists of 33 landmarks, x and y shares of the picture; the score is `presence`, else `visibility`.

    A landmark of low visibility is hidden, not misplaced: presence tells whether it is in the picture at all.
    """
    for row, one in enumerate(_landmarks(content) or ()):
        scores = [[mark.get(name) for name in ("presence", "visibility")] for mark in one]
        known = [next((value for value in pair if are_numbers([value])), 1.0) for pair in scores]
        values = [
            value for mark, score in zip(one, known, strict=True) for value in (mark.get("x"), mark.get("y"), score)
        ]
        yield Found(f"{where}: person {row}", picture, {"keypoints": values}, shares=True)


BODY_AND_FEET = skeleton.WHOLEBODY_NAMES[:23]


def has_feet(entry: Any) -> bool:
    """Tell whether an annotation has COCO-WholeBody's `foot_kpts`."""
    return isinstance(entry, dict) and isinstance(entry.get("foot_kpts"), list)


def with_feet(entry: Any) -> Any:
    """Return an annotation whose feet, COCO-WholeBody's `foot_kpts`, stand behind the other key points."""
    if not isinstance(entry, dict) or not isinstance(entry.get("keypoints"), list):
        return entry
    feet = entry["foot_kpts"] if has_feet(entry) else [0] * 18
    return entry | {"keypoints": entry["keypoints"] + feet}


def _results(content: Any, where: str, picture: str) -> Iterator[Found]:
    """COCO's results, AlphaPose's among them: a list of objects, each of which names its picture."""
    whole = any(has_feet(one) for one in content)
    for row, one in enumerate(content):
        if one.get("category_id", 1) != 1:  # COCO's number of a person
            continue
        one = with_feet(one) if whole else one
        box = {"bbox": one["box"]} if "box" in one and "bbox" not in one else {}
        said = one.get("image_id", one.get("file_name"))
        yield Found(f"{where}: entry {row}", said, one | box, BODY_AND_FEET if whole else None)


def _plain(content: Any, where: str, picture: str) -> Iterator[Found]:
    """A list of boxes, or of key points, of one picture."""
    for row, one in enumerate(content):
        box = isinstance(one, list) and len(one) == 4 and not any(isinstance(value, list) for value in one)
        yield Found(f"{where}[{row}]", picture, {"bbox" if box else "keypoints": one})


def _by_name(content: Any, where: str, picture: str) -> Iterator[Found]:
    """An object with the people of each picture under its name, in any form that one picture may have."""
    for name, value in content.items():
        at = f"{where}: '{name}'"
        kind = next((one for one in ONE_PICTURE if one.matches(value)), None)
        if kind is None:
            raise InputError(f"{at} is {short(value)}, expected a list with one entry a person")
        yield from kind.people(value, at, name)


BY_COUNT = {
    "COCO": skeleton.COCO_NAMES,
    "Halpe": skeleton.HALPE_26_NAMES,
    "COCO-WholeBody": skeleton.WHOLEBODY_NAMES,
    "Halpe-FullBody": skeleton.HALPE_136_NAMES,
}
_OPENPOSE = {
    "OpenPose's COCO": skeleton.OPENPOSE_18_NAMES,
    "BODY_25": skeleton.OPENPOSE_25_NAMES,
    "BODY_25B": skeleton.BODY_25B_NAMES,
}


def _is_openpose(content: Any) -> bool:
    return isinstance(content, dict) and any(isinstance(content.get(name), list) for name in ("people", "bodies"))


def _is_mediapipe(content: Any) -> bool:
    return content != [] and _landmarks(content) is not None


def _is_plain(content: Any) -> bool:
    return type(content) is list and not any(isinstance(one, dict) for one in content)


def _is_mmpose_of_frames(content: Any) -> bool:
    return _all(content, "instances", list) or (
        isinstance(content, dict) and isinstance(content.get("instance_info"), list)
    )


def _is_results(content: Any) -> bool:
    return _objects(content) and any("image_id" in one or "file_name" in one for one in content)


def _is_by_name(content: Any) -> bool:
    if not isinstance(content, dict) or "annotations" in content:
        return False
    known = any(kind.matches(value) for value in content.values() for kind in ONE_PICTURE)
    return known or not content or any(name.endswith(photographs.ENDINGS) for name in content)


_COCO = {"COCO": skeleton.COCO_NAMES}
ONE_PICTURE = (
    Format("OpenPose's JSON", _is_openpose, _openpose, _OPENPOSE),
    Format("MMPose's JSON", lambda content: _all(content, "keypoint_scores", list), _mmpose, BY_COUNT),
    Format("Ultralytics' JSON", lambda content: _all(content, "box", dict), _ultralytics, _COCO),
    Format("MediaPipe's landmarks", _is_mediapipe, _mediapipe, {"MediaPipe": skeleton.MEDIAPIPE_NAMES}),
    Format("YOLO's labels", lambda content: isinstance(content, tuple), _yolo, _COCO, scores=False),
    Format("a list of boxes or key points", _is_plain, _plain, BY_COUNT, scores=False),
)
"""Formats whose files show one picture and do not name it."""

FORMATS = (
    *ONE_PICTURE,
    Format("MMPose's JSON of a video", _is_mmpose_of_frames, _mmpose, BY_COUNT),
    Format("COCO's results", _is_results, _results, BY_COUNT, scores=False),
    Format("an object of pictures' names", _is_by_name, _by_name, _OPENPOSE | BY_COUNT, scores=False),
)
