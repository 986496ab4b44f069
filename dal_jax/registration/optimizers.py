"""The swap: every optimiser minimises the same energy from the same starts behind one function.

A solver takes (template, target, start, weights, joint_moments, steps, learning_rate), target and start with the batch
axis first, and returns finished parameters, their energy and the relative decrease of the last step.
"""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from dal_jax.body import parameters as parameters_lib, rotations, template as template_lib
from dal_jax.registration import dense_lm, energy, tree_evaluation, tree_lm


@flax.struct.dataclass
class Solved:
    """parameters: gauge fixed, proper rotation; energy: eq. 2 there; relative_decrease: of the last (accepted) step."""

    parameters: parameters_lib.BodyParameters
    energy: Float[Array, "batch"]
    relative_decrease: Float[Array, "batch"]


def _tree_lm(template, target, start, weights, joint_moments, steps, learning_rate) -> Solved:
    """Levenberg-Marquardt by elimination on the kinematic tree; has no learning rate."""
    state = tree_evaluation.from_parameters(template, start)
    solution = tree_lm.minimise(template, target, state, weights, joint_moments, steps=steps)
    parameters = tree_evaluation.to_parameters(template, solution.state)
    return Solved(parameters, solution.energy, solution.relative_decrease)


def _dense_lm(template, target, start, weights, joint_moments, steps, learning_rate) -> Solved:
    """Levenberg-Marquardt with an autodiff Jacobian: the reference; has no learning rate."""

    def solve_one(one_target: energy.Target, one_start: parameters_lib.BodyParameters) -> dense_lm.Solution:
        return dense_lm.minimise(
            lambda unknowns: energy.weighted_residuals(energy.residuals(template, one_target, unknowns), weights),
            move,
            energy.from_parameters(one_start),
            unknowns=_TANGENT_SIZE,
            steps=steps,
        )

    solution = jax.vmap(solve_one)(target, start)
    parameters = jax.vmap(energy.to_parameters)(solution.state)
    return Solved(parameters, solution.cost, solution.relative_decrease)


_TANGENT_SIZE = 69 + 24 + 3 + 1 + 2


def move(unknowns: energy.Unknowns, delta: Float[Array, "99"]) -> energy.Unknowns:
    """Retract: rotations move by exponentials (tangent space), scales in logarithms, the translation adds."""
    turn, scale, root, camera_scale, translation = jnp.split(delta, [69, 93, 96, 97])
    relative = rotations.axis_angle_to_matrix(turn.reshape(23, 3)) @ rotations.axis_angle_to_matrix(unknowns.pose)
    return energy.Unknowns(
        pose=rotations.matrix_to_axis_angle(relative),
        log_segment_scale=unknowns.log_segment_scale + scale,
        raw_rotation=rotations.axis_angle_to_matrix(root) @ unknowns.raw_rotation,
        log_camera_scale=unknowns.log_camera_scale + camera_scale[0],
        translation=unknowns.translation + translation,
    )


def _adam(template, target, start, weights, joint_moments, steps, learning_rate) -> Solved:
    """Adam on the raw unknowns, as in the paper (learning rate 0.1)."""
    optimizer = optax.adam(learning_rate)

    def solve_one(one_target: energy.Target, one_start: parameters_lib.BodyParameters):
        value_and_gradient = jax.value_and_grad(lambda unknowns: energy.energy(template, one_target, unknowns, weights))

        def step(_, carry):
            unknowns, state, previous, _ = carry
            value, gradient = value_and_gradient(unknowns)
            updates, state = optimizer.update(gradient, state, unknowns)
            return optax.apply_updates(unknowns, updates), state, value, jnp.abs(previous - value) / value

        unknowns = energy.from_parameters(one_start)
        first = energy.energy(template, one_target, unknowns, weights)
        carry = (unknowns, optimizer.init(unknowns), first, jnp.full_like(first, jnp.inf))
        unknowns, _, _, decrease = jax.lax.fori_loop(0, steps, step, carry)
        parameters = energy.to_parameters(unknowns)
        return Solved(parameters, energy.parameter_energy(template, one_target, parameters, weights), decrease)

    return jax.vmap(solve_one)(target, start)


SOLVERS: dict[str, Callable[..., Solved]] = {"lm": _tree_lm, "dense_lm": _dense_lm, "adam": _adam}
"""By the name that `--optimizer` takes."""


def solve(
    name: str,
    template: template_lib.Template,
    target: energy.Target,
    start: parameters_lib.BodyParameters,
    weights: energy.EnergyWeights,
    joint_moments: Float[Array, "17 24 10"],
    *,
    steps: int,
    learning_rate: float,
) -> Solved:
    """Run the named optimiser on a batch (axis first)."""
    return SOLVERS[name](template, target, start, weights, joint_moments, steps, learning_rate)
