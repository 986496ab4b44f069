"""Frozen dataclasses that are pytrees, by JAX alone: bodies and observations load without the network library."""

import dataclasses
from typing import Any, Self, TypeVar, dataclass_transform

import jax

T = TypeVar("T")


class _Struct:
    def replace(self, **changes: Any) -> Self:
        """Return a copy with other values of the named fields."""
        return dataclasses.replace(self, **changes)  # pyright: ignore[reportArgumentType]: every user is a dataclass


def static(**options: Any) -> Any:
    """Declare a field that is part of the structure: hashed for compilation, never traced."""
    return dataclasses.field(metadata={"static": True}, **options)


@dataclass_transform(frozen_default=True, field_specifiers=(static, dataclasses.field))
def dataclass(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass and a pytree whose leaves are its fields, in order, but for `static` ones."""
    frozen = dataclasses.dataclass(frozen=True)(cls)
    if not hasattr(frozen, "replace"):
        frozen.replace = _Struct.replace  # pyright: ignore[reportAttributeAccessIssue]
    fields = dataclasses.fields(frozen)
    return jax.tree_util.register_dataclass(
        frozen,
        data_fields=[field.name for field in fields if not field.metadata.get("static")],
        meta_fields=[field.name for field in fields if field.metadata.get("static")],
    )
