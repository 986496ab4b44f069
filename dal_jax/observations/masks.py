"""Masks of COCO: run lengths and polygons, from files that are not trusted, to arrays.

Polygons are filled by pycocotools, whose rule for pixels at a border is COCO's. Run lengths are read here: given a text
that somebody has made up, pycocotools 2.0.11 writes beyond its memory.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from dal_jax.observations import coco
from dal_jax.observations.coco import BadEntry
from dal_jax.runtime.errors import needs_extra

_MOST_CELLS = 1 << 26  # as photographs have pixels
_MOST_CORNERS = 100_000
_FARTHEST_PX = 1e5
_LONGEST_PX = 1e6  # of all borders together: pycocotools walks along them, with 100 bytes a pixel, and unchecked


def part_map(dp_masks: Any) -> UInt8[np.ndarray, "h w"] | None:
    """Return DensePose's coarse part (1 to 14, 0: background) of each cell of the person's box, None where unknown.

    dp_masks: the field of an annotation, 14 run-length masks over the box; those that are no object are empty.

    Raises:
      coco.BadEntry: a mask is damaged, or their sizes differ.
    """
    if not dp_masks:
        return None
    coco.require(isinstance(dp_masks, list), "wrong mask", f"dp_masks is {coco.short(dp_masks)}, expected a list")
    coco.require(len(dp_masks) <= 14, "wrong mask", f"dp_masks has {len(dp_masks)} masks, expected 14")
    parts = None
    for index, one in enumerate(dp_masks):
        if not one:
            continue
        mask = decode(one, f"dp_masks[{index}]")
        parts = np.zeros(mask.shape, np.uint8) if parts is None else parts
        coco.require(mask.shape == parts.shape, "wrong mask", f"dp_masks[{index}] has another size than the others")
        parts[mask] = index + 1
    return parts


def segmentation(value: Any, size: tuple[int, int] | None) -> Bool[np.ndarray, "h w"] | None:
    """Return the pixels of a person, from polygons or run lengths over the picture; None where there are none.

    size: (width, height) of the picture; without it nothing can be said.

    Raises:
      coco.BadEntry: the field is damaged, or run lengths are of another picture's size.
    """
    if not value or size is None:
        return None
    width, height = size
    if isinstance(value, dict):
        mask = decode(value, "segmentation")
        coco.require(mask.shape == (height, width), "wrong mask", f"segmentation is of {mask.shape[::-1]} px")
        return mask
    coco.require(isinstance(value, list), "wrong mask", f"segmentation is {coco.short(value)}")
    sane = width * height <= _MOST_CELLS and len(value) <= _MOST_CORNERS
    coco.require(sane, "wrong mask", f"segmentation: {len(value)} polygons in {size} px")
    corners: Any = [_polygon({"segmentation": polygon}) for polygon in value]
    length = sum(_length(polygon) for polygon in corners)
    coco.require(length <= _LONGEST_PX, "wrong mask", f"segmentation: borders of {length:.0f} px in {size} px")
    with needs_extra("data"):
        import pycocotools.mask
    filled: Any = pycocotools.mask.merge(pycocotools.mask.frPyObjects(corners, height, width))
    return decode({"size": [height, width], "counts": filled["counts"].decode()}, "segmentation")


def decode(run_lengths: Any, name: str) -> Bool[np.ndarray, "h w"]:
    """Return a mask of run lengths, `{'size': [h, w], 'counts': text or numbers}`.

    Raises:
      coco.BadEntry: they do not cover the mask exactly.
    """
    coco.require(isinstance(run_lengths, dict), "wrong mask", f"{name} is {coco.short(run_lengths)}")
    height, width = _size(run_lengths.get("size"), name)
    counts = run_lengths.get("counts")
    lengths = _lengths(counts, height * width, name) if isinstance(counts, str) else counts
    coco.require(isinstance(lengths, list), "wrong mask", f"{name}: counts is {coco.short(counts)}")
    whole = all(type(one) is int and one >= 0 for one in lengths)  # True is an int, too
    covers = whole and sum(lengths) == height * width
    coco.require(covers, "wrong mask", f"{name}: counts do not cover {height} x {width} cells")
    on = np.arange(len(lengths)) % 2 == 1  # off and on in turn, down each column
    return np.repeat(on, lengths).reshape((height, width), order="F")


def _size(size: Any, name: str) -> tuple[int, int]:
    whole = isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) for side in size)
    fits = whole and min(size) > 0 and size[0] * size[1] <= _MOST_CELLS
    coco.require(fits, "wrong mask", f"{name}: size is {coco.short(size)}")
    return size[0], size[1]


def _lengths(text: str, cells: int, name: str) -> list[int]:
    """Return the run lengths of COCO's compressed text: six bits a letter, each length less the one before the last."""
    lengths: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise BadEntry("wrong mask", f"{name}: counts holds {letter!r} out of place")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        value -= (bits & 16) << (shift - 4)
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        if not 0 <= lengths[-1] <= cells:
            raise BadEntry("wrong mask", f"{name}: a run of {lengths[-1]} cells")
        value = shift = 0
    coco.require(shift == 0, "wrong mask", f"{name}: counts is cut off")
    return lengths


def _polygon(field: dict[str, Any]) -> list[float]:
    corners = coco.numbers(field, "segmentation", None)
    fits = len(corners) >= 6 and len(corners) % 2 == 0 and len(corners) <= _MOST_CORNERS
    coco.require(fits, "wrong mask", f"segmentation: a polygon of {len(corners)} numbers")
    coco.require(np.abs(corners).max() < _FARTHEST_PX, "wrong mask", "segmentation: a polygon leaves the picture")
    return corners.tolist()


def _length(corners: list[float]) -> float:
    """Return the pixels along a polygon's border."""
    position = np.array(corners).reshape(-1, 2)
    return float(np.abs(np.roll(position, -1, axis=0) - position).max(axis=1).sum())


# --- Polygons in a picture: read from untrusted lists of corners, and asked whether they hold a point ---


def regions(entry: dict[str, Any], x_name: str, y_name: str) -> list[Float[np.ndarray, "corners 2"]]:
    """Return the polygons of two fields, which list each one's x and y; none where the fields are absent.

    Raises:
      coco.BadEntry: the fields are not lists of lists of numbers that agree.
    """
    x, y = entry.get(x_name) or [], entry.get(y_name) or []
    agree = isinstance(x, list) and isinstance(y, list) and len(x) == len(y)
    coco.require(agree, "wrong region", f"{x_name} and {y_name} do not agree")
    found = []
    for one_x, one_y in zip(x, y, strict=True):
        corners_x = coco.numbers({x_name: one_x}, x_name, None)
        corners_y = coco.numbers({y_name: one_y}, y_name, len(corners_x))
        found.append(np.stack([corners_x, corners_y], axis=-1))
    return found


def hold(polygons: list[Float[np.ndarray, "_ 2"]], point: Float[np.ndarray, "2"] | None) -> bool:
    """Tell whether any polygon holds a point (none holds None): a ray to the right crosses its border an odd time."""
    return point is not None and any(_holds(polygon, point) for polygon in polygons)


def _holds(polygon: Float[np.ndarray, "corners 2"], point: Float[np.ndarray, "2"]) -> bool:
    start, end = polygon, np.roll(polygon, -1, axis=0)
    crosses = (start[:, 1] > point[1]) != (end[:, 1] > point[1])
    rise = np.where(crosses, end[:, 1] - start[:, 1], 1.0)
    at = start[:, 0] + (point[1] - start[:, 1]) / rise * (end[:, 0] - start[:, 0])
    return bool(np.sum(crosses & (at > point[0])) % 2)
