"""Turning a lifted pose, to look at it from another side: what makes a fake out of an annotated pose."""

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

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
    down by e (the head of someone upright comes nearer)."""
    cos, sin, zero, one = jnp.cos(angle), jnp.sin(angle), jnp.zeros_like(angle), jnp.ones_like(angle)
    return jnp.array([[one, zero, zero], [zero, cos, -sin], [zero, sin, cos]])


def turn_pose(
    rotation: Float[Array, "3 3"], points: Float[Array, "17 2"], depth: Float[Array, "17"]
) -> tuple[Float[Array, "17 2"], Float[Array, "17"]]:
    """Turn a lifted pose about the hip; return its new image points and its new depth."""
    turned = jnp.concatenate([points, depth[:, None]], axis=-1) @ rotation.T
    return turned[:, :2], turned[:, 2]
