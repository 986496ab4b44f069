"""What a solver is given and answers, and the descents that know no body.

Given is a `Problem`, the registration of one person as a function of free numbers with where it starts, and
`SolverOptions`; the answer is a `Solution`.

    run                                 the loop of every method whose steps may go uphill
    levenberg_marquardt, gauss_newton   with a dense Jacobian by automatic differentiation: any energy term works, at
                                        the price of forming J'J and its Cholesky factor; the reference of the fast `lm`
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dal_jax.body import rotations
from dal_jax.body.template import Template
from dal_jax.observations.residuals import Target
from dal_jax.registration import energy as energy_lib
from dal_jax.registration.energy import Objective, Unknowns
from dal_jax.runtime import struct

TANGENT_SIZE = 69 + 24 + 3 + 1 + 2
"""Joint rotations, log segment scales, rotation of the body, log camera scale, translation.

After them a log girth, if any, and 48 log segment girths, if any. A translation in several views has one number more.
"""


def tangent_size(unknowns: Unknowns) -> int:
    """Return how many numbers `move` takes for these unknowns."""
    girths = (unknowns.log_girth is not None) + 48 * (unknowns.log_segment_girth is not None)
    return TANGENT_SIZE - 2 + jnp.shape(unknowns.translation)[-1] + girths


@dataclasses.dataclass(frozen=True)
class Problem:
    """Minimise `energy` from `start`; `residuals` and `move` are there for Gauss-Newton methods."""

    template: Template
    target: Target
    objective: Objective
    start: Unknowns

    def residuals(self, unknowns: Unknowns) -> Float[Array, "residuals"]:
        """Return the weighted residuals: `energy` is the sum of their squares."""
        terms = energy_lib.residuals(self.template, self.target, unknowns, self.objective)
        return energy_lib.weighted_residuals(terms, self.objective)

    def energy(self, unknowns: Unknowns) -> Float[Array, ""]:
        """Return L_regist of eq. 2."""
        return energy_lib.energy(self.template, self.target, unknowns, self.objective)


def move(unknowns: Unknowns, delta: Float[Array, "tangent"]) -> Unknowns:
    """Retract: rotations move by exponentials (A <- exp(d) A), sizes in logarithms, the translation adds."""
    ends = [69, 93, 96, 97, 97 + jnp.shape(unknowns.translation)[-1]]
    pose, scale, rotation, camera_scale, translation, girths = jnp.split(delta, ends)
    log_girth, log_segment_girth = unknowns.log_girth, unknowns.log_segment_girth
    if log_girth is not None and girths.size % 48:  # the posterior holds it
        log_girth, girths = log_girth + girths[0], girths[1:]
    if log_segment_girth is not None and girths.size:
        log_segment_girth = log_segment_girth + girths.reshape(24, 2)
    relative = rotations.axis_angle_to_matrix(pose.reshape(23, 3)) @ rotations.axis_angle_to_matrix(unknowns.pose)
    return Unknowns(
        pose=rotations.matrix_to_axis_angle(relative),
        log_segment_scale=unknowns.log_segment_scale + scale,
        raw_rotation=rotations.axis_angle_to_matrix(rotation) @ unknowns.raw_rotation,
        log_camera_scale=unknowns.log_camera_scale + camera_scale[0],
        translation=unknowns.translation + translation,
        log_girth=log_girth,
        log_segment_girth=log_segment_girth,
    )


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


# --- Dense: a residual function r of a state, and a retraction that moves a state by a flat tangent vector ---

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

    return run(step, energy_of, start, (), options, window=1)


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
