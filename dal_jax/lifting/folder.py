"""A trained lifter on disk: config.json, checkpoints/ and metrics.jsonl in one folder."""

import dataclasses
import functools
import hashlib
import json
import pathlib
import shutil
from typing import Any

import jax

from dal_jax.lifting import training
from dal_jax.lifting.config import Config
from dal_jax.lifting.lift import Lifter
from dal_jax.lifting.poses import Poses
from dal_jax.lifting.training import LiftingState
from dal_jax.runtime import files
from dal_jax.runtime.checkpoints import Checkpoints
from dal_jax.runtime.errors import InputError
from dal_jax.runtime.files import PathLike
from dal_jax.runtime.metric_log import MetricLog

_CONTENT = {"config.json", "checkpoints", "metrics.jsonl", "tensorboard"}


class LifterFolder:
    """The folder of one training run, opened anew or gone on with; a context manager."""

    def __init__(
        self,
        path: PathLike,
        config: Config,
        seed: int,
        poses: Poses,
        overwrite: bool = False,
    ):
        """Open the folder for a run, which is its configuration (but for the number of steps), seed and poses.

        Raises:
          errors.InputError: it holds another run or something else; names the first value that differs.
        """
        self.path = pathlib.Path(path)
        _refuse_other_content(self.path)
        if overwrite:
            _remove(self.path)
        self._config = config
        wanted = {"config": dataclasses.asdict(config), "seed": seed, "poses_sha256": _digest(poses)}
        file = self.path / "config.json"
        if file.exists():
            _refuse_other_run(file, _read_json(file), wanted)
        files.write_json(file, wanted)
        self._checkpoints = Checkpoints(self.path / "checkpoints")
        self._log: MetricLog | None = None

    def resume(self, key: jax.Array) -> LiftingState:
        """Return the last saved state, or the initial one that the key draws."""
        last = self._checkpoints.latest_step()
        state = training.initial_state(self._config, key)
        if last is not None:
            state, _ = self._checkpoints.restore(state)
        self._log = MetricLog(self.path / "metrics.jsonl", last)
        return state

    def save(self, state: LiftingState) -> None:
        """Write a checkpoint, unless this very step is already there."""
        if int(state.step) != self._checkpoints.latest_step():
            self._checkpoints.save(int(state.step), state)

    def log(self, step: int, values: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl (`resume` comes first)."""
        self._log.write(step, values)

    def __enter__(self) -> "LifterFolder":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._log is not None:
            self._log.close()


def load(path: PathLike) -> tuple[Config, Lifter]:
    """Return (config, lifter) for `lift.lift` from the last checkpoint of a training folder.

    Raises:
      errors.InputError: it is no such folder, has no checkpoint yet, or is damaged.
    """
    path = pathlib.Path(path)
    file = path / "config.json"
    if not file.exists():
        raise InputError(f"{path}: is no folder of a trained lifter (it has no config.json)")
    fields = _read_json(file).get("config")
    known = {field.name for field in dataclasses.fields(Config)}
    if not isinstance(fields, dict) or set(fields) != known:
        raise InputError(f"{file}: is no configuration of a lifter")
    config = Config(**fields)
    example = jax.eval_shape(functools.partial(training.initial_state, config), jax.random.key(0))
    state, _ = Checkpoints(path / "checkpoints").restore(example)
    return config, state.lifter


def _digest(poses: Poses) -> str:
    content = hashlib.sha256(poses.keypoints_px.tobytes())
    content.update(poses.visible.tobytes())
    return content.hexdigest()


def _read_json(file: pathlib.Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{file}: is no JSON object")
    return content


def _refuse_other_run(file: pathlib.Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    found_values, wanted_values = _flat(found), _flat(wanted)
    for name in sorted((found_values.keys() | wanted_values.keys()) - {"config.steps"}):
        if found_values.get(name) != wanted_values.get(name):
            raise InputError(
                f"{file}: the run there has {name}={found_values.get(name)}, not {wanted_values.get(name)}; "
                "choose another --workdir, or --overwrite"
            )


def _flat(content: dict[str, Any]) -> dict[str, Any]:
    config = content.get("config")
    nested = {f"config.{name}": value for name, value in config.items()} if isinstance(config, dict) else {}
    return {name: value for name, value in content.items() if name != "config"} | nested


def _refuse_other_content(path: pathlib.Path) -> None:
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file, not the folder of a run")
    foreign = {one.name for one in path.iterdir()} - _CONTENT if path.exists() else set()
    if foreign := {name for name in foreign if not name.startswith(".")}:
        raise InputError(f"{path}: holds '{min(foreign)}', so it is not the folder of a lifter's training")


def _remove(path: pathlib.Path) -> None:
    for name in _CONTENT:
        if (path / name).is_dir():
            shutil.rmtree(path / name)
        else:
            (path / name).unlink(missing_ok=True)
