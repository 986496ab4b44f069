"""The folder of a run with a small regressor in its checkpoint: real weights, though untrained."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from dal_jax.algorithm import LoopState, RunState
from dal_jax.config import Config, demo
from dal_jax.loop.folder import RunFolder
from dal_jax.regressor import training
from dal_jax.regressor.training import TrainState

IMAGE_SIZE = 32


def config(**regressor) -> Config:
    """Return the demo's configuration with a regressor of width 4, 14 layers deep, on 32 px."""
    whole = demo()
    whole.regressor = dataclasses.replace(whole.regressor, width=4, depth=14, image_size=IMAGE_SIZE, **regressor)
    return whole


def write(workdir: pathlib.Path, step: int = 5, **regressor) -> TrainState:
    """Write config.json and a checkpoint; return the regressor's state, whose answers differ between pictures."""
    whole = config(**regressor)
    state = training.initial_state(whole.regressor, jax.random.key(0)).replace(step=jnp.asarray(step, jnp.int32))
    rng = np.random.default_rng(1)
    last = last_layer(state.trained)
    kernel = jnp.asarray(rng.normal(0, 0.02, last["kernel"].shape), jnp.float32)
    last["kernel"] = kernel
    if state.average is not None:
        average = jax.tree.map(lambda leaf: leaf, state.average)
        last_layer(average)["kernel"] = 0.5 * kernel
        state = state.replace(average=average)
    loop = LoopState(
        lifting=None,
        fits=None,
        objective=None,
        energy=np.zeros(2, np.float32),
        sample_weight=None,
        regressor=state,
        predictions=None,
    )
    with RunFolder(workdir, whole) as run:
        run.save(loop, RunState())
    return state


def last_layer(variables) -> dict:
    """Return the layer that answers with theta: it starts at zero."""
    head = variables["params"]["theta"]
    return head.get("change", head)
