"""Gradient methods: any optax transformation on one person's energy, its line search included where it has one."""

from collections.abc import Callable
from typing import Any

import jax
import optax
from jaxtyping import Array, Float

from dal_jax.registration import descent

Cost = Callable[[descent.State], Float[Array, ""]]


def minimise(
    cost_function: Cost,
    start: descent.State,
    transformation: optax.GradientTransformation,
    *,
    steps: int,
    tolerance: float = 0.0,
) -> descent.Solution:
    """Follow the transformation from `start`; the iterates are exactly optax's, the best one seen is returned."""
    step, memory = _stepper(cost_function, start, transformation)
    return descent.run(step, cost_function, start, memory, steps=steps, tolerance=tolerance)


def trajectory(
    cost_function: Cost, start: descent.State, transformation: optax.GradientTransformation, *, steps: int
) -> Float[Array, "steps+1"]:
    """Return the cost at `start` and after each step of what `minimise` runs."""
    step, memory = _stepper(cost_function, start, transformation)

    def record(carry, _):
        cost, state, memory = step(*carry)
        return (state, memory), cost

    return jax.lax.scan(record, (start, memory), length=steps + 1)[1]


def _stepper(cost_function: Cost, start: descent.State, transformation: optax.GradientTransformation):
    """Return a step (state, memory) -> (cost, next state, memory), and the memory it begins with.

    A line search ends by evaluating the point it goes to; its transformation keeps value and gradient in its state, and
    to compute them again would double the price of a step.
    """
    transformation = optax.with_extra_args_support(transformation)
    value_and_gradient = jax.value_and_grad(cost_function)
    begun = transformation.init(start)
    searches = _found_by_search(begun) is not None

    def step(state: descent.State, memory: tuple):
        inner, known = memory
        cost, gradient = known if searches else value_and_gradient(state)
        updates, inner = transformation.update(
            gradient, inner, state, value=cost, grad=gradient, value_fn=cost_function
        )
        known = _found_by_search(inner) if searches else ()
        return cost, optax.apply_updates(state, updates), (inner, known)

    return step, (begun, value_and_gradient(start) if searches else ())


def _found_by_search(inner: Any) -> tuple | None:
    """Return (value, gradient) that a line search left in a transformation's state; None without a line search."""
    value, gradient = optax.tree.get(inner, "value"), optax.tree.get(inner, "grad")
    return None if value is None or gradient is None else (value, gradient)
