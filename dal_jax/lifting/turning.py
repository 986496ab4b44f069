"""Turning a lifted pose, to look at it from another side: what makes a fake out of an annotated pose."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


def sample_turn(
    key: PRNGKeyArray, elevation: Float[Array, ""], elevation_sd: float = 0.0, heading_range: float = math.pi
) -> Float[Array, "3 3"]:
    """Draw a turn Rx(b) Ry(theta) Rx(-a) about the vertical of the world, for cameras that look down a little.

    theta ~ U(-heading_range, heading_range); a and b ~ N(elevation, elevation_sd): a undoes the tilt of the camera that
    took the picture, b is that of the camera that looks at the fake (after ElePose, Wandt et al. 2022). With a = b = 0
    and a whole turn this is what Kudo et al. publish, who assume a level camera.

    Args:
      key: of this draw.
      elevation: mean angle by which cameras look down, radians.
      elevation_sd: how much it differs from picture to picture, radians.
      heading_range: how far a fake is turned at most, radians; less than pi where people are only ever photographed
        from one side: most fakes would be views that no annotated pose has.
    """
    heading_key, tilt_key = jax.random.split(key)
    heading = jax.random.uniform(heading_key, (), minval=-heading_range, maxval=heading_range)
    before, after = elevation + elevation_sd * jax.random.normal(tilt_key, (2,))
    return tilt(after) @ turn_heading(heading) @ tilt(-before)


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
