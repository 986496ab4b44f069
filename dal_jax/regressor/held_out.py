"""Held-out training people: their draw, and the 2D losses that choose a round's best epoch and end it early.

Neither 3D truth nor the registered bodies are read: annotated points, key points and lifted depths alone.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, PRNGKeyArray

from dal_jax.body import kinematics
from dal_jax.regressor import batches, model, training
from dal_jax.regressor.model import RegressorConfig
from dal_jax.regressor.training import Best, TrainingSet, TrainState
from dal_jax.runtime import mesh as mesh_lib
from dal_jax.runtime.configs import cached_by_config
from dal_jax.runtime.errors import InputError


def draw(config: RegressorConfig, key: PRNGKeyArray, people: int) -> Bool[np.ndarray, "people"]:
    """Draw the held-out people: the nearest whole number to `config.held_out_share` of them, at least one.

    Raises:
      errors.InputError: all would be held out.
    """
    share = config.held_out_share
    count = max(1, round(share * people)) if share else 0
    if share and count >= people:
        raise InputError(f"config.regressor.held_out_share is {share}: of {people} people none would be shown")
    chosen = np.zeros(people, bool)
    chosen[np.asarray(jax.random.permutation(key, people))[:count]] = True
    return chosen


def judge_epoch(
    config: RegressorConfig, state: TrainState, people: TrainingSet, held_out: Bool[np.ndarray, "people"]
) -> tuple[TrainState, dict[str, float]]:
    """Score the held-out people and keep these weights if they are the best of the round so far.

    Returns:
      The state, and the `losses` (empty where no one is held out).
    """
    if state.best is None or not held_out.any():
        return state, {}
    judged = losses(config, state, people, held_out)
    return dataclasses.replace(
        state, best=after_epoch(state.best, state.learned.variables, judged["held_out_loss"])
    ), judged


def after_epoch(best: Best, variables: Any, loss: float) -> Best:
    """Return the better epoch, the earlier where they are equal; a loss that is not a number is never better."""
    if loss < float(best.loss):
        return Best(variables, jnp.asarray(loss, jnp.float32), jnp.zeros((), jnp.int32))
    return dataclasses.replace(best, stale=best.stale + 1)


def is_over(best: Best | None, patience: int) -> bool:
    """Return whether a round's training stops before its last epoch; with a patience of 0 it never does."""
    return best is not None and 0 < patience <= int(best.stale)


def losses(
    config: RegressorConfig, state: TrainState, people: TrainingSet, held_out: Bool[np.ndarray, "people"]
) -> dict[str, float]:
    """Return the 2D terms of eq. 5 of the predicted bodies, means over the held-out people.

    Returns:
      `held_out_loss`, and its terms unweighted: `held_out_loss_dense`, `held_out_loss_keypoint`.
    """
    rows = np.flatnonzero(held_out)
    order = batches.in_batches(rows, config.batch)
    counts = np.arange(order.size).reshape(order.shape) < len(rows)  # not twice the people that fill up the last batch
    mesh = mesh_lib.of_networks()
    constant = mesh_lib.everywhere((people.template, state.learned), mesh)
    measure = _compiled(config)
    feed = batches.feed(order, people.images, (jax.tree.map(np.asarray, people.observations),), mesh)
    parts = jax.device_get([
        measure(*constant, image, observation, row.astype(np.float32))
        for row, ((image, observation), _) in zip(counts, feed, strict=True)
    ])  # fmt: skip
    share = counts.sum(axis=1) / len(rows)
    means = {name: float(np.dot(share, [part[name] for part in parts])) for name in _TERMS}
    loss = sum(getattr(config.weights, name) * means[name] for name in _TERMS)
    return {"held_out_loss": loss} | {f"held_out_loss_{name}": mean for name, mean in means.items()}


_TERMS = ("dense", "keypoint")


@cached_by_config
def _compiled(config: RegressorConfig):
    """Return the jitted means of a batch's 2D terms."""

    @jax.jit
    def measure(template, learned, image, observation, weight):
        anyone = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(weight), *leaf.shape)), kinematics.t_pose())
        batch = jax.vmap(functools.partial(batches.make_sample, template))(image, observation, anyone, weight)
        predicted = learned.codec.from_output(model.apply_evaluation(config, learned.variables, batch.image))
        _, metrics = training.batch_loss(config, template, learned.codec, predicted, batch)
        return {name: metrics[f"loss_{name}"] for name in _TERMS}  # those against a body are not computed

    return measure
