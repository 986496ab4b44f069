"""A person who annotates: clicks spread over what is seen of each part, each a little off; key points likewise."""

import functools
from typing import NamedTuple

import numpy as np
import scipy.spatial
from jaxtyping import Float, Int

from dal_jax.correspondences import triangles
from dal_jax.data.synthetic import recipe as recipe_lib, shapes, view as view_lib

FEWEST, MOST = 100, 150
"""How many points are asked for on a person; a small or hidden one may show fewer."""


class Points(NamedTuple):
    """Annotated points: where in the photograph, and which surface point each shows."""

    px: Float[np.ndarray, "p 2"]
    face: Int[np.ndarray, "p"]
    barycentric: Float[np.ndarray, "p 3"]


def exact_points(
    view: view_lib.View, part: Int[np.ndarray, "s s"], grid_px: Float[np.ndarray, "s s 2"], random: np.random.Generator
) -> Points:
    """Return visible surface points and their exact projections, spread over the parts seen.

    part: 0 where the body is not seen (other things in front included). A point lies anywhere in its pixel; one that
    misses the body there, at an outline, is put in the pixel's middle.
    """
    rows, columns = spread(part, int(random.integers(FEWEST, MOST + 1)), random)
    step = grid_px[0, 1, 0] - grid_px[0, 0, 0]
    centre = grid_px[rows, columns]
    px = centre + random.uniform(-0.5, 0.5, (len(rows), 2)) * step
    hits = view.cast(px)
    missed = (hits.face < 0) | (hits.face >= view.body_faces)
    px = np.where(missed[:, None], centre, px)
    hits = view.cast(px)
    return Points(px, hits.face, hits.barycentric.astype(np.float64))


def spread(part: Int[np.ndarray, "s s"], count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
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


def err(points: Points, side_px: float, recipe: recipe_lib.Recipe, random: np.random.Generator) -> Points:
    """Return the points as a human would give them: the click off in the picture, the match off on the surface.

    A few are put anywhere on their part. A match stays on its part, because annotators work part by part.
    """
    surface = shapes.surface()
    click = random.normal(0, recipe.click_noise * side_px, points.px.shape)
    corner = surface.corner[points.face].astype(np.float64)
    rest = np.einsum("pc,pcd->pd", points.barycentric, corner)
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    off = random.normal(0, recipe.surface_noise_m, rest.shape)
    off -= np.sum(off * normal, axis=1, keepdims=True) * normal
    face, barycentric = nearest_on_surface(rest + off)
    face, barycentric = _throw(face, barycentric, recipe.outlier_rate, random)
    same = surface.part[face] == surface.part[points.face]
    face = np.where(same, face, points.face)
    barycentric = np.where(same[:, None], barycentric, points.barycentric)
    return Points(points.px + click, face, barycentric)


def keypoints(
    joints_px: Float[np.ndarray, "17 2"],
    visible: np.ndarray,
    side_px: float,
    recipe: recipe_lib.Recipe,
    random: np.random.Generator,
) -> Float[np.ndarray, "17 2"]:
    """Return key points as annotated: a little off, hidden ones (which are guessed) more so."""
    spread_px = np.where(visible, recipe.keypoint_noise, recipe.hidden_keypoint_noise) * side_px
    return joints_px + random.normal(0, 1, joints_px.shape) * spread_px[:, None]


def nearest_on_surface(rest: Float[np.ndarray, "p 3"]) -> tuple[Int[np.ndarray, "p"], Float[np.ndarray, "p 3"]]:
    """Return (face, barycentric) of the rest surface's point near each point: on the face whose middle is nearest."""
    _, face = _face_tree().query(rest)
    barycentric, _ = triangles.closest(rest, shapes.surface().corner[face].astype(np.float64))
    return face, barycentric


@functools.cache
def _face_tree() -> scipy.spatial.cKDTree:
    return scipy.spatial.cKDTree(shapes.surface().corner.mean(axis=1))


@functools.cache
def _z_order(size: int) -> Int[np.ndarray, "pixels"]:
    """Return the place of each pixel on a Z-order curve, along which neighbours stay neighbours."""
    row, column = (index.ravel() for index in np.indices((size, size)))
    code = np.zeros(size * size, np.int64)
    for bit in range(size.bit_length()):
        code |= ((row >> bit) & 1) << (2 * bit + 1) | ((column >> bit) & 1) << (2 * bit)
    return code


def _throw(face: np.ndarray, barycentric: np.ndarray, rate: float, random: np.random.Generator):
    """Replace a share `rate` of the points by any point of their part."""
    part = shapes.surface().part
    face, barycentric = face.copy(), barycentric.copy()
    for row in np.flatnonzero(random.random(len(face)) < rate):
        face[row] = random.choice(np.flatnonzero(part == part[face[row]]))
        barycentric[row] = random.dirichlet(np.ones(3))
    return face, barycentric
