"""Polygons in a picture: read from untrusted lists of corners, and asked whether they hold a point."""

from typing import Any

import numpy as np
from jaxtyping import Float

from dal_jax.correspondences import coco


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


def hold(polygons: list[Float[np.ndarray, "corners 2"]], point: Float[np.ndarray, "2"] | None) -> bool:
    """Tell whether any polygon holds a point (none holds None): a ray to the right crosses its border an odd time."""
    return point is not None and any(_holds(polygon, point) for polygon in polygons)


def _holds(polygon: Float[np.ndarray, "corners 2"], point: Float[np.ndarray, "2"]) -> bool:
    start, end = polygon, np.roll(polygon, -1, axis=0)
    crosses = (start[:, 1] > point[1]) != (end[:, 1] > point[1])
    rise = np.where(crosses, end[:, 1] - start[:, 1], 1.0)
    at = start[:, 0] + (point[1] - start[:, 1]) / rise * (end[:, 0] - start[:, 0])
    return bool(np.sum(crosses & (at > point[0])) % 2)
