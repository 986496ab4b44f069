"""The dense term (eq. 3) as a quadratic in the segments' affine maps: after it, no step looks at the points again.

With D_k the change of segment k's map and v the homogeneous rest point, the residual of a point changes by
sum_k a_k D_k' v. As A = sum_k a_k (which is 1),

    sum_p m |sum_k a_k D_k' v|^2  =  sum_k D_k' M_k D_k - sum_{k<l} (D_k - D_l)' G_kl (D_k - D_l)              (L)
    M_k = sum_p m a_k A v v',      G_kl = sum_p m a_k a_l v v'

The first sum is the majoriser of `lm` (Jensen); what it overestimates is a Laplacian on the graph of segments that
share skin. Moments are summed once an image, with the residuals at a reference; values and gradients elsewhere cost
the same for 120 points as for 10,000. A robust loss is majorised by its tangent quadratic at the reference.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.observations import residuals
from dal_jax.observations.residuals import Target
from dal_jax.registration.energy import EnergyWeights
from dal_jax.registration.solvers.tree import state
from dal_jax.registration.solvers.tree.state import TreeModel
from dal_jax.runtime import struct

PEOPLE_AT_ONCE = 16  # whose sums over points stay in the cache of a core
PAIRS = tuple((i, j) for i in range(4) for j in range(i, 4))
FROM_UNIQUE = np.zeros((10, 4, 4), np.float32)
"""Of the sixteen products of a homogeneous point ten are different, `PAIRS`; which of these each of the sixteen is."""
for _place, (_i, _j) in enumerate(PAIRS):
    FROM_UNIQUE[_place, _i, _j] = FROM_UNIQUE[_place, _j, _i] = 1.0


@struct.dataclass
class DenseTerm:
    """Eq. 3 about a reference: moments M and G of (L), reference maps, energy and half gradient there, batch last.

    The moments' starts axis is 1 where no robust loss tells starts apart.
    """

    moments: Float[Array, "24 4 4 starts people"]
    edge_moments: Float[Array, "edges 4 4 starts people"]
    maps: Float[Array, "24 4 2 starts people"]
    energy: Float[Array, "starts people"]
    gradient: Float[Array, "24 4 2 starts people"]


def dense_term(
    model: TreeModel,
    target: Target,
    weights: EnergyWeights,
    maps: Float[Array, "24 4 3 starts people"],
) -> DenseTerm:
    """Sum the moments, and the residuals at the reference `maps`, over the points."""
    sums = _over_people(functools.partial(_sum_points, model, weights), target, maps)
    return DenseTerm(
        moments=_batch_last(sums["moments"]),
        edge_moments=_batch_last(sums["edge_moments"]),
        maps=maps[:, :, :2],
        energy=sums["energy"].T,
        gradient=jnp.transpose(sums["gradient"], (4, 3, 2, 1, 0)),
    )


def alike_for_starts(target: Target, weights: EnergyWeights) -> bool:
    """Return whether the majoriser depends on the points alone: neither a robust loss nor perspective weighs them."""
    return weights.outlier is None and target.observation.pinhole is None and target.observation.views is None


def recentre(
    term: DenseTerm,
    target: Target,
    weights: EnergyWeights,
    maps: Float[Array, "24 4 3 starts people"],
) -> DenseTerm:
    """Move the reference of a term that is `alike_for_starts`: its moments stay, and rounding starts afresh."""
    sums = _over_people(functools.partial(_sum_residuals, weights), target, maps)
    return dataclasses.replace(
        term, maps=maps[:, :, :2], energy=sums["energy"].T, gradient=jnp.transpose(sums["gradient"], (4, 3, 2, 1, 0))
    )


def exact_energy(
    target: Target, weights: EnergyWeights, maps: Float[Array, "24 4 3 starts people"]
) -> Float[Array, "starts people"]:
    """Return eq. 3 from the points themselves."""
    return _over_people(functools.partial(_point_energy, weights), target, maps).T


def evaluate(model: TreeModel, term: DenseTerm, maps: Float[Array, "24 4 3 starts people"]):
    """Return the energy and its half gradient by the planar maps, (L) about the reference."""
    change = state.stage(lambda now, then: now[:, :, :2] - then, maps, term.maps)
    apart = state.over_segments(model.incidence, change)
    tension = state.stage(state.product, term.edge_moments, apart)
    pulled = state.stage(state.product, term.moments, change)
    gradient = term.gradient + pulled - state.over_segments(model.incidence.T, tension)
    return term.energy + jnp.sum(change * (gradient + term.gradient), axis=(0, 1, 2)), gradient


def _over_people(function, target: Target, maps: Float[Array, "24 4 3 starts people"]):
    """Map a function of one person's target and planar maps (starts, 2, 4, 24) over the people."""
    rows = jnp.transpose(maps[:, :, :2], (4, 3, 2, 1, 0))
    return jax.lax.map(lambda pair: function(*pair), (target, rows), batch_size=min(PEOPLE_AT_ONCE, len(rows)))


def _residual(target: Target, rows: Float[Array, "starts 2 4 24"]) -> Float[Array, "starts 2 points"]:
    """Return s Pi(X) + t less the annotated points."""
    blended = jnp.einsum("sick,pk->sicp", rows, target.points.weight, precision="highest")
    placed = state.sum_of(blended[:, :, c] * target.points.rest[None, None, :, c] for c in range(3)) + blended[:, :, 3]
    return placed - target.observation.point_position.T[None]


def _point_energy(weights: EnergyWeights, target: Target, rows: Float[Array, "starts 2 4 24"]):
    value, _ = residuals.robust(jnp.sum(_residual(target, rows) ** 2, axis=1), weights.outlier)
    return jnp.sum(weights.dense * target.observation.point_confidence[None] * value, axis=-1)


def _batch_last(unique: Float[Array, "people starts rows 10"]) -> Float[Array, "rows 4 4 starts people"]:
    moments = jnp.matmul(unique, jnp.asarray(FROM_UNIQUE.reshape(10, 16), unique.dtype), precision="highest")
    return jnp.moveaxis(moments.reshape(*moments.shape[:3], 4, 4), (0, 1), (-1, -2))


def _sum_points(
    model: TreeModel,
    weights: EnergyWeights,
    target: Target,
    rows: Float[Array, "starts 2 4 24"],
) -> dict[str, Array]:
    """Return a person's sums: the robust energy, its gradient, the unique moments of segments and edges."""
    sums = _sum_residuals(weights, target, rows)
    mass = sums.pop("mass")
    if alike_for_starts(target, weights):
        mass = mass[:1]
    rest = _homogeneous(target)
    squares = jnp.stack([rest[i] * rest[j] for i, j in PAIRS], axis=1)
    weighted = mass[:, :, None] * squares[None]  # (starts or 1, points, 10)
    first, second = np.array(model.edges, int).reshape(-1, 2).T
    weight = target.points.weight.T
    own, shared = weight * jnp.sum(weight, axis=0, keepdims=True), weight[first] * weight[second]
    return sums | {
        "moments": jnp.matmul(own[None], weighted, precision="highest"),
        "edge_moments": jnp.matmul(shared[None], weighted, precision="highest"),
    }


def _sum_residuals(weights: EnergyWeights, target: Target, rows: Float[Array, "starts 2 4 24"]) -> dict[str, Array]:
    """Return a person's robust energy, its gradient by the maps, and the mass of each point in the majoriser."""
    residual = _residual(target, rows)
    value, mass = residuals.robust(jnp.sum(residual**2, axis=1), weights.outlier)
    confidence = weights.dense * target.observation.point_confidence[None]
    mass = confidence * mass
    pull = (mass[:, None] * residual)[:, :, None] * _homogeneous(target)[None, None]
    return {
        "energy": jnp.sum(confidence * value, axis=-1),
        "gradient": jnp.einsum("sicp,pk->sick", pull, target.points.weight, precision="highest"),
        "mass": jnp.asarray(mass),
    }


def _homogeneous(target: Target) -> Float[Array, "4 points"]:
    return jnp.concatenate([target.points.rest.T, jnp.ones_like(target.points.rest[None, :, 0])])


# --- Key points: a constant linear function of the maps ---


def keypoint_goal(
    target: Target, weights: EnergyWeights
) -> tuple[Float[Array, "k 3 starts people"], Float[Array, "k 3 starts people"]]:
    """Return where the key points should be, and how hard they pull, by axis; one start stands for all."""
    seen = target.observation
    confidence = jnp.stack([seen.keypoint_confidence.T] * 2 + [seen.depth_confidence.T], axis=1)
    goal = jnp.concatenate([seen.keypoint_position, seen.depth[..., None]], axis=-1)
    return jnp.moveaxis(goal, 0, -1)[:, :, None], (weights.keypoint * confidence)[:, :, None]


def keypoint_places(model: TreeModel, maps: Float[Array, "24 4 3 starts people"]) -> Float[Array, "k 3 starts people"]:
    """Return the key points at the maps."""
    return state.over_segments(model.keypoint_matrix, maps.reshape(-1, *maps.shape[2:]))


def keypoint_moments(model: TreeModel, mass: Float[Array, "k starts people"]) -> Float[Array, "24 4 4 starts people"]:
    """Return the majoriser's moments of key points that pull by `mass`."""
    return state.over_segments(jnp.asarray(model.keypoint_moments).reshape(len(mass), -1).T, mass).reshape(
        -1, 4, 4, *mass.shape[1:]
    )


def evaluate_keypoints(
    model: TreeModel,
    goal: Float[Array, "k 3 starts people"],
    mass: Float[Array, "k 3 starts people"],
    turns: Float[Array, "2 k starts people"] | None,
    maps: Float[Array, "24 4 3 starts people"],
) -> tuple[Float[Array, "starts people"], Float[Array, "24 4 3 starts people"]]:
    """Return eq. 4 and its half gradient by the maps.

    Depths are relative to their mean and free to turn, which the majoriser does not know: it only lies higher.
    """
    residual = keypoint_places(model, maps) - goal
    planar = mass[:, :2] * residual[:, :2]
    depth = residuals.depth_residual(residual[:, 2], mass[:, 2], turns)
    back = depth if turns is None else residuals.turned(depth, turns)  # the projection is its own transpose
    pull = jnp.concatenate([planar, (jnp.sqrt(mass[:, 2]) * back)[:, None]], axis=1)
    gradient = state.over_segments(model.keypoint_matrix.T, pull).reshape(maps.shape)
    return jnp.sum(planar * residual[:, :2], axis=(0, 1)) + jnp.sum(depth**2, axis=0), gradient
