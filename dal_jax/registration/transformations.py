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

from dal_jax.registration import spec as spec_lib

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


def make(spec: spec_lib.Spec, learning_rate: float | Float[Array, ""]) -> optax.GradientTransformation:
    """Return the transformation of a spec.

    `learning_rate` is used where the transformation has such an argument and the spec does not give it; where optax's
    own default is None (a line search, a scale of its own) that stays.

    Raises:
      ValueError: an unknown name or argument, or a value that optax refuses; one line.
    """
    try:
        return _bind(spec, learning_rate)()
    except _REFUSALS as error:
        raise error if isinstance(error, spec_lib.SpecError) else spec.wrong(f"optax refuses: {error}") from error


def check(spec: spec_lib.Spec, state: Any) -> None:
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
        raise error if isinstance(error, spec_lib.SpecError) else spec.wrong(f"optax refuses: {error}") from error


_REFUSALS = (TypeError, ValueError, AttributeError, LookupError, AssertionError, NotImplementedError)
"""What optax was seen to raise on arguments and pytrees that it cannot use."""


def _bind(spec: spec_lib.Spec, learning_rate) -> Callable[[], optax.GradientTransformation]:
    prefix, _, name = spec.name.rpartition(".")
    if prefix not in _MODULES or name not in _public(_MODULES[prefix]):
        near = spec_lib.nearest(spec.name, names(), "see the documentation of optax")
        raise spec.wrong(f"optax has no transformation '{spec.name}'; {near}")
    factory = getattr(_MODULES[prefix], name)
    parameters = inspect.signature(factory).parameters
    rate = parameters.get("learning_rate")
    filled = {} if rate is None or rate.default is None else {"learning_rate": learning_rate}
    spec_lib.check_arguments(spec, parameters.values(), filled)
    return functools.partial(factory, **(filled | spec.arguments))
