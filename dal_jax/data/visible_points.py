"""Surface points of a posed body that a camera sees: spread over its parts, each with its exact projection."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Integer

from dal_jax.viewing.raycast import Hits

FEWEST, MOST = 100, 150
"""How many points are asked for on a person; a small or hidden one may show fewer."""


class Points(NamedTuple):
    """Annotated points: where in the photograph, and which surface point each shows."""

    px: Float[np.ndarray, "p 2"]
    face: Int[np.ndarray, "p"]
    barycentric: Float[np.ndarray, "p 3"]


def exact_points(
    cast: Callable[[Float[np.ndarray, "p 2"]], Hits],
    faces: int,
    part: Integer[np.ndarray, "s s"],
    grid_px: Float[np.ndarray, "s s 2"],
    random: np.random.Generator,
) -> Points:
    """Return visible surface points and their exact projections, spread over the parts seen.

    A point lies anywhere in its pixel; one that misses the body there, at an outline, is put in the pixel's middle.

    Args:
      cast: returns what rays through photograph pixels meet first.
      faces: how many faces the body has; those beyond are other things.
      part: of each pixel of the grid; 0 where the body is not seen.
      grid_px: the pixels' centres in the photograph.
      random: of the choice.
    """
    rows, columns = spread(part, int(random.integers(FEWEST, MOST + 1)), random)
    step = grid_px[0, 1, 0] - grid_px[0, 0, 0]
    centre = grid_px[rows, columns]
    px = centre + random.uniform(-0.5, 0.5, (len(rows), 2)) * step
    hits = cast(px)
    missed = (hits.face < 0) | (hits.face >= faces)
    px = np.where(missed[:, None], centre, px)
    hits = cast(px)
    return Points(px, hits.face, hits.barycentric.astype(np.float64))


def pixel_grid_px(box_px: Float[np.ndarray, "4"], size: int) -> Float[np.ndarray, "size size 2"]:
    """Return where the centres of a crop's pixels lie in the photograph."""
    step = (np.arange(size) + 0.5) / size * box_px[2]
    x, y = np.meshgrid(box_px[0] + step, box_px[1] + step)
    return np.stack([x, y], axis=-1)


def spread(part: Integer[np.ndarray, "s s"], count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Choose `count` pixels (rows, columns), or all: each part seen gets a share, evenly spread over it.

    A part's share grows with the square root of its size in the picture, for annotators give small parts more clicks a
    pixel than large ones.
    """
    body = np.flatnonzero(part)
    numbers, sizes = np.unique(part.ravel()[body], return_counts=True)
    place = _z_order(part.shape[0])
    chosen = np.zeros(part.size, bool)
    for number, size, share in zip(numbers, sizes, np.sqrt(sizes) / max(np.sqrt(sizes).sum(), 1e-9), strict=True):
        wanted = min(size, max(1, round(share * count)))
        pixels = np.flatnonzero(part == number)
        pixels = pixels[np.argsort(place[pixels])]
        stratum = (np.arange(wanted) + random.uniform(0, 1, wanted)) * size / wanted
        chosen[pixels[np.minimum(stratum.astype(int), size - 1)]] = True
    spare = body[~chosen[body]]
    missing = np.clip(count - chosen.sum(), 0, len(spare))  # small parts could not take their share
    chosen[random.choice(spare, missing, replace=False)] = True
    flat = random.permutation(np.flatnonzero(chosen))[:count]
    return flat // part.shape[1], flat % part.shape[1]


@functools.cache
def _z_order(size: int) -> Int[np.ndarray, "pixels"]:
    """Return the place of each pixel on a Z-order curve, along which neighbours stay neighbours."""
    row, column = (index.ravel() for index in np.indices((size, size)))
    code = np.zeros(size * size, np.int64)
    for bit in range(size.bit_length()):
        code |= ((row >> bit) & 1) << (2 * bit + 1) | ((column >> bit) & 1) << (2 * bit)
    return code
