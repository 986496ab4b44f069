"""A run's folder: config.json, checkpoints/, metrics.jsonl, history.json; opened anew or gone on with."""

import dataclasses
import json
import pathlib
import shutil
from typing import Any

from dal_jax import deform_and_learn, presets
from dal_jax.runtime import atomic, checkpoints, errors, metric_log


class RunFolder:
    """Keeps one run: a `deform_and_learn.Store`."""

    def __init__(self, path: str | pathlib.Path, config: presets.Config, overwrite: bool = False):
        """Open a folder for a run of `config`.

        Raises:
          errors.InputError: the folder holds something else, or a run of another configuration; names the field.
        """
        self.path = pathlib.Path(path)
        if overwrite:
            _remove_run(self.path)
        _refuse_other_content(self.path)
        self._checkpoints = checkpoints.Checkpoints(self.path / "checkpoints", keep=2)
        self._check_config(config)
        self._log: metric_log.MetricLog | None = None

    def resume(self, fresh: deform_and_learn.LoopState) -> tuple[deform_and_learn.LoopState, deform_and_learn.Progress]:
        """Return the last saved state and position, or `fresh` at the beginning."""
        if self._checkpoints.latest_step() is None:
            state, position = fresh, deform_and_learn.Progress()
        else:
            state, notes = self._checkpoints.restore(fresh)
            position = deform_and_learn.Progress(**notes)
        self._log = metric_log.MetricLog(self.path / "metrics.jsonl", position.saves if position.saves else None)
        return state, position

    def save(self, number: int, state: deform_and_learn.LoopState, position: dict[str, Any]) -> None:
        """Write a checkpoint, and the history as far as it goes."""
        self._checkpoints.save(number, state, position)
        atomic.write_json(self.path / "history.json", position["history"])

    def log(self, number: int, values: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl; `number` is that of the next checkpoint."""
        self._log.write(number, values)

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._log is not None:
            self._log.close()

    def _check_config(self, config: presets.Config) -> None:
        path = self.path / "config.json"
        wanted = json.loads(json.dumps(dataclasses.asdict(config)))
        if self._checkpoints.latest_step() is None:  # nothing has been learned there yet, so nothing can be mixed up
            atomic.write_json(path, wanted)
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise errors.InputError(f"{path}: is no JSON; --overwrite starts anew") from error
        different = _first_difference(found, wanted)
        if different:
            raise errors.InputError(
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
        raise errors.InputError(f"{path}: is a file, not the folder of a run")
    names = {entry.name for entry in path.iterdir() if not entry.name.startswith(".")} if path.exists() else set()
    if names and "config.json" not in names:
        raise errors.InputError(f"{path}: holds '{min(names)}' but no config.json, so it is not the folder of a run")


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
