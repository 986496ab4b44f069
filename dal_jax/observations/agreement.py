"""Whether a person's box, key points and dense points agree in scale and place."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Array, Float

from dal_jax.body import skeleton
from dal_jax.observations.person import AnnotatedPerson
from dal_jax.runtime.errors import InputError

Size = tuple[int, int]
"""Width and height of a photograph, px."""

_LIMBS = {
    ("left_shoulder", "left_elbow"): (15, 17), ("right_shoulder", "right_elbow"): (16, 18),
    ("left_elbow", "left_wrist"): (19, 21), ("right_elbow", "right_wrist"): (20, 22),
    ("left_hip", "left_knee"): (8, 10), ("right_hip", "right_knee"): (7, 9),
    ("left_knee", "left_ankle"): (12, 14), ("right_knee", "right_ankle"): (11, 13),
}  # fmt: skip
"""The key points at the ends of a bone, and DensePose's parts around it."""

# Note: our choices. Two real people: 4 and 8 px off with boxes read right, 200 px and more with boxes read wrong.
_ENOUGH_POINTS, _NEARER = 10, 0.7
_FAR_OUT = 1.1  # over the photograph's side: boxes may pass the border
_SLACK = 0.1  # of the box: key points may pass its border


def may_be_corners(one: AnnotatedPerson, size: Size | None) -> bool:
    """Tell whether a box could be [x1, y1, x2, y2]: it lies in the photograph, and the key points lie in it."""
    low, high = one.bbox_px[:2], one.bbox_px[2:]
    slack = _SLACK * np.max(high - low)
    labelled = one.keypoints.position_px[one.keypoints.flag > 0]
    ordered = np.all(low >= 0) and np.all(high > low) and np.all(high <= np.array(size or (np.inf, np.inf)) + 1)
    return bool(ordered and np.all(labelled >= low - slack) and np.all(labelled <= high + slack))


def keypoints_outside(one: AnnotatedPerson) -> bool:
    """Tell whether most of a person's labelled key points lie outside the box."""
    low, extent = one.bbox_px[:2], one.bbox_px[2:]
    labelled = one.keypoints.position_px[one.keypoints.flag > 0]
    slack = _SLACK * np.max(extent)
    outside = np.any((labelled < low - slack) | (labelled > low + extent + slack), axis=1)
    return 2 * int(np.sum(outside)) > len(labelled)


def notes(people: Iterable[tuple[str, AnnotatedPerson]]) -> list[str]:
    """Return a line on people whose key points lie outside their boxes; `people`: file and entry, and the person."""
    found = [where for where, one in people if keypoints_outside(one)]
    return [f"{found[0]}: most key points lie outside the box ({len(found)} people in all)"] if found else []


def refuse_corners(people: Iterable[tuple[str, AnnotatedPerson, Size | None]]) -> None:
    """Refuse a file whose boxes are [x1, y1, x2, y2] instead of [x, y, width, height].

    All of them must be able to be. Then the dense points of limbs tell, which lie nearer to the bones between the key
    points if the box is read right; without them, boxes of which most end far outside the photograph.

    Args:
      people: of the whole file: file and entry, the person, the photograph's size where it is known.

    Raises:
      errors.InputError: they are.
    """
    people = list(people)
    if not people or not all(may_be_corners(one, size) for _, one, size in people):
        return
    off = np.concatenate([_off_bones(one) for _, one, _ in people], axis=1)
    given, other = np.sqrt(np.mean(off**2, axis=1)) if off.shape[1] >= _ENOUGH_POINTS else (0.0, 0.0)
    out = [(where, one) for where, one, size in people if size is not None and _ends_far_out(one, size)]
    if other < _NEARER * given:
        (where, one, _), why = (
            people[0],
            f"dense points lie {given:.3g} px off the key points' bones, {other:.3g} px if",
        )
    elif off.shape[1] < _ENOUGH_POINTS and 2 * len(out) >= len(people):
        (where, one), why = out[0], f"{len(out)} of {len(people)} boxes end far outside the image, none if"
    else:
        return
    box = one.bbox_px.round(2).tolist()
    raise InputError(f"{where}: bbox {box} must be [x, y, width, height]: {why} it is [x1, y1, x2, y2]")


def _ends_far_out(one: AnnotatedPerson, size: Size) -> bool:
    return bool(np.any(one.bbox_px[:2] + one.bbox_px[2:] > _FAR_OUT * np.array(size)))


def _off_bones(one: AnnotatedPerson) -> Float[np.ndarray, "2 p"]:
    """Return how far limbs' dense points lie from their bones, px: with the box as it is, and read as corners."""
    low, extent = one.bbox_px[:2], one.bbox_px[2:]
    readings = np.stack([one.point_px, low + (one.point_px - low) / extent * (extent - low)])
    off = [np.zeros((2, 0))]
    for ends, parts in _LIMBS.items():
        names = skeleton.KEYPOINT_SETS[one.keypoints.keypoint_set]
        rows = [names.index(name) for name in ends if name in names]  # Human3.6M's has no ankles
        if len(rows) == len(ends) and np.all(one.keypoints.flag[rows] > 0):
            first, last = one.keypoints.position_px[rows]
            bone, points = last - first, readings[:, np.isin(one.part, parts)] - first
            along = np.clip(points @ bone / max(bone @ bone, 1e-9), 0.0, 1.0)
            off.append(np.linalg.norm(points - along[..., None] * bone, axis=-1))
    return np.concatenate(off, axis=1)


def rescaled(
    body: Float[np.ndarray, "people k 2"],
    annotated: Float[np.ndarray, "people k 2"],
    confidence: Float[Array | np.ndarray, "people k"],
) -> tuple[Float[np.ndarray, "people 2"], Float[np.ndarray, "people"]]:
    """Return the scales along x and y that, with a shift, take a body's key points nearest to the annotated ones.

    Returns:
      The scales, and the root mean square distance that is left, in the unit of the places; NaN where fewer than
      `FEWEST_RESCALED` key points are known.
    """
    known = np.asarray(confidence)[..., None] > 0
    count = np.sum(known, axis=1)
    body, annotated = (
        np.where(known, each - np.sum(each * known, axis=1, keepdims=True) / np.maximum(count, 1)[:, None], 0.0)
        for each in (body, annotated)
    )
    scale = np.sum(body * annotated, axis=1) / np.maximum(np.sum(body**2, axis=1), 1e-12)
    left = np.sum((annotated - scale[:, None] * body) ** 2, axis=(1, 2)) / np.maximum(count[:, 0], 1)
    few = count < FEWEST_RESCALED
    return np.where(few, np.nan, scale), np.where(few[:, 0], np.nan, np.sqrt(left))


FEWEST_RESCALED = 6
"""Key points below which two scales and a shift would explain most of any difference."""

OFF = 0.025
"""Distance of key points from the body, over the crop's side, below which nothing is said of it."""

_EXPLAINED = 0.4  # what may be left of it. Note: ours; two real people's 0.034 and 0.066 leave 0.9 and 0.7 of it


def flags(off_px: float, scale: Float[np.ndarray, "2"], rest_px: float) -> list[str]:
    """Return in words that key points contradict the body of a person's dense points, if another scale would mend it.

    Args:
      off_px: root mean square distance of the key points from the body, px.
      scale, rest_px: see `rescaled`.
    """
    if not rest_px < _EXPLAINED * off_px:
        return []
    off, (across, down) = f"{off_px:.1f} px off, {rest_px:.1f} px otherwise", scale
    if across < 0:
        return [f"key points are the mirror image of the dense points: left and right may be swapped ({off})"]
    what = f"key points are {across:.2f} x {down:.2f} as large, or shifted ({off})"
    return [f"dense points, key points and box disagree in scale or place: {what}"]
