"""Training the lifter from 2D poses: turn what was lifted, and ask a discriminator whether it looks annotated.

One call of `train` runs many steps inside one compiled loop: the poses stay on the device, batches and turns are drawn
there from fold_in(key, step), nothing comes back but sums for the log. The loop's bounds are data, so every stop runs
the same program, and training stopped anywhere and resumed ends in the very bits of training that went through.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from dal_jax.lifting import adversarial, networks, normalise
from dal_jax.runtime import errors


@dataclasses.dataclass
class Config:
    """How the lifter is built and trained; the defaults are Kudo et al. 2018 as published."""

    preset: str = "kudo"  # which whole configuration this is
    width: int = 1024  # hidden units of both networks
    append_visibility: bool = False  # give the generator 17 more inputs, 1 = seen; off: the published 34
    batch: int = 16  # poses a step, drawn with replacement
    steps: int = 250_000  # total; the published schedule counts epochs (200), ours is cut to the data at hand
    learning_rate: float = 2e-4  # Adam, both networks
    adam_b1: float = 0.5
    weight_decay: float = 1e-5  # L2: added to the gradient before Adam, not AdamW
    mirror_weight: float = 1.0  # of the angle between neck and shoulders
    discriminator_gate: float = 0.9  # D learns only while its accuracy on the batch is at most this
    generator_gate: float = 0.1  # G learns only while D's accuracy on the batch is at least this
    normalise_fakes: bool = False  # bring turned poses to unit size again, so that D cannot judge by size
    lift_turn_lift_weight: float = 0.0  # Chen et al. 2019's consistency; 0 = as published
    heading_deg: float = 180.0  # fakes are turned by up to this, either way; 180 = any heading, as published
    elevation_deg: float = 0.0  # sd of the camera's elevation, before and after the turn; 0 = as published
    elevation_start_deg: float = 0.0  # the first guess of how far cameras look down
    elevation_rate: float = 0.0  # Adam, rad a step, of the mean elevation; 0 = level cameras, as published
    average_decay: float = 0.0  # of the running mean of the generator's weights that lifts; 0 = the last weights
    steps_per_call: int = 500  # steps between two lines of the log


def kudo() -> Config:
    """Kudo et al. 2018 as published (hip pinned). Expect an error that swings by tens of mm between checkpoints."""
    return Config()


def demo() -> Config:
    """A lifter in about half a minute on two cores, for people photographed from the front (headings within 30 deg).

    On 2D poses of such synthetic people, held out (scale-matched MPJPE, two seeds): 98 and 112 mm; the published losses
    in networks of this size 114 mm; z = 0 142 mm. Fakes turned all around show backs that no annotated pose shows, and
    with them training has diverged (446 mm): give `heading_deg` the range of your own pictures.
    """
    return dataclasses.replace(best(), preset="demo", lift_turn_lift_weight=5.0, heading_deg=30.0)


def best() -> Config:
    """What beats the published recipe so far, from 2D only; for people who are seen at every heading.

    On the held-out people of `demo`, trained on 5,000 other poses at every heading, two seeds: 86 and 83 mm. The
    averaged weights take away the swings; the learned elevation (7 to 8 deg, where the cameras look down by 7) does
    most of the rest.
    """
    return Config(
        preset="best",
        width=256,
        batch=128,
        steps=2500,
        normalise_fakes=True,
        lift_turn_lift_weight=1.0,
        elevation_rate=1e-3,
        average_decay=0.995,
    )


PRESETS = {"kudo": kudo, "demo": demo, "best": best}


def validate(config: Config) -> None:
    """Refuse values no training can start from.

    Raises:
      errors.InputError: names the field and the value.
    """
    for name in ("width", "batch", "steps", "steps_per_call"):
        if getattr(config, name) < 1:
            raise errors.InputError(f"--config.{name}={getattr(config, name)}: at least 1")
    for name in ("learning_rate", "weight_decay", "mirror_weight", "lift_turn_lift_weight", "elevation_rate"):
        if not 0 <= getattr(config, name) < math.inf:
            raise errors.InputError(f"--config.{name}={getattr(config, name)}: at least 0, and finite")
    for name in ("adam_b1", "average_decay"):
        if not 0 <= getattr(config, name) < 1:
            raise errors.InputError(f"--config.{name}={getattr(config, name)}: from 0 to below 1")
    for name, most in (("heading_deg", 180), ("elevation_deg", 90)):
        if not 0 <= getattr(config, name) <= most:
            raise errors.InputError(f"--config.{name}={getattr(config, name)}: from 0 to {most}")


@flax.struct.dataclass
class LiftingState:
    """Everything training goes on from.

    generator: what `lift.lift` takes: the running mean of `trained_generator`, or with no averaging its copy.
    elevation: by how much the cameras that took the pictures look down, radians.
    """

    step: Int[Array, ""]
    generator: Any
    trained_generator: Any
    discriminator: Any
    elevation: Float[Array, ""]
    generator_optimizer: optax.OptState
    discriminator_optimizer: optax.OptState
    elevation_optimizer: optax.OptState


def initial_state(config: Config, key: PRNGKeyArray) -> LiftingState:
    """Draw both networks' weights, N(0, 0.02), biases 0."""
    generator_key, discriminator_key = jax.random.split(key)
    flat = jnp.zeros(2 * networks.JOINTS)
    seen = jnp.zeros(networks.JOINTS if config.append_visibility else 0)
    generator = networks.Generator(config.width).init(generator_key, jnp.concatenate([flat, seen]))
    discriminator = networks.Discriminator(config.width).init(discriminator_key, flat)
    optimizer, elevation = adversarial.network_optimizer(config), jnp.deg2rad(jnp.asarray(config.elevation_start_deg))
    return LiftingState(
        step=jnp.zeros((), jnp.int32),
        generator=generator,
        trained_generator=generator,
        discriminator=discriminator,
        elevation=elevation,
        generator_optimizer=optimizer.init(generator),
        discriminator_optimizer=optimizer.init(discriminator),
        elevation_optimizer=adversarial.elevation_optimizer(config).init(elevation),
    )


def train(
    state: LiftingState,
    poses: Float[Array, "n 17 2"],
    visible: Bool[Array, "n 17"],
    config: Config,
    key: PRNGKeyArray,
    *,
    steps: int,
    progress: Callable[[int, dict[str, float]], None] | None = None,
    on_checkpoint: Callable[[LiftingState], None] | None = None,
) -> LiftingState:
    """Train until `state.step` is `steps`; a state that is there already comes back as it is.

    Args:
      state: fresh, or a restored one.
      poses: x right, y down, any unit; the value at an invisible joint is never used.
      visible: which joints are annotated.
      config: the same at every call of a run.
      key: the run's key, the same at every call of a run; step i uses fold_in(key, i).
      steps: the total, counted from the fresh state.
      progress: called every `config.steps_per_call` steps with the step and the means of the losses since.
      on_checkpoint: called at the same moments with the state.
    """
    run = _compiled(dataclasses.astuple(config))
    normalised = jax.jit(jax.vmap(normalise.normalise))(jnp.asarray(poses, jnp.float32), jnp.asarray(visible, bool))
    done = int(state.step)
    while done < steps:
        stop = min(steps, (done // config.steps_per_call + 1) * config.steps_per_call)
        state, totals = run(state, normalised, key, stop)
        means = {name: float(total) / (stop - done) for name, total in jax.device_get(totals).items()}
        done = stop
        if progress is not None:
            progress(done, means)
        if on_checkpoint is not None:
            on_checkpoint(state)
    return state


@functools.cache
def _compiled(frozen: tuple) -> Callable:
    """One program a config (which is mutable, hence the tuple of its values)."""
    config = Config(*frozen)

    @jax.jit
    def run(state, poses, key, stop):
        def body(_, carry):
            state, totals = carry
            draw_key, turn_key = jax.random.split(jax.random.fold_in(key, state.step))
            drawn = jax.random.randint(draw_key, (config.batch,), 0, len(poses.points))
            batch = jax.tree.map(lambda values: values[drawn], poses)
            state, metrics = adversarial.step(config, state, batch, turn_key)
            return state, jax.tree.map(jnp.add, totals, metrics)

        _, shapes = jax.eval_shape(functools.partial(adversarial.step, config), state, poses, key)
        totals = jax.tree.map(jnp.zeros_like, shapes)
        return jax.lax.fori_loop(state.step, stop, body, (state, totals))

    return run
