"""One step of the game between the two networks: lift, turn, tell the turned poses from the annotated ones, learn."""

import functools
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from dal_jax.lifting import losses, networks, normalise, turning

if TYPE_CHECKING:
    from dal_jax.lifting import training


def generate(
    config: "training.Config", parameters: Any, points: Float[Array, "*n 17 2"], visible: Bool[Array, "*n 17"]
) -> Float[Array, "*n 17"]:
    """Return the depth of normalised poses, hip at 0, in their own unit."""
    features = _flat(points)
    if config.append_visibility:
        features = jnp.concatenate([features, visible.astype(features.dtype)], axis=-1)
    return networks.Generator(config.width).apply(parameters, features)


def step(
    config: "training.Config", state: "training.LiftingState", batch: normalise.Normalised, key: PRNGKeyArray
) -> tuple["training.LiftingState", dict[str, Array]]:
    """Take one step of both networks on one batch of normalised poses; both learn from the same fakes.

    The gates look at the discriminator's accuracy before the step. What is gated off keeps its optimiser's state too.
    """
    turn_keys = jax.random.split(key, len(batch.points))
    fool = functools.partial(_generator_loss, config, state.discriminator, batch, turn_keys)
    (_, (fakes, metrics)), (generator_gradient, elevation_gradient) = jax.value_and_grad(
        fool, argnums=(0, 1), has_aux=True
    )(state.trained_generator, state.elevation)
    tell_apart = functools.partial(_discriminator_loss, config, batch.points, fakes)
    (loss, accuracy), discriminator_gradient = jax.value_and_grad(tell_apart, has_aux=True)(state.discriminator)

    generator_learns = accuracy >= config.generator_gate
    discriminator_learns = accuracy <= config.discriminator_gate
    network_step = functools.partial(_step_if, network_optimizer(config))
    generator, generator_optimizer = network_step(
        generator_learns, generator_gradient, state.trained_generator, state.generator_optimizer
    )
    discriminator, discriminator_optimizer = network_step(
        discriminator_learns, discriminator_gradient, state.discriminator, state.discriminator_optimizer
    )
    elevation, elevation_moments = _step_if(
        elevation_optimizer(config), generator_learns, elevation_gradient, state.elevation, state.elevation_optimizer
    )
    metrics |= {
        "discriminator_realism": loss,
        "accuracy": accuracy,
        "elevation_deg": jnp.rad2deg(elevation),
        "generator_learns": generator_learns.astype(jnp.float32),
        "discriminator_learns": discriminator_learns.astype(jnp.float32),
    }
    state = state.replace(
        step=state.step + 1,
        generator=_average(config, state, generator),
        trained_generator=generator,
        discriminator=discriminator,
        elevation=elevation,
        generator_optimizer=generator_optimizer,
        discriminator_optimizer=discriminator_optimizer,
        elevation_optimizer=elevation_moments,
    )
    return state, metrics


def network_optimizer(config: "training.Config") -> optax.GradientTransformation:
    """Return Adam with L2 in its gradient: the published (Chainer's) weight decay, not AdamW's."""
    adam = optax.adam(config.learning_rate, b1=config.adam_b1)
    return optax.chain(optax.add_decayed_weights(config.weight_decay), adam)


def elevation_optimizer(config: "training.Config") -> optax.GradientTransformation:
    """Return Adam for the one number that says how far cameras look down; rate 0 leaves it at 0."""
    return optax.adam(config.elevation_rate, b1=config.adam_b1)


def _generator_loss(config, discriminator: Any, batch: normalise.Normalised, turn_keys, generator: Any, elevation):
    """Return the generator's total loss on a batch, with the fakes and the terms."""
    points, visible = batch.points, batch.visible
    depth = generate(config, generator, points, visible)
    elevation_sd, heading_range = math.radians(config.elevation_deg), math.radians(config.heading_deg)
    turns = jax.vmap(lambda key: turning.sample_turn(key, elevation, elevation_sd, heading_range))(turn_keys)
    turned, turned_depth = jax.vmap(turning.turn_pose)(turns, points, depth)
    turned = jax.vmap(normalise.fill_missing)(turned, batch.stand_in)
    resized, size = jax.vmap(normalise.unit_size)(turned, visible)
    fakes = resized if config.normalise_fakes else turned
    logits = networks.Discriminator(config.width).apply(discriminator, _flat(fakes))
    terms = {
        "generator_realism": jnp.mean(losses.generator_realism(logits)),
        "mirror_ambiguity": jnp.mean(jax.vmap(losses.mirror_ambiguity)(points, depth, visible)),
    }
    total = terms["generator_realism"] + config.mirror_weight * terms["mirror_ambiguity"]
    if config.lift_turn_lift_weight:
        again = generate(config, generator, resized, visible) * size[:, None]
        terms["lift_turn_lift"] = jnp.mean(jax.vmap(losses.lift_turn_lift)(turned_depth, again, visible))
        total += config.lift_turn_lift_weight * terms["lift_turn_lift"]
    return total, (fakes, terms)


def _discriminator_loss(config, points, fakes, discriminator: Any):
    """Return its loss on a batch, and its accuracy: the mean of those on the annotated poses and on the fakes."""
    network = networks.Discriminator(config.width)
    real, fake = network.apply(discriminator, _flat(points)), network.apply(discriminator, _flat(fakes))
    accuracy = (jnp.mean(real > 0) + jnp.mean(fake <= 0)) / 2
    return jnp.mean(losses.discriminator_realism(real, fake)), accuracy


def _step_if(optimizer: optax.GradientTransformation, learns: Array, gradient, parameters, optimizer_state):
    updates, moved_state = optimizer.update(gradient, optimizer_state, parameters)
    moved = optax.apply_updates(parameters, updates)
    return jax.tree.map(functools.partial(jnp.where, learns), (moved, moved_state), (parameters, optimizer_state))


def _average(config, state: "training.LiftingState", generator: Any) -> Any:
    """Follow the generator slowly, but fast while the average is young, so that the first weights are forgotten."""
    if not config.average_decay:
        return generator
    decay = jnp.minimum(config.average_decay, state.step / (state.step + 10.0))
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.generator, generator)


def _flat(points: Array) -> Array:
    return points.reshape(*points.shape[:-2], 2 * networks.JOINTS)
