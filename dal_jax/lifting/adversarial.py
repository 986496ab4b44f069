"""The game between the two networks: one step of it, and how good a lifter it has made.

A batch is lifted, rotated and projected; the discriminator learns to tell these fakes from annotated poses, the
generator to make fakes that it cannot tell. Steps, seeds and settings are chosen by held-out 2D poses, which stand for
the truth: a good lifter's fakes are distributed like annotated poses, are lifted again to what they were, and have
equal proportions, with the nose in front. `experiments.compare_lifters` measures how that goes with the true error.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from dal_jax.lifting import losses, networks, views
from dal_jax.lifting.config import LiftingConfig
from dal_jax.lifting.normalise import Normalised
from dal_jax.lifting.views import SharedCamera
from dal_jax.runtime import struct


@struct.dataclass
class Member:
    """One pair of players, with its camera.

    generator: the running mean of `trained_generator`, or with no averaging its copy: what lifts.
    camera: the estimate of the camera of all images. flow: of annotated poses; None where it has no weight.
    """

    generator: Any
    trained_generator: Any
    discriminator: Any
    camera: SharedCamera
    flow: Any
    generator_optimizer: optax.OptState
    discriminator_optimizer: optax.OptState
    camera_optimizer: optax.OptState
    flow_optimizer: optax.OptState | None


def initial_member(config: LiftingConfig, key: PRNGKeyArray) -> Member:
    """Draw the networks' weights, N(0, 0.02), biases 0."""
    generator_key, discriminator_key = jax.random.split(key)
    generator = networks.initial(config, "generator", generator_key)
    discriminator = networks.initial(config, "discriminator", discriminator_key)
    optimizer = network_optimizer(config)
    camera: Any = views.initial_camera(config)  # optax says what it takes too narrowly
    flow: Any = networks.initial_flow(config, jax.random.fold_in(key, 2)) if config.flow_weight else None
    return Member(
        generator=generator,
        trained_generator=generator,
        discriminator=discriminator,
        camera=camera,
        flow=flow,
        generator_optimizer=optimizer.init(generator),
        discriminator_optimizer=optimizer.init(discriminator),
        camera_optimizer=views.camera_optimizer(config).init(camera),
        flow_optimizer=None if flow is None else optimizer.init(flow),
    )


def step(
    config: LiftingConfig,
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
    flow, flow_optimizer = member.flow, member.flow_optimizer
    if config.flow_weight:
        unlikely, likelier = jax.value_and_grad(functools.partial(_unlikeliness, config, flow))(shown)
        slope += config.flow_weight * jnp.where(number >= _LEARNED_STEPS, 1.0, 0.0) * likelier
        noisy = batch.points + _FLOW_NOISE * jax.random.normal(jax.random.fold_in(key, 2), batch.points.shape)
        metrics["flow_nll_fake"] = unlikely
        metrics["flow_nll"], gradient = jax.value_and_grad(
            lambda flow: jnp.mean(networks.pose_nll(config, flow, noisy))
        )(flow)
        flow, flow_optimizer = _step_if(
            network_optimizer(config), rate, jnp.asarray(True), gradient, flow, flow_optimizer
        )
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
        flow=flow,
        generator_optimizer=generator_optimizer,
        discriminator_optimizer=discriminator_optimizer,
        camera_optimizer=camera_optimizer,
        flow_optimizer=flow_optimizer,
    )
    return member, metrics


_LEARNED_STEPS = 1500  # before which the flow knows too little of poses
_FLOW_NOISE = 0.02  # of a pose's size: without any, a flow makes what few directions there are infinitely likely
_LEAST_LIKELY = 20.0  # beyond, a fake's likelihood has no slope, which would be all of the batch's


def _unlikeliness(config: LiftingConfig, flow: Any, points: Float[Array, "n 17 2"]) -> Float[Array, ""]:
    return jnp.mean(jnp.minimum(networks.pose_nll(config, flow, points), _LEAST_LIKELY))


def network_optimizer(config: LiftingConfig) -> optax.GradientTransformation:
    """Return Adam with L2 in its gradient: the published (Chainer's) weight decay, not AdamW's."""
    adam = optax.adam(config.learning_rate, b1=config.adam_b1)
    return optax.chain(optax.add_decayed_weights(config.weight_decay), adam)


def regression_optimizer() -> optax.GradientTransformation:
    """Return Adam at its default rate, for the networks outside the game: estimation and completion."""
    return optax.adam(1e-3)


def _make_fakes(
    config: LiftingConfig, number: Array, batch: Normalised, key: PRNGKeyArray, generator: Any, camera: SharedCamera
):
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
    proportions, known = losses.log_proportions(joints, depth), losses.known_bones(batch.visible)
    if config.bone_weight:
        expected = np.log(losses.HUMAN36M_BONES_MM) if config.bone_ratios == "human36m" else None
        terms["bone_unlikeness"] = losses.bone_unlikeness(proportions, known, expected)
        total += config.bone_weight * terms["bone_unlikeness"]
    if config.track_weight:
        terms["track_unlikeness"] = losses.track_unlikeness(proportions, known)
        total += config.track_weight * terms["track_unlikeness"]
    return (shown, total), terms


def _lift_and_choose_a_side(
    config: LiftingConfig, number: Array, batch: Normalised, key, generator: Any, camera: SharedCamera
):
    depth = networks.depth(config, generator, batch.points)
    joints = views.unproject(camera.inverse_distance, batch.points, depth)
    lifted = jax.lax.stop_gradient((joints, depth))
    own = networks.elevation(config, generator, batch.points)
    return depth, joints, views.sample_rotations(config, key, (camera.elevation, own), lifted, number)


def fakes(
    config: LiftingConfig, member: Member, number: Int[Array, ""], batch: Normalised, key: PRNGKeyArray
) -> tuple[Normalised, Float[Array, "n 17"]]:
    """Return prepared poses as the member's averaged generator lifts them, seen from elsewhere, and their depth."""
    depth, _, rotation = _lift_and_choose_a_side(config, number, batch, key, member.generator, member.camera)
    return views.rotate_and_project(config, member.camera.inverse_distance, rotation, batch, depth)[1:]


def measure(config: LiftingConfig, member: Member, poses: Normalised, key: PRNGKeyArray) -> dict[str, Float[Array, ""]]:
    """Return the figures of one member on held-out prepared poses; low is good in all of them.

    criterion: bone_spread + mmd + reflection / 2, the number to choose steps, seeds and settings by: proportions rank
    lifters that have learned, the other two find those that have not, or have learned the reverse. A larger
    `bone_weight` can buy equal proportions with wrong poses: compare `mmd` then.
    collapse_score: mmd + reflection / 10, near 0 for a lifter that has learned people, whichever way.
    mmd: squared maximum mean discrepancy (Gretton et al. 2012, unbiased, a sum of Gaussian kernels) between the fakes
    of one half of the poses and the other half, as annotated. reflection: mean relu(-sin) of `losses.facing`.
    cycle_consistency: root mean square, in normalised units. bone_spread: mean over bones of the standard deviation of
    the logarithm of their proportion.
    """
    depth = networks.depth(config, member.generator, poses.points)
    joints = views.unproject(member.camera.inverse_distance, poses.points, depth)
    reflection = jnp.mean(jax.vmap(losses.mirror_ambiguity)(joints, depth, poses.visible))
    half = len(depth) // 2

    def rotated(key: PRNGKeyArray) -> tuple[Array, Array]:
        number = jnp.asarray(_MATURE)
        elevation = (member.camera.elevation, networks.elevation(config, member.generator, poses.points))
        rotation = views.sample_rotations(config, key, elevation, (joints, depth), number)
        _, fakes, turned = views.rotate_and_project(config, member.camera.inverse_distance, rotation, poses, depth)
        again = networks.depth(config, member.generator, fakes.points) * fakes.scale[:, None]
        shown, annotated = fakes.points[half : 2 * half].reshape(half, -1), poses.points[:half].reshape(half, -1)
        return losses.discrepancy(annotated, shown), jnp.mean((again - turned) ** 2, where=poses.visible)

    mmd, inconsistency = (jnp.mean(each) for each in jax.lax.map(rotated, jax.random.split(key, _ROTATIONS)))
    known = losses.known_bones(poses.visible)
    spread = jnp.nanmean(jnp.std(losses.log_proportions(joints, depth), axis=0, where=known))
    return {
        "criterion": spread + mmd + _REFLECTION * reflection,
        "collapse_score": mmd + _COLLAPSE_REFLECTION * reflection,
        "mmd": mmd,
        "reflection": reflection,
        "cycle_consistency": jnp.sqrt(inconsistency),
        "bone_spread": spread,
    }


_ROTATIONS = 4  # of every pose
_MATURE = 1 << 20  # step at which rotations are drawn as at the end of training
# Weights in the one number of the mean of relu(-sin): a body whose depth is reversed everywhere is as realistic in 2D.
_REFLECTION, _COLLAPSE_REFLECTION = 0.5, 0.1


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


def _average(config: LiftingConfig, average: Any, generator: Any, number: Array) -> Any:
    """Follow the generator slowly, but fast while the average is young, so that the first weights are forgotten."""
    if not config.average_decay:
        return None if average is None else generator
    decay = jnp.minimum(config.average_decay, number / (number + 10.0))
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, generator)
