"""One round in seconds, with JAX's NaN checks: few small programs; one set of shapes for all tests."""

import dataclasses
import pathlib

import jax

from dal_jax.config import Config, demo
from dal_jax.lifting.config import kudo
from dal_jax.loop import run as run_lib

SIZE = 32


def config(name: str, source: str = "") -> Config:
    """Return the configuration of a data set; without `source` it has been recorded."""
    config = demo()
    config.data, config.source, config.rounds = name, source, 1
    config.lifting = dataclasses.replace(kudo(), width=16, batch=4, steps=20, steps_per_call=20)
    config.lifting_checkpoint_steps = 20
    config.regressor.width, config.regressor.batch, config.regressor.epochs = 4, 4, 1
    config.regressor.image_size, config.regressor.depth = SIZE, 14
    config.first.registration.steps, config.first.registration.batch = 3, 24
    config.first.registration.optimizer, config.first.registration.learning_rate = "adam", 0.03
    return config


def run(config: Config, folder: pathlib.Path) -> run_lib.Result:
    """Run in `folder`/run on the data in `folder`/data; a NaN that a compiled program returns is an error."""
    with jax.debug_nans(True):
        return run_lib.deform_and_learn(config, folder / "run", folder / "data")
