"""How fast lifters train and lift, by preset: poses a second, compile time apart."""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from benchmarks import measure
from dal_jax.body import kinematics, rotations, skinning
from dal_jax.body.template import Template
from dal_jax.lifting import lift as lift_lib, normalise, training
from dal_jax.lifting.config import LiftingConfig
from dal_jax.lifting.normalise import Taught

PEOPLE = 4096
STEPS = 20
"""Of training in a timed call."""
_BEND = 0.3  # rad, of every joint about every axis
_LEARNS = ("generator_learns", "discriminator_learns")

Work = Callable[[], object]


def rows(
    config: LiftingConfig, poses: Float[np.ndarray, "n 17 2"], batches: list[int], steps: int, seconds: float
) -> Iterator[dict[str, object]]:
    """Yield a row for training and one for lifting each number of poses at once, all interleaved.

    Args:
      config: a preset.
      poses: to learn from and to lift.
      batches: numbers of poses to lift at once.
      steps: of training, in a timed call.
      seconds: how long to measure.
    """
    trainer = Trainer(config, poses)
    works: dict[str, Work] = {"training": lambda: trainer.run(steps)}
    works |= {f"lifting {batch}": lifting_work(trainer, batch) for batch in batches}
    first_s = {}
    for name, work in works.items():
        with measure.first_call() as first:
            trainer.run(1) if name == "training" else work()
        first_s[name] = first
    calls = {name: 1 if name == "training" else measure.calls(work) for name, work in works.items()}
    repeated = {name: measure.repeated(work, calls[name]) for name, work in works.items()}
    devices = jax.devices()[:1]
    measured = measure.rates(repeated, measure.matmul_probe(devices), seconds)
    counts = {"training": steps * config.batch}
    counts |= {f"lifting {batch}": batch * calls[f"lifting {batch}"] for batch in batches}
    for name, rate in measured.items():
        work = name.split()[0]
        yield {
            "work": work,
            "preset": config.preset,
            "width": config.width,
            "members": config.members,
            "batch": config.batch if work == "training" else counts[name] // calls[name],
            **({"steps": steps, **trainer.learned} if work == "training" else {}),
            "compile_s": first_s[name]["first_s"],
            "compile_cached": first_s[name]["compile_cached"],
            "repeats": rate.repeats,
            "poses_per_second": counts[name] / rate.wall_s,
            "cpu_s_per_pose": rate.cpu_s / counts[name],
            "matmul_gflops": rate.matmul_gflops,
            **measure.machine(devices),
        }


def people(template: Template, count: int) -> Float[np.ndarray, "n 17 2"]:
    """Return key points of people bent at random, at any azimuth, seen from afar: metres, x right, y down."""
    random = np.random.default_rng(0)
    pose = random.normal(0, _BEND, (count, 23, 3)).astype(np.float32)
    yaw = random.uniform(-np.pi, np.pi, count).astype(np.float32)

    def joints(pose: jax.Array, yaw: jax.Array) -> jax.Array:
        rotation = rotations.axis_angle_to_matrix(jnp.array([0.0, 1.0, 0.0]) * yaw)
        upright = jnp.diag(jnp.array([1.0, -1.0, -1.0]))  # the body's y is up, the camera's down
        segments = kinematics.pose_skeleton(template, upright @ rotation, pose, jnp.ones(24))
        return skinning.h36m_joints(template, segments)

    return np.asarray(jax.jit(jax.vmap(joints))(pose, yaw))[..., :2]


class Trainer:
    """A lifter in training; each call goes on from where the last one ended.

    Attributes:
      learned: of the last call's steps, the shares in which either network learned.
    """

    def __init__(self, config: LiftingConfig, poses: Float[np.ndarray, "n 17 2"]):
        self.config = config
        self.poses = poses
        self.learned: dict[str, float] = {}
        initial_key, self._key = jax.random.split(jax.random.key(0))
        self.state = training.initial_state(config, initial_key)
        self._normalised = jax.jit(normalise.normalise_all)(jnp.asarray(poses), jnp.ones(poses.shape[:2], bool))
        self._loop = training.loop(config)

    def run(self, steps: int) -> None:
        """Take steps."""
        stop = int(self.state.step) + steps
        self.state, totals = self._loop(self.state, Taught(self._normalised), self._key, stop, (0, self.config.steps))
        self.learned = {name: float(totals[name]) / steps for name in _LEARNS}  # waits until they are there


def lifting_work(trainer: Trainer, batch: int) -> Work:
    """Return the work of lifting so many poses, none of whose joints is missing."""
    keypoints = jnp.asarray(np.resize(trainer.poses, (batch, 17, 2)))
    visible = jnp.ones((batch, 17), bool)
    lift = jax.jit(functools.partial(lift_lib.lift, trainer.config))
    return lambda: jax.block_until_ready(lift(trainer.state.lifter, keypoints, visible))
