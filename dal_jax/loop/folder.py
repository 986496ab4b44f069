"""A run's folder: config.json, checkpoints/, metrics.jsonl, history.json; begun, gone on with, and read back."""

import dataclasses
import json
import math
import pathlib
import shutil
from typing import Any

import jax

from dal_jax.algorithm import PHASES, LoopState, RunState
from dal_jax.config import Config
from dal_jax.registration import priors
from dal_jax.registration.energy import EnergyWeights, Objective
from dal_jax.runtime import files, mesh, progress
from dal_jax.runtime.checkpoints import Checkpoints
from dal_jax.runtime.errors import InputError, one_line
from dal_jax.runtime.files import PathLike
from dal_jax.runtime.progress import MetricLog


class RunFolder:
    """Keeps one run: its states and the numbers it logs. Of several processes the first alone writes (but states)."""

    def __init__(self, path: PathLike, config: Config, overwrite: bool = False):
        """Open a folder for a run of `config`.

        Raises:
          errors.InputError: the folder holds something else, or a run of another configuration; names the field.
        """
        self.path = pathlib.Path(path)
        if overwrite and mesh.is_first():
            _remove_run(self.path)
        mesh.meet("run folder")
        _refuse_other_content(self.path)
        self._checkpoints = Checkpoints(self.path / "checkpoints", keep=2)
        self._people = Checkpoints(self.path / PEOPLE, keep=3)  # of two checkpoints, and one of a third
        self._saved: list[Any] = []  # the leaves of the last step of `people`
        self._check_config(config)
        self._check_log()
        self._log: MetricLog | None = None

    def resume(self, fresh: LoopState) -> tuple[LoopState, RunState]:
        """Return the last saved state and position, or `fresh` at the beginning."""
        step = self._checkpoints.latest_step()
        if step is None:
            state, position = fresh, RunState()
        else:
            scales = fresh.objective.scales
            of_people, others = _parts(fresh)

            def with_people(state: LoopState, notes: dict[str, Any]) -> LoopState:
                saved, _ = self._people.restore(of_people, notes[PEOPLE])
                return dataclasses.replace(state, **saved)

            state, notes, step = self._checkpoints.resume(
                lambda step: dataclasses.replace(others, objective=saved_objective(self._checkpoints, step, scales)),
                complete=with_people,
                remedy="; no other is left, --overwrite starts anew",
            )
            self._saved = jax.tree.leaves(_parts(state)[0])
            self._people.forget_after(notes.pop(PEOPLE))
            position = _position(notes, self._checkpoints, step)
        if mesh.is_first():
            self._log = MetricLog(self.path / "metrics.jsonl", step)
        return state, position

    def save(self, state: LoopState, position: RunState) -> None:
        """Write a checkpoint, and the history as far as it goes: an `algorithm.Save`.

        What belongs to people, which grows with their number, is written where it is not what was written last.
        """
        of_people, others = _parts(state)
        leaves = jax.tree.leaves(of_people)
        if len(leaves) != len(self._saved) or any(a is not b for a, b in zip(leaves, self._saved, strict=True)):
            self._people.save((self._people.latest_step() or 0) + 1, of_people)
            self._saved = leaves
        notes = dataclasses.asdict(position) | {"history": list(position.history), PEOPLE: self._people.latest_step()}
        self._checkpoints.save(self._next_number(), others, notes)
        if mesh.is_first():
            files.write_json(self.path / "history.json", position.history)

    def log(self, position: RunState, values: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl, under the number of the next checkpoint: an `algorithm.Log`."""
        where = {"round": position.round, "phase": position.phase, "epoch": position.epoch}
        if self._log is not None:
            self._log.write(self._next_number(), where | values)
        elif mesh.is_first():
            raise ValueError("resume() opens the log")

    def _next_number(self) -> int:
        return (self._checkpoints.latest_step() or 0) + 1

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._log is not None:
            self._log.close()

    def _check_log(self) -> None:
        """Refuse a damaged log before the people are loaded."""
        path = self.path / "metrics.jsonl"
        try:
            if path.exists() and self._checkpoints.latest_step() is not None:
                progress.read_metrics(path)
        except InputError as error:
            raise InputError(f"{error}; remove that line, or --overwrite starts anew") from error

    def _check_config(self, config: Config) -> None:
        path = self.path / "config.json"
        wanted = json.loads(json.dumps(dataclasses.asdict(config)))
        if self._checkpoints.latest_step() is None:  # nothing has been learned there yet, so nothing can be mixed up
            _write(path, wanted)
            return
        try:
            found = files.read_json(path)
        except InputError as error:
            raise InputError(f"{error}; --overwrite starts anew") from error
        if different := _first_difference(found, wanted):
            raise InputError(
                f"{path}: the run there has {different}; use its configuration, another --workdir, or --overwrite"
            )
        if found != wanted:
            _write(path, wanted)


def _write(path: pathlib.Path, content: Any) -> None:
    if mesh.is_first():
        files.write_json(path, content)


PEOPLE = "people"
"""The folder beside checkpoints/ of what belongs to people; a checkpoint's metadata name its step of it."""
_OF_PEOPLE = ("fits", "energy", "sample_weight", "predictions")


def _parts(state: LoopState) -> tuple[dict[str, Any], LoopState]:
    """Return what belongs to people, and the state without it."""
    return {name: getattr(state, name) for name in _OF_PEOPLE}, dataclasses.replace(state, **dict.fromkeys(_OF_PEOPLE))


_RUN_CONTENT = {
    PEOPLE,
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


def _position(notes: dict[str, Any], checkpoints: Checkpoints, step: int) -> RunState:
    """Return where a run stands, from what may still be anything."""
    history = notes.get("history")
    whole = all(type(notes.get(name)) is int and notes[name] >= least for name, least in (("round", 1), ("epoch", 0)))
    entries = isinstance(history, list) and all(isinstance(entry, dict) for entry in history)
    seconds = notes.get("seconds")
    timed = isinstance(seconds, int | float) and math.isfinite(seconds) and seconds >= 0
    known = {field.name for field in dataclasses.fields(RunState)} == notes.keys()
    if not (known and whole and entries and timed and notes["phase"] in PHASES):
        raise InputError(f"{checkpoints.path(step)}: {one_line(repr(notes))[:200]} is no position of a run")
    return RunState(**{**notes, "history": tuple(notes["history"])})  # one dict, whose values are checked above


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
    """Name a field that differs; learning rates may: a run that diverged goes on with another one."""
    if name.endswith(".learning_rate"):
        return None
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(found.keys() | wanted.keys()):
            if difference := _first_difference(found.get(key), wanted.get(key), f"{name}.{key}"):
                return difference
        return None
    return None if found == wanted else f"{name}={json.dumps(found)} where {json.dumps(wanted)} is asked for"


def find(path: PathLike) -> pathlib.Path:
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
    """Return the content of a run's config.json; its fields are not checked.

    Raises:
      errors.InputError: it is no JSON, or no configuration of a run.
    """
    content = files.read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("regressor"), dict):
        raise InputError(f"{path}: has no group 'regressor', so it is not the configuration of a loop")
    return content


def saved_objective(checkpoints: Checkpoints, step: int, scales: str = "isotropic") -> Objective:
    """Return an objective with the structure of a saved one, to restore it into: the terms that are on, the priors.

    Raises:
      errors.InputError: the checkpoint is damaged.
    """
    saved = checkpoints.structure(step)
    names = [field.name for field in dataclasses.fields(EnergyWeights)]
    weights: Any = {name: 0.0 if f"objective/weights/{name}" in saved else None for name in names}
    has_prior, has_shape = (any(leaf.startswith(f"objective/{name}/") for leaf in saved) for name in ("prior", "shape"))
    return Objective(
        EnergyWeights(**weights),
        priors.population() if has_prior else None,
        priors.population_shapes(scales) if has_shape else None,
        scales=scales,
    )
