"""What solvers share: their options, their result, and the loop of every method whose steps may go uphill."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dal_jax.runtime import struct

State = Any
WINDOW = 10


@struct.dataclass
class SolverOptions:
    """How far a solver goes.

    steps: iterations, at most; may be traced.
    learning_rate: of a first-order method that is given none by name (paper: 0.1); may be traced.
    tolerance: a fit is finished, and stays put, where a step (`lm`, `dense_lm`, `gauss_newton`) or the last `WINDOW`
      steps (optax) gain less than this share of the energy; 0: all steps are taken. May be traced.
    """

    steps: int | Int[Array, ""]
    learning_rate: float | Float[Array, ""] = 0.1
    tolerance: float | Float[Array, ""] = 0.0


@struct.dataclass
class Solution:
    """What a solver returns, of one fit or (with leading axes) of many.

    state: the best one seen. A solver of one person's `Problem` returns its unknowns, `solve.solve` body parameters.
    energy: eq. 2 there.
    relative_decrease: the share by which the best energy lies below the highest of the last steps (`run`), or the gain
      of the last accepted step (methods that accept or reject); inf where there was no chance to tell, or where the
      descent diverged.
    steps: taken until finished.
    """

    state: State
    energy: Float[Array, "*batch"]
    relative_decrease: Float[Array, "*batch"]
    steps: Int[Array, "*batch"]


def run(
    step: Callable[[State, Any], tuple[Float[Array, ""], State, Any]],
    energy: Callable[[State], Float[Array, ""]],
    start: State,
    memory: Any,
    options: SolverOptions,
    window: int = WINDOW,
) -> Solution:
    """Take steps whether they lower the energy or not, and return the best state seen.

    A person stops early when its energy is not finite (a NaN does not heal), or when its last `window` energies are all
    within `tolerance` (relative) of its best: a descent that swings or runs away goes on. One problem at a time: under
    `vmap` the loop runs until the last of the batch is finished, and finished ones stay put.

    Args:
      step: (state, memory) -> (energy at that state, next state, next memory).
      energy: the same energy, for the last state.
      start: where to begin; any pytree.
      memory: what the method carries along (moments, velocities); any pytree.
      options: steps and tolerance; the learning rate is the method's own affair.
      window: steps that have to gain nothing.
    """
    seen = _nothing_seen(energy, start, window)
    alive = jnp.isinf(seen[1])
    # carries are born from data: shard_map rejects constants that later vary over devices
    memory = jax.tree.map(lambda leaf: jnp.where(alive, leaf, leaf), memory)
    taken = jnp.zeros_like(seen[1], jnp.int32)

    def body(carry):
        state, memory, seen, _, taken = carry
        value, following, memory = step(state, memory)
        seen = _see(seen, state, value)
        alive = jnp.isfinite(value) & ~(_spread(seen) < options.tolerance)
        state = jax.tree.map(lambda new, old: jnp.where(alive, new, old), following, state)
        return state, memory, seen, alive, taken + alive

    def unfinished(carry) -> Bool[Array, ""]:
        return carry[3] & (carry[4] < options.steps)

    state, _, seen, alive, taken = jax.lax.while_loop(unfinished, body, (start, memory, seen, alive, taken))
    last = _see(seen, state, energy(state))  # a finished person's last state was seen before
    seen = jax.tree.map(lambda new, old: jnp.where(alive, new, old), last, seen)
    return Solution(seen[0], seen[1], _spread(seen), taken)


_Seen = tuple[State, Float[Array, ""], Float[Array, "window+1"]]
"""The best state, its energy, and the energies of the last steps, the latest last."""


def _nothing_seen(energy: Callable, start: State, window: int) -> _Seen:
    born = jnp.ravel(jax.tree.leaves(start)[0])[0]
    dtype = jax.eval_shape(energy, start).dtype
    return start, jnp.full_like(born, jnp.inf, dtype), jnp.full_like(born, jnp.inf, dtype, shape=window + 1)


def _see(seen: _Seen, state: State, value: Float[Array, ""]) -> _Seen:
    best, lowest, recent = seen
    better = value < lowest  # false for NaN
    return (
        jax.tree.map(lambda new, old: jnp.where(better, new, old), state, best),
        jnp.where(better, value, lowest),
        jnp.concatenate([recent[1:], value[None]]),
    )


def _spread(seen: _Seen) -> Float[Array, ""]:
    """Return (highest - best) / highest of the last steps: of a monotone descent the decrease over the window."""
    _, lowest, recent = seen
    highest = jnp.max(recent)  # NaN where one is
    known = jnp.isfinite(highest)
    share = (highest - lowest) / jnp.where(known & (highest > 0), highest, 1.0)
    return jnp.where(known, share, jnp.inf)
