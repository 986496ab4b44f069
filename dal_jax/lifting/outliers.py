"""Which joints of a 2D pose to believe: a joint was clicked wrong, has jumped, or is left for right.

The completer says where each joint is expected, with a deviation, from the others. One wrong joint spoils what is
expected of its neighbours, so the worst is taken out first and all are looked at again.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dal_jax.body import skeleton
from dal_jax.lifting import networks, normalise
from dal_jax.lifting.config import LiftingConfig

_Array = Array | np.ndarray

OUTLIER_RESIDUAL = 5.0
"""Standardised residual of a joint that is not believed; four in ten thousand joints of other poses of the kind
that `best` has learned from have a larger one. Note: our choice, on poses of synthetic training people: 4 takes out
true joints that depth needs."""
FEWEST_USUAL = 30
"""Poses from which on something can be said of where all of them have a joint (`usual`)."""

_SWAPPED = 6.0  # by how much the log likelihood must rise for left and right to be exchanged; 3% of detections are
_MOST_ROUNDS = 12  # a third of the joints taken out, and every pair exchanged
_RAYLEIGH_MEDIAN = float(np.sqrt(2 * np.log(2)))
_PAIRS = tuple((joint, other) for joint, other in enumerate(skeleton.H36M_MIRROR) if joint < other)


def standardised_residual(
    config: LiftingConfig,
    completer: Any,
    keypoints: Float[_Array, "n 17 2"],
    visible: Bool[_Array, "n 17"],
) -> Float[Array, "n 17"]:
    """Return each known joint's distance from its prediction by the others, in standard deviations.

    0 for missing joints, and for all of them where there is no completer (None).
    """
    visible = jnp.asarray(visible)
    if completer is None:
        return jnp.zeros(visible.shape)
    keypoints = jnp.asarray(keypoints)
    residual, _ = _residuals(config, completer, keypoints, keypoints, visible)
    return jnp.where(visible, residual, 0.0)


def usual(residual: Float[np.ndarray, "n 17"], visible: Bool[np.ndarray, "n 17"]) -> Float[np.ndarray, "17"]:
    """Return what to divide standardised residuals of poses of one kind by, on the host; 1 where nothing is unusual.

    Where annotators of another set put a joint elsewhere, or a detector is less exact, the lifter expects it elsewhere
    in every pose: that makes no joint an outlier. The factor is the joint's median residual over the median for a
    normal error in the plane, if that is more than 1; of fewer than `FEWEST_USUAL` poses nothing can be said.
    """
    factors = np.ones(17, np.float32)
    for joint in np.flatnonzero(np.sum(visible, axis=0) >= FEWEST_USUAL):
        factors[joint] = max(1.0, np.median(residual[visible[:, joint], joint]) / _RAYLEIGH_MEDIAN)
    return factors


def believe(
    config: LiftingConfig,
    completer: Any,
    keypoints: Float[_Array, "n 17 2"],
    visible: Bool[_Array, "n 17"],
    factors: Float[_Array, "17"],
) -> tuple[Bool[Array, "n 17"], Bool[Array, "n 17"], Float[Array, "n 17"]]:
    """Take out the worst outlier of each pose, or exchange the left and right that are swapped, until none is left.

    Where more than a third of the joints contradict the others, the pose is unlike any that the lifter knows, and
    nothing says which are wrong: all are believed as they are.

    Args:
      config, completer: of the lifter; without a completer (None) all is believed.
      keypoints: x right, y down, any unit.
      visible: which joints are known.
      factors: of `usual`.

    Returns:
      Which joints to lift from; which of them are to be exchanged with those of the other side; and the standardised
      residual of each known joint, where it was given, from what the believed ones expect.
    """
    keypoints, visible = jnp.asarray(keypoints), jnp.asarray(visible)
    if completer is None:
        return visible, jnp.zeros_like(visible), jnp.zeros(visible.shape)
    rows, joints, factors = jnp.arange(len(keypoints)), jnp.arange(networks.JOINTS)[None, None], jnp.asarray(factors)
    most = jnp.sum(visible, axis=1) // 3
    mirror, pairs = jnp.array(skeleton.H36M_MIRROR), jnp.array(_PAIRS)

    def go_on(state) -> Array:
        number, changed, *_ = state
        return changed & (number < _MOST_ROUNDS)

    def look_again(state):
        number, _, believed, exchanged, _, _ = state
        points = jnp.where(exchanged[..., None], keypoints[:, mirror], keypoints)
        residual, as_given = (
            jnp.where(visible, each / factors[None], 0.0)
            for each in _residuals(config, completer, points, keypoints, believed)
        )
        gain, after = _gains(config, completer, points, believed & ~exchanged, factors)
        pair = jnp.argmax(gain, axis=1)
        swapped = (gain[rows, pair] > _SWAPPED) & (after[rows, pair] < 2 * OUTLIER_RESIDUAL**2)
        contradicting = jnp.where(believed, residual, 0.0)
        worst = jnp.argmax(contradicting, axis=1)
        wrong = contradicting[rows, worst] > OUTLIER_RESIDUAL
        out = wrong & ~swapped & (jnp.sum(visible & ~believed, axis=1) < most)
        exchanged |= swapped[:, None] & jnp.any(pairs[pair][..., None] == joints, axis=1)
        believed &= ~(out[:, None] & (worst[:, None] == joints[0]))
        return number + 1, jnp.any(out | swapped), believed, exchanged, as_given, wrong & ~swapped & ~out

    start = (0, True, visible, jnp.zeros_like(visible), jnp.zeros(visible.shape), jnp.zeros(len(visible), bool))
    _, _, believed, exchanged, residual, unlike = jax.lax.while_loop(go_on, look_again, start)
    return jnp.where(unlike[:, None], visible, believed), exchanged & ~unlike[:, None], residual


def _residuals(
    config: LiftingConfig, completer: Any, points: Array, given: Array, believed: Array
) -> tuple[Float[Array, "n 17"], Float[Array, "n 17"]]:
    """Return how far joints at `points`, and at `given`, are from where the other believed `points` expect them."""

    def leave_out(joint: Array) -> tuple[Array, Array]:
        poses, placed, log_sd = _expected(config, completer, points, believed.at[:, joint].set(False))

        def away(one: Array) -> Array:
            there = (one[:, joint] - poses.hip) / normalise.divisor(poses.scale)[:, None]
            return jnp.linalg.norm(there - placed[:, joint], axis=-1) * jnp.exp(-log_sd[:, joint])

        return away(points), away(given)

    found = jax.lax.map(leave_out, jnp.arange(networks.JOINTS))
    return found[0].T, found[1].T


def _gains(config: LiftingConfig, completer: Any, points: Array, believed: Array, factors: Array):
    """Return, pair by pair, how the log likelihood of two joints rises if they are exchanged, and its square then."""
    first, second = (jnp.array(ends) for ends in zip(*_PAIRS, strict=True))

    def exchange(left: Array, right: Array) -> tuple[Array, Array]:
        poses, placed, log_sd = _expected(
            config, completer, points, believed.at[:, left].set(False).at[:, right].set(False)
        )
        there = (points - poses.hip[:, None]) / normalise.divisor(poses.scale)[:, None, None]
        precision = jnp.exp(-2 * log_sd) / factors[None] ** 2

        def square(joint: Array, place: Array) -> Array:
            return jnp.sum((there[:, joint] - placed[:, place]) ** 2, axis=-1) * precision[:, place]

        after = square(left, right) + square(right, left)
        gain = (square(left, left) + square(right, right) - after) / 2
        return jnp.where(believed[:, left] & believed[:, right], gain, -jnp.inf), after

    gain, after = jax.lax.map(lambda pair: exchange(*pair), (first, second))
    return gain.T, after.T


def _expected(config: LiftingConfig, completer: Any, points: Array, visible: Array):
    poses = normalise.normalise_all(points, visible)
    return poses, *networks.place(config, completer, poses.points, poses.visible)
