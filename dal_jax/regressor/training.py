"""Train the regressor on registered bodies (section 5), an epoch or a part of one at a time.

A step is (state, batch, key) -> (state, metrics). Shuffling is drawn from the step at which the epoch began,
augmentation from fold_in(key, state.step), so a run that goes on from a state, in the middle of an epoch too, gives
the very bits of a run that was never stopped.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.template import Template
from dal_jax.observations.observation import Observation
from dal_jax.regressor import augmentation, batches, losses, model, theta
from dal_jax.regressor.augmentation import AugmentationConfig
from dal_jax.regressor.batches import Images, Sample
from dal_jax.regressor.model import Learned, RegressorConfig
from dal_jax.regressor.theta import ThetaCodec
from dal_jax.runtime import machine, mesh as mesh_lib, struct
from dal_jax.runtime.configs import cached_by_config


@dataclasses.dataclass(frozen=True)
class TrainingSet:
    """What there is to learn from; host arrays, stacked over people.

    template: the body that the observations refer to.
    images: square crops.
    observations: lifted depths attached, or their confidences 0.
    fits: the registered bodies.
    sample_weight: of each person in every loss; None is 1, as in the paper. People of weight 0 are left out of the
      batches, so batch statistics ignore them too.
    """

    template: Template
    images: Images
    observations: Observation
    fits: BodyParameters
    sample_weight: Float[np.ndarray, "people"] | None = None


@struct.dataclass
class Best:
    """The epoch of a round whose weights served the held-out people best so far.

    variables: of the network after that epoch; before the first epoch, those the round began with.
    loss: of the held-out people; infinite before the first epoch.
    stale: epochs since.
    """

    variables: Any
    loss: Float[Array | np.ndarray, ""]
    stale: Int[Array | np.ndarray, ""]


@struct.dataclass
class TrainState:
    """Everything that training goes on from.

    step, epoch_step: steps since the run and the epoch began.
    trained: the weights that are trained, {'params', 'batch_stats'}.
    average: their running mean; None if the configuration has none.
    codec: of theta.
    optimizer: Adam's moments.
    best: of the round's epochs so far; None if no one is held out.
    """

    step: Int[Array | np.ndarray, ""]
    epoch_step: Int[Array | np.ndarray, ""]
    trained: Any
    average: Any
    codec: ThetaCodec
    optimizer: optax.OptState
    best: Best | None = None

    @property
    def learned(self) -> Learned:
        """What predicts: the running mean of the weights where there is one, and the codec."""
        return Learned(self.trained if self.average is None else self.average, self.codec)


FitBatch = Callable[[Learned, Int[np.ndarray, "batch"], Array, Observation], tuple[BodyParameters, dict[str, Array]]]
"""Registers a batch just before it teaches: (learned, rows, image, observation) -> (bodies, metrics to log).

learned: the state before the step; the step will consume it. rows: numbers of the people, each at most once; some of an
epoch's first come again in its last. image, observation: of the batch, on the device, not augmented. Returns at once,
with arrays on the device.
"""


def make_optimizer(config: RegressorConfig) -> optax.GradientTransformation:
    """Return Adam, or AdamW on kernels where weights decay; the step multiplies by the rate."""
    if not config.weight_decay:
        return optax.scale_by_adam()
    kernels = functools.partial(jax.tree.map, lambda leaf: leaf.ndim > 1)
    return optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(config.weight_decay, kernels))


def learning_rate(
    config: RegressorConfig, step: Int[Array | np.ndarray, ""] | int, steps: Int[Array, ""] | int
) -> Float[Array, ""]:
    """Return the rate of a step of a run: a linear rise over the warm-up, then a cosine down to the last share.

    Note: optax's schedules need the number of steps when the step is compiled; here another number compiles nothing.
    """
    warmup = config.warmup_share * steps
    rise = jnp.minimum(1.0, (step + 1.0) / jnp.maximum(warmup, 1.0))
    done = jnp.clip((step - warmup) / jnp.maximum(steps - warmup, 1.0), 0.0, 1.0)
    fall = config.last_rate_share + (1.0 - config.last_rate_share) * 0.5 * (1.0 + jnp.cos(jnp.pi * done))
    return config.learning_rate * rise * fall


def running_mean(config: RegressorConfig, step: Int[Array | np.ndarray, ""] | int, average: Any, trained: Any) -> Any:
    """Follow the weights (and their running statistics) slowly, and fast at first, so that the start is forgotten.

    Returns None where there is no `average`.
    """
    if average is None:
        return None
    decay = jnp.minimum(config.average_decay, (step + 1.0) / (step + 10.0))
    return optax.incremental_update(trained, average, 1.0 - decay)


def initial_state(config: RegressorConfig, key: PRNGKeyArray) -> TrainState:
    """Draw the weights; theta's codec is the plain one until `start_round` has seen registrations."""
    variables = model.initial_variables(config, key)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(
        step=zero,
        epoch_step=zero,
        trained=variables,
        average=variables if config.average_decay else None,
        codec=theta.plain_codec(config.rotations, config.scales),
        optimizer=jax.jit(make_optimizer(config).init)(variables["params"]),
        best=_no_epoch_yet(variables) if config.held_out_share else None,
    )


def start_round(config: RegressorConfig, state: TrainState, fits: BodyParameters) -> TrainState:
    """Let weights and optimiser go on; the first round also fixes theta's units.

    Note: the codec stays that of the first round, or every later round would first have to unlearn the units.
    """
    measure = config.standardise and int(state.step) == 0
    return dataclasses.replace(
        state,
        epoch_step=jnp.zeros((), jnp.int32),
        codec=theta.measured_codec(config.rotations, fits) if measure else state.codec,
        best=None if state.best is None else _no_epoch_yet(state.learned.variables),
    )


_copy = jax.jit(functools.partial(jax.tree.map, jnp.copy))


def _no_epoch_yet(variables: Any) -> Best:
    return Best(variables, jnp.full((), jnp.inf, jnp.float32), jnp.zeros((), jnp.int32))


def finish_round(state: TrainState) -> TrainState:
    """Take the weights of the round's best epoch, where people are held out: they predict and go on.

    Note: they replace the trained weights too, not the running mean alone, which would be drawn back to the last ones
    within a few steps of the next round. The next round thus starts from what made its registrations' starts.
    """
    if state.best is None:
        return state
    best = state.best.variables
    return dataclasses.replace(state, trained=best, average=None if state.average is None else best)


def train_epoch(
    config: RegressorConfig,
    state: TrainState,
    people: TrainingSet,
    key: PRNGKeyArray,
    *,
    span: tuple[int, int],
    steps: int = 0,
    fit_batch: FitBatch | None = None,
    progress: Callable[[int], Any] | None = None,
) -> tuple[TrainState, dict[str, float]]:
    """Show every image once (the last batch is filled up from the epoch's first), or what is left of a begun epoch.

    Args:
      config: the same at every call of a run.
      state: is left as it is; a new one is returned, whose `epoch_step` is 0 at the epoch's end.
      people: to learn from.
      key: the same at every call of a run.
      span: epochs before this one, and in all, over which the rate rises and falls.
      steps: to take at most; 0 is as many as the epoch has.
      fit_batch: called before each step; the bodies that it returns teach, not `people.fits`.
      progress: called after each step with the number of images it has taken.

    Returns:
      The state, and the means over these steps: `loss`, each term as `loss_*`, `joint_to_fit_mm` (mean distance of the
      predicted to the registered body's joints), `learning_rate` of the last step, `images_per_second`,
      `input_wait_share` (of the time, in which the next batch was not there yet); and the metrics of `fit_batch`.

    Raises:
      errors.DivergedError: a loss or a weight is not finite after these steps.
    """
    weight = people.sample_weight
    weight = np.ones(len(people.images), np.float32) if weight is None else np.asarray(weight, np.float32)
    began = int(state.epoch_step)
    order = batches.epoch_order(jax.random.fold_in(key, int(state.step) - began), weight, config.batch)
    taken = order[began : began + steps if steps else None]
    step = _compiled_step(config)
    mesh = mesh_lib.of_networks()
    rest = jax.tree.map(np.asarray, (people.observations, people.fits, weight))
    feed = batches.feed(taken, people.images, rest, mesh)

    started = time.monotonic()
    # Alike in all calls, so that one program serves; and all of it, so that no step sends anything
    constant = (people.template, np.array(span, np.int32) * len(order), key)
    state, (template, span_steps, key) = mesh_lib.everywhere((state, constant), mesh)
    state = _copy(state)  # a step consumes its state; the caller's is not ours to give
    collected: list[dict[str, Array]] = []
    waited_s = 0.0
    for rows, ((image, observation, fit, batch_weight), waited) in zip(taken, feed, strict=True):
        waited_s += waited
        registered = {}
        if fit_batch is not None:
            fit, registered = fit_batch(state.learned, rows, image, observation)
        batch = (image, observation, fit, batch_weight)
        state, metrics = step(state, template, span_steps, key, batch)
        if collected:
            jax.block_until_ready(collected[-1])  # at most two steps under way, so that progress tells the truth
        collected.append(metrics | registered)
        if progress is not None:
            progress(batches.images_shown(weight, config.batch, began + len(collected) - 1, began + len(collected)))
        if machine.stop_requested():
            break
    taken = taken[: len(collected)]
    if began + len(taken) == len(order):
        state = dataclasses.replace(state, epoch_step=jnp.zeros_like(state.epoch_step))
    means = _means(collected)
    kept = {"weights": state.trained, "average": state.average, "optimizer": state.optimizer}
    struct.refuse_not_finite(f"regressor, step {int(state.step)}", means, kept)
    seconds = time.monotonic() - started
    shown = batches.images_shown(weight, config.batch, began, began + len(taken))
    return state, means | {"images_per_second": shown / seconds, "input_wait_share": waited_s / seconds}


def _means(collected: list[dict[str, Array]]) -> dict[str, float]:
    fetched = jax.device_get(collected)
    means = {name: float(np.mean([metrics[name] for metrics in fetched])) for name in fetched[0]}
    return means | {"learning_rate": float(fetched[-1]["learning_rate"])}


@cached_by_config
def _compiled_step(config: RegressorConfig):
    """Return the jitted step; one compilation a configuration and shape."""
    optimizer = make_optimizer(config)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: TrainState, template: Template, span_steps: Array, key: PRNGKeyArray, shown: tuple):
        """Take a step.

        span_steps: (2,), before the epoch and in all. shown: the batch's images, observations, fits and weights.
        """
        batch = jax.vmap(functools.partial(batches.make_sample, template))(*shown)
        if config.augmentation != AugmentationConfig():
            keys = jax.random.split(jax.random.fold_in(key, state.step), len(batch.weight))
            batch = jax.vmap(functools.partial(augmentation.augment, config.augmentation))(keys, batch)

        def objective(params):
            variables = {"params": params, "batch_stats": state.trained["batch_stats"]}
            output, batch_stats = model.apply_training(config, variables, batch.image)
            loss, metrics = batch_loss(config, template, state.codec, state.codec.from_output(output), batch)
            return loss, (batch_stats, metrics)

        params = state.trained["params"]
        gradient, (batch_stats, metrics) = jax.grad(objective, has_aux=True)(params)
        updates, moments = optimizer.update(gradient, state.optimizer, params)
        rate = learning_rate(config, span_steps[0] + state.epoch_step, span_steps[1])
        params = jax.tree.map(lambda weight, update: weight - rate * update, params, updates)
        trained = {"params": params, "batch_stats": batch_stats}
        state = dataclasses.replace(
            state,
            step=state.step + 1,
            epoch_step=state.epoch_step + 1,
            trained=trained,
            average=running_mean(config, state.step, state.average, trained),
            optimizer=moments,
        )
        return state, metrics | {"learning_rate": rate}

    return step


def batch_loss(
    config: RegressorConfig,
    template: Template,
    codec: ThetaCodec,
    predicted: Float[Array, "batch theta"],
    batch: Sample,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Return eq. 5 of a batch, and its terms as metrics."""
    unit = codec.sd if config.regress_in_sd else jnp.ones_like(codec.sd)
    terms = functools.partial(losses.terms, template, codec, unit=unit, regress_loss=config.regress_loss)
    per_person = jax.vmap(terms)(predicted, batch)
    means = {name: losses.batch_mean(values, batch.weight) for name, values in per_person.items()}
    loss = losses.weighted(means, config.weights)
    joints = len(template.parents) - 1  # the pelvis is at 0 in both bodies
    metrics = {f"loss_{name}": value for name, value in means.items()} | {
        "loss": loss,
        "joint_to_fit_mm": 1000.0 * means["joint"] / joints,
    }
    return loss, metrics
