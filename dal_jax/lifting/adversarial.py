"""One step of the game between the two networks: lift, turn, tell the turned poses from the annotated ones, learn."""

import functools
from typing import TYPE_CHECKING, Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from dal_jax.lifting import completion, losses, networks, normalise, rotating
from dal_jax.lifting.networks import Discriminator, Generator, LogVariance
from dal_jax.lifting.normalise import Normalised
from dal_jax.lifting.rotating import Camera

if TYPE_CHECKING:
    from dal_jax.lifting import config as config_lib


@flax.struct.dataclass
class Member:
    """One pair of players, and what one of them learns beside the game.

    generator: the running mean of `trained_generator`, or with no averaging its copy: what lifts.
    camera: that of all pictures, as far as is known.
    doubt: parameters of `networks.Doubt`, or None where the configuration has none.
    """

    generator: Any
    trained_generator: Any
    discriminator: Any
    camera: Camera
    doubt: Any
    generator_optimizer: optax.OptState
    discriminator_optimizer: optax.OptState
    camera_optimizer: optax.OptState
    doubt_optimizer: optax.OptState


def initial_member(config: "config_lib.Config", key: PRNGKeyArray) -> Member:
    """Draw the networks' weights, N(0, 0.02), biases 0."""
    generator_key, discriminator_key = jax.random.split(key)
    pose = jnp.zeros((networks.JOINTS, 2))
    generator = Generator(config.width).init(generator_key, _flat(pose))
    discriminator = Discriminator(config.width).init(discriminator_key, _evidence(config, pose))
    doubt = None
    if config.doubt:
        doubt = LogVariance(config.width).init(jax.random.fold_in(key, 2), jnp.zeros(3 * networks.JOINTS))
    optimizer, camera = network_optimizer(config), rotating.initial(config)
    return Member(
        generator=generator,
        trained_generator=generator,
        discriminator=discriminator,
        camera=camera,
        doubt=doubt,
        generator_optimizer=optimizer.init(generator),
        discriminator_optimizer=optimizer.init(discriminator),
        camera_optimizer=rotating.optimizer(config).init(camera),
        doubt_optimizer=regression_optimizer().init(doubt),
    )


def generate(config: "config_lib.Config", parameters: Any, points: Float[Array, "*n 17 2"]) -> Float[Array, "*n 17"]:
    """Return the depth of normalised poses, hip at 0, in their own unit."""
    return Generator(config.width).apply(parameters, _flat(points))


def step(
    config: "config_lib.Config",
    member: Member,
    completer: Any,
    number: Int[Array, ""],
    batch: Normalised,
    key: PRNGKeyArray,
) -> tuple[Member, dict[str, Array]]:
    """Take step `number` of both networks on one batch of prepared poses; both learn from the same fakes.

    The gates look at the discriminator's accuracy before the step. What is gated off keeps its optimiser's state too.
    """
    turn_key, hide_key = jax.random.split(key)
    make = functools.partial(_make_fakes, config, number, batch, turn_key)
    (shown, likeness), teach_generator, (fakes, metrics) = jax.vjp(
        make, member.trained_generator, member.camera, has_aux=True
    )
    # Annotated poses and fakes in one pass, whose gradient serves both players: weights are read half as often.
    logits, teach_discriminator = jax.vjp(
        functools.partial(_judge, config), member.discriminator, jnp.concatenate([batch.points, shown])
    )
    metrics["generator_realism"], fool = jax.value_and_grad(_fooling)(logits)
    loss, tell_apart = jax.value_and_grad(_telling_apart)(logits)
    slope = teach_discriminator(fool)[1][len(shown) :]
    generator_gradient, camera_gradient = teach_generator((slope, jnp.ones_like(likeness)))
    discriminator_gradient = teach_discriminator(tell_apart)[0]
    real, fake = jnp.split(logits, 2)
    accuracy = (jnp.mean(real > 0) + jnp.mean(fake <= 0)) / 2
    generator_learns = accuracy >= config.generator_gate
    discriminator_learns = accuracy <= config.discriminator_gate
    network_step = functools.partial(_step_if, network_optimizer(config))
    generator, generator_optimizer = network_step(
        generator_learns, generator_gradient, member.trained_generator, member.generator_optimizer
    )
    discriminator, discriminator_optimizer = network_step(
        discriminator_learns, discriminator_gradient, member.discriminator, member.discriminator_optimizer
    )
    camera, camera_moments = _step_if(
        rotating.optimizer(config), generator_learns, camera_gradient, member.camera, member.camera_optimizer
    )
    metrics |= {
        "discriminator_realism": loss,
        "accuracy": accuracy,
        "elevation_deg": jnp.rad2deg(camera.elevation),
        "nearness": camera.nearness,
        "generator_learns": generator_learns.astype(jnp.float32),
        "discriminator_learns": discriminator_learns.astype(jnp.float32),
    }
    member = member.replace(
        generator=_average(config, member.generator, generator, number),
        trained_generator=generator,
        discriminator=discriminator,
        camera=rotating.possible(camera),
        generator_optimizer=generator_optimizer,
        discriminator_optimizer=discriminator_optimizer,
        camera_optimizer=camera_moments,
    )
    if config.doubt:
        member, metrics["doubt"] = _doubt_step(config, member, completer, fakes, hide_key)
    return member, metrics


def network_optimizer(config: "config_lib.Config") -> optax.GradientTransformation:
    """Return Adam with L2 in its gradient: the published (Chainer's) weight decay, not AdamW's."""
    adam = optax.adam(config.learning_rate, b1=config.adam_b1)
    return optax.chain(optax.add_decayed_weights(config.weight_decay), adam)


def regression_optimizer() -> optax.GradientTransformation:
    """Return Adam at its usual rate, for the networks that play no game: doubt and completion."""
    return optax.adam(1e-3)


@flax.struct.dataclass
class Fakes:
    """A batch lifted and turned. shown: what the discriminator sees; points at unit size, of size `size` before."""

    shown: Float[Array, "n 17 2"]
    points: Float[Array, "n 17 2"]
    depth: Float[Array, "n 17"]
    size: Float[Array, "n"]
    visible: Bool[Array, "n 17"]


def turn_lifted(
    config: "config_lib.Config",
    nearness: Float[Array, ""],
    rotation: Float[Array, "n 3 3"],
    batch: Normalised,
    depth: Float[Array, "n 17"],
) -> Fakes:
    """Turn lifted poses and look at them again; joints that were folded onto others are folded again."""
    joints = rotating.unproject(nearness, batch.points, depth)
    turned, turned_depth = jax.vmap(rotating.turn_pose)(rotation, joints, depth)
    turned = rotating.project(nearness, turned, turned_depth)
    turned = jax.vmap(normalise.fill_missing)(turned, batch.stand_in)
    resized, size = jax.vmap(normalise.unit_size)(turned, batch.visible)
    shown = resized if config.normalise_fakes else turned
    return Fakes(shown, resized, turned_depth, size, batch.visible)


def _make_fakes(config, number, batch: Normalised, key, generator: Any, camera):
    """Return what the discriminator is shown and the generator's loss but for realism; the fakes and the terms."""
    depth = generate(config, generator, batch.points)
    joints = rotating.unproject(camera.nearness, batch.points, depth)
    rotation = rotating.sample(config, key, camera.elevation, *jax.lax.stop_gradient((joints, depth)), number)
    fakes = turn_lifted(config, camera.nearness, rotation, batch, depth)
    mirror = functools.partial(losses.mirror_ambiguity, margin=config.mirror_margin)
    terms = {"mirror_ambiguity": jnp.mean(jax.vmap(mirror)(joints, depth, batch.visible))}
    total = config.mirror_weight * terms["mirror_ambiguity"]
    if config.lift_turn_lift_weight:
        again = generate(config, generator, fakes.points) * fakes.size[:, None]
        terms["lift_turn_lift"] = jnp.mean(jax.vmap(losses.lift_turn_lift)(fakes.depth, again, batch.visible))
        terms["turn_back"] = jnp.mean(jax.vmap(losses.turn_back)(rotation, fakes.depth, again, batch.visible))
        total += config.lift_turn_lift_weight * (terms["lift_turn_lift"] + terms["turn_back"])
    if config.bone_weight:
        proportions = losses.log_proportions(joints, depth)
        terms["bone_unlikeness"] = losses.bone_unlikeness(proportions, losses.known_bones(batch.visible))
        total += config.bone_weight * terms["bone_unlikeness"]
    return (fakes.shown, total), (fakes, terms)


def _judge(config, discriminator: Any, points: Float[Array, "n 17 2"]) -> Float[Array, "n"]:
    return Discriminator(config.width).apply(discriminator, _evidence(config, points))


def _fooling(logits: Float[Array, "n"]) -> Float[Array, ""]:
    """Return the generator's realism; the logits of annotated poses come first."""
    return jnp.mean(losses.generator_realism(jnp.split(logits, 2)[1]))


def _telling_apart(logits: Float[Array, "n"]) -> Float[Array, ""]:
    return jnp.mean(losses.discriminator_realism(*jnp.split(logits, 2)))


def _doubt_step(config, member: Member, completer: Any, fakes: Fakes, key) -> tuple[Member, Array]:
    """Learn how far off depths are, from poses whose depth is known: the lifter's own, seen from somewhere else.

    Some of their joints are hidden, so that the doubt about a missing joint is learned with the rest.
    """
    fakes = jax.lax.stop_gradient(fakes)
    seen = fakes.visible & ~completion.hide(key, fakes.visible)
    poses, _ = completion.prepare(config, completer, fakes.points, seen)
    depth = fakes.depth / (normalise.divisor(fakes.size) * normalise.divisor(poses.scale))[:, None]
    error = generate(config, member.generator, poses.points) - depth
    judged = fakes.visible.at[:, 0].set(False)  # the hip's depth is 0 and never off: its deviation has no lower bound

    def surprise(doubt: Any) -> Array:
        log_sd = LogVariance(config.width).apply(doubt, completion.features(poses))
        return jnp.sum(losses.negative_log_likelihood(error, log_sd), where=judged) / jnp.maximum(jnp.sum(judged), 1)

    loss, gradient = jax.value_and_grad(surprise)(member.doubt)
    updates, moments = regression_optimizer().update(gradient, member.doubt_optimizer, member.doubt)
    return member.replace(doubt=optax.apply_updates(member.doubt, updates), doubt_optimizer=moments), loss


def _step_if(optimizer: optax.GradientTransformation, learns: Array, gradient, parameters, optimizer_state):
    updates, moved_state = optimizer.update(gradient, optimizer_state, parameters)
    moved = optax.apply_updates(parameters, updates)
    return jax.tree.map(functools.partial(jnp.where, learns), (moved, moved_state), (parameters, optimizer_state))


def _average(config, average: Any, generator: Any, number: Array) -> Any:
    """Follow the generator slowly, but fast while the average is young, so that the first weights are forgotten."""
    if not config.average_decay:
        return None if average is None else generator
    decay = jnp.minimum(config.average_decay, number / (number + 10.0))
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, generator)


def _evidence(config, points: Float[Array, "*n 17 2"]) -> Float[Array, "*n features"]:
    """Return what the discriminator judges by: the 34 numbers, and if so configured every bone and its length too."""
    if not config.discriminator_bones:
        return _flat(points)
    bones = losses.bone_vectors(points)
    length = jnp.sqrt(jnp.sum(bones**2, axis=-1) + 1e-4)  # rounded at 0, where the root's slope is infinite
    return jnp.concatenate([_flat(points), bones.reshape(*bones.shape[:-2], -1), length], axis=-1)


def _flat(points: Array) -> Array:
    return points.reshape(*points.shape[:-2], 2 * networks.JOINTS)
