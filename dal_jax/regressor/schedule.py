"""How the ConvNet's weights move: the optimiser, its learning rate over a round, and their running mean."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from dal_jax.regressor import model


def optimizer(config: model.RegressorConfig) -> optax.GradientTransformation:
    """Return Adam, or AdamW on kernels where weights decay; the step multiplies by the rate."""
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


def running_mean(config: model.RegressorConfig, step: Int[Array, ""], average: Any, trained: Any) -> Any:
    """Follow the weights (and their running statistics) slowly, and fast at first, so that the start is forgotten.

    Returns None where there is no `average`.
    """
    if average is None:
        return None
    decay = jnp.minimum(config.average_decay, (step + 1.0) / (step + 10.0))
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, trained)
