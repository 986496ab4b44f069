"""The ConvNet of a finished (or running) loop, loaded to predict: nothing else of its checkpoint is read."""

import dataclasses
import json
import os
import pathlib
import typing
from typing import Any

import flax.struct
import jax

from dal_jax.regressor import model as regressor_model, theta as theta_lib
from dal_jax.runtime import checkpoints, errors


@flax.struct.dataclass
class Learned:
    """What prediction needs, on the device; a `regressor.model.Learned`."""

    variables: Any
    statistics: theta_lib.Statistics


@dataclasses.dataclass(frozen=True)
class Trained:
    """A ConvNet and what it was trained with.

    body: the body file of its run, '' for the free body. step: the number of its checkpoint.
    """

    config: regressor_model.RegressorConfig
    learned: Learned
    body: str
    folder: pathlib.Path
    step: int
    training_steps: int


def load(path: str | os.PathLike[str]) -> Trained:
    """Load the last checkpoint of a `deform_and_learn` run.

    Args:
      path: the run's folder (--workdir), or the checkpoints/ in it.
    Raises:
      errors.InputError: it is no such folder, has no checkpoint or an untrained ConvNet, or is damaged.
    """
    run = pathlib.Path(path)
    if not run.is_dir():
        raise errors.InputError(f"{run}: no such folder")
    if run.name == "checkpoints" and not (run / "config.json").exists():
        run = run.absolute().parent
    config, body = _read_config(run / "config.json")
    saved = checkpoints.Checkpoints(run / "checkpoints")
    step = saved.latest_step()
    state, _ = saved.restore(_example(config), step, partial=True)
    regressor = state["regressor"]
    steps = int(regressor["step"])
    if steps == 0:
        raise errors.InputError(f"{run}: its ConvNet is not trained yet; the run stands before its first epoch")
    learned = Learned(regressor[_predicting(config)], regressor["statistics"])
    return Trained(config, learned, body, run, step, steps)


def _example(config: regressor_model.RegressorConfig) -> dict[str, Any]:
    """Return the wanted leaves of a `deform_and_learn.LoopState` as shapes, by the names they are saved under.

    A dict, because Orbax takes a field that is None for an empty one, not for one left out.
    """
    return {
        "regressor": {
            "step": jax.ShapeDtypeStruct((), "int32"),
            _predicting(config): regressor_model.variable_shapes(config),
            "statistics": jax.eval_shape(theta_lib.plain_statistics),
        }
    }


def _predicting(config: regressor_model.RegressorConfig) -> str:
    """Return the field of `training.TrainState` that predicts (its property `variables`)."""
    return "average" if config.average_decay else "trained"


def _read_config(path: pathlib.Path) -> tuple[regressor_model.RegressorConfig, str]:
    """Return the ConvNet's configuration and the body file of a run's config.json."""
    if not path.exists():
        raise errors.InputError(f"{path.parent}: is not the folder of a deform_and_learn run (it has no config.json)")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise errors.InputError(f"{path}: is no JSON") from error
    if not isinstance(content, dict) or not isinstance(content.get("regressor"), dict):
        raise errors.InputError(f"{path}: has no group 'regressor', so it is not the configuration of a loop")
    body = content.get("body", "")
    if not isinstance(body, str):
        raise errors.InputError(f"{path}: body is {body!r}, not the path of a file")
    config = _filled(path, "regressor", regressor_model.RegressorConfig(), content["regressor"])
    try:
        regressor_model.validate(config)
    except errors.InputError as error:
        raise errors.InputError(f"{path}: {error}") from error
    return config, body


def _filled(path: pathlib.Path, name: str, config: Any, values: dict[str, Any]) -> Any:
    """Return a configuration with the values of a file; a field that the file's version did not have keeps its own."""
    kinds = typing.get_type_hints(type(config))
    changes = {}
    for field, value in values.items():
        if field not in kinds:
            raise errors.InputError(f"{path}: {name}.{field} is unknown to this version")
        present = getattr(config, field)
        if dataclasses.is_dataclass(present) and isinstance(value, dict):
            changes[field] = _filled(path, f"{name}.{field}", present, value)
            continue
        if type(value) is not type(present) and not (type(present) is float and type(value) is int):
            raise errors.InputError(f"{path}: {name}.{field} is {value!r}, not of type {type(present).__name__}")
        changes[field] = value
    return dataclasses.replace(config, **changes)
