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

from dal_jax.lifting import adversarial, losses, networks, normalise
from dal_jax.lifting.adversarial import Member
from dal_jax.lifting.config import LiftingConfig
from dal_jax.lifting.lift import Lifter
from dal_jax.lifting.normalise import Denoiser, Normalised, Taught
from dal_jax.runtime import mesh as mesh_lib, struct


@struct.dataclass
class LiftingState:
    """Everything that training resumes from.

    members: stacked `adversarial.Member`s. member_weight: 1 for those that count, by held-out poses at the last stop.
    estimator: parameters of that network, which learns from all members, or None.
    completer, denoiser: see `normalise.prepare`, shared by the members.
    """

    step: Int[Array, ""]
    members: Member
    member_weight: Float[Array, "members"]
    estimator: Any
    estimator_optimizer: optax.OptState
    completer: Any
    completer_optimizer: optax.OptState
    denoiser: Denoiser | None

    @property
    def lifter(self) -> Lifter:
        """The parameters that `lift.lift` takes, once training is over (`lifter_so_far`)."""
        return Lifter(
            generators=self.members.generator if self.estimator is None else None,
            member_weight=self.member_weight,
            inverse_distance=self.members.camera.inverse_distance,
            estimator=self.estimator,
            completer=self.completer,
            denoiser=self.denoiser,
        )


def initial_state(config: LiftingConfig, key: PRNGKeyArray) -> LiftingState:
    """Draw all networks' weights."""
    return _compiled_initial(_frozen(config))(key)


@functools.cache
def _compiled_initial(frozen: tuple) -> Callable[[PRNGKeyArray], LiftingState]:
    return jax.jit(functools.partial(_initial, LiftingConfig(*frozen)))


def _initial(config: LiftingConfig, key: PRNGKeyArray) -> LiftingState:
    completer: Any = None
    estimator: Any = None
    if config.estimated_share:
        estimator = networks.initial(config, "estimator", jax.random.fold_in(key, config.members + 1))
    if config.complete:
        completer = networks.initial(config, "completer", jax.random.fold_in(key, config.members))
    return LiftingState(
        step=jnp.zeros((), jnp.int32),
        members=jax.vmap(functools.partial(adversarial.initial_member, config))(_member_keys(config, key)),
        member_weight=jnp.ones(config.members),
        estimator=estimator,
        estimator_optimizer=adversarial.regression_optimizer().init(estimator),
        completer=completer,
        completer_optimizer=adversarial.regression_optimizer().init(completer),
        denoiser=normalise.no_denoiser() if config.denoise else None,
    )


def train(
    state: LiftingState,
    keypoints: Float[Array | np.ndarray, "n 17 2"],
    visible: Bool[Array | np.ndarray, "n 17"],
    config: LiftingConfig,
    key: PRNGKeyArray,
    on_stop: Callable[[LiftingState, dict[str, float]], None] | None = None,
    track: Int[np.ndarray, "n"] | None = None,
) -> LiftingState:
    """Train until `state.step` is `config.steps`; a state that is there already comes back as it is.

    Every 20th pose is held out (of at least `FEWEST_TO_HOLD_OUT`; of fewer, the same poses teach and test); on these
    `adversarial.measure` judges the members at every stop, and a member far worse than the best does not count.

    Args:
      state: fresh, or a restored one.
      keypoints: x right, y down, any unit; the value at an invisible joint is never used.
      visible: which joints are annotated.
      config: the same at every call of a run but for `steps`, the total, counted from the fresh state.
      key: the run's key, the same at every call of a run; step i uses fold_in(key, i).
      on_stop: called every `config.steps_per_call` steps and at the end with the state, the means of the losses since
        the last stop (over members too) and the figures of `adversarial.measure` as `held_out_*`.
      track: whose each pose is, -1: nobody's; needed where `config.track_weight` is not 0, else not read.

    Raises:
      errors.DivergedError: a loss or a weight is not finite at a stop.
    """
    mesh, frozen, game = mesh_lib.of_networks(), _frozen(config), game_steps(config)
    judge = _compiled_judge(frozen)
    normalised = jax.jit(normalise.normalise_all)(jnp.asarray(keypoints, jnp.float32), jnp.asarray(visible, bool))
    rows, others = _split(len(keypoints))
    normalised = jax.device_get(normalised)
    learned = jax.tree.map(lambda leaf: leaf[rows], normalised)
    held_out = jax.tree.map(lambda leaf: leaf[others], normalised)
    if config.denoise:
        state = dataclasses.replace(
            state, denoiser=normalise.denoiser(*map(np.asarray, (learned.points, learned.visible)))
        )
    people = normalise.rows_of_people(track[rows]) if config.track_weight and track is not None else None
    taught = Taught(learned, people)
    # The same for a fresh state and one from a checkpoint, so that one program serves both
    state, taught, held_out = mesh_lib.everywhere((state, taught, held_out), mesh)
    done = int(state.step)
    while done < config.steps:
        step, span = (_play, (0, game)) if done < game else (_estimate, (game, config.steps))
        stop = min(span[1], (done // config.steps_per_call + 1) * config.steps_per_call)
        state, totals = _compiled(step, frozen, mesh)(state, taught, key, stop, span)
        state, figures = judge(state, held_out, key)
        means = {name: float(total) / (stop - done) for name, total in jax.device_get(totals).items()}
        done = stop
        figures = means | {f"held_out_{name}": float(value) for name, value in figures.items()}
        struct.refuse_not_finite(f"lifter, step {done}", figures, state)
        if on_stop is not None:
            on_stop(state, figures)
    return state


def lifter_so_far(config: LiftingConfig, state: LiftingState) -> Lifter:
    """Return what lifts at any step: before an estimator has begun to learn, the generators."""
    if int(state.step) > game_steps(config):
        return state.lifter
    return dataclasses.replace(state.lifter, generators=state.members.generator, estimator=None)


def game_steps(config: LiftingConfig) -> int:
    """Return in how many of the steps the two networks play; in the rest the estimator learns."""
    return config.steps - int(config.estimated_share * config.steps)


def loop(config: LiftingConfig) -> Callable[..., tuple[LiftingState, dict[str, Array]]]:
    """Return the compiled loop of `train`.

    It maps (state, `Taught`, key, stop, (first, last)) to the state at step `stop` and the sums of the losses since;
    rates decay from step `first` to `last`.
    """
    return _compiled(_play, _frozen(config), mesh_lib.of_networks())


FEWEST_TO_HOLD_OUT = 1000
_EVERY = 20
_MAX_HELD_OUT = 2000  # the kernel sums of `losses.discrepancy` grow with the square
_COLLAPSED = 3.0  # times the best member's score; members that learned the same thing differ by tens of percent


def _split(count: int) -> tuple[Int[np.ndarray, "learned"], Int[np.ndarray, "held_out"]]:
    rows = np.arange(count)
    if count < FEWEST_TO_HOLD_OUT:
        return rows, rows
    return rows[rows % _EVERY != 0], rows[::_EVERY][:_MAX_HELD_OUT]


def _member_keys(config: LiftingConfig, key: PRNGKeyArray) -> PRNGKeyArray:
    return jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(config.members))


def _frozen(config: LiftingConfig) -> tuple:
    """Return what a program depends on, hashable: all values but the number of steps, which is data."""
    return dataclasses.astuple(dataclasses.replace(config, steps=1))


@functools.cache
def _compiled(step: Callable, frozen: tuple, mesh: Mesh) -> Callable:
    return jax.jit(
        functools.partial(_run, functools.partial(step, LiftingConfig(*frozen), mesh), LiftingConfig(*frozen))
    )


@functools.cache
def _compiled_judge(frozen: tuple) -> Callable:
    return jax.jit(functools.partial(_judge, LiftingConfig(*frozen)))


def _run(step: Callable, config: LiftingConfig, state: LiftingState, taught: Taught, key, stop, span):
    """Step until `stop`; return the sums of the metrics too."""

    def take(state: LiftingState) -> tuple[LiftingState, dict]:
        first, last = span
        rate = (1 + jnp.cos(jnp.pi * (state.step - first) / (last - first))) / 2 if config.decay else 1.0
        state, metrics = step(state, taught, jax.random.fold_in(key, state.step), rate)
        return dataclasses.replace(state, step=state.step + 1), metrics

    def body(_, carry):
        state, totals = carry
        state, metrics = take(state)
        return state, jax.tree.map(jnp.add, totals, metrics)

    if not config.average_decay:  # keep a copy of the trained weights out of the carry
        state = dataclasses.replace(state, members=dataclasses.replace(state.members, generator=None))
    _, shapes = jax.eval_shape(take, state)
    start = (state, jax.tree.map(jnp.zeros_like, shapes))
    state, totals = jax.lax.fori_loop(state.step, stop, body, start)
    if not config.average_decay:
        trained = dataclasses.replace(state.members, generator=state.members.trained_generator)
        state = dataclasses.replace(state, members=trained)
    return state, totals


def _play(
    config: LiftingConfig, mesh: Mesh, state: LiftingState, taught: Taught, key, rate
) -> tuple[LiftingState, dict]:
    """Every member plays one batch of its own, split between the devices; the first's also teaches the completer.

    One member after the other: XLA's batched products are slow on CPU (width 1024: 60 ms a step by vmap, 16 ms so).
    """

    def play(player: tuple[Member, PRNGKeyArray]):
        member, key = player
        draw_key, step_key = jax.random.split(key)
        return adversarial.step(
            config, member, state.step, _prepared(config, mesh, state, taught, draw_key), step_key, rate
        )

    keys = _member_keys(config, key)
    members, metrics = _one_after_the_other(play, (state.members, keys))
    metrics = jax.tree.map(jnp.mean, metrics)
    state = dataclasses.replace(state, members=members)
    if config.complete:
        batch = normalise.draw(config, mesh, taught, keys[0])
        state, metrics["completion_nll"] = learn_to_complete(config, state, batch, key, 1.0)
    return state, metrics


def _one_after_the_other(play: Callable, players: Any) -> Any:
    """Map over the leading axis. A single player is no loop, which would copy all weights and moments in and out."""
    if len(jax.tree.leaves(players)[0]) > 1:
        return jax.lax.map(play, players)
    return jax.tree.map(lambda leaf: leaf[None], play(jax.tree.map(lambda leaf: leaf[0], players)))


def _prepared(config: LiftingConfig, mesh: Mesh, state: LiftingState, taught: Taught, key) -> Normalised:
    batch = normalise.draw(config, mesh, taught, key)
    if config.mirror_poses:
        batch = normalise.mirror_half(batch, jax.random.fold_in(key, 1), pairs=taught.people is not None)
    return normalise.prepare(config, batch.points, batch.visible, state.completer, state.denoiser)[0]


def _estimate(
    config: LiftingConfig, mesh: Mesh, state: LiftingState, taught: Taught, key, rate
) -> tuple[LiftingState, dict]:
    """Learn depths, and how far off they are, from poses whose depth is known: what was lifted, from another side.

    A generator whose fakes look right answers depths as likely as the true ones, not the expected ones: where depth is
    in doubt, its error is that doubt and the truth's own. Regression learns the expectation, over all members that
    count. Fakes get the noise that annotated poses have, and some joints are hidden, to learn of missing ones.
    """
    keys = _member_keys(config, key)
    noise_key, hide_key = jax.random.split(jax.random.fold_in(key, config.members))

    def lift(player: tuple[Member, PRNGKeyArray]) -> tuple[Normalised, Array]:
        draw_key, step_key = jax.random.split(player[1])
        batch = _prepared(config, mesh, state, taught, draw_key)
        return adversarial.fakes(config, player[0], state.step, batch, step_key)

    terms = {}
    if config.complete:
        batch = normalise.draw(config, mesh, taught, keys[0])
        state, terms["completion_nll"] = learn_to_complete(config, state, batch, key, rate)
    fakes, depth = _one_after_the_other(lift, (state.members, keys))
    weight = jnp.repeat(state.member_weight, config.batch)
    fakes, depth = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), (fakes, depth))
    points = fakes.points
    if state.denoiser is not None:
        points = normalise.with_noise(state.denoiser, points, noise_key)
    seen = fakes.visible & ~normalise.hide(hide_key, fakes.visible)
    poses, _ = normalise.prepare(config, points, seen, state.completer, state.denoiser)
    depth = depth / (normalise.divisor(fakes.scale) * normalise.divisor(poses.scale))[:, None]
    judged = fakes.visible.at[:, 0].set(False)  # the hip's depth is 0 and never off: its deviation has no lower bound
    counts = judged * weight[:, None]

    def loss(parameters: Any) -> tuple[Array, dict[str, Array]]:
        found, log_sd = networks.estimate(config, parameters, poses.points, poses.visible)
        error = found - depth
        likelihood = losses.negative_log_likelihood(jax.lax.stop_gradient(error), log_sd)
        means = {"depth_error": jnp.abs(error), "depth_nll": likelihood}
        means = {name: jnp.sum(counts * each) / jnp.maximum(jnp.sum(counts), 1) for name, each in means.items()}
        return means["depth_error"] + _DOUBT_WEIGHT * means["depth_nll"], means

    gradient, means = jax.grad(loss, has_aux=True)(state.estimator)
    updates, moments = adversarial.regression_optimizer().update(gradient, state.estimator_optimizer, state.estimator)
    estimator = optax.apply_updates(state.estimator, jax.tree.map(lambda update: rate * update, updates))
    return dataclasses.replace(state, estimator=estimator, estimator_optimizer=moments), terms | means


_DOUBT_WEIGHT = 0.01
"""Of the deviations' likelihood: its last layer learns at Adam's rate all the same, and depths get the hidden layers
(with weight 1 and 0.1 synthetic people's errors are 53.7 and 52.4 mm)."""


def learn_to_complete(
    config: LiftingConfig, state: LiftingState, batch: Normalised, key: PRNGKeyArray, rate: Float[Array, ""] | float
) -> tuple[LiftingState, Float[Array, ""]]:
    """Take a step of the completer, `rate` times Adam's; return its loss too (`normalise.completion_nll`)."""
    teach = functools.partial(normalise.completion_nll, config)
    loss, gradient = jax.value_and_grad(teach)(state.completer, batch, key)
    optimizer = adversarial.regression_optimizer()
    updates, moments = optimizer.update(gradient, state.completer_optimizer, state.completer)
    completer = optax.apply_updates(state.completer, jax.tree.map(lambda update: rate * update, updates))
    return dataclasses.replace(state, completer=completer, completer_optimizer=moments), loss


def _judge(config: LiftingConfig, state: LiftingState, held_out: Normalised, key) -> tuple[LiftingState, dict]:
    """Measure the members on held-out poses and choose those that count; return the figures' means over these."""
    prepared, _ = normalise.prepare(config, held_out.points, held_out.visible, state.completer, state.denoiser)
    figures = jax.vmap(lambda member: adversarial.measure(config, member, prepared, key))(state.members)
    score = figures["collapse_score"]
    best = jnp.maximum(jnp.min(score), 1 / len(held_out.points))  # an unbiased estimate goes below 0 by chance
    weight = (score <= _COLLAPSED * best).astype(jnp.float32)
    weight = jnp.where(jnp.any(weight > 0), weight, 1.0)  # all collapsed, or not a number: nothing to choose by
    figures = jax.tree.map(lambda values: jnp.sum(values * weight) / jnp.sum(weight), figures)
    return dataclasses.replace(state, member_weight=weight), figures | {"members": jnp.sum(weight)}
