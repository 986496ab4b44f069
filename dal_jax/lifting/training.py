"""Training the lifter from 2D poses: rotate what was lifted, and let a discriminator judge whether it looks annotated.

One call of `train` runs many steps inside one compiled loop: the poses stay on the device, batches and rotations are
drawn there from fold_in(key, step), only sums for the log come back. The loop's bounds are data, so every stop runs the
same program, and training stopped anywhere and resumed ends in the same bits as uninterrupted training.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from dal_jax.lifting import adversarial, criteria, networks, normalise
from dal_jax.lifting.adversarial import Member
from dal_jax.lifting.config import Config
from dal_jax.lifting.lift import Lifter
from dal_jax.lifting.normalise import Normalised
from dal_jax.runtime import mesh as mesh_lib, struct


@struct.dataclass
class LiftingState:
    """Everything that training resumes from.

    members: stacked `adversarial.Member`s. member_weight: 1 for those that count, by held-out poses at the last stop.
    completer: parameters of that network, shared by the members, or None.
    """

    step: Int[Array, ""]
    members: Member
    member_weight: Float[Array, "members"]
    completer: Any
    completer_optimizer: optax.OptState

    @property
    def lifter(self) -> Lifter:
        """The parameters that `lift.lift` takes."""
        return Lifter(
            generators=self.members.generator,
            member_weight=self.member_weight,
            inverse_distance=self.members.camera.inverse_distance,
            log_variances=self.members.log_variance,
            completer=self.completer,
        )


def initial_state(config: Config, key: PRNGKeyArray) -> LiftingState:
    """Draw all networks' weights."""
    completer: Any = None
    if config.complete:
        completer = networks.initial(config, "completer", jax.random.fold_in(key, config.members))
    return LiftingState(
        step=jnp.zeros((), jnp.int32),
        members=jax.vmap(functools.partial(adversarial.initial_member, config))(_member_keys(config, key)),
        member_weight=jnp.ones(config.members),
        completer=completer,
        completer_optimizer=adversarial.regression_optimizer().init(completer),
    )


def train(
    state: LiftingState,
    keypoints: Float[Array | np.ndarray, "n 17 2"],
    visible: Bool[Array | np.ndarray, "n 17"],
    config: Config,
    key: PRNGKeyArray,
    on_stop: Callable[[LiftingState, dict[str, float]], None] | None = None,
) -> LiftingState:
    """Train until `state.step` is `config.steps`; a state that is there already comes back as it is.

    Every 20th pose is held out (of at least `FEWEST_TO_HOLD_OUT`; of fewer, the same poses teach and test); on these
    `criteria.measure` judges the members at every stop, and a member far worse than the best does not count.

    Args:
      state: fresh, or a restored one.
      keypoints: x right, y down, any unit; the value at an invisible joint is never used.
      visible: which joints are annotated.
      config: the same at every call of a run but for `steps`, the total, counted from the fresh state.
      key: the run's key, the same at every call of a run; step i uses fold_in(key, i).
      on_stop: called every `config.steps_per_call` steps and at the end with the state, the means of the losses since
        the last stop (over members too) and the figures of `criteria.measure` as `held_out_*`.

    Raises:
      errors.DivergedError: a loss or a weight is not finite at a stop.
    """
    mesh = mesh_lib.of_networks()
    run, judge = loop(config), _compiled_judge(_frozen(config))
    normalised = jax.jit(normalise.normalise_all)(jnp.asarray(keypoints, jnp.float32), jnp.asarray(visible, bool))
    # The same for a fresh state and one from a checkpoint, so that one program serves both
    state, learned, held_out = mesh_lib.everywhere((state, *_split(normalised)), mesh)
    done = int(state.step)
    while done < config.steps:
        stop = min(config.steps, (done // config.steps_per_call + 1) * config.steps_per_call)
        state, totals = run(state, learned, key, stop)
        state, figures = judge(state, held_out, key)
        means = {name: float(total) / (stop - done) for name, total in jax.device_get(totals).items()}
        done = stop
        figures = means | {f"held_out_{name}": float(value) for name, value in figures.items()}
        struct.refuse_not_finite(f"lifter, step {done}", figures, state.lifter)
        if on_stop is not None:
            on_stop(state, figures)
    return state


def loop(config: Config) -> Callable[..., tuple[LiftingState, dict[str, Array]]]:
    """Return the compiled loop of `train`.

    It maps (state, normalised poses, key, stop) to the state at step `stop` and the sums of the losses since.
    """
    return _compiled_loop(_frozen(config), mesh_lib.of_networks())


FEWEST_TO_HOLD_OUT = 1000
_EVERY = 20
_MAX_HELD_OUT = 2000  # the kernel sums of `criteria` grow with the square
_COLLAPSED = 3.0  # times the best member's score; members that learned the same thing differ by tens of percent


def _split(poses: Normalised) -> tuple[Normalised, Normalised]:
    count = len(poses.points)
    held_out = jnp.arange(count) % _EVERY == 0 if count >= FEWEST_TO_HOLD_OUT else jnp.ones(count, bool)
    learned = ~held_out if count >= FEWEST_TO_HOLD_OUT else held_out
    take = jnp.flatnonzero(held_out)[:_MAX_HELD_OUT]
    return jax.tree.map(lambda leaf: leaf[learned], poses), jax.tree.map(lambda leaf: leaf[take], poses)


def _member_keys(config: Config, key: PRNGKeyArray) -> PRNGKeyArray:
    return jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(config.members))


def _frozen(config: Config) -> tuple:
    """Return what a program depends on, hashable: all values but the number of steps, which is data."""
    return dataclasses.astuple(dataclasses.replace(config, steps=1))


@functools.cache
def _compiled_loop(frozen: tuple, mesh: Mesh) -> Callable:
    return jax.jit(functools.partial(_run, Config(*frozen), mesh))


@functools.cache
def _compiled_judge(frozen: tuple) -> Callable:
    return jax.jit(functools.partial(_judge, Config(*frozen)))


def _run(config: Config, mesh: Mesh, state: LiftingState, poses: Normalised, key, stop) -> tuple[LiftingState, dict]:
    """Step until `stop`; return the sums of the metrics too."""

    def body(_, carry):
        state, totals = carry
        state, metrics = _step(config, mesh, state, poses, jax.random.fold_in(key, state.step))
        return state, jax.tree.map(jnp.add, totals, metrics)

    if not config.average_decay:  # keep a copy of the trained weights out of the carry
        state = dataclasses.replace(state, members=dataclasses.replace(state.members, generator=None))
    _, shapes = jax.eval_shape(functools.partial(_step, config, mesh), state, poses, key)
    start = (state, jax.tree.map(jnp.zeros_like, shapes))
    state, totals = jax.lax.fori_loop(state.step, stop, body, start)
    if not config.average_decay:
        trained = dataclasses.replace(state.members, generator=state.members.trained_generator)
        state = dataclasses.replace(state, members=trained)
    return state, totals


def _step(config: Config, mesh: Mesh, state: LiftingState, poses: Normalised, key) -> tuple[LiftingState, dict]:
    """Every member plays one batch of its own, split between the devices; the first's also teaches the completer.

    One member after the other: XLA's batched products are slow on CPU (width 1024: 60 ms a step by vmap, 16 ms so).
    """

    def play(player: tuple[Member, PRNGKeyArray]):
        member, key = player
        draw_key, step_key = jax.random.split(key)
        batch = mesh_lib.constrained(_draw(config, poses, draw_key), mesh)
        if config.mirror_poses:
            batch = _mirror_half(batch, jax.random.fold_in(draw_key, 1))
        prepared, _ = normalise.prepare(config, state.completer, batch.points, batch.visible)
        return adversarial.step(config, member, state.completer, state.step, prepared, step_key)

    keys = _member_keys(config, key)
    members, metrics = _one_after_the_other(play, (state.members, keys))
    metrics = jax.tree.map(jnp.mean, metrics)
    state = dataclasses.replace(state, step=state.step + 1, members=members)
    if config.complete:
        state, metrics["completion_nll"] = _learn_to_complete(
            config, state, mesh_lib.constrained(_draw(config, poses, keys[0]), mesh), key
        )
    return state, metrics


def _one_after_the_other(play: Callable, players: Any) -> Any:
    """Map over the leading axis. A single player is no loop, which would copy all weights and moments in and out."""
    if len(jax.tree.leaves(players)[0]) > 1:
        return jax.lax.map(play, players)
    return jax.tree.map(lambda leaf: leaf[None], play(jax.tree.map(lambda leaf: leaf[0], players)))


def _draw(config: Config, poses: Normalised, key) -> Normalised:
    rows = jax.random.randint(key, (config.batch,), 0, len(poses.points))
    return jax.tree.map(lambda values: values[rows], poses)


def _mirror_half(batch: Normalised, key) -> Normalised:
    """Mirror half of the poses at random."""
    chosen = jax.random.bernoulli(key, shape=(len(batch.points),))

    def choose(mirrored: Array, given: Array) -> Array:
        return jnp.where(chosen.reshape(-1, *[1] * (given.ndim - 1)), mirrored, given)

    return jax.tree.map(choose, normalise.mirrored(batch), batch)


def _learn_to_complete(config: Config, state: LiftingState, batch: Normalised, key):
    teach = functools.partial(normalise.completion_nll, config)
    loss, gradient = jax.value_and_grad(teach)(state.completer, batch, key)
    optimizer = adversarial.regression_optimizer()
    updates, moments = optimizer.update(gradient, state.completer_optimizer, state.completer)
    completer = optax.apply_updates(state.completer, updates)
    return dataclasses.replace(state, completer=completer, completer_optimizer=moments), loss


def _judge(config: Config, state: LiftingState, held_out: Normalised, key) -> tuple[LiftingState, dict]:
    """Measure the members on held-out poses and choose those that count; return the figures' means over these."""
    prepared, _ = normalise.prepare(config, state.completer, held_out.points, held_out.visible)
    figures = jax.vmap(lambda member: criteria.measure(config, member, prepared, key))(state.members)
    score = figures["collapse_score"]
    best = jnp.maximum(jnp.min(score), 1 / len(held_out.points))  # an unbiased estimate goes below 0 by chance
    weight = (score <= _COLLAPSED * best).astype(jnp.float32)
    weight = jnp.where(jnp.any(weight > 0), weight, 1.0)  # all collapsed, or not a number: nothing to choose by
    figures = jax.tree.map(lambda values: jnp.sum(values * weight) / jnp.sum(weight), figures)
    return dataclasses.replace(state, member_weight=weight), figures | {"members": jnp.sum(weight)}
