"""2D poses as the networks see them: hip at the origin, mean distance to the hip 1, no joint missing.

Note: the paper's poses are whole. Without a completer a missing joint takes the place of its nearest visible ancestor
in the skeleton (a missing wrist is folded onto the elbow), in annotated and in rotated poses alike, so that the
discriminator cannot tell them apart by what is missing. A completer predicts the place from the other joints. It is
trained on the same 2D poses, with some of the known joints hidden. A missing hip is the midpoint of the two hip joints,
or the only visible one of them, or else the mean of all visible joints; a completer places it from there.

Batches of them are drawn here, too, of any poses or of people in two frames each.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from dal_jax.body import skeleton
from dal_jax.lifting import losses, networks
from dal_jax.lifting.config import LiftingConfig
from dal_jax.runtime import mesh as mesh_lib, struct

_HIP, _RIGHT_HIP, _LEFT_HIP = 0, 1, 4
_MAX_HIDDEN = 0.4  # a pose hides each joint at a rate up to this; drawn pose by pose


class Normalised(NamedTuple):
    """One pose (or, with leading axes, many) in the networks' units.

    Attributes:
      points: hip at the origin, mean distance of the other visible joints to it 1 (0 where the pose has no size).
      hip: where that origin is, and
      scale: that mean distance, both in the units of the key points.
      visible: as given.
      stand_in: for every joint the one whose place it takes: itself, or its nearest visible ancestor.
    """

    points: Float[Array, "*n 17 2"]
    hip: Float[Array, "*n 2"]
    scale: Float[Array, "*n"]
    visible: Bool[Array, "*n 17"]
    stand_in: Int[Array, "*n 17"]


def normalise(keypoints: Float[Array | np.ndarray, "17 2"], visible: Bool[Array | np.ndarray, "17"]) -> Normalised:
    """Move the hip to the origin, divide by the mean distance to it, and fold missing joints.

    Args:
      keypoints: x right, y down, any unit; the value at an invisible joint is never used, NaN included.
      visible: which joints are annotated.
    """
    visible = jnp.asarray(visible)
    keypoints = jnp.where(visible[:, None], keypoints, 0.0)
    hip = hip_of(keypoints, visible)
    somewhere = visible.at[_HIP].set(True)  # known or estimated, the hip has a place
    points = jnp.where(somewhere[:, None], keypoints.at[_HIP].set(hip) - hip[None], 0.0)
    points, scale = unit_size(points, visible)
    stand_in = _stand_in(somewhere)
    return Normalised(fill_missing(points, stand_in), hip, scale, visible, stand_in)


def normalise_all(
    keypoints: Float[Array | np.ndarray, "*n 17 2"], visible: Bool[Array | np.ndarray, "*n 17"]
) -> Normalised:
    """Apply `normalise` to every pose, whatever the leading axes."""
    return _over_leading_axes(normalise, keypoints, visible)


def mirrored(poses: Normalised) -> Normalised:
    """Return the mirror images, with left and right joints renamed: an involution."""
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


def unit_size(
    points: Float[Array, "17 2"], visible: Bool[Array | np.ndarray, "17"]
) -> tuple[Float[Array, "17 2"], Float[Array, ""]]:
    """Divide by the mean distance of the visible joints to the hip, which is at the origin; also return that mean.

    A pose of no size stays as it is, with scale 0 and a finite gradient.
    """
    counted = jnp.asarray(visible).at[_HIP].set(False)
    squared = jnp.sum(points**2, axis=-1)
    away = counted & (squared > 0)  # the root's slope at 0 is infinite: keep such joints off it
    distance = jnp.where(away, jnp.sqrt(jnp.where(away, squared, 1.0)), 0.0)
    scale = jnp.sum(distance) / jnp.maximum(jnp.sum(counted), 1)
    return points / divisor(scale), scale


def fill_missing(points: Float[Array, "17 2"], stand_in: Int[Array, "17"]) -> Float[Array, "17 2"]:
    """Put every missing joint onto its nearest visible ancestor; a whole pose stays as it is."""
    return points[stand_in]


def _over_leading_axes(function: Callable, points: Array | np.ndarray, visible: Array | np.ndarray):
    for _ in range(points.ndim - 2):
        function = jax.vmap(function)
    return function(points, visible)


def _stand_in(visible: Array) -> Array:
    sources: list[Array | int] = []
    for joint, parent in enumerate(skeleton.H36M_PARENTS):  # parents come before their children
        inherited = sources[parent] if parent >= 0 else joint  # the hip is never missing
        sources.append(jnp.where(visible[joint], joint, inherited))
    return jnp.stack(sources)


def hip_of(keypoints: Float[Array, "17 2"], visible: Bool[Array, "17"]) -> Float[Array, "2"]:
    """Return the annotated hip, else the mean of the visible hip joints, else the mean of all visible joints."""
    sides = jnp.array([_RIGHT_HIP, _LEFT_HIP])
    from_sides = _mean(keypoints[sides], visible[sides])
    from_all = _mean(keypoints, visible)
    estimated = jnp.where(jnp.any(visible[sides]), from_sides, from_all)
    return jnp.where(visible[_HIP], keypoints[_HIP], estimated)


def _mean(points: Array, counted: Array) -> Array:
    return jnp.sum(points, axis=0, where=counted[:, None]) / jnp.maximum(jnp.sum(counted), 1)


# --- batches to learn from ---


_Numbers = Int[Array | np.ndarray, "n"]


class Taught(NamedTuple):
    """What batches are drawn from; people: of `rows_of_people`, None where it does not matter whose poses are."""

    poses: Normalised
    people: tuple[_Numbers, _Numbers, _Numbers] | None = None


def rows_of_people(track: Int[np.ndarray, "n"]) -> tuple[_Numbers, _Numbers, _Numbers]:
    """Return all rows person by person, and of each pose where its person begins there, and the number of their rows.

    Track -1 is nobody, whose pose stands alone.
    """
    order = np.argsort(track, kind="stable")
    _, number, count = np.unique(track, return_inverse=True, return_counts=True)
    first = (np.cumsum(count) - count)[number]
    alone = track < 0
    first[order[alone[order]]] = np.flatnonzero(alone[order])
    length = np.where(alone, 1, count[number])
    return order.astype(np.int32), first.astype(np.int32), length.astype(np.int32)


def draw(config: LiftingConfig, mesh: Mesh, taught: Taught, key) -> Normalised:
    """Draw a batch; where people are known, its second half shows those of the first in other frames."""
    rows = jax.random.randint(key, (config.batch,), 0, len(taught.poses.points))
    if taught.people is not None:
        order, first, count = taught.people
        half = rows[: config.batch // 2]
        other = first[half] + jax.random.randint(jax.random.fold_in(key, 2), half.shape, 0, count[half])
        rows = jnp.concatenate([half, order[other], rows[2 * len(half) :]])
    return mesh_lib.constrained(jax.tree.map(lambda values: values[rows], taught.poses), mesh)


def mirror_half(poses: Normalised, key: PRNGKeyArray, pairs: bool = False) -> Normalised:
    """Mirror half of the poses at random; of `pairs`, a pose and the one half the batch after it, both or neither."""
    count = len(poses.points)
    chosen = jax.random.bernoulli(key, shape=(count,))
    if pairs:
        half = count // 2
        chosen = jnp.concatenate([chosen[:half], chosen[:half], chosen[2 * half :]])

    def choose(turned: Array, given: Array) -> Array:
        return jnp.where(chosen.reshape(-1, *[1] * (given.ndim - 1)), turned, given)

    return jax.tree.map(choose, mirrored(poses), poses)


# --- missing joints, predicted ---


def prepare(
    config: LiftingConfig,
    keypoints: Float[Array | np.ndarray, "*n 17 2"],
    visible: Bool[Array | np.ndarray, "*n 17"],
    completer: Any = None,
    denoiser: "Denoiser | None" = None,
) -> tuple[Normalised, Float[Array, "*n 17"]]:
    """Return poses as the generator reads them, no joint missing, and each joint's standard deviation in their unit.

    The deviation is 0 for a visible joint. Without a completer missing joints are folded onto their ancestors, as
    `normalise` does, and their deviation is unknown (0 too). With a denoiser all joints, the hip too, lie where they
    are expected to without noise.

    Args:
      config: the one the networks are trained with.
      keypoints: x right, y down, any unit; the value at an invisible joint is never used.
      visible: which joints are known.
      completer: parameters of that network.
      denoiser: what takes noise off.
    """
    poses = normalise_all(keypoints, visible)
    sd = jnp.zeros(poses.visible.shape)
    if completer is not None:
        placed, log_sd = networks.place(config, completer, poses.points, poses.visible)
        points = jnp.where(poses.visible[..., None], poses.points, placed)
        own = jnp.broadcast_to(jnp.arange(networks.JOINTS), poses.stand_in.shape)
        poses, sd = poses._replace(points=points, stand_in=own), jnp.where(poses.visible, 0.0, jnp.exp(log_sd))
    if completer is None and denoiser is None:
        return poses, sd
    points = poses.points if denoiser is None else without_noise(denoiser, poses.points)
    hip = poses.hip + points[..., _HIP, :] * poses.scale[..., None]
    poses = poses._replace(points=points - points[..., :1, :], hip=hip)
    everywhere = jnp.ones_like(poses.visible) if completer is not None else poses.visible
    points, size = _over_leading_axes(unit_size, poses.points, everywhere)
    return poses._replace(points=points, scale=poses.scale * size), sd / divisor(size)[..., None]


def completion_nll(config: LiftingConfig, completer: Any, poses: Normalised, key: PRNGKeyArray) -> Float[Array, ""]:
    """Return the mean negative log likelihood of hidden joints that are known: the completer's loss."""
    seen = poses.visible & ~hide(key, poses.visible)
    masked = normalise_all(poses.points, seen)
    placed, log_sd = networks.place(config, completer, masked.points, masked.visible)
    target = (poses.points - masked.hip[..., None, :]) / divisor(masked.scale)[..., None, None]
    judged = poses.visible & ~seen & (masked.scale > 0)[..., None]
    likelihood = jnp.sum(losses.negative_log_likelihood(target - placed, log_sd[..., None]), axis=-1)
    return jnp.sum(likelihood, where=judged) / jnp.maximum(jnp.sum(judged), 1)


def hide(key: PRNGKeyArray, visible: Bool[Array, "*n 17"]) -> Bool[Array, "*n 17"]:
    """Choose joints to hide: every pose at a rate of its own, half of the poses none."""
    rate_key, joint_key = jax.random.split(key)
    rate = jax.random.uniform(rate_key, (*visible.shape[:-1], 1), minval=-_MAX_HIDDEN, maxval=_MAX_HIDDEN)
    return jax.random.uniform(joint_key, visible.shape) < rate


# --- noise, taken off ---


@struct.dataclass
class Denoiser:
    """A Wiener filter of 2D poses that lie about their mean joint and have root mean square coordinate 1.

    expected = mean + gain (pose - mean)

    mean: of the 34 coordinates. gain: covariance without noise over covariance with noise. noise: the deviation of a
    coordinate.
    """

    mean: Float[Array, "34"]
    gain: Float[Array, "34 34"]
    noise: Float[Array, ""]


def no_denoiser() -> Denoiser:
    """Return a filter that changes nothing."""
    return Denoiser(jnp.zeros(2 * networks.JOINTS), jnp.eye(2 * networks.JOINTS), jnp.zeros(()))


def denoiser(keypoints: Float[np.ndarray, "n 17 2"], visible: Bool[np.ndarray, "n 17"]) -> Denoiser:
    """Learn the filter from whole poses and their mirror images, on the host; from fewer than 1,000 it does nothing.

    Bodies move in fewer ways than 34: along the rest there is only noise, equal along all of them (probabilistic PCA,
    Tipping and Bishop 1999). Its variance is the mean of the smallest eigenvalues of the covariance, but for the two
    of the mean joint, which are 0. Where poses are exact, or joints were computed from others, hardly anything is
    taken off.
    """
    whole = np.asarray(keypoints, np.float64)[np.asarray(visible).all(axis=-1)]
    whole = whole - whole.mean(axis=1, keepdims=True)
    size = np.sqrt(np.mean(whole**2, axis=(1, 2)))
    whole = whole[size > 0] / size[size > 0, None, None]
    if len(whole) < _FEWEST_WHOLE:
        return no_denoiser()
    images = whole[:, list(skeleton.H36M_MIRROR)] * [-1.0, 1.0]
    flat = np.concatenate([whole, images]).reshape(-1, 2 * networks.JOINTS)
    values, vectors = np.linalg.eigh(np.cov(flat.T))
    noise = np.mean(values[2 : 2 + _NOISY_DIRECTIONS])
    kept = np.maximum(values - noise, 0.0) / np.maximum(values, 1e-12)
    learned = flat.mean(axis=0), (vectors * kept) @ vectors.T, np.sqrt(np.maximum(noise, 0.0))
    return Denoiser(*(jnp.asarray(each, jnp.float32) for each in learned))


_FEWEST_WHOLE = 1000
_NOISY_DIRECTIONS = 3


def with_noise(known: Denoiser, points: Float[Array, "*n 17 2"], key: PRNGKeyArray) -> Float[Array, "*n 17 2"]:
    """Return poses with noise of the size that those have from which the filter was learned."""
    _, size = _middle_and_size(points)
    return points + known.noise * size * jax.random.normal(key, points.shape)


def _middle_and_size(points: Array) -> tuple[Array, Array]:
    middle = jnp.mean(points, axis=-2, keepdims=True)
    return middle, divisor(jnp.sqrt(jnp.mean((points - middle) ** 2, axis=(-2, -1))))[..., None, None]


def without_noise(known: Denoiser, points: Float[Array, "*n 17 2"]) -> Float[Array, "*n 17 2"]:
    """Return where the joints of whole poses are expected to be, in the unit of the poses, wherever they lie."""
    middle, size = _middle_and_size(points)
    leading = (1,) * (points.ndim - 2)
    mean = known.mean.reshape(*leading, networks.JOINTS, 2)
    flat = ((points - middle) / size - mean).reshape(*points.shape[:-2], -1)
    return middle + size * (mean + jnp.matmul(flat, known.gain, precision="highest").reshape(points.shape))
