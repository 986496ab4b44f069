"""The cameras that took the pictures, as far as 2D poses can tell: how far they look down, how near they stand.

Not in the paper, whose cameras are level and far away. Frame of a lifted pose: hip at the origin, x right, y down, z
away from the camera; unit: the mean distance of the joints to the hip in the image.
"""

import math
from typing import TYPE_CHECKING

import flax.struct
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

if TYPE_CHECKING:
    from dal_jax.lifting import config as config_lib


@flax.struct.dataclass
class Camera:
    """What all pictures have in common.

    elevation: by how much the cameras look down, radians.
    nearness: the unit over the hip's distance to the camera: 0 for weak perspective, about 0.09 at five metres.
    """

    elevation: Float[Array, "*batch"]
    nearness: Float[Array, "*batch"]


MOST_NEARNESS = 0.3  # a metre and a half away: nearer, no one number stands for all joints
_LEAST_DISTANCE = 0.2  # of the hip's: where depths are not learned yet, no joint gets behind the camera


def initial(config: "config_lib.Config") -> Camera:
    """Return the first guess."""
    return Camera(jnp.float32(math.radians(config.elevation_start_deg)), jnp.float32(config.nearness_start))


def optimizer(config: "config_lib.Config") -> optax.GradientTransformation:
    """Return Adam, with a rate of its own for each number; a rate of 0 leaves it where it starts."""
    rates = Camera(config.elevation_rate, config.nearness_rate)

    def scaled(updates: Camera, state: optax.OptState, _: object = None) -> tuple[Camera, optax.OptState]:
        return Camera(updates.elevation * rates.elevation, updates.nearness * rates.nearness), state

    return optax.chain(
        optax.adam(1.0, b1=config.adam_b1), optax.GradientTransformation(lambda _: optax.EmptyState(), scaled)
    )


def possible(camera: Camera) -> Camera:
    """Return the nearest camera that there is.

    Note: cameras look down, hardly ever up. A body reversed in depth would be seen from below: this rules it out.
    """
    return Camera(jnp.maximum(camera.elevation, 0.0), jnp.clip(camera.nearness, 0.0, MOST_NEARNESS))


def unproject(
    nearness: Float[Array, "..."], points: Float[Array, "*batch 17 2"], depth: Float[Array, "*batch 17"]
) -> Float[Array, "*batch 17 2"]:
    """Return x and y in space of joints that are seen at `points`: what is farther away is larger than it looks."""
    return points * _distance(nearness, depth)[..., None]


def project(
    nearness: Float[Array, "..."], points: Float[Array, "*batch 17 2"], depth: Float[Array, "*batch 17"]
) -> Float[Array, "*batch 17 2"]:
    """Return where joints at `points` in space are seen: the inverse of `unproject`."""
    return points / _distance(nearness, depth)[..., None]


def _distance(nearness: Array, depth: Array) -> Array:
    """Return each joint's distance along the optical axis, of the hip's."""
    return jnp.maximum(1.0 + nearness * depth, _LEAST_DISTANCE)
