"""Frozen dataclasses that are pytrees, by JAX alone: bodies and observations load without the network library."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar, dataclass_transform

import jax
import numpy as np

from dal_jax.runtime.errors import DivergedError

T = TypeVar("T")

_FEW, _MANY = 8, 64


def static(**options: Any) -> Any:
    """Declare a field that is part of the structure: hashed for compilation, never traced."""
    return dataclasses.field(metadata={"static": True}, **options)


@dataclass_transform(frozen_default=True, field_specifiers=(static, dataclasses.field))
def dataclass(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass and a pytree whose leaves are its fields, in order, but for `static` ones."""
    frozen = dataclasses.dataclass(frozen=True)(cls)
    if not hasattr(frozen, "replace"):
        frozen.replace = dataclasses.replace  # pyright: ignore[reportAttributeAccessIssue]
    fields = dataclasses.fields(frozen)  # pyright: ignore[reportArgumentType]: a dataclass by the line above
    jax.tree_util.register_dataclass(
        frozen,
        data_fields=[field.name for field in fields if not field.metadata.get("static")],
        meta_fields=[field.name for field in fields if field.metadata.get("static")],
    )
    return frozen


def refuse_not_finite(where: str, figures: Mapping[str, float], state: Any) -> None:
    """Refuse to go on with losses, weights or moments that are not finite, or whose squares are not; before a save.

    A single step at an absurd rate leaves finite weights from which no rate goes on; a gradient that is not finite
    stays in Adam's moments.

    Args:
      where: what was done and up to which step; the line begins with it.
      figures: numbers to log, by name.
      state: a pytree of arrays; whole numbers pass.

    Raises:
      errors.DivergedError: names the first figure, or the first array, that is not finite.
    """
    for name, figure in figures.items():
        if not math.isfinite(figure):
            raise DivergedError(f"{where}: {name} is {figure}")
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        values = np.asarray(leaf)
        if values.dtype.kind == "f":
            wrong = np.sum(~(np.abs(values) <= np.sqrt(np.finfo(values.dtype).max)))
            if wrong:
                name = jax.tree_util.keystr(path, simple=True, separator=".")
                raise DivergedError(f"{where}: {wrong} of {values.size} numbers of {name} are not finite, or nearly so")


def filled_up(tree: T) -> T:
    """Return a pytree of arrays over people with the last one repeated (on the host): 8, 16, 32 or a multiple of 64.

    A program is compiled for every number of people, in seconds; so there are few such numbers, and the maps over
    some people at a time have no rest, which would be compiled beside them.
    """
    count = len(jax.tree.leaves(tree)[0])
    size = max(_FEW, 1 << (count - 1).bit_length()) if count <= _MANY else -(-count // _MANY) * _MANY
    if size == count:
        return tree
    rows = np.minimum(np.arange(size), count - 1)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[rows], tree)
