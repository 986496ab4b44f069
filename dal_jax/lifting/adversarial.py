"""One step of the game between the two networks.

A batch is lifted, rotated and projected; the discriminator learns to tell these fakes from annotated poses, the
generator to make fakes that it cannot tell.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from dal_jax.lifting import losses, networks, views
from dal_jax.lifting.config import Config
from dal_jax.lifting.normalise import Normalised
from dal_jax.lifting.views import Camera
from dal_jax.runtime import struct


@struct.dataclass
class Member:
    """One pair of players, with its camera.

    generator: the running mean of `trained_generator`, or with no averaging its copy: what lifts.
    camera: the estimate of the camera of all images.
    """

    generator: Any
    trained_generator: Any
    discriminator: Any
    camera: Camera
    generator_optimizer: optax.OptState
    discriminator_optimizer: optax.OptState
    camera_optimizer: optax.OptState


def initial_member(config: Config, key: PRNGKeyArray) -> Member:
    """Draw the networks' weights, N(0, 0.02), biases 0."""
    generator_key, discriminator_key = jax.random.split(key)
    generator = networks.initial(config, "generator", generator_key)
    discriminator = networks.initial(config, "discriminator", discriminator_key)
    optimizer = network_optimizer(config)
    camera: Any = views.initial_camera(config)  # optax says what it takes too narrowly
    return Member(
        generator=generator,
        trained_generator=generator,
        discriminator=discriminator,
        camera=camera,
        generator_optimizer=optimizer.init(generator),
        discriminator_optimizer=optimizer.init(discriminator),
        camera_optimizer=views.camera_optimizer(config).init(camera),
    )


def step(
    config: Config,
    member: Member,
    number: Int[Array, ""],
    batch: Normalised,
    key: PRNGKeyArray,
    rate: Float[Array, ""] | float = 1.0,
) -> tuple[Member, dict[str, Array]]:
    """Take step `number` of both networks on one batch of prepared poses; both learn from the same fakes.

    `rate` is a factor of the learning rates of both.

    The gates look at the discriminator's accuracy before the step. Behind a closed gate the optimiser's state stays,
    too.
    """
    make = functools.partial(_make_fakes, config, number, batch, jax.random.split(key)[0])
    (shown, likeness), teach_generator, metrics = jax.vjp(make, member.trained_generator, member.camera, has_aux=True)
    # Annotated poses and fakes in one pass, whose gradient serves both players: weights are read half as often.
    logits, teach_discriminator = jax.vjp(
        functools.partial(networks.realism_logit, config),
        member.discriminator,
        jnp.concatenate([batch.points, shown]),
    )
    metrics["generator_realism"], fool = jax.value_and_grad(_generator_realism)(logits)
    loss, tell_apart = jax.value_and_grad(_discriminator_realism)(logits)
    slope = teach_discriminator(fool)[1][len(shown) :]
    generator_gradient, camera_gradient = teach_generator((slope, jnp.ones_like(likeness)))
    discriminator_gradient = teach_discriminator(tell_apart)[0]
    real, fake = jnp.split(logits, 2)
    accuracy = (jnp.mean(real > 0) + jnp.mean(fake <= 0)) / 2
    generator_learns = accuracy >= config.generator_gate
    discriminator_learns = accuracy <= config.discriminator_gate
    network_step = functools.partial(_step_if, network_optimizer(config), rate)
    generator, generator_optimizer = network_step(
        generator_learns, generator_gradient, member.trained_generator, member.generator_optimizer
    )
    discriminator, discriminator_optimizer = network_step(
        discriminator_learns, discriminator_gradient, member.discriminator, member.discriminator_optimizer
    )
    camera, camera_optimizer = _step_if(
        views.camera_optimizer(config), rate, generator_learns, camera_gradient, member.camera, member.camera_optimizer
    )
    metrics |= {
        "discriminator_realism": loss,
        "accuracy": accuracy,
        "elevation_deg": jnp.rad2deg(camera.elevation),
        "inverse_distance": camera.inverse_distance,
        "generator_learns": generator_learns.astype(jnp.float32),
        "discriminator_learns": discriminator_learns.astype(jnp.float32),
    }
    member = dataclasses.replace(
        member,
        generator=_average(config, member.generator, generator, number),
        trained_generator=generator,
        discriminator=discriminator,
        camera=views.feasible(camera),
        generator_optimizer=generator_optimizer,
        discriminator_optimizer=discriminator_optimizer,
        camera_optimizer=camera_optimizer,
    )
    return member, metrics


def network_optimizer(config: Config) -> optax.GradientTransformation:
    """Return Adam with L2 in its gradient: the published (Chainer's) weight decay, not AdamW's."""
    adam = optax.adam(config.learning_rate, b1=config.adam_b1)
    return optax.chain(optax.add_decayed_weights(config.weight_decay), adam)


def regression_optimizer() -> optax.GradientTransformation:
    """Return Adam at its default rate, for the networks outside the game: estimation and completion."""
    return optax.adam(1e-3)


def _make_fakes(config: Config, number: Array, batch: Normalised, key: PRNGKeyArray, generator: Any, camera: Camera):
    """Return (what the discriminator reads, the generator's loss but for realism), the loss's terms."""
    depth, joints, rotation = _lift_and_choose_a_side(config, number, batch, key, generator, camera)
    shown, fakes, fake_depth = views.rotate_and_project(config, camera.inverse_distance, rotation, batch, depth)
    mirror = functools.partial(losses.mirror_ambiguity, margin=config.mirror_margin)
    terms = {"mirror_ambiguity": jnp.mean(jax.vmap(mirror)(joints, depth, batch.visible))}
    total = config.mirror_weight * terms["mirror_ambiguity"]
    if config.cycle_consistency_weight:
        again = networks.depth(config, generator, fakes.points) * fakes.scale[:, None]
        in_3d = jnp.mean(jax.vmap(losses.cycle_consistency)(fake_depth, again, batch.visible))
        in_2d = jnp.mean(jax.vmap(losses.reprojection_consistency)(rotation, fake_depth, again, batch.visible))
        total += config.cycle_consistency_weight * (in_3d + in_2d)
        terms |= {"cycle_consistency": in_3d, "reprojection_consistency": in_2d}
    if config.bone_weight:
        proportions = losses.log_proportions(joints, depth)
        terms["bone_unlikeness"] = losses.bone_unlikeness(proportions, losses.known_bones(batch.visible))
        total += config.bone_weight * terms["bone_unlikeness"]
    return (shown, total), terms


def _lift_and_choose_a_side(config: Config, number: Array, batch: Normalised, key, generator: Any, camera: Camera):
    depth = networks.depth(config, generator, batch.points)
    joints = views.unproject(camera.inverse_distance, batch.points, depth)
    lifted = jax.lax.stop_gradient((joints, depth))
    return depth, joints, views.sample_rotations(config, key, camera.elevation, lifted, number)


def fakes(
    config: Config, member: Member, number: Int[Array, ""], batch: Normalised, key: PRNGKeyArray
) -> tuple[Normalised, Float[Array, "n 17"]]:
    """Return prepared poses as the member's averaged generator lifts them, seen from elsewhere, and their depth."""
    depth, _, rotation = _lift_and_choose_a_side(config, number, batch, key, member.generator, member.camera)
    return views.rotate_and_project(config, member.camera.inverse_distance, rotation, batch, depth)[1:]


def _generator_realism(logits: Float[Array, "n"]) -> Float[Array, ""]:
    """Return the mean over the fakes; the logits of annotated poses come first."""
    return jnp.mean(losses.generator_realism(jnp.split(logits, 2)[1]))


def _discriminator_realism(logits: Float[Array, "n"]) -> Float[Array, ""]:
    return jnp.mean(losses.discriminator_realism(*jnp.split(logits, 2)))


def _step_if(optimizer: optax.GradientTransformation, rate, learns: Array, gradient, parameters, optimizer_state):
    updates, moved_state = optimizer.update(gradient, optimizer_state, parameters)
    updates = jax.tree.map(lambda update: rate * update, updates)
    moved = optax.apply_updates(parameters, updates)
    return jax.tree.map(functools.partial(jnp.where, learns), (moved, moved_state), (parameters, optimizer_state))


def _average(config: Config, average: Any, generator: Any, number: Array) -> Any:
    """Follow the generator slowly, but fast while the average is young, so that the first weights are forgotten."""
    if not config.average_decay:
        return None if average is None else generator
    decay = jnp.minimum(config.average_decay, number / (number + 10.0))
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, generator)
