"""A run's config.json read back: a field that the file's version did not have keeps its default."""

import dataclasses
import json
import os
import pathlib
import typing
from typing import Any

from dal_jax.runtime import errors


def find(path: str | os.PathLike[str]) -> pathlib.Path:
    """Return the config.json of a `deform_and_learn` run: of its folder (--workdir), or of the checkpoints/ in it.

    Raises:
      errors.InputError: there is no such folder, or it is not a run's.
    """
    run = pathlib.Path(path)
    if not run.is_dir():
        raise errors.InputError(f"{run}: no such folder")
    if run.name == "checkpoints" and not (run / "config.json").exists():
        run = run.absolute().parent
    if not (run / "config.json").exists():
        raise errors.InputError(f"{run}: is not the folder of a deform_and_learn run (it has no config.json)")
    return run / "config.json"


def read(path: pathlib.Path) -> dict[str, Any]:
    """Return what a config.json says, unchecked but for its being one.

    Raises:
      errors.InputError: it is no JSON, or of something else than a loop.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise errors.InputError(f"{path}: is no JSON") from error
    if not isinstance(content, dict) or not isinstance(content.get("regressor"), dict):
        raise errors.InputError(f"{path}: has no group 'regressor', so it is not the configuration of a loop")
    return content


def filled(path: pathlib.Path, name: str, config: Any, values: dict[str, Any]) -> Any:
    """Return a configuration (a dataclass, of dataclasses) with the values of a file.

    Args:
      path, name: where the values stand, for the message.

    Raises:
      errors.InputError: a field is unknown, or its value of another type.
    """
    kinds = typing.get_type_hints(type(config))
    changes = {}
    for field, value in values.items():
        if field not in kinds:
            raise errors.InputError(f"{path}: {name}.{field} is unknown to this version")
        present = getattr(config, field)
        if dataclasses.is_dataclass(present) and isinstance(value, dict):
            changes[field] = filled(path, f"{name}.{field}", present, value)
            continue
        either = (one for one in typing.get_args(kinds[field]) if isinstance(one, type))  # of `float | None` both
        allowed = tuple(dict.fromkeys([type(present), *either]))
        if type(value) not in allowed and not (float in allowed and type(value) is int):
            kind = " or ".join(one.__name__ for one in allowed)
            raise errors.InputError(f"{path}: {name}.{field} is {value!r}, not of type {kind}")
        changes[field] = value
    return dataclasses.replace(config, **changes)
