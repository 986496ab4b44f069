"""A run's config.json read back: a field that the file's version did not have keeps its default."""

import dataclasses
import json
import os
import pathlib
import shutil
import typing
from typing import Any

from dal_jax.config import Config
from dal_jax.deform_and_learn import LoopState, RunState
from dal_jax.runtime import files
from dal_jax.runtime.checkpoints import Checkpoints
from dal_jax.runtime.errors import InputError
from dal_jax.runtime.metric_log import MetricLog


def find(path: str | os.PathLike[str]) -> pathlib.Path:
    """Return the config.json of a `deform_and_learn` run: of its folder (--workdir), or of the checkpoints/ in it.

    Raises:
      errors.InputError: there is no such folder, or it is not a run's.
    """
    run = pathlib.Path(path)
    if not run.is_dir():
        raise InputError(f"{run}: no such folder")
    if run.name == "checkpoints" and not (run / "config.json").exists():
        run = run.absolute().parent
    if not (run / "config.json").exists():
        raise InputError(f"{run}: is not the folder of a deform_and_learn run (it has no config.json)")
    return run / "config.json"


def read(path: pathlib.Path) -> dict[str, Any]:
    """Return what a config.json says, unchecked but for its being one.

    Raises:
      errors.InputError: it is no JSON, or of something else than a loop.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is no JSON") from error
    if not isinstance(content, dict) or not isinstance(content.get("regressor"), dict):
        raise InputError(f"{path}: has no group 'regressor', so it is not the configuration of a loop")
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
            raise InputError(f"{path}: {name}.{field} is unknown to this version")
        present = getattr(config, field)
        if dataclasses.is_dataclass(present) and isinstance(value, dict):
            changes[field] = filled(path, f"{name}.{field}", present, value)
            continue
        either = (one for one in typing.get_args(kinds[field]) if isinstance(one, type))  # of `float | None` both
        allowed = tuple(dict.fromkeys([type(present), *either]))
        if type(value) not in allowed and not (float in allowed and type(value) is int):
            kind = " or ".join(one.__name__ for one in allowed)
            raise InputError(f"{path}: {name}.{field} is {value!r}, not of type {kind}")
        changes[field] = value
    return dataclasses.replace(config, **changes)


# --- A run's folder: config.json, checkpoints/, metrics.jsonl, history.json; opened anew or gone on with ---


class RunFolder:
    """Keeps one run: a `deform_and_learn.Store`."""

    def __init__(self, path: str | pathlib.Path, config: Config, overwrite: bool = False):
        """Open a folder for a run of `config`.

        Raises:
          errors.InputError: the folder holds something else, or a run of another configuration; names the field.
        """
        self.path = pathlib.Path(path)
        if overwrite:
            _remove_run(self.path)
        _refuse_other_content(self.path)
        self._checkpoints = Checkpoints(self.path / "checkpoints", keep=2)
        self._check_config(config)
        self._log: MetricLog | None = None

    def resume(self, fresh: LoopState) -> tuple[LoopState, RunState]:
        """Return the last saved state and position, or `fresh` at the beginning."""
        if self._checkpoints.latest_step() is None:
            state, position = fresh, RunState()
        else:
            state, notes = self._checkpoints.restore(fresh)
            position = RunState(**notes)
        self._log = MetricLog(self.path / "metrics.jsonl", position.saves if position.saves else None)
        return state, position

    def save(self, number: int, state: LoopState, position: dict[str, Any]) -> None:
        """Write a checkpoint, and the history as far as it goes."""
        self._checkpoints.save(number, state, position)
        files.write_json(self.path / "history.json", position["history"])

    def log(self, number: int, values: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl; `number` is that of the next checkpoint."""
        self._log.write(number, values)

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._log is not None:
            self._log.close()

    def _check_config(self, config: Config) -> None:
        path = self.path / "config.json"
        wanted = json.loads(json.dumps(dataclasses.asdict(config)))
        if self._checkpoints.latest_step() is None:  # nothing has been learned there yet, so nothing can be mixed up
            files.write_json(path, wanted)
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: is no JSON; --overwrite starts anew") from error
        different = _first_difference(found, wanted)
        if different:
            raise InputError(
                f"{path}: the run there has {different}; use its configuration, another --workdir, or --overwrite"
            )


_RUN_CONTENT = {
    "config.json",
    "checkpoints",
    "metrics.jsonl",
    "history.json",
    "report",
    "scores.json",
    "tensorboard",
}


def _refuse_other_content(path: pathlib.Path) -> None:
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file, not the folder of a run")
    names = {entry.name for entry in path.iterdir() if not entry.name.startswith(".")} if path.exists() else set()
    if names and "config.json" not in names:
        raise InputError(f"{path}: holds '{min(names)}' but no config.json, so it is not the folder of a run")


def _remove_run(path: pathlib.Path) -> None:
    """Remove what a run writes, and nothing else."""
    _refuse_other_content(path)
    for name in _RUN_CONTENT:
        target = path / name
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


def _first_difference(found: Any, wanted: Any, name: str = "config") -> str | None:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(found.keys() | wanted.keys()):
            if difference := _first_difference(found.get(key), wanted.get(key), f"{name}.{key}"):
                return difference
        return None
    return None if found == wanted else f"{name}={json.dumps(found)} where {json.dumps(wanted)} is asked for"
