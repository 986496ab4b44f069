"""Eq. 3 and eq. 4: how far a posed body lies from what was annotated; for registration and regressor alike.

    L_dense = sum_i c_i |x_idx(i) - p_i|^2                                                                     (3)
    L_KP    = sum_j c_j |x_j - p_j|^2 + d_j (z_j - zGAN_j)^2                                                   (4)

x are projections into the crop's [-1, 1] (`cameras.project`), z depths in the same units, c and d confidences. Both
depths are taken relative to their means under d, as the best offset between the two would have it. Note: the paper has
them relative to the root, whose own error would then be in all of them. Residual vectors rather than losses: a sum of
squares is a loss, and Gauss-Newton wants the vector. A confidence c enters a residual as sqrt(c).

The optimiser `lm` sums both in a form of its own (`registration.solvers.tree`), which an edit of a residual here does
not reach.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dal_jax.body import cameras, kinematics, skinning
from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.skinning import SurfacePoints
from dal_jax.body.template import Template
from dal_jax.observations.observation import Observation
from dal_jax.runtime import programs, struct

_AWAY = 0.2  # cosine of a normal with the line of sight; at an outline a normal may turn away a little


@struct.dataclass
class Target:
    """An observation whose surface points have been looked up on the template."""

    points: SurfacePoints
    observation: Observation


def make_target(template: Template, observation: Observation) -> Target:
    """Look up rest positions and skinning weights of the observed surface points (works on any leading axes)."""
    points = skinning.surface_points(template, observation.point_face, observation.point_barycentric)
    return Target(points, observation)


def dense_residual(
    projected: Float[Array, "*views points 2"], target: Target, outlier: float | Float[Array, ""] | None = None
) -> Float[Array, "*views points 2"]:
    """Return eq. 3: sqrt(c_i) (x_idx(i) - p_i), to be summed (not averaged) over the points.

    With `outlier`, a distance in crop units, it is shortened so that its square is the loss of Geman and McClure.
    """
    residual = _shortened(projected - target.observation.point_position, outlier)
    return jnp.sqrt(target.observation.point_confidence)[..., None] * residual


def views_residual(
    projected: Float[Array, "views k 2"], target: Target, outlier: float | Float[Array, ""] | None = None
) -> Float[Array, "views k 2"]:
    """Return x and y of eq. 4 in several views, which tell depth; with `outlier` under the loss of dense points.

    Of one image a key point that is wrong is all that tells of its limb; here the other views do.
    """
    residual = _shortened(projected - target.observation.keypoint_position, outlier)
    return jnp.sqrt(target.observation.keypoint_confidence)[..., None] * residual


def _shortened(residual: Float[Array, "*points 2"], outlier) -> Float[Array, "*points 2"]:
    if outlier is None:
        return residual
    return residual * jax.lax.rsqrt(1.0 + jnp.sum(residual**2, axis=-1, keepdims=True) / outlier**2)


def keypoint_residual(projected: Float[Array, "k 3"], target: Target) -> Float[Array, "k 3"]:
    """Return eq. 4: x, y against the annotated key points, z against the lifted depth."""
    seen = target.observation
    planar = jnp.sqrt(seen.keypoint_confidence)[:, None] * (projected[:, :2] - seen.keypoint_position)
    depth = depth_residual(projected[:, 2] - seen.depth, seen.depth_confidence, seen.depth_turns)
    return jnp.concatenate([planar, depth[:, None]], axis=1)


def depth_residual(
    depth: Float[Array, "k *batch"],
    confidence: Float[Array | np.ndarray, "k *batch"],
    turns: Float[Array | np.ndarray, "2 k *batch"] | None = None,
) -> Float[Array, "k *batch"]:
    """Return z of eq. 4: v = sqrt(d_j) (z_j - zGAN_j), both relative to their means; of `turns` h the rest v - h'(h v).

    Note: not in the paper. Lifters err by turns of the whole body (`observation.with_turns`).
    """
    residual = jnp.sqrt(confidence) * relative_depth(depth, confidence)
    return residual if turns is None else turned(residual, turns)


def turned(
    residual: Float[Array, "k *batch"], turns: Float[Array | np.ndarray, "2 k *batch"]
) -> Float[Array, "k *batch"]:
    """Return v - h'(h v), what `turns` h leave of weighted depth residuals v."""
    return residual - jnp.sum(turns * jnp.sum(turns * residual[None], axis=1, keepdims=True), axis=0)


def dense_loss(projected: Float[Array | np.ndarray, "points 2"], target: Target) -> Float[Array, ""]:
    """Return eq. 3 as a loss: the sum of squares of `dense_residual`, without its square roots."""
    squared = jnp.sum((projected - target.observation.point_position) ** 2, axis=-1)
    return jnp.sum(target.observation.point_confidence * squared)


def relative_depth(
    depth: Float[Array, "k *batch"], confidence: Float[Array | np.ndarray, "k *batch"]
) -> Float[Array, "k *batch"]:
    """Return depths less their mean under the confidences (over the first axis)."""
    total = jnp.sum(jnp.asarray(confidence), axis=0, keepdims=True)
    mean = jnp.sum(confidence * depth, axis=0, keepdims=True) / jnp.where(total > 0, total, 1.0)
    return depth - mean


def keypoint_loss(projected: Float[Array | np.ndarray, "k 3"], target: Target) -> Float[Array, ""]:
    """Return eq. 4 as a loss: the sum of squares of `keypoint_residual`, without its square roots."""
    seen = target.observation
    planar = jnp.sum((projected[:, :2] - seen.keypoint_position) ** 2, axis=-1)
    depth = depth_residual(jnp.asarray(projected)[:, 2] - seen.depth, seen.depth_confidence, seen.depth_turns)
    return jnp.sum(seen.keypoint_confidence * planar) + jnp.sum(depth**2)


def robust(
    squared: Float[Array, "*points"], outlier: float | Float[Array, ""] | None
) -> tuple[Float[Array, "*points"], Float[Array, "*points"]]:
    """Return Geman and McClure's loss r^2 / (1 + r^2 / outlier^2) of squared distances r^2, and its derivative by them.

    The derivative is the weight of a point in iteratively reweighted least squares. Without an outlier: the squared
    loss, whose weights are 1.
    """
    if outlier is None:
        return squared, jnp.ones_like(squared)
    mass = 1.0 / (1.0 + squared / outlier**2)
    return squared * mass, mass**2


# --- the same distances in the photograph's pixels: what is reported ---


def errors_px(
    template: Template,
    parameters: BodyParameters,
    observation: Observation,
) -> tuple[Float[np.ndarray, "people points"], Float[np.ndarray, "people k"]]:
    """Return the reprojection errors of dense points and of key points, px of the photograph, whatever confidence."""
    dense, keypoint = offsets_px(template, parameters, observation)
    return np.linalg.norm(dense, axis=-1), np.linalg.norm(keypoint, axis=-1)


def offsets_px(
    template: Template,
    parameters: BodyParameters,
    observation: Observation,
) -> tuple[Float[np.ndarray, "people points 2"], Float[np.ndarray, "people k 2"]]:
    """Return how far to the right of dense points and key points, and below them, the body has them; px."""
    dense, keypoint = _offsets_crop(template, parameters, observation)
    half_side = np.asarray(observation.box_px)[:, None, 2:3] / 2.0
    return np.asarray(dense) * half_side, np.asarray(keypoint) * half_side


def away(
    template: Template, parameters: BodyParameters, observation: Observation
) -> Float[np.ndarray, "people points"]:
    """Return how far the skin at each dense point turns from the camera: the cosine of its normal and the sight."""
    return np.asarray(_away(template, parameters, observation))


def far_points(template: Template, parameters: BodyParameters, observation: Observation) -> Int[np.ndarray, "people"]:
    """Return how many dense points lie where the skin turns from the camera, by more than outlines need."""
    used = np.asarray(observation.point_confidence) > 0
    return np.sum(used & (away(template, parameters, observation) > _AWAY), axis=1)


@programs.kept
@functools.partial(jax.vmap, in_axes=(None, 0, 0))
def _away(template: Template, parameters: BodyParameters, observation: Observation) -> Float[Array, "points"]:
    segments, face = kinematics.pose_segments(template, parameters), observation.point_face

    corners = skinning.surface_points(template, jnp.repeat(face, 3), jnp.tile(jnp.eye(3), (len(face), 1)))
    first, second, third = jnp.moveaxis(skinning.skin_points(template, segments, corners).reshape(-1, 3, 3), 1, 0)
    normal = jnp.cross(second - first, third - first)
    sight = jnp.array([[0.0, 0.0, 1.0]])
    if observation.pinhole is not None:
        across = (observation.point_position - observation.pinhole.centre[None]) / observation.pinhole.focal
        sight = jnp.concatenate([across, jnp.ones_like(across[:, :1])], axis=-1)
    lengths = jnp.linalg.norm(normal, axis=-1) * jnp.linalg.norm(sight, axis=-1)
    return jnp.sum(normal * sight, axis=-1) / jnp.maximum(lengths, 1e-12)


def root_mean_square(
    distance: Float[np.ndarray, "people points"], confidence: Float[Array | np.ndarray, "people points"]
) -> Float[np.ndarray, "people"]:
    """Return the root mean square over entries whose confidence is not 0; NaN where there is none."""
    counted = np.asarray(confidence) > 0
    total, count = np.sum(np.where(counted, distance**2, 0.0), axis=1), counted.sum(axis=1)
    return np.where(count > 0, np.sqrt(total / np.maximum(count, 1)), np.nan)


@programs.kept
@functools.partial(jax.vmap, in_axes=(None, 0, 0))
def _offsets_crop(
    template: Template, parameters: BodyParameters, observation: Observation
) -> tuple[Float[Array, "points 2"], Float[Array, "k 2"]]:
    segments = kinematics.pose_segments(template, parameters)
    points = skinning.surface_points(template, observation.point_face, observation.point_barycentric)
    place = functools.partial(
        cameras.project,
        camera_scale=parameters.camera_scale,
        translation=parameters.translation,
        pinhole=observation.pinhole,
    )
    dense = place(skinning.skin_points(template, segments, points))
    keypoints = skinning.keypoints(template, segments, observation.keypoint_set)
    return dense - observation.point_position, place(keypoints) - observation.keypoint_position
