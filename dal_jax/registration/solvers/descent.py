"""The loop of every optimiser whose steps may go uphill: it keeps the best state, and knows when nothing happens.

One problem at a time: under `vmap` the loop runs until the last of the batch is finished, and those that are stay put.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

State = Any
WINDOW = 10


@flax.struct.dataclass
class Solution:
    """state: the best one seen; cost: there; steps: taken until finished.

    relative_decrease: by what share the best cost lies below the highest of the last steps (`run`) or of the last
    accepted step (methods that accept or reject); inf where there was no chance to tell, or where the descent died.
    """

    state: State
    cost: Float[Array, ""]
    relative_decrease: Float[Array, ""]
    steps: Int[Array, ""]


def run(
    step: Callable[[State, Any], tuple[Float[Array, ""], State, Any]],
    cost_function: Callable[[State], Float[Array, ""]],
    start: State,
    memory: Any,
    *,
    steps: int,
    tolerance: float = 0.0,
    window: int = WINDOW,
) -> Solution:
    """Take `steps` steps, whatever they do to the cost, and return the best state seen.

    Finished before is who has a cost that is not finite (a NaN does not heal), and whose costs of the last `window`
    steps ALL lie within the share `tolerance` of the best ever: one that rests, not one that swings or runs away.

    Args:
      step: (state, memory) -> (cost at that state, next state, next memory).
      cost_function: the same cost, for the last state.
      memory: what the method carries along (moments, velocities); any pytree.
      tolerance: 0 runs all steps.
    """
    seen = _nothing_seen(cost_function, start, window)
    alive = jnp.isinf(seen.cost)
    # carries are born from data: shard_map rejects constants that later vary over devices
    memory = jax.tree.map(lambda leaf: jnp.where(alive, leaf, leaf), memory)
    taken = jnp.zeros_like(seen.cost, jnp.int32)

    def body(carry):
        state, memory, seen, _, taken = carry
        cost, following, memory = step(state, memory)
        seen = _see(seen, state, cost)
        alive = jnp.isfinite(cost) & ~(_spread(seen) < tolerance)
        state = jax.tree.map(lambda new, old: jnp.where(alive, new, old), following, state)
        return state, memory, seen, alive, taken + alive

    def unfinished(carry) -> Bool[Array, ""]:
        return carry[3] & (carry[4] < steps)

    state, _, seen, alive, taken = jax.lax.while_loop(unfinished, body, (start, memory, seen, alive, taken))
    last = _see(seen, state, cost_function(state))  # of who is finished it was seen
    seen = jax.tree.map(lambda new, old: jnp.where(alive, new, old), last, seen)
    return Solution(seen.state, seen.cost, _spread(seen), taken)


@flax.struct.dataclass
class _Seen:
    """The best state, its cost, and the costs of the last steps, the latest last."""

    state: State
    cost: Float[Array, ""]
    recent: Float[Array, "window+1"]


def _nothing_seen(cost_function, start: State, window: int) -> _Seen:
    born = jnp.ravel(jax.tree.leaves(start)[0])[0]
    dtype = jax.eval_shape(cost_function, start).dtype
    return _Seen(start, jnp.full_like(born, jnp.inf, dtype), jnp.full_like(born, jnp.inf, dtype, shape=window + 1))


def _see(seen: _Seen, state: State, cost: Float[Array, ""]) -> _Seen:
    better = cost < seen.cost  # false for NaN
    return _Seen(
        state=jax.tree.map(lambda new, old: jnp.where(better, new, old), state, seen.state),
        cost=jnp.where(better, cost, seen.cost),
        recent=jnp.concatenate([seen.recent[1:], cost[None]]),
    )


def _spread(seen: _Seen) -> Float[Array, ""]:
    """Return (highest - best) / highest of the last steps: of a monotone descent the decrease over the window."""
    highest = jnp.max(seen.recent)  # NaN where one is
    known = jnp.isfinite(highest)
    share = (highest - seen.cost) / jnp.where(known & (highest > 0), highest, 1.0)
    return jnp.where(known, share, jnp.inf)
