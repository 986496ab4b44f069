"""How far a fitted body's points lie from where they were annotated, in the photograph's pixels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.body import camera, kinematics, parameters as parameters_lib, skinning, surface, template as template_lib
from dal_jax.correspondences import observations


def errors_px(
    template: template_lib.Template,
    parameters: parameters_lib.BodyParameters,
    observation: observations.Observation,
) -> tuple[Float[np.ndarray, "k p"], Float[np.ndarray, "k 17"]]:
    """Return the distances, px of the photograph, of dense points and of key points from where the body puts them."""
    dense, keypoint = _errors_crop(template, parameters, observation)
    half_side = np.asarray(observation.box_px)[:, 2:3] / 2.0
    return np.asarray(dense) * half_side, np.asarray(keypoint) * half_side


def root_mean_square(
    distance: Float[np.ndarray, "k p"], confidence: Float[np.ndarray, "k p"]
) -> Float[np.ndarray, "k"]:
    """Return the root mean square over entries whose confidence is not 0; NaN where there is none."""
    counted = np.asarray(confidence) > 0
    total, count = np.sum(np.where(counted, distance**2, 0.0), axis=1), counted.sum(axis=1)
    return np.where(count > 0, np.sqrt(total / np.maximum(count, 1)), np.nan)


@jax.jit
@functools.partial(jax.vmap, in_axes=(None, 0, 0))
def _errors_crop(
    template: template_lib.Template,
    parameters: parameters_lib.BodyParameters,
    observation: observations.Observation,
) -> tuple[Float[Array, "p"], Float[Array, "17"]]:
    segments = kinematics.pose_skeleton(template, parameters.rotation, parameters.pose, parameters.segment_scale)
    points = surface.surface_points(template, observation.point_face, observation.point_barycentric)
    place = functools.partial(camera.project, camera_scale=parameters.camera_scale, translation=parameters.translation)
    dense = place(skinning.skin_points(template, segments, points)) - observation.point_position
    keypoint = place(skinning.h36m_joints(template, segments)) - observation.keypoint_position
    return jnp.linalg.norm(dense, axis=-1), jnp.linalg.norm(keypoint, axis=-1)
