"""Optax's gradient transformations by name: `optax.NAME`, `optax.contrib.NAME`, as many as optax has."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jaxtyping import Array, Float

from dal_jax.registration.solvers import descent
from dal_jax.registration.solvers.descent import Solution, State
from dal_jax.registration.solvers.spec import Spec, SpecError, check_arguments, nearest

_MODULES = {"optax": optax, "optax.contrib": optax.contrib}


def names() -> list[str]:
    """Return every name that stands for a transformation (some want arguments that no literal can be)."""
    return [f"{prefix}.{name}" for prefix, module in _MODULES.items() for name in _public(module)]


@functools.cache
def _public(module) -> tuple[str, ...]:
    return tuple(name for name in dir(module) if not name.startswith("_") and _makes_one(getattr(module, name)))


def _makes_one(member: Any) -> bool:
    if not inspect.isfunction(member) and not isinstance(member, functools.partial):
        return False
    return "GradientTransformation" in str(inspect.signature(member).return_annotation)


def make(spec: Spec, learning_rate: float | Float[Array, ""]) -> optax.GradientTransformation:
    """Return the transformation of a spec.

    `learning_rate` is used where the transformation has such an argument and the spec does not give it; where optax's
    own default is None (a line search, a scale of its own) that stays.

    Raises:
      ValueError: an unknown name or argument, or a value that optax refuses; one line.
    """
    try:
        return _bind(spec, learning_rate)()
    except _REFUSALS as error:
        raise error if isinstance(error, SpecError) else spec.wrong(f"optax refuses: {error}") from error


def check(spec: Spec, state: Any) -> None:
    """Make the transformation and trace one step of it on a bowl over `state`; nothing is computed.

    Raises:
      ValueError: as `make`; also of a transformation that needs more than values and gradients, or other leaves.
    """

    def bowl(leaves) -> Float[Array, ""]:
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(leaves))

    def step(learning_rate, leaves):
        transformation = optax.with_extra_args_support(make(spec, learning_rate))
        memory = transformation.init(leaves)
        value, gradient = jax.value_and_grad(bowl)(leaves)
        updates, _ = transformation.update(gradient, memory, leaves, value=value, grad=gradient, value_fn=bowl)
        return optax.apply_updates(leaves, updates)

    try:
        jax.eval_shape(step, jnp.float32(0.1), state)
    except _REFUSALS as error:
        raise error if isinstance(error, SpecError) else spec.wrong(f"optax refuses: {error}") from error


_REFUSALS = (TypeError, ValueError, AttributeError, LookupError, AssertionError, NotImplementedError)
"""What optax was seen to raise on arguments and pytrees that it cannot use."""


def _bind(spec: Spec, learning_rate) -> Callable[[], optax.GradientTransformation]:
    prefix, _, name = spec.name.rpartition(".")
    if prefix not in _MODULES or name not in _public(_MODULES[prefix]):
        near = nearest(spec.name, names(), "see the documentation of optax")
        raise spec.wrong(f"optax has no transformation '{spec.name}'; {near}")
    factory = getattr(_MODULES[prefix], name)
    parameters = inspect.signature(factory).parameters
    rate = parameters.get("learning_rate")
    filled = {} if rate is None or rate.default is None else {"learning_rate": learning_rate}
    check_arguments(spec, parameters.values(), filled)
    return functools.partial(factory, **(filled | spec.arguments))


# --- Gradient methods: any optax transformation on one person's energy, its line search included where it has one ---

Cost = Callable[[State], Float[Array, ""]]


def minimise(
    cost_function: Cost,
    start: State,
    transformation: optax.GradientTransformation,
    *,
    steps: int,
    tolerance: float = 0.0,
) -> Solution:
    """Follow the transformation from `start`; the iterates are exactly optax's, the best one seen is returned."""
    step, memory = _stepper(cost_function, start, transformation)
    return descent.run(step, cost_function, start, memory, steps=steps, tolerance=tolerance)


def trajectory(
    cost_function: Cost, start: State, transformation: optax.GradientTransformation, *, steps: int
) -> Float[Array, "steps+1"]:
    """Return the cost at `start` and after each step of what `minimise` runs."""
    step, memory = _stepper(cost_function, start, transformation)

    def record(carry, _):
        cost, state, memory = step(*carry)
        return (state, memory), cost

    return jax.lax.scan(record, (start, memory), length=steps + 1)[1]


def _stepper(cost_function: Cost, start: State, transformation: optax.GradientTransformation):
    """Return a step (state, memory) -> (cost, next state, memory), and the memory it begins with.

    A line search ends by evaluating the point it goes to; its transformation keeps value and gradient in its state, and
    to compute them again would double the price of a step.
    """
    transformation = optax.with_extra_args_support(transformation)
    value_and_gradient = jax.value_and_grad(cost_function)
    begun = transformation.init(start)
    searches = _found_by_search(begun) is not None

    def step(state: State, memory: tuple):
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
