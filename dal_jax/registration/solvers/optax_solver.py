"""Gradient methods: any of optax's transformations, by name, on one person's energy.

`optax.NAME` or `optax.NAME(argument=literal, ...)`, also of `optax.contrib`: as many as optax has. Nothing is
evaluated; arguments are Python literals.
"""

import ast
import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jaxtyping import Array, Float

from dal_jax.registration.solvers import descent
from dal_jax.registration.solvers.descent import Solution, SolverOptions, State

Energy = Callable[[State], Float[Array, ""]]
_MODULES = {"optax": optax, "optax.contrib": optax.contrib}
_REFUSALS = (TypeError, ValueError, AttributeError, LookupError, AssertionError, NotImplementedError)
"""What optax was seen to raise on arguments and pytrees that it cannot use."""


def minimise(
    energy: Energy, start: State, transformation: optax.GradientTransformation, options: SolverOptions
) -> Solution:
    """Follow the transformation from `start`; the iterates are exactly optax's, the best one seen is returned."""
    step, memory = _stepper(energy, start, transformation)
    return descent.run(step, energy, start, memory, options)


def trajectory(
    energy: Energy, start: State, transformation: optax.GradientTransformation, steps: int
) -> Float[Array, "{steps}+1"]:
    """Return the energy at `start` and after each step of what `minimise` runs."""
    step, memory = _stepper(energy, start, transformation)

    def record(carry, _):
        value, state, memory = step(*carry)
        return (state, memory), value

    return jax.lax.scan(record, (start, memory), length=steps + 1)[1]


def _stepper(energy: Energy, start: State, transformation: optax.GradientTransformation):
    """Return a step (state, memory) -> (energy, next state, memory), and the memory it begins with.

    A line search ends by evaluating the point it goes to; its transformation keeps value and gradient in its state, and
    to compute them again would double the price of a step.
    """
    transformation = optax.with_extra_args_support(transformation)
    value_and_gradient = jax.value_and_grad(energy)
    begun = transformation.init(start)
    searches = _found_by_search(begun) is not None

    def step(state: State, memory: tuple):
        inner, known = memory
        value, gradient = known if searches else value_and_gradient(state)
        updates, inner = transformation.update(gradient, inner, state, value=value, grad=gradient, value_fn=energy)
        known = _found_by_search(inner) if searches else ()
        return value, optax.apply_updates(state, updates), (inner, known)

    return step, (begun, value_and_gradient(start) if searches else ())


def _found_by_search(inner: Any) -> tuple | None:
    """Return (value, gradient) that a line search left in a transformation's state; None without a line search."""
    value, gradient = optax.tree.get(inner, "value"), optax.tree.get(inner, "grad")
    return None if value is None or gradient is None else (value, gradient)


# --- by name ---


def names() -> list[str]:
    """Return every name of a transformation (some want arguments that no literal can be)."""
    return [f"{prefix}.{name}" for prefix, module in _MODULES.items() for name in _public(module)]


def make(text: str, learning_rate: float | Float[Array, ""]) -> optax.GradientTransformation:
    """Return the transformation that `text` calls for, as in "optax.adabelief(learning_rate=0.05)".

    `learning_rate` is used where the transformation has such an argument and the text does not give it; where optax's
    own default is None (a line search, a scale of its own) that stays.

    Raises:
      ValueError: an unknown name or argument, or a value that optax refuses; one line.
    """
    name, arguments = _parse(text)
    prefix, _, word = name.rpartition(".")
    if prefix not in _MODULES or word not in _public(_MODULES[prefix]):
        near = nearest(name, names(), "see the documentation of optax")
        raise wrong(text, f"optax has no transformation '{name}'; {near}")
    factory = getattr(_MODULES[prefix], word)
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = {key: one for key, one in inspect.signature(factory).parameters.items() if one.kind in kinds}
    rate = parameters.get("learning_rate")
    if rate is not None and rate.default is not None:
        arguments = {"learning_rate": learning_rate} | arguments
    for argument in arguments.keys() - parameters.keys():
        raise wrong(text, f"{name} has no argument '{argument}'; {nearest(argument, parameters)}")
    missing = [key for key, one in parameters.items() if one.default is one.empty and key not in arguments]
    if missing:
        raise wrong(text, f"{name} needs {', '.join(missing)}")
    try:
        return factory(**arguments)
    except _REFUSALS as error:
        raise wrong(text, f"optax refuses: {error}") from error


def check(text: str, state: Any) -> None:
    """Make the transformation and trace one step of it on a bowl over `state`; nothing is computed.

    Raises:
      ValueError: as `make`; also of a transformation that needs more than values and gradients, or other leaves.
    """
    make(text, 0.1)

    def bowl(leaves) -> Float[Array, ""]:
        return jax.tree.reduce(jnp.add, jax.tree.map(lambda leaf: jnp.sum(leaf**2), leaves))

    def step(learning_rate, leaves):
        transformation = optax.with_extra_args_support(make(text, learning_rate))
        memory = transformation.init(leaves)
        value, gradient = jax.value_and_grad(bowl)(leaves)
        updates, _ = transformation.update(gradient, memory, leaves, value=value, grad=gradient, value_fn=bowl)
        return optax.apply_updates(leaves, updates)

    try:
        jax.eval_shape(step, jnp.float32(0.1), state)
    except _REFUSALS as error:
        raise wrong(text, f"optax refuses: {error}") from error


def _parse(text: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the arguments of "NAME" or "NAME(argument=literal, ...)"."""
    name, bracket, _ = text.partition("(")
    if not bracket:
        return name, {}
    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or call.args or ast.unparse(call.func) != name:
            raise ValueError
        return name, {keyword.arg or "**": ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise wrong(text, "write NAME or NAME(argument=literal, ...), each argument by its name") from error


@functools.cache
def _public(module) -> tuple[str, ...]:
    return tuple(name for name in dir(module) if not name.startswith("_") and _makes_one(getattr(module, name)))


def _makes_one(member: Any) -> bool:
    if not inspect.isfunction(member) and not isinstance(member, functools.partial):
        return False
    return "GradientTransformation" in str(inspect.signature(member).return_annotation)


def wrong(text: str, reason: object) -> ValueError:
    """Return the one-line error of an optimiser that cannot be used."""
    shown, told = (" ".join(str(part).split()) for part in (text, reason))
    return ValueError(f"optimizer '{shown[:80]}': {told[:300]}")


def nearest(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return "nearest: ...", judged by the last word of dotted names; `otherwise`, or all there is, if none is near."""
    by_word = {full.rpartition(".")[2]: full for full in reversed(list(known))}  # of equal words the first stays
    close = difflib.get_close_matches(name.rpartition(".")[2], by_word, n=3)
    if close:
        return f"nearest: {', '.join(by_word[word] for word in close)}"
    return otherwise or f"there is {', '.join(known) or 'none'}"
