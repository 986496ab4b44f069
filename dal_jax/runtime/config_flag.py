"""A stage's configuration as flags: `--config.first.registration.steps=30` sets one field of a nested dataclass."""

import ast
import dataclasses
import difflib
import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from absl import flags
from ml_collections import config_flags

from dal_jax.runtime import cli

flags.disclaim_key_flags()  # the flag belongs to the binary, so its --help shows it


def define(
    default: Any, presets: Mapping[str, Callable[[], Any]] | None = None, flag_values: flags.FlagValues = flags.FLAGS
) -> flags.FlagHolder:
    """Define `--config.FIELD=VALUE` for every field of a mutable dataclass; call it where other flags are defined.

    Args:
      default: the configuration when nothing is set. The comment behind each field is its help.
      presets: functions that make whole configurations, by name. `--config.preset=NAME` chooses one; other overrides
        apply on top of it, wherever they stand on the command line. The dataclass has a field `preset` for the name.
      flag_values: where the flag is defined.

    Returns:
      A holder whose `.value` is the configuration once flags are parsed.

    Note: ml_collections reads the command line here, before `main`, so bad overrides must be refused here.
    """
    overrides = _overrides(sys.argv)
    if presets is not None and (name := overrides.get("preset")) is not None:
        if name not in presets:
            cli.fail(f"flag --config.preset={name}: one of {', '.join(presets)}")
        default = presets[name]()
    fields = dict(_fields(default))
    for path in overrides:
        _refuse_unknown(path, fields)
    for _, kind, _ in fields.values():
        _register_parser(kind)
    holder = config_flags.DEFINE_config_dataclass("config", default, _help(fields), flag_values)
    flag_values["config"].default_as_str = None  # the fields' own defaults are in the help
    return holder


_Field = tuple[Any, Any, str]
"""Value, type, and the comment behind the field."""


def _fields(config: Any, prefix: str = "") -> Iterator[tuple[str, _Field]]:
    """Yield (path, field), nested dataclasses themselves included."""
    kinds = typing.get_type_hints(type(config))
    source = inspect.getsource(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        comment = re.search(rf"^\s+{field.name}\s*:[^\n]*?\s\s#\s*(.*)$", source, re.MULTILINE)
        yield prefix + field.name, (value, kinds[field.name], comment.group(1) if comment else "")
        if dataclasses.is_dataclass(value):
            yield from _fields(value, f"{prefix}{field.name}.")


def _overrides(argv: list[str]) -> dict[str, str]:
    """Collect `--config.PATH=VALUE`, `--config.PATH VALUE` and `--noconfig.PATH` as {PATH: VALUE}."""
    found = {}
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        if match := re.match(r"--?(?:no)?config\.([^=]+)(?:=(.*))?$", argument, re.DOTALL):
            found[match.group(1)] = following if match.group(2) is None else match.group(2)
    return found


def _refuse_unknown(path: str, fields: Mapping[str, _Field]) -> None:
    settable = [name for name, (value, *_) in fields.items() if not dataclasses.is_dataclass(value)]
    if path in settable:
        return
    if path in fields:
        cli.fail(f"flag --config.{path}: is a group, set one of its fields, as in --config.{path}.FIELD=VALUE")
    near = difflib.get_close_matches(path, settable, n=1)
    hint = f"did you mean --config.{near[0]}?" if near else "--help lists the fields"
    cli.fail(f"flag --config.{path}: no such field; {hint}")


def _register_parser(kind: Any) -> None:
    """Teach ml_collections the types it would refuse (choices) or not check (the elements of a tuple)."""
    if typing.get_origin(kind) is typing.Literal:
        config_flags.register_flag_parser_for_type(kind, flags.EnumParser([str(v) for v in typing.get_args(kind)]))
    elif typing.get_origin(kind) is tuple:
        config_flags.register_flag_parser_for_type(kind, _TupleParser(kind))


class _TupleParser(flags.ArgumentParser):
    """Parse `3,4` or `(3, 4)` into a `tuple[int, ...]` or `tuple[int, int]`; an int passes for a float."""

    def __init__(self, kind: Any):
        self._kinds = typing.get_args(kind)

    def parse(self, argument: str | tuple) -> tuple:
        values = self._literal(argument) if isinstance(argument, str) else argument
        kinds = self._kinds[:1] * len(values) if self._kinds[-1] is Ellipsis else self._kinds
        if len(values) != len(kinds):
            raise ValueError(f"{len(kinds)} values are needed")
        return tuple(self._checked(value, kind) for value, kind in zip(values, kinds, strict=True))

    def _literal(self, argument: str) -> tuple:
        words = argument.strip("() ").split(",") if str in self._kinds else None
        if words is not None:
            return tuple(word.strip(" '\"") for word in words if word)
        try:
            values = ast.literal_eval(argument)
        except (SyntaxError, ValueError):
            raise ValueError("is no tuple such as (1, 2)") from None
        return values if isinstance(values, tuple) else (values,)

    def _checked(self, value: Any, kind: type) -> Any:
        if type(value) is kind or (kind is float and type(value) is int):
            return kind(value)
        raise ValueError(f"{value!r} is no {kind.__name__}")


def _help(fields: Mapping[str, _Field]) -> str:
    lines = ["Set one field by --config.FIELD=VALUE:"]
    for path, (value, _, comment) in fields.items():
        if not dataclasses.is_dataclass(value):
            lines.append(f"{path}={value!r}  {comment}".rstrip())
    return "\n".join(lines)
