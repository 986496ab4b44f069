"""The data terms of a moment that several views see: one body, and what each view's camera says of its points.

A camera of full perspective sees a place Y = R X + o at x = c + f (Y_x, Y_y) / Y_z, so that a small move dX of it moves
the residual by J R dX, J = f / Y_z [1 0 -Y_x/Y_z; 0 1 -Y_y/Y_z]. Each view then pulls by (J R)' m r, in the axes
that the views share, and resists by the metric R' J' m J R, 3 x 3. Pulls and metrics of all views that see a key point
are added up before the elimination hears of them; a dense point has one view. So the tree is eliminated once, whatever
the number of views: the moments of (2) of `lm` are those of six pairs of axes instead of x and y alike, and z.

The gradient and the energy are taken from the points themselves, at every step; the metrics about a reference.

One image before a known camera is a moment of one view (without what pulls on depths, which `points` has).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.body import cameras
from dal_jax.body.cameras import Views
from dal_jax.observations import residuals
from dal_jax.observations.residuals import Target
from dal_jax.registration.energy import EnergyWeights
from dal_jax.registration.solvers.tree import points, state
from dal_jax.registration.solvers.tree.state import TreeModel
from dal_jax.runtime import struct

AXES = tuple((i, j) for i in range(3) for j in range(i, 3))
"""The six pairs of axes of a symmetric 3 x 3 metric, as moments have them."""


def evaluate(
    model: TreeModel, target: Target, weights: EnergyWeights, maps: Float[Array, "24 4 3 starts people"]
) -> tuple[Float[Array, "starts people"], Float[Array, "24 4 3 starts people"]]:
    """Return eq. 3 and eq. 4 over the views, and half the gradient by the segments' maps."""
    energy, gradient = _over_people(functools.partial(_evaluate, model, weights), target, maps)
    return energy.T, jnp.transpose(gradient, (4, 3, 2, 1, 0))


def moments(
    model: TreeModel, target: Target, weights: EnergyWeights, maps: Float[Array, "24 4 3 starts people"]
) -> Float[Array, "6 24 4 4 starts people"]:
    """Return sum a v v' M_ij of every segment for each pair of `AXES`, M the metric at the maps."""
    return _over_people(functools.partial(_moments, model, weights), target, maps).transpose(2, 5, 3, 4, 1, 0)


def _over_people(function, target: Target, maps: Float[Array, "24 4 3 starts people"]):
    """Map a function of one person's target and maps (starts, axes, 4, 24) over the people."""
    rows = jnp.transpose(maps, (4, 3, 2, 1, 0))
    views = 1 if target.observation.views is None else target.points.rest.shape[1]
    fit = max(points.PEOPLE_AT_ONCE // views, 1)  # whose sums stay in the cache of a core
    at_once = min(1 << (fit.bit_length() - 1), len(rows))  # a power of two, which divides a chunk of people
    return jax.lax.map(lambda pair: function(_in_views(pair[0]), pair[1]), (target, rows), batch_size=at_once)


def _in_views(target: Target) -> Target:
    """Return one person's target with an axis for the views: before a known camera there is one, the image's own.

    Lengths are in crop units, so that the pelvis is as far away as the focal length.
    """
    seen = target.observation
    if seen.pinhole is None:
        return target
    focal, centre = (jnp.asarray(each)[None] for each in (seen.pinhole.focal, seen.pinhole.centre))
    origin = jnp.concatenate([-centre, focal[:, None]], axis=1)
    views = Views(jnp.eye(3, dtype=origin.dtype)[None], origin, focal, centre)
    alone = ("point_position", "point_confidence", "keypoint_position", "keypoint_confidence")
    leaves = {name: jnp.asarray(getattr(seen, name))[None] for name in alone}
    points = jax.tree.map(lambda leaf: leaf[None], target.points)
    return Target(points, dataclasses.replace(seen, views=views, **leaves))


def _evaluate(model: TreeModel, weights: EnergyWeights, target: Target, rows: Float[Array, "starts 3 4 24"]):
    """Return one person's energy (starts) and half gradient (starts, 3, 4, 24)."""
    dense, keypoints = _seen(model, weights, target, rows)
    by_point = _times(weights, _pulls, dense, _stage(weights, _homogeneous, target.points.rest))
    gradient = jnp.einsum("sicp,pk->sick", by_point, _flat(target.points.weight), precision="highest")
    pulls = _stage(weights, lambda one: _pulls(one).sum(axis=2), keypoints)
    matrix = jnp.asarray(model.keypoint_matrix).reshape(-1, 24, 4)
    gradient = gradient + jnp.einsum("sin,nkc->sick", pulls, matrix, precision="highest")
    return dense.energy + keypoints.energy, gradient


def _moments(model: TreeModel, weights: EnergyWeights, target: Target, rows: Float[Array, "starts 3 4 24"]):
    """Return one person's moments (starts, 6, 4, 4, 24)."""
    dense, keypoints = _seen(model, weights, target, rows)
    weighted = _times(weights, _metrics, dense, _stage(weights, _products, target.points.rest))
    own = _stage(weights, lambda share: share * jnp.sum(share, axis=1, keepdims=True), _flat(target.points.weight))
    unique = jnp.einsum("saqp,pk->saqk", weighted, own, precision="highest")
    moments = jnp.einsum("saqk,qij->saijk", unique, jnp.asarray(points.FROM_UNIQUE, unique.dtype), precision="highest")
    metric = _stage(weights, lambda one: _metrics(one).sum(axis=2), keypoints)
    return moments + jnp.einsum("san,nkij->saijk", metric, jnp.asarray(model.keypoint_moments), precision="highest")


def _times(weights: EnergyWeights, function, seen: "_Seen", places: Float[Array, "m all"]) -> Array:
    """Return function(seen), (starts, n, views, points), times numbers of the places: (starts, n, m, all).

    In two loops, of which the second is without views: fused they would divide indices for every product.
    """
    found = _stage(weights, function, seen)
    found = found.reshape(*found.shape[:2], -1)
    return _stage(weights, lambda one, other: one[:, :, None] * other[None, None], found, places)


@struct.dataclass
class _Seen:
    """What a view's camera says of places: residual, mass and how the residual moves with the place.

    off: the residual in the crop. mass: confidence, weight and the robust loss' derivative. size: f / Y_z; slope: -Y_x
    / Y_z and -Y_y / Y_z, so that rows c of the residual's derivative are size (R_c + slope_c R_z).
    """

    energy: Float[Array, "starts"]
    off: Float[Array, "starts 2 views points"]
    mass: Float[Array, "starts views points"]
    size: Float[Array, "starts views points"]
    slope: Float[Array, "starts 2 views points"]
    rotation: Float[Array, "views 3 3"]


def _stage(weights: EnergyWeights, function, *arguments):
    """Return function(*arguments) as `state.stage` does, of one person among many: its condition is that of all."""
    return state.stage(lambda _, *rest: function(*rest), jnp.asarray(weights.dense), *arguments)


def _seen(model: TreeModel, weights: EnergyWeights, target: Target, rows) -> tuple[_Seen, _Seen]:
    """Return what the cameras say of dense points and of key points."""
    seen, rest = target.observation, jnp.asarray(target.points.rest)
    blended = jnp.einsum("sick,pk->sicp", rows, _flat(target.points.weight), precision="highest")
    matrix = jnp.asarray(model.keypoint_matrix).reshape(-1, 24, 4)
    places = jnp.einsum("nkc,sick->sin", matrix, rows, precision="highest")[:, :, None]

    def of_points(blended, rest):
        blended = blended.reshape(*blended.shape[:3], *rest.shape[:2])
        places = state.sum_of(blended[:, :, c] * rest[None, None, :, :, c] for c in range(3)) + blended[:, :, 3]
        confidence = weights.dense * seen.point_confidence
        return _before_cameras(confidence, weights.outlier, seen.views, seen.point_position, places)

    def of_keypoints(places):
        confidence = weights.keypoint * seen.keypoint_confidence
        # of one image a key point is all that tells of a limb
        outlier = weights.outlier if seen.pinhole is None else None
        return _before_cameras(confidence, outlier, seen.views, seen.keypoint_position, places)

    return _stage(weights, of_points, blended, rest), _stage(weights, of_keypoints, places)


def _before_cameras(confidence, outlier, views: cameras.Views | None, position, places) -> _Seen:
    """Return what is seen of places (starts, 3, views or 1, points) in every view."""
    assert views is not None
    rotation, origin, focal = (jnp.asarray(each) for each in (views.rotation, views.origin, views.focal))
    x, y, z = (
        state.sum_of(rotation[None, :, i, j, None] * places[:, j] for j in range(3)) + origin[None, :, i, None]
        for i in range(3)
    )
    nearest = cameras.NEAREST * origin[None, :, 2, None]
    ahead = z > nearest  # what is not stays where the camera is at its limit, and has no slope by depth
    inverse = 1.0 / jnp.where(ahead, z, nearest)
    across = jnp.stack([x * inverse, y * inverse], axis=1)
    off = focal[None, None, :, None] * across + jnp.asarray(views.centre).T[None, :, :, None]
    off = off - jnp.moveaxis(jnp.asarray(position), -1, 0)[None]
    value, mass = residuals.robust(off[:, 0] ** 2 + off[:, 1] ** 2, outlier)
    energy = jnp.sum(confidence[None] * value, axis=(1, 2))
    slope = jnp.where(ahead[:, None], -across, 0.0)
    return _Seen(energy, off, confidence[None] * mass, focal[None, :, None] * inverse, slope, rotation)


def _rows(seen: _Seen) -> list[list[Float[Array, "starts views points"]]]:
    """Return how x and y of the residual move with each axis of the place, over `size`."""
    axis = seen.rotation[None, :, :, :, None]
    return [[axis[:, :, c, j] + seen.slope[:, c] * axis[:, :, 2, j] for j in range(3)] for c in range(2)]


def _pulls(seen: _Seen) -> Float[Array, "starts 3 views points"]:
    """Return half the gradient by the places."""
    rows, force = _rows(seen), (seen.mass * seen.size)[:, None] * seen.off
    return jnp.stack([force[:, 0] * rows[0][j] + force[:, 1] * rows[1][j] for j in range(3)], axis=1)


def _metrics(seen: _Seen) -> Float[Array, "starts 6 views points"]:
    """Return the metrics of places, by pairs of axes."""
    rows, stiffness = _rows(seen), seen.mass * seen.size**2
    return jnp.stack([stiffness * (rows[0][i] * rows[0][j] + rows[1][i] * rows[1][j]) for i, j in AXES], axis=1)


def _flat(weight: Float[Array | np.ndarray, "views points 24"]) -> Float[Array, "all 24"]:
    return jnp.asarray(weight).reshape(-1, weight.shape[-1])


def _homogeneous(rest: Float[Array, "views points 3"]) -> Float[Array, "4 all"]:
    flat = rest.reshape(-1, 3)
    return jnp.concatenate([flat.T, jnp.ones_like(flat[None, :, 0])])


def _products(rest: Float[Array, "views points 3"]) -> Float[Array, "10 all"]:
    """Return the products of homogeneous rest points, by `points.PAIRS`."""
    places = _homogeneous(rest)
    return jnp.stack([places[i] * places[j] for i, j in points.PAIRS])
