"""Annotation by machine: an IUV prediction with a network's mistakes, and the points read off it (paper, 6.1)."""

import functools

import numpy as np
import scipy.ndimage
import scipy.spatial
from jaxtyping import Float, Int, UInt8

from dal_jax.data.synthetic import annotator, shapes


def _swapped(pairs: dict[int, int]) -> np.ndarray:
    table = np.arange(25)
    for a, b in pairs.items():
        table[a], table[b] = b, a
    return table


LEFT_RIGHT = _swapped({3: 4, 5: 6, 7: 8, 9: 10, 11: 12, 13: 14, 15: 16, 17: 18, 19: 20, 21: 22, 23: 24})
"""DensePose's part on the other side, by part number."""

FRONT_BACK = _swapped({1: 2, 7: 9, 8: 10, 11: 13, 12: 14, 15: 17, 16: 18, 19: 21, 20: 22})
"""DensePose's part on the other face of the limb or trunk, by part number."""


def degrade(iuv: UInt8[np.ndarray, "s s 3"], random: np.random.Generator) -> UInt8[np.ndarray, "s s 3"]:
    """Return an IUV map as a network would predict it.

    Outlines and borders between parts wander by about a hundredth of the picture; in blobs the side (left for right) or
    the face (front for back) is wrong; there are holes; U and V are blurred inside each part and drift.
    """
    size = len(iuv)
    rows, columns = np.indices((size, size), dtype=np.float64)
    rows += _smooth(size, random) * 0.012 * size
    columns += _smooth(size, random) * 0.012 * size
    rows, columns = (np.clip(np.round(c), 0, size - 1).astype(int) for c in (rows, columns))
    part, uv = iuv[rows, columns, 0].astype(np.int64), iuv[rows, columns, 1:].astype(np.float64)
    uv = _blur(part, uv, 0.02 * size)
    uv += np.stack([_smooth(size, random), _smooth(size, random)], axis=-1) * 7.0 + random.normal(0, 3.0, uv.shape)
    for table, rate in ((LEFT_RIGHT, 1.2), (FRONT_BACK, 1.2), (np.zeros(25, int), 1.5)):
        for _ in range(random.poisson(rate)):
            blob = _blob(part, random)
            part[blob] = table[part[blob]]
    out = np.concatenate([part[..., None], np.clip(np.round(uv), 0, 255)], axis=-1).astype(np.uint8)
    out[part == 0] = 0
    return out


def read_points(
    iuv: UInt8[np.ndarray, "s s 3"], grid_px: Float[np.ndarray, "s s 2"], random: np.random.Generator
) -> annotator.Points:
    """Return points of a prediction: pixels, and for each the template's vertex nearest in UV within its part."""
    rows, columns = annotator.spread(iuv[..., 0], int(random.integers(annotator.FEWEST, annotator.MOST + 1)), random)
    part, uv = iuv[rows, columns, 0].astype(np.int64), iuv[rows, columns, 1:] / 255.0
    face, corner = _nearest_vertex(part, uv)
    return annotator.Points(grid_px[rows, columns], face, np.eye(3)[corner])


def _nearest_vertex(part: Int[np.ndarray, "p"], uv: Float[np.ndarray, "p 2"]) -> tuple[np.ndarray, np.ndarray]:
    face, corner = np.zeros(len(part), np.int64), np.zeros(len(part), np.int64)
    for number in np.unique(part):
        tree, faces = _uv_tree(int(number))
        rows = part == number
        _, nearest = tree.query(uv[rows])
        face[rows], corner[rows] = faces[nearest // 3], nearest % 3
    return face, corner


@functools.cache
def _uv_tree(part: int) -> tuple[scipy.spatial.cKDTree, np.ndarray]:
    faces = np.flatnonzero(shapes.surface().part == part)
    return scipy.spatial.cKDTree(shapes.surface().uv[faces].reshape(-1, 2)), faces


def _smooth(size: int, random: np.random.Generator) -> Float[np.ndarray, "s s"]:
    """Return a smooth random field of standard deviation 1."""
    field = scipy.ndimage.zoom(random.normal(0, 1, (8, 8)), size / 8, order=1, mode="nearest", grid_mode=True)
    return field / max(field.std(), 1e-9)


def _blob(part: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return a disc about a pixel of the body."""
    body = np.flatnonzero(part)
    if not len(body):
        return np.zeros(part.shape, bool)
    row, column = divmod(int(random.choice(body)), part.shape[1])
    radius = random.uniform(0.03, 0.09) * len(part)
    rows, columns = np.indices(part.shape)
    return (part > 0) & ((rows - row) ** 2 + (columns - column) ** 2 < radius**2)


def _blur(part: np.ndarray, uv: np.ndarray, sigma: float) -> np.ndarray:
    """Smooth U and V inside each part, without mixing parts."""
    out = uv.copy()
    for number in np.unique(part[part > 0]):
        inside = (part == number).astype(np.float64)
        weight = scipy.ndimage.gaussian_filter(inside, sigma)
        for channel in range(2):
            smooth = scipy.ndimage.gaussian_filter(uv[..., channel] * inside, sigma)
            out[..., channel] = np.where(inside > 0, smooth / np.maximum(weight, 1e-9), out[..., channel])
    return out
