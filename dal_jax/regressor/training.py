"""Train the regressor on registered bodies (section 5), an epoch or a part of one at a time.

A step is (state, batch, key) -> (state, metrics). Shuffling is drawn from the step at which the epoch began,
augmentation from fold_in(key, state.step), so a run that goes on from a state, in the middle of an epoch too, gives
the very bits of a run that was never stopped.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from dal_jax.body.parameters import BodyParameters
from dal_jax.body.template import Template
from dal_jax.observations.observation import Observation
from dal_jax.regressor import augmentation, batches, heads, losses, model
from dal_jax.regressor.augmentation import AugmentationConfig
from dal_jax.regressor.batches import Feed, Sample
from dal_jax.regressor.heads import Statistics
from dal_jax.regressor.model import Frozen, Learned, RegressorConfig


def make_optimizer(config: RegressorConfig) -> optax.GradientTransformation:
    """Return Adam, or AdamW on kernels where weights decay; the step multiplies by the rate."""
    if not config.weight_decay:
        return optax.scale_by_adam()
    kernels = functools.partial(jax.tree.map, lambda leaf: leaf.ndim > 1)
    return optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(config.weight_decay, kernels))


def learning_rate(config: RegressorConfig, round_step: Int[Array, ""], round_steps: Int[Array, ""]) -> Float[Array, ""]:
    """Return the rate of a step of a round: a linear rise over the warm-up, then a cosine down to the last share."""
    warmup = config.warmup_share * round_steps
    rise = jnp.minimum(1.0, (round_step + 1.0) / jnp.maximum(warmup, 1.0))
    done = jnp.clip((round_step - warmup) / jnp.maximum(round_steps - warmup, 1.0), 0.0, 1.0)
    fall = config.last_rate_share + (1.0 - config.last_rate_share) * 0.5 * (1.0 + jnp.cos(jnp.pi * done))
    return config.learning_rate * rise * fall


def running_mean(config: RegressorConfig, step: Int[Array, ""], average: Any, trained: Any) -> Any:
    """Follow the weights (and their running statistics) slowly, and fast at first, so that the start is forgotten.

    Returns None where there is no `average`.
    """
    if average is None:
        return None
    decay = jnp.minimum(config.average_decay, (step + 1.0) / (step + 10.0))
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, trained)


# Early stopping: of a round's epochs the one whose weights served held-out people best, and when to train no further.
#
# Nothing here knows what the loss is; `held_out` measures it, from 2D alone.


@flax.struct.dataclass
class Best:
    """The best epoch of a round so far.

    variables: what predicted then; before the first epoch, what the round began with. loss: of the held-out people,
    infinite before the first epoch. stale: epochs since.
    """

    variables: Any
    loss: Float[Array, ""]
    stale: Int[Array, ""]


def nothing_yet(variables: Any) -> Best:
    """Return what stands before a round's first epoch."""
    return Best(variables, jnp.full((), jnp.inf, jnp.float32), jnp.zeros((), jnp.int32))


def after_epoch(best: Best, variables: Any, loss: float) -> Best:
    """Return the better one, the earlier where they are equal; a loss that is not a number is never better."""
    if loss < float(best.loss):
        return Best(variables, jnp.asarray(loss, jnp.float32), jnp.zeros((), jnp.int32))
    return best.replace(stale=best.stale + 1)


def is_over(best: Best | None, patience: int) -> bool:
    """Return whether a round's training stops before its last epoch; a patience of 0 is without end."""
    return best is not None and 0 < patience <= int(best.stale)


# --- Training the ConvNet on registered bodies, an epoch (or a part of one) at a time ---
#
# A step is (state, batch, key) -> (state, metrics). Shuffling is drawn from the step at which the epoch began,
# augmentation from fold_in(key, state.step), so a run that goes on from a state, in the middle of an epoch too, gives
# the very bits of a run that was never stopped.


@flax.struct.dataclass
class TrainState:
    """Everything that training goes on from; a `model.Learned`.

    step, round_step, epoch_step: steps since the run, the round and the epoch began. trained: the weights that are
    trained, {'params', 'batch_stats'}. average: their running mean, None if the configuration has none. optimizer:
    Adam's moments. best: of the round's epochs so far, None if nobody is held out.
    """

    step: Int[Array, ""]
    round_step: Int[Array, ""]
    epoch_step: Int[Array, ""]
    trained: Any
    average: Any
    statistics: Statistics
    optimizer: optax.OptState
    best: Best | None = None

    @property
    def variables(self) -> Any:
        """What predicts: the running mean of the weights where there is one."""
        return self.trained if self.average is None else self.average


def initial_state(config: RegressorConfig, key: PRNGKeyArray) -> TrainState:
    """Draw the weights; theta's statistics are the plain ones until `start_round` has seen registrations."""
    variables = model.initial_variables(config, key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        round_step=jnp.zeros((), jnp.int32),
        epoch_step=jnp.zeros((), jnp.int32),
        trained=variables,
        average=variables if config.average_decay else None,
        statistics=heads.plain_statistics(config.rotations),
        optimizer=make_optimizer(config).init(variables["params"]),
        best=nothing_yet(variables) if config.held_out_share else None,
    )


def start_round(config: RegressorConfig, state: TrainState, fits: BodyParameters) -> TrainState:
    """Let the weights go on and the optimiser start afresh; the first round also fixes theta's statistics.

    Note: statistics stay those of the first round, or every later round would first have to unlearn the units.
    """
    optimizer = make_optimizer(config).init(state.trained["params"])
    zero = jnp.zeros((), jnp.int32)
    state = state.replace(round_step=zero, epoch_step=zero, optimizer=optimizer)
    if config.standardise and int(state.step) == 0:
        state = state.replace(statistics=heads.measured_statistics(config.rotations, fits))
    return state if state.best is None else state.replace(best=nothing_yet(state.variables))


def finish_round(state: TrainState) -> TrainState:
    """Take the weights of the round's best epoch, where people are held out to tell: they predict and go on.

    Note: they replace the trained weights too, not the running mean alone, which would be drawn back to the last ones
    within a few steps of the next round. The next round thus starts from what made its registrations' starts.
    """
    if state.best is None:
        return state
    best = state.best.variables
    return state.replace(trained=best, average=None if state.average is None else best)


class Refit(Protocol):
    """Registers a batch anew, just before it teaches; the bodies are its own to keep."""

    def __call__(
        self,
        learned: Learned,
        rows: Int[np.ndarray, "batch"],
        image: Array,
        observation: Observation,
    ) -> tuple[BodyParameters, dict[str, Array]]:
        """Return the batch's bodies, and metrics to log the means of; on the device, without waiting for it.

        Args:
          learned: the state before the step; the step will consume it.
          rows: which people the batch is made of, nobody twice; some of an epoch's first come again in its last.
          image, observation: of the batch, on the device, not augmented.
        """
        ...


def train_epoch(
    state: TrainState,
    template: Template,
    images: UInt8[np.ndarray, "people s s 3"] | Sequence,
    observations: Observation,
    fits: BodyParameters,
    config: RegressorConfig,
    key: PRNGKeyArray,
    *,
    sample_weight: Float[np.ndarray, "people"] | None = None,
    steps: int = 0,
    refit: Refit | None = None,
    progress: Callable[[int], Any] | None = None,
) -> tuple[TrainState, dict[str, float]]:
    """Show every image once (the last batch is filled up from the epoch's first), or what is left of a begun epoch.

    Args:
      state: is left as it is; a new one is returned, whose `epoch_step` is 0 at the epoch's end.
      template: the body.
      images: square crops, an array or a sequence that decodes what is indexed by a number, in several threads at once.
      observations: stacked; lifted depths attached, or their confidences 0.
      fits: registered bodies, stacked.
      config: the same at every call of a run.
      key: the same at every call of a run.
      sample_weight: of each person in every loss; None is 1, as in the paper. Who has 0 is not shown.
      steps: to take at most; 0 is as many as the epoch has.
      refit: called before each step; the bodies that it returns teach, not `fits`.
      progress: called after each step with the number of images it has taken.

    Returns:
      The state, and the means over these steps: `loss`, each term as `loss_*`, `joint_to_fit_mm` (mean distance of the
      predicted to the registered body's joints), `learning_rate` of the last step, `images_per_second`,
      `input_wait_share` (of the time, in which the next batch was not there yet); and `refit`'s.
    """
    people = len(images)
    weight = np.ones(people, np.float32) if sample_weight is None else np.asarray(sample_weight, np.float32)
    began = int(state.epoch_step)
    order = batches.epoch_order(jax.random.fold_in(key, int(state.step) - began), weight, config.batch)
    taken = order[began : began + steps if steps else None]
    step = _compiled_step(Frozen(config))
    feed = Feed(taken, images, jax.tree.map(np.asarray, (observations, fits, weight)))

    started = time.monotonic()
    template = jax.device_put(template)
    state = jax.device_put(state, jax.devices()[0])  # named, so that all calls place it alike and one program serves
    state = jax.tree.map(jnp.copy, state)  # a step consumes its state; the caller's is not ours to give
    collected: list[dict[str, Array]] = []
    for rows, (image, observation, fit, batch_weight) in zip(taken, feed, strict=True):
        told = {}
        if refit is not None:
            fit, told = refit(state, rows, image, observation)
        state, metrics = step(state, template, config.epochs * len(order), key, image, observation, fit, batch_weight)
        if collected:
            jax.block_until_ready(collected[-1])  # at most two steps under way, so that progress tells the truth
        collected.append(metrics | told)
        if progress is not None:
            progress(batches.images_shown(weight, config.batch, began + len(collected) - 1, began + len(collected)))
    if began + len(taken) == len(order):
        state = state.replace(epoch_step=jnp.zeros_like(state.epoch_step))
    means = _means(collected)
    seconds = time.monotonic() - started
    shown = batches.images_shown(weight, config.batch, began, began + len(taken))
    return state, means | {"images_per_second": shown / seconds, "input_wait_share": feed.waited_s / seconds}


def _means(collected: list[dict[str, Array]]) -> dict[str, float]:
    fetched = jax.device_get(collected)
    means = {name: float(np.mean([metrics[name] for metrics in fetched])) for name in fetched[0]}
    return means | {"learning_rate": float(fetched[-1]["learning_rate"])}


@functools.cache
def _compiled_step(frozen: Frozen):
    """Return the jitted step; one compilation a configuration and shape."""
    config = frozen.config
    optimizer = make_optimizer(config)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: TrainState, template, round_steps, key, image, observation, fit, weight):
        batch = jax.vmap(functools.partial(batches.make_sample, template))(image, observation, fit, weight)
        if config.augmentation != AugmentationConfig():
            keys = jax.random.split(jax.random.fold_in(key, state.step), len(weight))
            batch = jax.vmap(functools.partial(augmentation.augment, config.augmentation))(keys, batch)

        def objective(params):
            variables = {"params": params, "batch_stats": state.trained["batch_stats"]}
            predicted, batch_stats = model.apply_training(config, variables, state.statistics, batch.image)
            loss, metrics = batch_loss(config, template, state.statistics, predicted, batch)
            return loss, (batch_stats, metrics)

        params = state.trained["params"]
        gradient, (batch_stats, metrics) = jax.grad(objective, has_aux=True)(params)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, params)
        rate = learning_rate(config, state.round_step, round_steps)
        params = jax.tree.map(lambda weight, update: weight - rate * update, params, updates)
        trained = {"params": params, "batch_stats": batch_stats}
        state = state.replace(
            step=state.step + 1,
            round_step=state.round_step + 1,
            epoch_step=state.epoch_step + 1,
            trained=trained,
            average=running_mean(config, state.step, state.average, trained),
            optimizer=optimizer_state,
        )
        return state, metrics | {"learning_rate": rate}

    return step


def batch_loss(
    config: RegressorConfig,
    template: Template,
    statistics: Statistics,
    predicted: Float[Array, "batch theta"],
    batch: Sample,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Return eq. 5 of a batch, and its terms as metrics."""
    unit = statistics.sd if config.regress_in_sd else jnp.ones_like(statistics.sd)
    terms = functools.partial(losses.terms, template, statistics, unit=unit)
    per_person = jax.vmap(terms)(predicted, batch)
    means = {name: losses.batch_mean(values, batch.weight) for name, values in per_person.items()}
    loss = losses.weighted(means, config.weights)
    joints = len(template.parents) - 1  # the pelvis is at 0 in both bodies
    metrics = {f"loss_{name}": value for name, value in means.items()} | {
        "loss": loss,
        "joint_to_fit_mm": 1000.0 * means["joint"] / joints,
    }
    return loss, metrics
