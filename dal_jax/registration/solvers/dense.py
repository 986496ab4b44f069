"""Levenberg-Marquardt and Gauss-Newton with a dense Jacobian by automatic differentiation.

Generic, and the reference of the fast solver: any energy term works, at the price of forming J'J and its Cholesky
factor. Nothing here knows about bodies. A problem is a residual function r of a state, and a retraction that moves a
state by a flat tangent vector.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dal_jax.registration.solvers import descent
from dal_jax.registration.solvers.descent import Solution, SolverOptions, State

Residuals = Callable[[State], Float[Array, "residuals"]]
Retract = Callable[[State, Float[Array, "unknowns"]], State]
INITIAL_DAMPING = 1e-2
ACCEPTED_FACTOR, REJECTED_FACTOR = 0.3, 4.0
DAMPING_RANGE = (1e-7, 1e7)
_ABSOLUTE_DAMPING = 1e-6  # for directions that no residual sees


def levenberg_marquardt(
    residuals: Residuals, retract: Retract, start: State, unknowns: int, options: SolverOptions
) -> Solution:
    """Minimise |r|^2 by damped Gauss-Newton steps: (J'J + lambda diag(J'J)) d = -J'r.

    A step that does not lower the energy is undone and the damping raised. A person is finished once an accepted step
    lowers its energy by less than `tolerance` (relative). Nothing is read back to the host: vmap and jit it at will.

    Args:
      residuals: of a state.
      retract: (state, tangent vector) -> state.
      start: where to begin.
      unknowns: length of a tangent vector.
      options: steps and tolerance.
    """

    def energy_of(state: State) -> Float[Array, ""]:
        return jnp.sum(residuals(state) ** 2)

    def body(carry):
        state, energy, damping, decrease, _, taken = carry
        residual, jacobian = _linearise(residuals, retract, state, unknowns)
        delta = _damped_step(residual, jacobian, damping, _ABSOLUTE_DAMPING)
        candidate = retract(state, jnp.where(jnp.all(jnp.isfinite(delta)), delta, 0.0))
        new_energy = energy_of(candidate)
        accept = new_energy < energy
        state = jax.tree.map(lambda new, old: jnp.where(accept, new, old), candidate, state)
        gain = (energy - new_energy) / jnp.maximum(energy, 1e-12)
        damping = jnp.clip(damping * jnp.where(accept, ACCEPTED_FACTOR, REJECTED_FACTOR), *DAMPING_RANGE)
        finished = accept & (gain < options.tolerance)
        decrease = jnp.where(accept, gain, decrease)
        return state, jnp.where(accept, new_energy, energy), damping, decrease, finished, taken + 1

    def unfinished(carry) -> Bool[Array, ""]:
        return ~carry[4] & (carry[5] < options.steps)

    energy = energy_of(start)
    # carries are born from data: shard_map rejects constants that later vary over devices
    carry = (
        start,
        energy,
        jnp.full_like(energy, INITIAL_DAMPING),
        jnp.full_like(energy, jnp.inf),
        jnp.zeros_like(energy, bool),
        jnp.zeros_like(energy, jnp.int32),
    )
    state, energy, _, decrease, _, taken = jax.lax.while_loop(unfinished, body, carry)
    return Solution(state, energy, decrease, taken)


def gauss_newton(
    residuals: Residuals, retract: Retract, start: State, unknowns: int, options: SolverOptions
) -> Solution:
    """Minimise |r|^2 by full steps J'J d = -J'r; arguments as of `levenberg_marquardt`.

    Quadratic near a minimum that fits well; far from one it may go anywhere. The best state seen is returned, with an
    infinite `relative_decrease` where the descent ended in a NaN. A person is finished after one step that changes its
    energy by less than `tolerance` (relative).

    Note: the scale of the camera and of all segments together are one freedom too many, so J'J is singular. The
    diagonal is raised by its rounding error in a Cholesky factorisation, `unknowns` x epsilon: the least that makes the
    system solvable.
    """

    def energy_of(state: State) -> Float[Array, ""]:
        return jnp.sum(residuals(state) ** 2)

    def step(state: State, memory: tuple):
        residual, jacobian = _linearise(residuals, retract, state, unknowns)
        epsilon = float(jnp.finfo(residual.dtype).eps)
        delta = _damped_step(residual, jacobian, unknowns * epsilon, epsilon)
        return jnp.sum(residual**2), retract(state, delta), memory

    return descent.run(step, energy_of, start, (), options, window=1)


def _linearise(
    residuals: Residuals, retract: Retract, state: State, unknowns: int
) -> tuple[Float[Array, "residuals"], Float[Array, "residuals unknowns"]]:
    """Return r and its Jacobian J by the tangent vector, at a state."""
    residual = residuals(state)
    zero = jnp.zeros(unknowns, residual.dtype)
    return residual, jax.jacfwd(lambda delta: residuals(retract(state, delta)))(zero)


def _damped_step(
    residual: Float[Array, "residuals"],
    jacobian: Float[Array, "residuals unknowns"],
    damping: float | Float[Array, ""],
    absolute_damping: float,
) -> Float[Array, "unknowns"]:
    """Return d of (J'J + damping diag(J'J) + absolute_damping I) d = -J'r; NaN where rounding leaves no Cholesky."""
    normal = jacobian.T @ jacobian
    damped = normal + jnp.diag(damping * jnp.diagonal(normal) + absolute_damping)
    return -jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(damped), jacobian.T @ residual)
