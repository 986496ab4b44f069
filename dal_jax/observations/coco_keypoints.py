"""The `keypoints` of COCO-style files, detectors' among them: which names they have, and what a visibility means."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from dal_jax.body import skeleton
from dal_jax.observations import coco, keypoints
from dal_jax.observations.keypoints import HIDDEN, SEEN, UNLABELLED, Keypoints

_SEEN_CONFIDENCE = 0.3  # of a detector's key point; below it the point counts as unlabelled
_LARGEST_PX = 1e6


class Labelling(NamedTuple):
    """How a file labels key points: their names, in order, and the least visibility of one that somebody saw."""

    names: tuple[str, ...] = skeleton.COCO_NAMES
    seen: int = SEEN


COCO = Labelling()


def labelling(categories: Any, entries: Iterable[Any]) -> Labelling:
    """Return how a file labels key points, from its `categories` and all annotations, which may hold anything.

    The category person names them, or the first that does, or COCO does. Where no annotation has a visibility of 2, a
    visibility of 1 says labelled, as in COCO's results, PoseTrack and CrowdPose; else it says labelled but hidden.
    """
    kinds = [one for one in categories if isinstance(one, dict)] if isinstance(categories, list) else []
    given = [kind.get("keypoints") for kind in sorted(kinds, key=lambda one: one.get("name") != "person")]
    named = [one for one in given if isinstance(one, list) and one and all(isinstance(name, str) for name in one)]
    names = tuple(named[0]) if named else skeleton.COCO_NAMES
    return Labelling(names, SEEN if any(SEEN in visibilities(entry) for entry in entries) else HIDDEN)


def visibilities(entry: Any) -> list[Any]:
    """Return what stands for the visibility of each key point of an annotation, right or wrong."""
    values = _flat(entry.get("keypoints")) if isinstance(entry, dict) else None
    return values[2::3] if isinstance(values, list) else []


def parse(entry: dict[str, Any], labels: Labelling = COCO) -> Keypoints:
    """Return the key points of an annotation, px, as BODY_25B's; none of them is known where it has no such field.

    The field holds x, y, v of each name, in one list or in lists of three. v is a visibility of 0, 1 or 2 or, if one of
    the annotation is not a whole number, a detector's confidence.

    Raises:
      coco.BadEntry: they are not 3 numbers a name, or a visibility is none.
    """
    if entry.get("keypoints") in (None, []):
        return keypoints.missing()
    flat = {"keypoints": _flat(entry["keypoints"])}
    values = coco.numbers(flat, "keypoints", 3 * len(labels.names), nan=True).reshape(-1, 3)
    nowhere = keypoints.is_nowhere(values)
    values[nowhere & ~(values[:, 2] > UNLABELLED), 2] = UNLABELLED  # also -1 and NaN
    odd = np.isnan(values) & ~nowhere[:, None]
    coco.require(not odd.any(), "not finite", f"keypoints[{np.argmax(odd)}] is nan")
    reach = np.abs(values[~nowhere, :2]).max(initial=0.0)
    coco.require(reach < _LARGEST_PX, "wrong key point", f"keypoints reach {reach:g} px")
    flags = values[:, 2]
    wrong = (flags < UNLABELLED) | (flags > SEEN)
    detail = f"keypoints: a visibility is {flags[np.argmax(wrong)]:g}, expected 0 to 2"
    coco.require(not wrong.any(), "wrong key point", detail)
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
