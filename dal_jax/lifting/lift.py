"""Using a trained lifter: 2D key points in, depth or 3D joints out."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dal_jax.lifting import adversarial, normalise, training


def lift(
    config: training.Config,
    parameters: Any,
    keypoints: Float[Array, "*batch 17 2"],
    visible: Bool[Array, "*batch 17"],
) -> Float[Array, "*batch 17"]:
    """Return the joints' depth relative to the hip, away from the camera, in the unit of the key points.

    It grows with the pose and does not depend on where the pose is. A missing joint gets the network's guess for it
    from the others (which saw it folded onto its nearest visible ancestor): finite, and worth little. A pose of no
    size has depth 0.

    Args:
      config: the one the lifter was trained with.
      parameters: `LiftingState.generator`.
      keypoints: Human3.6M's joints, x right, y down, any unit; the value at an invisible joint is never used.
      visible: which joints are known.
    """
    return lift_joints(config, parameters, keypoints, visible)[..., 2]


def lift_joints(
    config: training.Config,
    parameters: Any,
    keypoints: Float[Array, "*batch 17 2"],
    visible: Bool[Array, "*batch 17"],
) -> Float[Array, "*batch 17 3"]:
    """Return 3D joints in the unit of the key points, hip at the origin: x and y are the given ones, z is `lift`'s.

    A missing joint has the x and y of its nearest visible ancestor.
    """
    count = math.prod(keypoints.shape[:-2])
    poses = jax.vmap(normalise.normalise)(keypoints.reshape(count, 17, 2), visible.reshape(count, 17))
    depth = adversarial.generate(config, parameters, poses.points, poses.visible)
    size = jnp.where(poses.scale > 0, poses.scale, 1.0)  # a pose of no size was not divided by it
    flat = jnp.concatenate([poses.points * size[:, None, None], (depth * poses.scale[:, None])[..., None]], axis=-1)
    return flat.reshape(*keypoints.shape[:-1], 3)
