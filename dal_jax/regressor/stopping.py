"""Early stopping: of a round's epochs the one whose weights served held-out people best, and when to train no further.

Nothing here knows what the loss is; `held_out` measures it, from 2D alone.
"""

from typing import Any

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


@flax.struct.dataclass
class Best:
    """The best epoch of a round so far.

    variables: what predicted then; before the first epoch, what the round began with. loss: of the held-out people,
    infinite before the first epoch. stale: epochs since.
    """

    variables: Any
    loss: Float[Array, ""]
    stale: Int[Array, ""]


def nothing_yet(variables: Any) -> Best:
    """Return what stands before a round's first epoch."""
    return Best(variables, jnp.full((), jnp.inf, jnp.float32), jnp.zeros((), jnp.int32))


def after_epoch(best: Best, variables: Any, loss: float) -> Best:
    """Return the better one, the earlier where they are equal; a loss that is not a number is never better."""
    if loss < float(best.loss):
        return Best(variables, jnp.asarray(loss, jnp.float32), jnp.zeros((), jnp.int32))
    return best.replace(stale=best.stale + 1)


def is_over(best: Best | None, patience: int) -> bool:
    """Return whether a round's training stops before its last epoch; a patience of 0 is without end."""
    return best is not None and 0 < patience <= int(best.stale)
