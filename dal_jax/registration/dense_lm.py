"""Levenberg-Marquardt with a dense Jacobian by automatic differentiation: generic, and the reference for the fast one.

Knows nothing about bodies: a problem is a residual function of a state and a retraction that moves a state by a flat
tangent vector. Any energy term works here; the price is forming J'J and its Cholesky factor.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

State = Any
INITIAL_DAMPING = 1e-2
ACCEPTED_FACTOR, REJECTED_FACTOR = 0.3, 4.0
_DAMPING_RANGE = (1e-7, 1e7)
_ABSOLUTE_DAMPING = 1e-6  # for directions that no residual sees


@flax.struct.dataclass
class Solution:
    """state: the best found; cost: its sum of squares; relative_decrease: of the last accepted step."""

    state: State
    cost: Float[Array, ""]
    relative_decrease: Float[Array, ""]


def minimise(
    residual_function: Callable[[State], Float[Array, "residuals"]],
    retract: Callable[[State, Float[Array, "unknowns"]], State],
    start: State,
    *,
    unknowns: int,
    steps: int,
) -> Solution:
    """Minimise the sum of squared residuals by damped Gauss-Newton steps: (J'J + lambda diag(J'J)) d = -J'r.

    A step that does not lower the cost is undone and the damping raised; nothing is read back to the host, so the
    function can be vmapped and jitted.
    """
    zero = jnp.zeros(unknowns, jnp.result_type(float))

    def cost_of(state: State) -> Float[Array, ""]:
        return jnp.sum(residual_function(state) ** 2)

    def step(_, carry):
        state, cost, damping, decrease = carry
        residual = residual_function(state)
        jacobian = jax.jacfwd(lambda delta: residual_function(retract(state, delta)))(zero)
        normal = jacobian.T @ jacobian
        diagonal = jnp.diagonal(normal)
        damped = normal + jnp.diag(damping * diagonal + _ABSOLUTE_DAMPING)
        delta = -jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(damped), jacobian.T @ residual)
        candidate = retract(state, jnp.where(jnp.all(jnp.isfinite(delta)), delta, 0.0))
        new_cost = cost_of(candidate)
        accept = new_cost < cost
        state = jax.tree.map(lambda new, old: jnp.where(accept, new, old), candidate, state)
        decrease = jnp.where(accept, (cost - new_cost) / jnp.maximum(cost, 1e-12), decrease)
        damping = jnp.clip(damping * jnp.where(accept, ACCEPTED_FACTOR, REJECTED_FACTOR), *_DAMPING_RANGE)
        return state, jnp.where(accept, new_cost, cost), damping, decrease

    cost = cost_of(start)
    # carries are born from data: shard_map rejects constants that later vary over devices
    carry = (start, cost, jnp.full_like(cost, INITIAL_DAMPING), jnp.full_like(cost, jnp.inf))
    state, cost, _, decrease = jax.lax.fori_loop(0, steps, step, carry)
    return Solution(state, cost, decrease)
