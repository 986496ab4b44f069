"""Held-out training people: who they are, and the 2D losses by which a ConvNet that never saw them is chosen.

No 3D truth is read, nor the bodies that registration gave them: annotated points, key points and lifted depths alone.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, PRNGKeyArray, UInt8

from dal_jax.body import parameters
from dal_jax.body.template import Template
from dal_jax.observations.observation import Observation
from dal_jax.regressor import batches, model, training
from dal_jax.regressor.batches import Feed
from dal_jax.regressor.model import Frozen, RegressorConfig
from dal_jax.regressor.training import TrainState
from dal_jax.runtime.errors import InputError


def draw(config: RegressorConfig, key: PRNGKeyArray, people: int) -> Bool[np.ndarray, "people"]:
    """Draw who is never shown: the nearest whole number to `config.held_out_share` of them, at least one.

    Raises:
      errors.InputError: nobody would be left to learn from.
    """
    share = config.held_out_share
    count = max(1, round(share * people)) if share else 0
    if share and count >= people:
        raise InputError(f"config.regressor.held_out_share is {share}: of {people} people none would be shown")
    chosen = np.zeros(people, bool)
    chosen[np.asarray(jax.random.permutation(key, people))[:count]] = True
    return chosen


def judge_epoch(
    config: RegressorConfig,
    state: TrainState,
    template: Template,
    images: UInt8[np.ndarray, "people s s 3"] | Sequence,
    observations: Observation,
    held_out: Bool[np.ndarray, "people"],
) -> tuple[TrainState, dict[str, float]]:
    """Return the state, whose best epoch is this one if its `losses` say so, and these; nothing where nobody is out."""
    if not held_out.any():
        return state, {}
    judged = losses(config, state, template, images, observations, held_out)
    return state.replace(best=training.after_epoch(state.best, state.variables, judged["held_out_loss"])), judged


def losses(
    config: RegressorConfig,
    state: TrainState,
    template: Template,
    images: UInt8[np.ndarray, "people s s 3"] | Sequence,
    observations: Observation,
    held_out: Bool[np.ndarray, "people"],
) -> dict[str, float]:
    """Return the 2D terms of eq. 5 of the bodies that `state.variables` predict, means over the held-out people.

    Returns:
      `held_out_loss`, and its terms unweighted: `held_out_loss_dense`, `held_out_loss_keypoint`.
    """
    people = np.flatnonzero(held_out)
    batch = min(config.batch, len(people))
    order = np.resize(people, (math.ceil(len(people) / batch), batch))  # the last is filled up from the first
    counts = np.arange(order.size).reshape(order.shape) < len(people)
    constant = jax.device_put((template, state.variables, state.statistics))
    measure = _compiled(Frozen(config))
    feed = Feed(order, images, (jax.tree.map(np.asarray, observations),))
    parts = jax.device_get([
        measure(*constant, image, observation, row.astype(np.float32))
        for row, (image, observation) in zip(counts, feed, strict=True)
    ])  # fmt: skip
    share = counts.sum(axis=1) / len(people)
    means = {name: float(np.dot(share, [part[name] for part in parts])) for name in _TERMS}
    loss = sum(getattr(config.weights, name) * means[name] for name in _TERMS)
    return {"held_out_loss": loss} | {f"held_out_loss_{name}": mean for name, mean in means.items()}


_TERMS = ("dense", "keypoint")


@functools.cache
def _compiled(frozen: Frozen):
    """Return the jitted means of a batch's 2D terms."""
    config = frozen.config

    @jax.jit
    def measure(template, variables, statistics, image, observation, weight):
        nobody = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(weight), *leaf.shape)), parameters.t_pose())
        batch = jax.vmap(functools.partial(batches.make_sample, template))(image, observation, nobody, weight)
        theta = model.apply_evaluation(config, variables, statistics, batch.image)
        _, metrics = training.batch_loss(config, template, statistics, theta, batch)
        return {name: metrics[f"loss_{name}"] for name in _TERMS}  # those against a body are not computed

    return measure
