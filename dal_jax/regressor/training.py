"""Training the ConvNet on registered bodies, an epoch at a time.

A step is (state, batch, key) -> (state, metrics). Shuffling and augmentation are drawn from fold_in(key, state.step),
so a run that goes on from an epoch's end gives the very bits of a run that was never stopped. While the device works on
a batch, a thread gathers the next; what is no array is decoded by a pipeline of its own.
"""

import concurrent.futures
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from dal_jax.body import parameters as parameters_lib, template as template_lib
from dal_jax.correspondences import observations as observations_lib
from dal_jax.regressor import augmentation, losses, model, sample as sample_lib, theta as theta_lib
from dal_jax.runtime import pipeline


@flax.struct.dataclass
class TrainState:
    """Everything that training goes on from; a `model.Learned`.

    step, round_step: steps since the run and since the round began. trained: the weights that are trained, {'params',
    'batch_stats'}. average: their running mean, None if the configuration has none. optimizer: Adam's moments.
    """

    step: Int[Array, ""]
    round_step: Int[Array, ""]
    trained: Any
    average: Any
    statistics: theta_lib.Statistics
    optimizer: optax.OptState

    @property
    def variables(self) -> Any:
        """What predicts: the running mean of the weights where there is one."""
        return self.trained if self.average is None else self.average


def initial_state(config: model.RegressorConfig, key: PRNGKeyArray) -> TrainState:
    """Draw the weights; theta's statistics are the plain ones until `start_round` has seen registrations."""
    variables = model.initial_variables(config, key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        round_step=jnp.zeros((), jnp.int32),
        trained=variables,
        average=variables if config.average_decay else None,
        statistics=theta_lib.plain_statistics(),
        optimizer=_optimizer(config).init(variables["params"]),
    )


def start_round(config: model.RegressorConfig, state: TrainState, fits: parameters_lib.BodyParameters) -> TrainState:
    """Let the weights go on and the optimiser start afresh; the first round also fixes theta's statistics.

    Note: statistics stay those of the first round, or every later round would first have to unlearn the units.
    """
    optimizer = _optimizer(config).init(state.trained["params"])
    state = state.replace(round_step=jnp.zeros((), jnp.int32), optimizer=optimizer)
    if config.standardise and int(state.step) == 0:
        state = state.replace(statistics=theta_lib.measured_statistics(fits))
    return state


def train_epoch(
    state: TrainState,
    template: template_lib.Template,
    images: UInt8[np.ndarray, "people s s 3"] | Sequence,
    observations: observations_lib.Observation,
    fits: parameters_lib.BodyParameters,
    config: model.RegressorConfig,
    key: PRNGKeyArray,
    *,
    sample_weight: Float[np.ndarray, "people"] | None = None,
    progress: Callable[[int], Any] | None = None,
) -> tuple[TrainState, dict[str, float]]:
    """Show every image once (the last batch is filled up from the epoch's first).

    Args:
      state: is left as it is; a new one is returned.
      template: the body.
      images: square crops, an array or a sequence that decodes what is indexed by a number, in several threads at once.
      observations: stacked; lifted depths attached, or their confidences 0.
      fits: registered bodies, stacked.
      config: the same at every call of a run.
      key: the same at every call of a run.
      sample_weight: of each person in every loss; None is 1, as in the paper.
      progress: called after each step with the number of images it has taken.

    Returns:
      The state, and the epoch's means: `loss`, each term as `loss_*`, `joint_to_fit_mm` (mean distance of the predicted
      to the registered body's joints), `learning_rate` of the last step, `images_per_second`.
    """
    people = len(images)
    weight = np.ones(people, np.float32) if sample_weight is None else np.asarray(sample_weight, np.float32)
    batch = min(config.batch, people)
    steps = math.ceil(people / batch)
    step = _compiled_step(model.Frozen(config))
    rest = jax.tree.map(np.asarray, (observations, fits, weight))

    started = time.monotonic()
    template = jax.device_put(template)
    state = jax.tree.map(jnp.copy, jax.device_put(state))  # a step consumes its state; the caller's is not ours to give
    order = _epoch_order(jax.random.fold_in(key, int(state.step)), people, steps * batch)
    collected: list[dict[str, Array]] = []
    for picked in _prefetched(order.reshape(steps, batch), images, rest):
        state, metrics = step(state, template, config.epochs * steps, key, *picked)
        if collected:
            jax.block_until_ready(collected[-1])  # at most two steps under way, so that progress tells the truth
        collected.append(metrics)
        if progress is not None:
            progress(min(batch, people - (len(collected) - 1) * batch))
    fetched = jax.device_get(collected)
    means = {name: float(np.mean([metrics[name] for metrics in fetched])) for name in fetched[0]}
    means["learning_rate"] = float(fetched[-1]["learning_rate"])
    return state, means | {"images_per_second": people / (time.monotonic() - started)}


def _epoch_order(key: PRNGKeyArray, people: int, length: int) -> Int[np.ndarray, "length"]:
    return np.resize(np.asarray(jax.random.permutation(key, people)), length)


def _prefetched(batches: Int[np.ndarray, "steps batch"], images, rest) -> Iterator[tuple]:
    """Yield (image, observation, fit, weight) of each batch; the next one is gathered meanwhile."""

    held = isinstance(images, np.ndarray)
    pictures = (images[rows] for rows in batches) if held else pipeline.batches(images, batches)

    def gather(rows: np.ndarray) -> tuple:
        return jax.device_put((next(pictures), *jax.tree.map(lambda leaf: leaf[rows], rest)))

    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as worker:
        following = worker.submit(gather, batches[0])
        for rows in [*batches[1:], None]:
            ready = following.result()
            if rows is not None:
                following = worker.submit(gather, rows)
            yield ready


@functools.cache
def _compiled_step(frozen: model.Frozen):
    """Return the jitted step; one compilation a configuration and shape."""
    config = frozen.config
    optimizer = _optimizer(config)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: TrainState, template, round_steps, key, image, observation, fit, weight):
        batch = jax.vmap(functools.partial(sample_lib.make_sample, template))(image, observation, fit, weight)
        if config.augmentation != augmentation.AugmentationConfig():
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
            trained=trained,
            average=_average(config, state, trained),
            optimizer=optimizer_state,
        )
        return state, metrics | {"learning_rate": rate}

    return step


def batch_loss(
    config: model.RegressorConfig,
    template: template_lib.Template,
    statistics: theta_lib.Statistics,
    predicted: Float[Array, "batch 105"],
    batch: sample_lib.Sample,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Return eq. 5 of a batch, and its terms as metrics."""
    unit = statistics.sd if config.regress_in_sd else jnp.ones_like(statistics.sd)
    per_person = jax.vmap(losses.terms, in_axes=(None, 0, 0, None))(template, predicted, batch, unit)
    means = {name: losses.batch_mean(values, batch.weight) for name, values in per_person.items()}
    loss = losses.weighted(means, config.weights)
    joints = len(template.parents) - 1  # the pelvis is at 0 in both bodies
    metrics = {f"loss_{name}": value for name, value in means.items()} | {
        "loss": loss,
        "joint_to_fit_mm": 1000.0 * means["joint"] / joints,
    }
    return loss, metrics


def _average(config: model.RegressorConfig, state: TrainState, trained: Any) -> Any:
    """Follow the weights (and their running statistics) slowly, and fast at first, so that the start is forgotten."""
    if state.average is None:
        return None
    decay = jnp.minimum(config.average_decay, (state.step + 1.0) / (state.step + 10.0))
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.average, trained)


def _optimizer(config: model.RegressorConfig) -> optax.GradientTransformation:
    """Adam, or AdamW on kernels where weights decay; the step multiplies by the rate."""
    if not config.weight_decay:
        return optax.scale_by_adam()
    kernels = functools.partial(jax.tree.map, lambda leaf: leaf.ndim > 1)
    return optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(config.weight_decay, kernels))


def learning_rate(
    config: model.RegressorConfig, round_step: Int[Array, ""], round_steps: Int[Array, ""]
) -> Float[Array, ""]:
    """Return the rate of a step of a round: a linear rise over the warm-up, then a cosine down to the last share."""
    warmup = config.warmup_share * round_steps
    rise = jnp.minimum(1.0, (round_step + 1.0) / jnp.maximum(warmup, 1.0))
    done = jnp.clip((round_step - warmup) / jnp.maximum(round_steps - warmup, 1.0), 0.0, 1.0)
    fall = config.last_rate_share + (1.0 - config.last_rate_share) * 0.5 * (1.0 + jnp.cos(jnp.pi * done))
    return config.learning_rate * rise * fall
