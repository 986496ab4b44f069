"""The cameras that took the pictures, as far as 2D poses can tell: how far they look down, how near they stand.

Not in the paper, whose cameras are level and far away. Frame of a lifted pose: hip at the origin, x right, y down, z
away from the camera; unit: the mean distance of the joints to the hip in the image.
"""

import math
from typing import TYPE_CHECKING

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

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


# --- Turning a lifted pose, to look at it from another side: what makes a fake out of an annotated pose ---

if TYPE_CHECKING:
    from dal_jax.lifting import config as config_lib

_RIGHT_HIP, _LEFT_HIP, _LEFT_SHOULDER, _RIGHT_SHOULDER = 1, 4, 11, 14
_UNMATCHED_STEPS = 2000  # before which depths are too poor to say where anybody is heading
_MATCH_SD = math.radians(20.0)  # of the difference to the heading that is aimed at


def sample(
    config: "config_lib.Config",
    key: PRNGKeyArray,
    elevation: Float[Array, ""],
    points: Float[Array, "n 17 2"],
    depth: Float[Array, "n 17"],
    number: Int[Array, ""],
) -> Float[Array, "n 3 3"]:
    """Draw a turn for every lifted pose of a batch: tilt(e) Ry(theta) tilt(-e), about the vertical of the world.

    e is the elevation: -e undoes the tilt of the camera that took the picture, +e is that of the camera that looks at
    the fake (after ElePose, Wandt et al. 2022). theta ~ U(-heading_deg, heading_deg). With e = 0 and a whole turn this
    is what Kudo et al. publish, who assume level cameras and people at every heading.

    Where people were photographed from some sides only, most such fakes are views that no annotated pose has, and the
    discriminator sees that whatever the depths. A share `matched_headings` is therefore turned to the heading of
    another pose of the batch, give or take 20 degrees, from step 2,000 on.

    Args:
      elevation: angle by which cameras look down, radians.
      points, depth: the lifted poses.
      number: of the training step.
    """
    heading_key, other_key, error_key, choice_key = jax.random.split(key, 4)
    count, reach = len(points), math.radians(config.heading_deg)
    angle = jax.random.uniform(heading_key, (count,), minval=-reach, maxval=reach)
    if config.matched_headings:
        own = heading(elevation, points, depth)
        aim = jax.random.permutation(other_key, own) + _MATCH_SD * jax.random.normal(error_key, (count,))
        matched = jax.random.uniform(choice_key, (count,)) < config.matched_headings
        angle = jnp.where(matched & (number >= _UNMATCHED_STEPS), aim - own, angle)
    up, down = tilt(elevation), tilt(-elevation)
    return jax.vmap(lambda theta: up @ turn_heading(theta) @ down)(angle)


def heading(
    elevation: Float[Array, ""], points: Float[Array, "n 17 2"], depth: Float[Array, "n 17"]
) -> Float[Array, "n"]:
    """Return the angle by which each lifted person is turned about the vertical, from hips and shoulders, radians.

    0 for one who faces the camera; `turn_heading(theta)` adds theta.
    """
    joints = jnp.concatenate([points, depth[..., None]], axis=-1) @ tilt(-elevation).T
    right = joints[:, _RIGHT_HIP] - joints[:, _LEFT_HIP] + joints[:, _RIGHT_SHOULDER] - joints[:, _LEFT_SHOULDER]
    somewhere = jnp.sum(right[:, ::2] ** 2, axis=-1) > 0
    return jnp.where(somewhere, jnp.arctan2(right[:, 2], jnp.where(somewhere, -right[:, 0], 1.0)), 0.0)


def turn_heading(angle: Float[Array, ""]) -> Float[Array, "3 3"]:
    """Turn about the vertical by an angle in radians: x' = x cos + z sin, y' = y."""
    cos, sin, zero, one = jnp.cos(angle), jnp.sin(angle), jnp.zeros_like(angle), jnp.ones_like(angle)
    return jnp.array([[cos, zero, sin], [zero, one, zero], [-sin, zero, cos]])


def tilt(angle: Float[Array, ""]) -> Float[Array, "3 3"]:
    """Turn about the image's horizontal axis, radians: tilt(e) takes a level camera's view to that of one that looks
    down by e (the head of someone upright comes nearer).
    """
    cos, sin, zero, one = jnp.cos(angle), jnp.sin(angle), jnp.zeros_like(angle), jnp.ones_like(angle)
    return jnp.array([[one, zero, zero], [zero, cos, -sin], [zero, sin, cos]])


def turn_pose(
    rotation: Float[Array, "3 3"], points: Float[Array, "17 2"], depth: Float[Array, "17"]
) -> tuple[Float[Array, "17 2"], Float[Array, "17"]]:
    """Turn a lifted pose about the hip; return its new image points and its new depth."""
    turned = jnp.concatenate([points, depth[:, None]], axis=-1) @ rotation.T
    return turned[:, :2], turned[:, 2]
