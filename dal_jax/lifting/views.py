"""A lifted pose seen from another side: cameras, random rotations, and the fakes that come of them.

Frame of a lifted pose: hip at the origin, x right, y down, z away from the camera; unit: the mean distance of the
joints to the hip in the image. Kudo et al.'s cameras are level and far away; ours learn one elevation and one inverse
distance from the 2D poses.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from dal_jax.lifting import normalise
from dal_jax.lifting.config import MAX_INVERSE_DISTANCE, LiftingConfig
from dal_jax.lifting.normalise import Normalised
from dal_jax.runtime import struct

_Array = Array | np.ndarray


def rotate_and_project(
    config: LiftingConfig,
    inverse_distance: Float[Array, ""],
    rotation: Float[Array, "n 3 3"],
    batch: Normalised,
    depth: Float[Array, "n 17"],
) -> tuple[Float[Array, "n 17 2"], Normalised, Float[Array, "n 17"]]:
    """Rotate lifted poses and project them; joints that were folded onto others are folded again.

    Returns:
      What the discriminator reads; the fakes, whose scale is in the unit of the poses before they were rotated; their
      depth, in that unit.
    """
    joints = unproject(inverse_distance, batch.points, depth)
    rotated, rotated_depth = jax.vmap(rotate_pose)(rotation, joints, depth)
    projected = project(inverse_distance, rotated, rotated_depth)
    projected = jax.vmap(normalise.fill_missing)(projected, batch.stand_in)
    resized, size = jax.vmap(normalise.unit_size)(projected, batch.visible)
    shown = resized if config.normalise_fakes else projected
    fakes = batch._replace(points=resized, hip=jnp.zeros_like(batch.hip), scale=size)
    return shown, fakes, rotated_depth


# --- the camera ---


@struct.dataclass
class SharedCamera:
    """What the cameras of all images have in common.

    elevation: by how much they look down, radians.
    inverse_distance: the unit over the hip's distance: 0 for weak perspective, about 0.09 at five metres.
    """

    elevation: Float[Array, "*batch"]
    inverse_distance: Float[Array, "*batch"]


_MIN_DISTANCE = 0.2  # of the hip's: where depths are not learned yet, no joint gets behind the camera


def initial_camera(config: LiftingConfig) -> SharedCamera:
    """Return the first guess."""
    elevation, inverse_distance = math.radians(config.elevation_start_deg), config.inverse_distance_start
    return SharedCamera(jnp.float32(elevation), jnp.float32(inverse_distance))


def camera_optimizer(config: LiftingConfig) -> optax.GradientTransformation:
    """Return Adam with a rate for each number; a rate of 0 leaves it where it starts."""

    def scaled(updates: Any, _: Any) -> Any:
        elevation, inverse_distance = updates.elevation, updates.inverse_distance
        return SharedCamera(elevation * config.elevation_rate, inverse_distance * config.inverse_distance_rate)

    return optax.chain(optax.adam(1.0, b1=config.adam_b1), optax.stateless(scaled))


def feasible(camera: SharedCamera) -> SharedCamera:
    """Clip a camera to what is possible.

    Note: cameras look down, hardly ever up. A body reversed in depth would be seen from below: this rules it out.
    """
    return SharedCamera(
        jnp.maximum(camera.elevation, 0.0), jnp.clip(camera.inverse_distance, 0.0, MAX_INVERSE_DISTANCE)
    )


def unproject(
    inverse_distance: Float[_Array, "..."], points: Float[_Array, "*batch 17 2"], depth: Float[_Array, "*batch 17"]
) -> Float[Array, "*batch 17 2"]:
    """Return x and y in space of joints that are seen at `points`: what is farther away is larger than it looks."""
    return jnp.asarray(points) * _distance(inverse_distance, depth)[..., None]


def project(
    inverse_distance: Float[_Array, "..."], points: Float[_Array, "*batch 17 2"], depth: Float[_Array, "*batch 17"]
) -> Float[Array, "*batch 17 2"]:
    """Return where joints at `points` in space are seen: the inverse of `unproject`."""
    return jnp.asarray(points) / _distance(inverse_distance, depth)[..., None]


def _distance(inverse_distance: _Array, depth: _Array) -> Array:
    """Return each joint's distance along the optical axis, of the hip's."""
    return jnp.maximum(1.0 + inverse_distance * jnp.asarray(depth), _MIN_DISTANCE)


# --- rotations ---

_RIGHT_HIP, _LEFT_HIP, _LEFT_SHOULDER, _RIGHT_SHOULDER = 1, 4, 11, 14
_UNMATCHED_STEPS = 2000  # before which depths are too poor to tell an azimuth
_MATCH_SD = math.radians(20.0)  # of the difference to the azimuth that is aimed at


def sample_rotations(
    config: LiftingConfig,
    key: PRNGKeyArray,
    elevation: tuple[Float[Array, ""], Float[Array, "n"]],
    lifted: tuple[Float[Array, "n 17 2"], Float[Array, "n 17"]],
    number: Int[Array, ""],
) -> Float[Array, "n 3 3"]:
    """Draw a rotation for every lifted pose of a batch: tilt(e') Ry(theta) tilt(-e), about the vertical of the world.

    e is the elevation: -e undoes the tilt of the camera that took the picture, e' is that of the camera that sees the
    fake, another pose's of the batch (after ElePose, Wandt et al. 2022). theta ~ U(-azimuth_deg, azimuth_deg). With
    e = 0 and a whole circle this is what Kudo et al. publish, who assume level cameras and people at every azimuth.

    Where people were photographed from some sides only, most such fakes are views that no annotated pose has, and the
    discriminator learns that whatever the depths. A share `matched_azimuths` is therefore rotated to the azimuth of
    another pose of the batch, with a deviation of 20 degrees, from step 2,000 on.

    Args:
      config: of the training.
      key: of this draw.
      elevation: angle by which cameras look down, radians, and by how much more each pose's own does.
      lifted: the poses: points (in space) and depth.
      number: of the training step.
    """
    uniform_key, other_key, error_key, choice_key = jax.random.split(key, 4)
    common, more = elevation
    count, reach = len(lifted[0]), math.radians(config.azimuth_deg)
    angle = jax.random.uniform(uniform_key, (count,), minval=-reach, maxval=reach)
    if config.matched_azimuths:
        own = azimuth(common, *lifted)
        aim = jax.random.permutation(other_key, own) + _MATCH_SD * jax.random.normal(error_key, (count,))
        matched = jax.random.uniform(choice_key, (count,)) < config.matched_azimuths
        angle = jnp.where(matched & (number >= _UNMATCHED_STEPS), aim - own, angle)
    other = jax.random.permutation(jax.random.fold_in(key, 4), more)
    return jax.vmap(lambda theta, e, other_e: tilt(other_e) @ yaw(theta) @ tilt(-e))(
        angle, common + more, common + other
    )


def azimuth(
    elevation: Float[Array, ""], points: Float[Array, "n 17 2"], depth: Float[Array, "n 17"]
) -> Float[Array, "n"]:
    """Return each lifted person's angle about the vertical, from hips and shoulders, radians.

    0 facing the camera; `yaw(theta)` adds theta.
    """
    joints = jnp.concatenate([points, depth[..., None]], axis=-1) @ tilt(-elevation).T
    right = joints[:, _RIGHT_HIP] - joints[:, _LEFT_HIP] + joints[:, _RIGHT_SHOULDER] - joints[:, _LEFT_SHOULDER]
    defined = jnp.sum(right[:, ::2] ** 2, axis=-1) > 0  # arctan2 has no finite slope at the origin
    return jnp.where(defined, jnp.arctan2(right[:, 2], jnp.where(defined, -right[:, 0], 1.0)), 0.0)


def yaw(angle: Float[Array, ""]) -> Float[Array, "3 3"]:
    """Return the rotation about the vertical by an angle in radians: x' = x cos + z sin, y' = y."""
    cos, sin, zero, one = jnp.cos(angle), jnp.sin(angle), jnp.zeros_like(angle), jnp.ones_like(angle)
    return jnp.array([[cos, zero, sin], [zero, one, zero], [-sin, zero, cos]])


def tilt(angle: Float[Array, ""]) -> Float[Array, "3 3"]:
    """Return the rotation about the image's horizontal axis by an angle in radians.

    tilt(e) takes a level camera's view to that of one that looks down by e: the head of an upright person comes nearer.
    """
    cos, sin, zero, one = jnp.cos(angle), jnp.sin(angle), jnp.zeros_like(angle), jnp.ones_like(angle)
    return jnp.array([[one, zero, zero], [zero, cos, -sin], [zero, sin, cos]])


def rotate_pose(
    rotation: Float[Array, "3 3"], points: Float[Array, "17 2"], depth: Float[Array, "17"]
) -> tuple[Float[Array, "17 2"], Float[Array, "17"]]:
    """Rotate a lifted pose about the hip; return its new x and y, and its new depth."""
    rotated = jnp.concatenate([points, depth[:, None]], axis=-1) @ rotation.T
    return rotated[:, :2], rotated[:, 2]
