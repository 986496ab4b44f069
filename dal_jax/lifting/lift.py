"""Using a trained lifter's parameters: 2D key points in, 3D joints with standard deviations out; pure, jits and vmaps.

`folder.lift` does the same from a trained folder, with NumPy arrays. A pose is lifted as if the camera looked at it;
with known intrinsics it is first seen by a camera that does, and then rotated into the true one's frame.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.sparse
from jaxtyping import Array, Bool, Float, Int

from dal_jax.body import cameras, skeleton
from dal_jax.lifting import networks, normalise, outliers, views
from dal_jax.lifting.config import MAX_INVERSE_DISTANCE, LiftingConfig
from dal_jax.lifting.normalise import Denoiser, Normalised
from dal_jax.lifting.poses import from_h36m, to_h36m
from dal_jax.observations.following import Frames
from dal_jax.observations.observation import TYPICAL_DEPTH_SD, Observation, with_depth
from dal_jax.runtime import mesh as mesh_lib, struct

_Array = Array | np.ndarray


@struct.dataclass
class Lifter:
    """What training leaves for use (leading axis of the first three: members).

    generators: parameters of that network, or None where an estimator lifts.
    member_weight: 1 for members that count, 0 for those that held-out 2D poses showed to have collapsed.
    inverse_distance: of the camera (`views.SharedCamera`).
    estimator: parameters of that network, or None.
    completer, denoiser: see `normalise.prepare`.
    """

    generators: Any
    member_weight: Float[Array, "members"]
    inverse_distance: Float[Array, "members"]
    estimator: Any
    completer: Any
    denoiser: Denoiser | None


@struct.dataclass
class Lifted:
    """Lifted poses: relative to the hip, x right, y down, z away from the camera, in the unit of the key points.

    Where intrinsics are known all but `joints` is as seen by a camera at the same place that looks at the hip, so that
    depth is along the hip's ray.

    points: the given x and y; of a missing joint where the others put it.
    depth_sd: standard deviation of the depth; None where the lifter has none (Kudo et al.).
    points_sd: of x and of y of a missing joint; 0 for a given one.
    size: mean distance of the joints to the hip in the image, the networks' unit.
    inverse_distance: one unit of depth over the hip's distance to the camera; 0 for weak perspective.
    standardised_residual: distance of each given joint from its prediction by the others, in standard deviations, and
    exchanged: which joints were given in the place of the other side's; only from `folder.lift` (see `outliers`).
    rotation: from that camera's axes to the true one's; None where intrinsics are not known.
    """

    points: Float[_Array, "*batch 17 2"]
    depth: Float[_Array, "*batch 17"]
    depth_sd: Float[_Array, "*batch 17"] | None
    points_sd: Float[_Array, "*batch 17"]
    size: Float[_Array, "*batch"]
    inverse_distance: Float[_Array, "*batch"]
    standardised_residual: Float[_Array, "*batch 17"] | None = None
    exchanged: Bool[_Array, "*batch 17"] | None = None
    rotation: Float[_Array, "*batch 3 3"] | None = None

    @property
    def joints(self) -> Float[_Array, "*batch 17 3"]:
        """The 3D joints: x and y in space are those in the image times the joint's distance over the hip's."""
        points = views.unproject(self.inverse_distance[..., None], self.points, self.depth)
        joints = jnp.concatenate([points, self.depth[..., None]], axis=-1)
        if self.rotation is not None:
            joints = jnp.einsum("...ij,...kj->...ki", self.rotation, joints, precision="highest")
        return np.asarray(joints) if isinstance(self.depth, np.ndarray) else joints


def lift(
    config: LiftingConfig,
    lifter: Lifter,
    keypoints: Float[_Array, "*batch 17 2"],
    visible: Bool[_Array, "*batch 17"],
) -> Lifted:
    """Lift poses. The result grows with the pose and does not depend on where the pose is.

    The depth is the estimator's, or the mean over the members that count, and where they were trained on mirrored
    poses, over the pose and its mirror image; its variance is the estimator's and the spread between the two. A pose of
    no size has depth 0.

    Args:
      config: the one the lifter was trained with.
      lifter: `LiftingState.lifter`, or from `folder.load`.
      keypoints: Human3.6M's joints, x right, y down, any unit; the value at an invisible joint is never used.
      visible: which joints are known.
    """
    batch, count = keypoints.shape[:-2], math.prod(keypoints.shape[:-2])
    keypoints, visible = jnp.asarray(keypoints).reshape(count, 17, 2), jnp.asarray(visible).reshape(count, 17)
    if count == 1:  # on a CPU one row times a matrix is work for one core, two rows are for all
        keypoints, visible = jnp.repeat(keypoints, 2, axis=0), jnp.repeat(visible, 2, axis=0)
    lifted = compiled(_lift, config)(lifter, keypoints, visible)
    return jax.tree.map(lambda leaf: leaf[:count].reshape(*batch, *leaf.shape[1:]), lifted)


def lift_before(
    config: LiftingConfig,
    lifter: Lifter,
    keypoints: Float[_Array, "n 17 2"],
    visible: Bool[_Array, "n 17"],
    intrinsics: Float[_Array, "n 4"],
) -> Lifted:
    """Lift poses before known cameras: fx, fy, cx, cy in the unit of the key points.

    The focal length tells how near a person is who is seen at a size: a unit of depth over the hip's distance is 1 / f,
    whatever cameras the lifter has learned from.
    """
    looking, rotation = look_at_hip(keypoints, visible, intrinsics)
    lifted = lift(config, lifter, looking, visible)
    near = 1.0 / jnp.sqrt(intrinsics[:, 0] * intrinsics[:, 1])
    furthest = MAX_INVERSE_DISTANCE / normalise.divisor(jnp.asarray(lifted.size))
    return dataclasses.replace(lifted, rotation=rotation, inverse_distance=jnp.minimum(near, furthest))


def intrinsics_of(observation: Observation) -> Float[Array, "n 4"] | None:
    """Return fx, fy, cx, cy of stacked observations, crop units; None where their cameras are not known."""
    if observation.pinhole is None:
        return None
    focal = jnp.broadcast_to(jnp.asarray(observation.pinhole.focal)[:, None], (len(observation.keypoint_position), 2))
    return jnp.concatenate([focal, jnp.asarray(observation.pinhole.centre)], axis=-1)


def look_at_hip(
    keypoints: Float[_Array, "n 17 2"], visible: Bool[_Array, "n 17"], intrinsics: Float[_Array, "n 4"]
) -> tuple[Float[Array, "n 17 2"], Float[Array, "n 3 3"]]:
    """Return poses as seen by cameras at the same places that look at each hip, and the rotations back.

    The new cameras have the given ones' focal length (of two the geometric mean) and their principal point at 0.
    """
    return _look_at_hips(keypoints, visible, intrinsics)


@jax.jit
@jax.vmap
def _look_at_hips(keypoints: Array, visible: Array, intrinsics: Array) -> tuple[Array, Array]:
    known = jnp.where(visible[:, None], keypoints, intrinsics[None, 2:])
    rotation = cameras.ray_rotation(normalise.hip_of(known, visible), intrinsics)
    rays = jnp.concatenate([(known - intrinsics[None, 2:]) / intrinsics[None, :2], jnp.ones((len(known), 1))], axis=1)
    rotated = jnp.matmul(rays, rotation, precision="highest")
    return jnp.sqrt(intrinsics[0] * intrinsics[1]) * rotated[:, :2] / jnp.maximum(rotated[:, 2:], _BESIDE), rotation


_BESIDE = 1e-3  # cosine: a joint that would be beside such a camera or behind it is at the edge of what it sees


def residual(
    config: LiftingConfig,
    lifter: Lifter,
    keypoints: Float[_Array, "n 17 2"],
    visible: Bool[_Array, "n 17"],
    intrinsics: Float[_Array, "n 4"] | None = None,
) -> Float[Array, "n 17"]:
    """Return `outliers.standardised_residual` of poses, as a camera that looks at the hip sees them, if known."""
    seen = keypoints if intrinsics is None else look_at_hip(keypoints, visible, intrinsics)[0]
    return outliers.standardised_residual(config, lifter.completer, seen, visible)


def lift_believed(
    config: LiftingConfig,
    lifter: Lifter,
    factors: Float[_Array, "17"],
    keypoints: Float[_Array, "n 17 2"],
    visible: Bool[_Array, "n 17"],
    intrinsics: Float[_Array, "n 4"] | None = None,
) -> Lifted:
    """Lift poses from the joints that do not contradict each other (`outliers.believe`), left and right exchanged.

    factors: of `outliers.usual`. The rest is that of `lift`, or where intrinsics are known of `lift_before`.
    """
    seen = keypoints if intrinsics is None else look_at_hip(keypoints, visible, intrinsics)[0]
    believed, exchanged, residual = outliers.believe(config, lifter.completer, seen, visible, factors)
    other_side = jnp.asarray(keypoints)[:, jnp.array(skeleton.H36M_MIRROR)]
    keypoints = jnp.where(exchanged[..., None], other_side, keypoints)
    if intrinsics is None:
        lifted = lift(config, lifter, keypoints, believed)
    else:
        lifted = lift_before(config, lifter, keypoints, believed, intrinsics)
    return dataclasses.replace(lifted, standardised_residual=residual, exchanged=exchanged)


def smooth(lifted: Lifted, frames: Frames) -> Lifted:
    """Return lifted poses of videos (host arrays) whose joints move smoothly over the frames of each track.

    x, y and depth of every joint are, each by itself, the path y_t of least

        sum_t ((y_t - x_t) / sd_t)^2 + sum_t ((y_t+1 - 2 y_t + y_t-1) / usual)^2

    with the deviations of missing joints and of depths, and `_NOISE` for a given x or y. Frames that are missing have
    their place in it; after a gap of more than a second a path begins anew, and paths of two frames say nothing.
    Deviations stay as they are: what lifters err by is much the same in neighbouring frames.

    Raises:
      errors.InputError: a track is in one frame twice.
    """
    points, depth = np.array(lifted.points, np.float64), np.array(lifted.depth, np.float64)
    size = np.broadcast_to(np.asarray(lifted.size, np.float64)[:, None], depth.shape)
    points_sd = np.maximum(lifted.points_sd, _NOISE * size)
    depth_sd = TYPICAL_DEPTH_SD * size if lifted.depth_sd is None else np.asarray(lifted.depth_sd)
    for rows in (path for path in frames.paths(_LONGEST_GAP_S) if len(path) > 2):
        stride = max(int(np.gcd.reduce(np.diff(frames.frame[rows]), initial=0)), 1)
        place = (frames.frame[rows] - frames.frame[rows[0]]) // stride
        usual = _ACCELERATION * np.mean(size[rows]) * (30.0 * stride / frames.fps) ** 2
        across, away = (np.maximum(sd[rows], _LEAST * usual) / usual for sd in (points_sd, depth_sd))
        for axis in range(2):
            points[rows, 1:, axis] = _smooth_paths(place, points[rows, 1:, axis], across[:, 1:])
        depth[rows, 1:] = _smooth_paths(place, depth[rows, 1:], away[:, 1:])
    return dataclasses.replace(lifted, points=points.astype(np.float32), depth=depth.astype(np.float32))


_NOISE = 0.06  # of a pose's size: what annotators and detectors err by along x and y
_ACCELERATION = 0.02
"""Of joints that move, of a pose's size a frame squared at 30 frames a second. Note: our choice, on synthetic training
subjects, whose errors are within 0.3 mm with 0.01 to 0.03; real people are livelier."""
_LEAST = 1e-3  # of `usual`: keeps a system of numbers that float64 can solve
_LONGEST_GAP_S = 1.0


def _smooth_paths(
    place: Int[np.ndarray, "t"], values: Float[np.ndarray, "t joints"], sd: Float[np.ndarray, "t joints"]
) -> Float[np.ndarray, "t joints"]:
    """Return the paths of `smooth` at `place`, in units of `usual`."""
    count = int(place[-1]) + 1
    offsets: Any = [0, 1, 2]  # SciPy says what it takes too narrowly
    second_differences = scipy.sparse.diags_array([1.0, -2.0, 1.0], offsets=offsets, shape=(count - 2, count))
    springs = second_differences.T @ second_differences
    bands = np.stack([np.pad(springs.diagonal(-below), (0, below)) for below in range(3)])
    mass, pulled = np.zeros((2, count, values.shape[1]))
    mass[place], pulled[place] = sd**-2, values * sd**-2
    solved = [
        scipy.linalg.solveh_banded(np.stack([bands[0] + one, *bands[1:]]), right, lower=True)
        for one, right in zip(mass.T, pulled.T, strict=True)
    ]
    return np.stack(solved, axis=1)[place]


def with_lifted_depth(config: LiftingConfig, lifter: Lifter, observation: Observation) -> Observation:
    """Return stacked observations with z^GAN of eq. 4, on the host; the lifter reads Human3.6M's joints of any set.

    Where the camera is known, key points are lifted as a camera would see them that looks at the hip, and the depths
    are those along the true camera's axis. The confidence in each depth is that in the key point, times `confidence`;
    a lifter without deviations (Kudo et al.) gives the paper's plain term: every depth counts as its key point does.

    All joints are believed here (not `outliers.believe`): the body follows their places, and with depths of other
    places it fitted a detector's key points worse (81 instead of 71 mm aligned, 20 views of a real person).
    """
    mesh = mesh_lib.of_networks()
    observing = functools.partial(compiled(_observed_depth, config), mesh_lib.everywhere(lifter, mesh))
    points = ("point_position", "point_face", "point_barycentric", "point_confidence")
    without = {name: getattr(observation, name)[:, :0] for name in points}  # not read, so not sent either
    return with_depth(observation, *mesh_lib.in_chunks(observing, dataclasses.replace(observation, **without), mesh))


def _observed_depth(config: LiftingConfig, lifter: Lifter, observation: Observation) -> tuple[Array, Array]:
    position, known = to_h36m(observation)
    intrinsics = intrinsics_of(observation)
    if intrinsics is None:
        lifted = lift(config, lifter, position, known > 0)
        depth = lifted.depth
    else:
        lifted = lift_before(config, lifter, position, known > 0, intrinsics)
        # in the crop's units, which are those at the person's depth
        depth = lifted.joints[..., 2] / jnp.asarray(lifted.rotation)[:, 2, 2, None]
    trusted = known if lifted.depth_sd is None else known * confidence(lifted.depth_sd, lifted.size)
    return from_h36m(observation.keypoint_set, depth, trusted)


def confidence(depth_sd: Float[_Array, "*batch 17"], size: Float[_Array, "*batch"]) -> Float[_Array, "*batch 17"]:
    """Return the confidence of each lifted depth in eq. 4, in (0, 1]; in the paper all have 1.

    The weight of a squared residual goes with the inverse of its variance: 1 / (1 + (sd / `TYPICAL_DEPTH_SD`)^2).
    """
    relative = depth_sd / normalise.divisor(jnp.asarray(size))[..., None]
    return 1 / (1 + (relative / TYPICAL_DEPTH_SD) ** 2)


def compiled(function: Callable, config: LiftingConfig) -> Callable:
    """Return a function of a configuration and of arrays jitted: one compilation a shape."""
    return _compiled(function, dataclasses.astuple(config))


@functools.cache
def _compiled(function: Callable, fields: tuple) -> Callable:
    return jax.jit(functools.partial(function, LiftingConfig(*fields)))


def _lift(config: LiftingConfig, lifter: Lifter, keypoints: _Array, visible: Array) -> Lifted:
    poses, points_sd = normalise.prepare(config, keypoints, visible, lifter.completer, lifter.denoiser)
    depths, variances = _answers(config, lifter, poses)
    weight = lifter.member_weight if lifter.estimator is None else jnp.ones(1)
    if config.mirror_poses:  # a network is only nearly as good at left as at right: ask it for both
        mirror = jnp.array(skeleton.H36M_MIRROR)
        other_depths, other_variances = _answers(config, lifter, normalise.mirrored(poses))
        depths = jnp.concatenate([depths, other_depths[..., mirror]])
        if variances is not None and other_variances is not None:
            variances = jnp.concatenate([variances, other_variances[..., mirror]])
        weight = jnp.concatenate([weight, weight])
    share = weight / jnp.sum(weight)
    depth = jnp.einsum("m,mnj->nj", share, depths)
    scale = poses.scale[:, None]
    depth_sd = None
    if variances is not None:
        total = jnp.einsum("m,mnj->nj", share, variances + (depths - depth[None]) ** 2)
        depth_sd = (jnp.sqrt(total) * scale).at[:, 0].set(0.0)
    size = normalise.divisor(poses.scale)[:, None]  # a pose of no size was not divided by it
    member_share = lifter.member_weight / jnp.sum(lifter.member_weight)
    return Lifted(
        points=poses.points * size[..., None],
        depth=depth * scale,
        depth_sd=depth_sd,
        points_sd=points_sd * scale,
        size=poses.scale,
        inverse_distance=jnp.vdot(member_share, lifter.inverse_distance) / size[:, 0],
    )


def _answers(config: LiftingConfig, lifter: Lifter, poses: Normalised) -> tuple[Array, Array | None]:
    """Return the depths of every network that lifts, (networks, n, 17), and their variances where it has them."""
    if lifter.estimator is None:
        return jax.vmap(lambda generator: networks.depth(config, generator, poses.points))(lifter.generators), None
    depth, log_sd = networks.estimate(config, lifter.estimator, poses.points, poses.visible)
    return depth[None], (_BEYOND_FAKES * jnp.exp(log_sd[None])) ** 2


_BEYOND_FAKES = 1.5
"""Errors of depths over those on fakes, which have no errors that all generators share. Note: our choice, by
synthetic people of the training subjects, of whom 48 and 80% are within one and two deviations as learned on fakes."""
