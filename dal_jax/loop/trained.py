"""The ConvNet of a finished (or running) loop, loaded to predict: nothing else of its checkpoint is read."""

import dataclasses
import functools
import os
import pathlib
from typing import Any

import flax.struct
import jax

from dal_jax.loop import config_file
from dal_jax.regressor import heads, model as regressor_model
from dal_jax.runtime import checkpoints, errors


@flax.struct.dataclass
class Learned:
    """What prediction needs, on the device; a `regressor.model.Learned`."""

    variables: Any
    statistics: heads.Statistics


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
    config_path = config_file.find(path)
    config, body = _read_config(config_path)
    run = config_path.parent
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
            "statistics": jax.eval_shape(functools.partial(heads.plain_statistics, config.rotations)),
        }
    }


def _predicting(config: regressor_model.RegressorConfig) -> str:
    """Return the field of `training.TrainState` that predicts (its property `variables`)."""
    return "average" if config.average_decay else "trained"


def _read_config(path: pathlib.Path) -> tuple[regressor_model.RegressorConfig, str]:
    """Return the ConvNet's configuration and the body file of a run's config.json; the rest is not looked at."""
    content = config_file.read(path)
    body = content.get("body", "")
    if not isinstance(body, str):
        raise errors.InputError(f"{path}: body is {body!r}, not the path of a file")
    config = config_file.filled(path, "regressor", regressor_model.RegressorConfig(), content["regressor"])
    try:
        regressor_model.validate(config)
    except errors.InputError as error:
        raise errors.InputError(f"{path}: {error}") from error
    return config, body
