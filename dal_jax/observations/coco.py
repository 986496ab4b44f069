"""The JSON container of COCO: images, annotations, categories; read, and its fields checked as untrusted input.

Files of other formats are read as this container (`pose_files`).
"""

import pathlib
import reprlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from dal_jax.body import skeleton
from dal_jax.observations import keypoints, pose_files
from dal_jax.observations.formats import flat, is_id
from dal_jax.observations.keypoints import HIDDEN, SEEN, UNLABELLED, Keypoints
from dal_jax.observations.person import Rejected
from dal_jax.observations.pose_files import Images
from dal_jax.runtime import files
from dal_jax.runtime.errors import InputError

_LARGEST_PX = 100_000


Pictures = dict[int | str, dict[str, Any]]
"""A file's image entries by id."""


class Labelling(NamedTuple):
    """How a file labels people.

    names: of key points, in order. seen: the least visibility of a key point that somebody saw.
    person_ids: of the categories that are called person; empty where none is. scores: v is a detector's score.
    """

    names: tuple[str, ...] = skeleton.COCO_NAMES
    seen: int = SEEN
    person_ids: frozenset[int] = frozenset()
    scores: bool = False


COCO = Labelling()


class BadEntry(Exception):
    """Something in an entry is not as it must be: a short kind, to count by, and what to print."""

    def __init__(self, kind: str, detail: str):
        super().__init__(detail)
        self.kind, self.detail = kind, detail


class Content(NamedTuple):
    """What a file says, in COCO's fields.

    pictures: its images. entries: its annotations, which may still be anything. labels: how it labels people. where:
    file and entry of each annotation, to begin a line with.
    """

    pictures: Pictures
    entries: list[Any]
    labels: Labelling
    where: list[str]


def read(path: str | pathlib.Path, images: Images = None, needs_pictures: bool = True) -> Content:
    """Read COCO's container, or a file of another format as one.

    Args:
      path: a file, or a folder with a file for each photograph (docs/formats.md).
      images: photographs, with whose names those of detectors are matched. None: people keep the names in the file.
      needs_pictures: refuse a container without images.

    Raises:
      errors.InputError: no such file, of no known format, no list 'images', or an image without an id of its own.
    """
    found, where, scores = pose_files.read(path, images)
    if needs_pictures and not isinstance(found["images"], list):
        raise InputError(f"{path}: field 'images' is missing or not a list")
    pictures = {}
    for position, picture in enumerate(found["images"] if isinstance(found["images"], list) else ()):
        if not isinstance(picture, dict) or not is_id(picture.get("id")):
            raise InputError(f"{path}: images[{position}]: field 'id' is missing or not a number or a name")
        if picture["id"] in pictures:
            raise InputError(f"{path}: images[{position}]: id {picture['id']!r} appears twice")
        pictures[picture["id"]] = picture
    labels = labelling(found["categories"], found["annotations"])._replace(scores=scores)
    return Content(pictures, found["annotations"], labels, where)


def require(condition: Any, kind: str, detail: str) -> None:
    """Raise `BadEntry` where a condition does not hold."""
    if not condition:
        raise BadEntry(kind, detail)


def require_ids(entry: Any) -> None:
    """Check that an entry is an object with an id and the id of an image."""
    require(isinstance(entry, dict), "wrong type", f"is {short(entry)}, expected an object")
    for name in ("id", "image_id"):
        require(name in entry, "missing field", f"field '{name}' is missing")
        require(is_id(entry[name]), "wrong type", f"{name} is {short(entry[name])}, expected a number or a name")


def reject(where: str, entry: Any, picture: dict[str, Any] | None, bad: BadEntry) -> Rejected:
    """Return what is said of a bad entry, in one line that begins with `where`."""
    fields = entry if isinstance(entry, dict) else {}
    annotation_id = fields["id"] if is_id(fields.get("id")) else -1
    image_id = fields["image_id"] if is_id(fields.get("image_id")) else -1
    name = (picture or {}).get("file_name", "")
    message = " ".join(f"{where}: {bad.detail}".split())
    return Rejected(image_id, annotation_id, name if isinstance(name, str) else "", bad.kind, message)


def picture_of(pictures: Pictures, entry: Any) -> dict[str, Any] | None:
    """Return the image of an entry, None where it names none of the file's."""
    image_id = entry.get("image_id") if isinstance(entry, dict) else None
    return pictures.get(image_id) if is_id(image_id) and image_id is not None else None


def picture_size(picture: dict[str, Any]) -> tuple[int, int] | None:
    """Return an image's (width, height) where the file names both as numbers that can be one's."""
    size: Any = picture.get("width"), picture.get("height")
    known = all(isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST_PX for value in size)
    return size if known else None


def file_name(picture: dict[str, Any], needed: bool = True) -> str:
    """Return the name of an image's file, which stays inside the images' folder; '' where it is not needed."""
    name = picture.get("file_name", None if needed else "")
    require(isinstance(name, str), "missing field", f"file_name of image {picture['id']!r} is {short(name)}")
    inside = files.name_inside(name)
    if inside is None:
        raise BadEntry("unsafe file name", f"file_name {short(name)} leaves the images' folder")
    return inside


def numbers(entry: dict[str, Any], name: str, length: int | None, nan: bool = False) -> Float[np.ndarray, "n"]:
    """Return a field that is a list of finite numbers (or of NaN, with `nan`), of a given length if there is one."""
    require(name in entry, "missing field", f"field '{name}' is missing")
    value = entry[name]
    require(isinstance(value, list), "wrong type", f"{name} is {short(value)}, expected a list of numbers")
    if length is not None:
        require(len(value) == length, "wrong length", f"{name} has {len(value)} values, expected {length}")
    for index, number in enumerate(value):  # a million of them: what is wrong is put into words only where it is
        if not isinstance(number, (int, float)) or isinstance(number, bool):
            raise BadEntry("wrong type", f"{name}[{index}] is {short(number)}, expected a number")
        if not -1e300 < number < 1e300 and not (nan and number != number):  # also an integer that no float can hold
            raise BadEntry("not finite", f"{name}[{index}] is {short(number)}")
    return np.array(value, np.float64)


def short(value: Any) -> str:
    """Return a value as text that fits a line."""
    return reprlib.repr(value)[:60]


# --- `keypoints`: which names they have, and what a visibility means ---

SEEN_SCORE = 0.3
"""Score from which on a detector's key point is seen, with confidence 1; below it is unknown. Note: our choice."""

_FARTHEST_PX = 1e6


def labelling(categories: Any, entries: Sequence[Any]) -> Labelling:
    """Return how a file labels people, from its `categories` and all annotations, which may hold anything.

    The category person names the key points, or the first that does, or their number says whose they are. Where no
    annotation has a visibility of 2, a visibility of 1 says labelled, as in COCO's results, PoseTrack and CrowdPose;
    else it says labelled but hidden.
    """
    kinds = [one for one in categories if isinstance(one, dict)] if isinstance(categories, list) else []
    given = [kind.get("keypoints") for kind in sorted(kinds, key=lambda one: one.get("name") != "person")]
    named = [one for one in given if isinstance(one, list) and one and all(isinstance(name, str) for name in one)]
    names = tuple(named[0]) if named else pose_files.order_of_count(entries)
    person_ids = [kind.get("id") for kind in kinds if kind.get("name") == "person"]
    return Labelling(
        names,
        SEEN if any(SEEN in visibilities(entry) for entry in entries) else HIDDEN,
        frozenset(number for number in person_ids if isinstance(number, int)),
    )


def visibilities(entry: Any) -> list[Any]:
    """Return what stands for the visibility of each key point of an annotation, right or wrong."""
    values = flat(entry)
    return values[2::3] if isinstance(values, list) else []


def parse(entry: dict[str, Any], labels: Labelling = COCO) -> Keypoints:
    """Return the key points of an annotation, px, in the places of `keypoints.set_of` its names; none if it has none.

    The field holds x, y, v of each name, in one list or in lists of three. v is a visibility of 0, 1 or 2; if the
    labels say so, or one of the annotation is not a whole number, it is a detector's score, and `SEEN_SCORE` decides.

    Raises:
      BadEntry: they are not 3 numbers a name, lie in 0..1, or a visibility is none.
    """
    if entry.get("keypoints") in (None, []):
        return keypoints.missing(keypoints.set_of(labels.names))
    _require_count(flat(entry), len(labels.names))
    values = numbers({"keypoints": flat(entry)}, "keypoints", 3 * len(labels.names), nan=True).reshape(-1, 3)
    nowhere = keypoints.is_nowhere(values)
    values[nowhere & (labels.scores | ~(values[:, 2] > UNLABELLED)), 2] = UNLABELLED  # also -1 and NaN
    odd = np.isnan(values) & ~nowhere[:, None]
    require(not odd.any(), "not finite", f"keypoints[{np.argmax(odd)}] is nan")
    reach = np.abs(values[~nowhere, :2]).max(initial=0.0)
    require(reach < _FARTHEST_PX, "wrong key point", f"keypoints reach {reach:g} px")
    within_one = np.sum(~nowhere & (values[:, 2] > UNLABELLED)) > 1 and reach <= 1.0
    detail = f"keypoints end at {reach:.3g}: these are shares of the picture, expected px"
    require(not within_one, "wrong key point", detail)
    flags = values[:, 2]
    if labels.scores or (flags != np.round(flags)).any():
        values[:, 2] = np.where(flags >= SEEN_SCORE, SEEN, UNLABELLED)
    else:
        wrong = (flags < UNLABELLED) | (flags > SEEN)
        detail = f"keypoints: a visibility is {flags[np.argmax(wrong)]:g}, expected 0 to 2"
        require(not wrong.any(), "wrong key point", detail)
        values[:, 2] = np.where(flags >= labels.seen, SEEN, flags)
    return keypoints.from_named(labels.names, values)


def _require_count(values: Any, count: int) -> None:
    """Refuse another number of key points than there are names, and say what this number could be."""
    if isinstance(values, list) and len(values) != 3 * count:
        text = f"keypoints has {len(values)} values, expected {3 * count}"
        other = len(values) % 3 == 0 and len(values) >= 15
        raise BadEntry(
            "wrong length", text + f": {len(values) // 3} key points need as many names in 'categories'" * other
        )


KEYPOINTS_MARGIN = 1.25
"""Person's box over the box of the key points. Note: our choice; head, hands and feet reach beyond the joints."""

SMALLEST_BOX_PX = 2.0


def box_round(labelled: Keypoints) -> Float[np.ndarray, "4"]:
    """Return the box of a person of whom only key points are given: theirs, with a margin.

    Raises:
      BadEntry: none is known, or all lie at one place.
    """
    known = labelled.position_px[labelled.flag > UNLABELLED]
    if not len(known):
        left_out = ", ".join(f"{name!r} {why}" for name, why in labelled.left_out) or "none is given"
        raise BadEntry("no key points", f"keypoints: none can be used: {left_out}")
    low, high = known.min(axis=0), known.max(axis=0)
    side = KEYPOINTS_MARGIN * (high - low)
    require(max(side) >= SMALLEST_BOX_PX, "wrong key point", f"keypoints: all that are known lie at {low.tolist()}")
    side = np.maximum(side, SMALLEST_BOX_PX)
    return np.array([*((low + high - side) / 2), *side])
