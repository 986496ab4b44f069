"""2D poses as the networks see them: hip at the origin, mean distance to the hip 1, no joint missing.

What the paper does not say, because its poses are whole: a missing joint takes the place of its nearest visible
ancestor in the skeleton (a missing wrist is folded onto the elbow), in annotated and in turned poses alike, so that
the discriminator cannot tell them apart by what is missing. A missing hip is the midpoint of the two hip joints, or the
only visible one of them, or else the mean of all visible joints.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dal_jax.body import skeleton

_HIP, _RIGHT_HIP, _LEFT_HIP = 0, 1, 4


class Normalised(NamedTuple):
    """One pose (or, with leading axes, many) in the networks' units.

    Attributes:
      points: hip at the origin, mean distance of the other visible joints to it 1 (0 where the pose has no size).
      hip: where that origin is, and
      scale: that mean distance, both in the units of the key points.
      visible: as given, except that the hip, known or estimated, counts as seen.
      stand_in: for every joint the one whose place it takes: itself, or its nearest visible ancestor.
    """

    points: Float[Array, "*n 17 2"]
    hip: Float[Array, "*n 2"]
    scale: Float[Array, "*n"]
    visible: Bool[Array, "*n 17"]
    stand_in: Int[Array, "*n 17"]


def normalise(keypoints: Float[Array, "17 2"], visible: Bool[Array, "17"]) -> Normalised:
    """Move the hip to the origin, divide by the mean distance to it, and fill missing joints.

    Args:
      keypoints: x right, y down, any unit; the value at an invisible joint is never used, NaN included.
      visible: which joints are annotated.
    """
    visible = jnp.asarray(visible)
    keypoints = jnp.where(visible[:, None], keypoints, 0.0)
    hip = _hip(keypoints, visible)
    seen = visible.at[_HIP].set(True)
    points = jnp.where(seen[:, None], keypoints.at[_HIP].set(hip) - hip[None], 0.0)
    points, scale = unit_size(points, seen)
    stand_in = _stand_in(seen)
    return Normalised(fill_missing(points, stand_in), hip, scale, seen, stand_in)


def normalise_all(keypoints: Float[Array, "*n 17 2"], visible: Bool[Array, "*n 17"]) -> Normalised:
    """Apply `normalise` to every pose, whatever the leading axes."""
    return _over_leading_axes(normalise, keypoints, visible)


def unit_size_all(points: Float[Array, "*n 17 2"], visible: Bool[Array, "*n 17"]) -> tuple[Array, Array]:
    """Apply `unit_size` to every pose, whatever the leading axes."""
    return _over_leading_axes(unit_size, points, visible)


def mirrored(poses: Normalised) -> Normalised:
    """Return the poses as a mirror shows them, joints renamed so that they are people again: an involution."""
    mirror, across = jnp.array(skeleton.H36M_MIRROR), jnp.array([-1.0, 1.0])
    return Normalised(
        points=poses.points[..., mirror, :] * jnp.broadcast_to(across, poses.points.shape),
        hip=poses.hip * jnp.broadcast_to(across, poses.hip.shape),
        scale=poses.scale,
        visible=poses.visible[..., mirror],
        stand_in=mirror[poses.stand_in[..., mirror]],
    )


def divisor(scale: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Return what to divide by: the scale, or 1 for a pose of no size."""
    return jnp.where(scale > 0, scale, 1.0)


def unit_size(points: Float[Array, "17 2"], visible: Bool[Array, "17"]) -> tuple[Array, Array]:
    """Divide by the mean distance of the visible joints to the hip, which is at the origin; also return that mean.

    A pose of no size stays as it is, with scale 0 and a finite gradient.
    """
    counted = visible.at[_HIP].set(False)
    squared = jnp.sum(points**2, axis=-1)
    away = counted & (squared > 0)  # the root's slope at 0 is infinite: keep such joints off it
    distance = jnp.where(away, jnp.sqrt(jnp.where(away, squared, 1.0)), 0.0)
    scale = jnp.sum(distance) / jnp.maximum(jnp.sum(counted), 1)
    return points / divisor(scale), scale


def fill_missing(points: Float[Array, "17 2"], stand_in: Int[Array, "17"]) -> Float[Array, "17 2"]:
    """Put every missing joint onto its nearest visible ancestor; a whole pose stays as it is."""
    return points[stand_in]


def _over_leading_axes(function: Callable, points: Array, visible: Array):
    for _ in range(points.ndim - 2):
        function = jax.vmap(function)
    return function(points, visible)


def _stand_in(visible: Array) -> Array:
    sources: list[Array] = []
    for joint, parent in enumerate(skeleton.H36M_PARENTS):  # parents come before their children
        inherited = sources[parent] if parent >= 0 else joint  # the hip is never missing
        sources.append(jnp.where(visible[joint], joint, inherited))
    return jnp.stack(sources)


def _hip(keypoints: Array, visible: Array) -> Array:
    """The annotated hip, else what the hip joints say, else the middle of what is there."""
    sides = jnp.array([_RIGHT_HIP, _LEFT_HIP])
    from_sides = _mean(keypoints[sides], visible[sides])
    from_all = _mean(keypoints, visible)
    estimated = jnp.where(jnp.any(visible[sides]), from_sides, from_all)
    return jnp.where(visible[_HIP], keypoints[_HIP], estimated)


def _mean(points: Array, counted: Array) -> Array:
    return jnp.sum(points, axis=0, where=counted[:, None]) / jnp.maximum(jnp.sum(counted), 1)
