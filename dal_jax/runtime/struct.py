"""Frozen dataclasses that are pytrees, by JAX alone: bodies and observations load without the network library."""

import dataclasses
from typing import Any, TypeVar, dataclass_transform

import jax

T = TypeVar("T")


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
    return jax.tree_util.register_dataclass(
        frozen,
        data_fields=[field.name for field in fields if not field.metadata.get("static")],
        meta_fields=[field.name for field in fields if field.metadata.get("static")],
    )
