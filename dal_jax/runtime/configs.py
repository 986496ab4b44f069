"""Configurations, which are mutable dataclasses of dataclasses: checked, read back from JSON, and hashed for jit."""

import copy
import dataclasses
import functools
import math
import typing
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from dal_jax.runtime.errors import InputError
from dal_jax.runtime.files import PathLike

Config = TypeVar("Config")
Made = TypeVar("Made")


def cached_by_config(make: Callable[[Config], Made]) -> Callable[[Config], Made]:
    """Decorate a function of one configuration so that equal configurations share one result: one compilation each.

    The function gets a copy, so a configuration that is changed afterwards asks for another result. Example:

        @cached_by_config
        def _compiled_step(config: RegressorConfig):
            return jax.jit(lambda state: ...)
    """
    made: dict[str, Made] = {}

    @functools.wraps(make)
    def cached(config: Config) -> Made:
        values = repr(config)  # a dataclass names its type and all its fields
        if values not in made:
            made[values] = make(copy.deepcopy(config))
        return made[values]

    return cached


MOST_COUNT = 2**31 - 1
"""Of a whole number: JAX counts in 32 bits."""

MOST = 1e30
"""Of any other number: float32 ends at 3e38, and squares are taken."""


def check_number(name: str, value: Any, most: float = MOST) -> None:
    """Refuse a number that no setting can have: NaN, infinity, beyond `MOST_COUNT` or `most`; anything else passes.

    Every number of a configuration (`check_choices`) and of a binary's flags comes by here. Narrower bounds stand with
    the setting.

    Raises:
      errors.InputError: names it, the value and the bound.
    """
    if isinstance(value, int) and not abs(value) <= MOST_COUNT:
        raise InputError(f"{name} is {str(value)[:30]}: a whole number of at most {MOST_COUNT}")
    if isinstance(value, float) and not abs(value) <= most:
        raise InputError(f"{name} is {value}: a finite number of at most {most:g}")


def check_choices(config: Any, name: str = "config") -> None:
    """Refuse a value that is not among the `Literal` choices of its field, or no possible number, in nested ones too.

    Raises:
      errors.InputError: names the field, the value and the choices.
    """
    for field, kind in typing.get_type_hints(type(config)).items():
        value = getattr(config, field)
        if dataclasses.is_dataclass(value):
            check_choices(value, f"{name}.{field}")
        elif typing.get_origin(kind) is typing.Literal and value not in typing.get_args(kind):
            raise InputError(f"{name}.{field} is '{value}': one of {', '.join(map(str, typing.get_args(kind)))}")
        for number in value if isinstance(value, tuple) else (value,):
            check_number(f"{name}.{field}", number)


def check_range(
    config: Any, name: str, fields: Iterable[str], least: float, most: float = math.inf, below: float = math.inf
) -> None:
    """Refuse numbers of a configuration that are not from `least` to `most`, and below `below`; NaN is neither.

    Raises:
      errors.InputError: names the field, the value and its bounds.
    """
    above = f"to below {below}" if below < math.inf else f"to {most}"
    bounds = f"at least {least}" if min(most, below) == math.inf else f"from {least} {above}"
    for field in fields:
        value = getattr(config, field)
        if not (least <= value <= most and value < below):
            raise InputError(f"{name}.{field} is {value}: {bounds}")


def with_values(config: Config, values: dict[str, Any], path: PathLike, name: str = "config") -> Config:
    """Return a configuration with the values that a JSON file has for some of its fields; the others stay.

    Args:
      config: a dataclass; nested ones are filled by nested dicts.
      values: by field.
      path, name: where the values stand; they begin the error line.

    Raises:
      errors.InputError: a field is unknown, or its value has another type or is not among its choices.
    """
    kinds = typing.get_type_hints(type(config))
    changes = {}
    for field, value in values.items():
        if field not in kinds:
            raise InputError(f"{path}: {name}.{field} is unknown to this version")
        present = getattr(config, field)
        if dataclasses.is_dataclass(present) and isinstance(value, dict):
            changes[field] = with_values(present, value, path, f"{name}.{field}")
        else:
            changes[field] = _checked(value, present, kinds[field], f"{path}: {name}.{field}")
    return dataclasses.replace(config, **changes)  # pyright: ignore[reportArgumentType]  # a dataclass, as said above


def _checked(value: Any, present: Any, kind: Any, where: str) -> Any:
    choices = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        if value not in choices:
            raise InputError(f"{where} is {value!r}: one of {', '.join(map(str, choices))}")
        return value
    optional = (one for one in choices if isinstance(one, type))  # both types of `float | None`
    allowed = tuple(dict.fromkeys([type(present), *optional]))
    if type(value) in allowed or (float in allowed and type(value) is int):
        return value
    raise InputError(f"{where} is {value!r}, not of type {' or '.join(one.__name__ for one in allowed)}")
