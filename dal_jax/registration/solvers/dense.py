"""Levenberg-Marquardt with a dense Jacobian by automatic differentiation: generic, and the reference for the fast one.

Knows nothing about bodies: a problem is a residual function of a state and a retraction that moves a state by a flat
tangent vector. Any energy term works here; the price is forming J'J and its Cholesky factor.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dal_jax.registration.solvers import descent
from dal_jax.registration.solvers.descent import Solution, State

Residuals = Callable[[State], Float[Array, "residuals"]]
Retract = Callable[[State, Float[Array, "unknowns"]], State]
INITIAL_DAMPING = 1e-2
ACCEPTED_FACTOR, REJECTED_FACTOR = 0.3, 4.0
DAMPING_RANGE = (1e-7, 1e7)
_ABSOLUTE_DAMPING = 1e-6  # for directions that no residual sees


def levenberg_marquardt(
    residual_function: Residuals,
    retract: Retract,
    start: State,
    *,
    unknowns: int,
    steps: int,
    tolerance: float = 0.0,
) -> Solution:
    """Minimise the sum of squared residuals by damped Gauss-Newton steps: (J'J + lambda diag(J'J)) d = -J'r.

    A step that does not lower the cost is undone and the damping raised. Finished is who accepts a step that gains less
    than the share `tolerance` (0: all `steps` are run). Nothing is read back to the host: vmap and jit it at will.
    """

    def cost_of(state: State) -> Float[Array, ""]:
        return jnp.sum(residual_function(state) ** 2)

    def body(carry):
        state, cost, damping, decrease, _, taken = carry
        residual, jacobian = linearise(residual_function, retract, state, unknowns)
        delta = damped_step(residual, jacobian, damping, _ABSOLUTE_DAMPING)
        candidate = retract(state, jnp.where(jnp.all(jnp.isfinite(delta)), delta, 0.0))
        new_cost = cost_of(candidate)
        accept = new_cost < cost
        state = jax.tree.map(lambda new, old: jnp.where(accept, new, old), candidate, state)
        gain = (cost - new_cost) / jnp.maximum(cost, 1e-12)
        damping = jnp.clip(damping * jnp.where(accept, ACCEPTED_FACTOR, REJECTED_FACTOR), *DAMPING_RANGE)
        finished = accept & (gain < tolerance)
        decrease = jnp.where(accept, gain, decrease)
        return state, jnp.where(accept, new_cost, cost), damping, decrease, finished, taken + 1

    def unfinished(carry) -> Bool[Array, ""]:
        return ~carry[4] & (carry[5] < steps)

    cost = cost_of(start)
    # carries are born from data: shard_map rejects constants that later vary over devices
    carry = (
        start,
        cost,
        jnp.full_like(cost, INITIAL_DAMPING),
        jnp.full_like(cost, jnp.inf),
        jnp.zeros_like(cost, bool),
        jnp.zeros_like(cost, jnp.int32),
    )
    state, cost, _, decrease, _, taken = jax.lax.while_loop(unfinished, body, carry)
    return Solution(state, cost, decrease, taken)


def linearise(
    residual_function: Residuals, retract: Retract, state: State, unknowns: int
) -> tuple[Float[Array, "residuals"], Float[Array, "residuals unknowns"]]:
    """Return r and its Jacobian J by the tangent vector, at a state."""
    residual = residual_function(state)
    zero = jnp.zeros(unknowns, residual.dtype)
    return residual, jax.jacfwd(lambda delta: residual_function(retract(state, delta)))(zero)


def damped_step(
    residual: Float[Array, "residuals"],
    jacobian: Float[Array, "residuals unknowns"],
    damping: Float[Array, ""],
    absolute_damping: float,
) -> Float[Array, "unknowns"]:
    """Return d of (J'J + damping diag(J'J) + absolute_damping I) d = -J'r; NaN where rounding leaves no Cholesky."""
    normal = jacobian.T @ jacobian
    damped = normal + jnp.diag(damping * jnp.diagonal(normal) + absolute_damping)
    return -jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(damped), jacobian.T @ residual)


# --- Gauss-Newton with a dense Jacobian: full steps, no damping to speak of, nothing accepted or rejected ---
#
# Quadratic near a minimum that fits well; far from one it may go anywhere, and says so: the best state seen is
# returned, with an infinite `relative_decrease` where the descent ended in a NaN.


def gauss_newton(
    residual_function: Residuals,
    retract: Retract,
    start: State,
    *,
    unknowns: int,
    steps: int,
    tolerance: float = 0.0,
) -> Solution:
    """Minimise the sum of squared residuals by J'J d = -J'r; finished after one step that changes next to nothing.

    Note: the scale of the camera and of all segments together are one freedom too many, so J'J is singular. The
    diagonal is raised by its rounding error in a Cholesky factorisation, `unknowns` x epsilon: the least that makes the
    system solvable.
    """

    def cost_of(state: State) -> Float[Array, ""]:
        return jnp.sum(residual_function(state) ** 2)

    def step(state: State, memory: tuple):
        residual, jacobian = linearise(residual_function, retract, state, unknowns)
        epsilon = jnp.finfo(residual.dtype).eps
        delta = damped_step(residual, jacobian, unknowns * epsilon, epsilon)
        return jnp.sum(residual**2), retract(state, delta), memory

    return descent.run(step, cost_of, start, (), steps=steps, tolerance=tolerance, window=1)
