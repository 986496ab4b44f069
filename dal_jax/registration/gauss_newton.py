"""Gauss-Newton with a dense Jacobian: full steps, no damping to speak of, nothing accepted or rejected.

Quadratic near a minimum that fits well; far from one it may go anywhere, and says so: the best state seen is returned,
with an infinite `relative_decrease` where the descent ended in a NaN.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from dal_jax.registration import dense_lm, descent


def minimise(
    residual_function: dense_lm.Residuals,
    retract: dense_lm.Retract,
    start: descent.State,
    *,
    unknowns: int,
    steps: int,
    tolerance: float = 0.0,
) -> descent.Solution:
    """Minimise the sum of squared residuals by J'J d = -J'r; finished after one step that changes next to nothing.

    Note: the scale of the camera and of all segments together are one freedom too many, so J'J is singular. The
    diagonal is raised by its rounding error in a Cholesky factorisation, `unknowns` x epsilon: the least that makes the
    system solvable.
    """

    def cost_of(state: descent.State) -> Float[Array, ""]:
        return jnp.sum(residual_function(state) ** 2)

    def step(state: descent.State, memory: tuple):
        residual, jacobian = dense_lm.linearise(residual_function, retract, state, unknowns)
        epsilon = jnp.finfo(residual.dtype).eps
        delta = dense_lm.damped_step(residual, jacobian, unknowns * epsilon, epsilon)
        return jnp.sum(residual**2), retract(state, delta), memory

    return descent.run(step, cost_of, start, (), steps=steps, tolerance=tolerance, window=1)
