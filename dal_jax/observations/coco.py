"""The JSON container of COCO: images, annotations, categories; read, and its fields checked as untrusted input."""

import pathlib
import reprlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from dal_jax.body import skeleton
from dal_jax.observations import keypoints
from dal_jax.observations.keypoints import HIDDEN, SEEN, UNLABELLED, Keypoints
from dal_jax.observations.person import Rejected
from dal_jax.runtime import files
from dal_jax.runtime.errors import InputError

_LARGEST_PX = 100_000


Pictures = dict[int | str, dict[str, Any]]
"""A file's image entries by id."""


class Labelling(NamedTuple):
    """How a file labels people.

    names: of key points, in order. seen: the least visibility of a key point that somebody saw.
    person_ids: of the categories that are called person; empty where none is.
    """

    names: tuple[str, ...] = skeleton.COCO_NAMES
    seen: int = SEEN
    person_ids: frozenset[int] = frozenset()


COCO = Labelling()


class BadEntry(Exception):
    """Something in an entry is not as it must be: a short kind, to count by, and what to print."""

    def __init__(self, kind: str, detail: str):
        super().__init__(detail)
        self.kind, self.detail = kind, detail


def read(path: str | pathlib.Path) -> tuple[Pictures, list[Any], Labelling]:
    """Return a file's images, its annotations, which may still be anything, and how it labels people.

    Raises:
      errors.InputError: no such JSON, no lists 'images' and 'annotations', or an image without an id of its own.
    """
    content = files.read_json(path)
    for name in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise InputError(f"{path}: field '{name}' is missing or not a list")
    pictures = {}
    for position, picture in enumerate(content["images"]):
        if not isinstance(picture, dict) or not is_id(picture.get("id")):
            raise InputError(f"{path}: images[{position}]: field 'id' is missing or not a number or a name")
        if picture["id"] in pictures:
            raise InputError(f"{path}: images[{position}]: id {picture['id']!r} appears twice")
        pictures[picture["id"]] = picture
    return pictures, content["annotations"], labelling(content.get("categories"), content["annotations"])


def is_id(value: Any) -> bool:
    """Tell whether a value can be an image's or an annotation's id: a number, or a name that can be printed."""
    if isinstance(value, str):
        return len(value) <= 200 and value.isprintable()
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


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


def reject(
    path: str | pathlib.Path, position: int, entry: Any, picture: dict[str, Any] | None, bad: BadEntry
) -> Rejected:
    """Return what is said of a bad entry, the `position`-th of its file, in one line."""
    fields = entry if isinstance(entry, dict) else {}
    annotation_id = fields["id"] if is_id(fields.get("id")) else -1
    image_id = fields["image_id"] if is_id(fields.get("image_id")) else -1
    name = (picture or {}).get("file_name", "")
    which = f"annotation {annotation_id}" if annotation_id != -1 else f"annotations[{position}]"
    message = " ".join(f"{path}: {which}: {bad.detail}".split())
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

_SEEN_CONFIDENCE = 0.3  # of a detector's key point; below it the point counts as unlabelled
_FARTHEST_PX = 1e6


def labelling(categories: Any, entries: Iterable[Any]) -> Labelling:
    """Return how a file labels people, from its `categories` and all annotations, which may hold anything.

    The category person names the key points, or the first that does, or COCO does. Where no annotation has a visibility
    of 2, a visibility of 1 says labelled, as in COCO's results, PoseTrack and CrowdPose; else it says labelled but
    hidden.
    """
    kinds = [one for one in categories if isinstance(one, dict)] if isinstance(categories, list) else []
    given = [kind.get("keypoints") for kind in sorted(kinds, key=lambda one: one.get("name") != "person")]
    named = [one for one in given if isinstance(one, list) and one and all(isinstance(name, str) for name in one)]
    names = tuple(named[0]) if named else skeleton.COCO_NAMES
    person_ids = [kind.get("id") for kind in kinds if kind.get("name") == "person"]
    return Labelling(
        names,
        SEEN if any(SEEN in visibilities(entry) for entry in entries) else HIDDEN,
        frozenset(number for number in person_ids if isinstance(number, int)),
    )


def visibilities(entry: Any) -> list[Any]:
    """Return what stands for the visibility of each key point of an annotation, right or wrong."""
    values = _flat(entry.get("keypoints")) if isinstance(entry, dict) else None
    return values[2::3] if isinstance(values, list) else []


def parse(entry: dict[str, Any], labels: Labelling = COCO) -> Keypoints:
    """Return the key points of an annotation, px, as BODY_25B's; none of them is known where it has no such field.

    The field holds x, y, v of each name, in one list or in lists of three. v is a visibility of 0, 1 or 2 or, if one of
    the annotation is not a whole number, a detector's confidence.

    Raises:
      BadEntry: they are not 3 numbers a name, or a visibility is none.
    """
    if entry.get("keypoints") in (None, []):
        return keypoints.missing()
    flat = {"keypoints": _flat(entry["keypoints"])}
    values = numbers(flat, "keypoints", 3 * len(labels.names), nan=True).reshape(-1, 3)
    nowhere = keypoints.is_nowhere(values)
    values[nowhere & ~(values[:, 2] > UNLABELLED), 2] = UNLABELLED  # also -1 and NaN
    odd = np.isnan(values) & ~nowhere[:, None]
    require(not odd.any(), "not finite", f"keypoints[{np.argmax(odd)}] is nan")
    reach = np.abs(values[~nowhere, :2]).max(initial=0.0)
    require(reach < _FARTHEST_PX, "wrong key point", f"keypoints reach {reach:g} px")
    flags = values[:, 2]
    wrong = (flags < UNLABELLED) | (flags > SEEN)
    detail = f"keypoints: a visibility is {flags[np.argmax(wrong)]:g}, expected 0 to 2"
    require(not wrong.any(), "wrong key point", detail)
    if (flags != np.round(flags)).any():
        values[:, 2] = np.where(flags >= _SEEN_CONFIDENCE, SEEN, UNLABELLED)
    else:
        values[:, 2] = np.where(flags >= labels.seen, SEEN, flags)
    return keypoints.from_named(labels.names, values)


def _flat(values: Any) -> Any:
    """Return a list of lists as one list, anything else as it is."""
    if isinstance(values, list) and values and all(isinstance(one, list) for one in values):
        return [value for one in values for value in one]
    return values
