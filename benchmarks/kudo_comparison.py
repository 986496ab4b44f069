"""Kudo et al.'s lifter, PyTorch's program and ours in turns, after a check that both compute the same."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import lifting, measure, torch_kudo
from benchmarks.lifting import Trainer, Work
from benchmarks.torch_kudo import Game
from dal_jax.lifting import adversarial, lift, normalise, views
from dal_jax.lifting.adversarial import Member
from dal_jax.lifting.config import LiftingConfig
from dal_jax.lifting.lift import Lifter

_FORWARD, _STEP = 1e-5, 1e-4
_NETWORKS = {"generator": "trained_generator", "discriminator": "discriminator"}


def agreement(config: LiftingConfig, poses: np.ndarray) -> dict[str, float]:
    """Return how far the programs are apart on the same weights, relative to the largest number of each kind.

    Raises:
      AssertionError: too far.
    """
    member = adversarial.initial_member(config, jax.random.key(0))
    game = Game(config.width, weights(member))
    generators = jax.tree.map(lambda leaf: leaf[None], member.generator)
    lifter = Lifter(generators, jnp.ones(1), jnp.zeros(1), estimator=None, completer=None, denoiser=None)
    ours = jax.jit(lambda points: lift.lift(config, lifter, points, np.ones(points.shape[:2], bool)).depth)(poses)
    found = {"lifted": _apart(game.lift(torch.tensor(poses)).numpy(), ours)}
    moved, metrics = _our_step(config, member, poses[: config.batch])
    points, _ = torch_kudo.normalise(torch.tensor(poses[: config.batch]))
    losses = game.step(points, torch.from_numpy(_angles(config, poses[: config.batch])))
    for name in ("generator_realism", "mirror_ambiguity", "discriminator_realism", "accuracy"):
        found[name] = _apart(float(losses[name]), metrics[name])
    for adam, (name, optimizer) in zip(game.adams, _optimizers(moved).items(), strict=True):
        first, second = (_flat(getattr(optimizer, moment)) for moment in ("mu", "nu"))
        state = adam.state_dict()["state"]  # after one step the moments are the gradient and its square, scaled
        found[f"{name}_gradient"] = _apart(_joined(state, "exp_avg"), first)
        found[f"{name}_squared_gradient"] = _apart(_joined(state, "exp_avg_sq"), second)
    for name, apart in found.items():
        allowed = _FORWARD if name == "lifted" else _STEP
        assert apart <= allowed, f"{name}: the two programs differ by {apart}, {allowed} is allowed"
    return found


def rows(
    config: LiftingConfig, poses: np.ndarray, steps: int, batches: list[int], seconds: float
) -> list[dict[str, object]]:
    """Measure both programs in turns; return a row for each work."""
    trainer = Trainer(config, poses)
    torch_trainer = _TorchTrainer(config, poses)
    works: dict[str, Work] = {
        "dal_jax training": lambda: trainer.run(steps),
        "torch training": lambda: torch_trainer.run(steps),
    }
    for batch in batches:
        works[f"dal_jax lifting {batch}"] = lifting.lifting_work(trainer, batch)
        works[f"torch lifting {batch}"] = torch_trainer.lifting_work(batch)
    for work in works.values():
        work()
    calls = {name: 1 if "training" in name else measure.calls(work) for name, work in works.items()}
    repeated = {name: measure.repeated(work, calls[name]) for name, work in works.items()}
    measured = measure.rates(repeated, measure.matmul_probe(jax.devices()[:1]), seconds)
    found = []
    for name in (name.removeprefix("torch ") for name in works if name.startswith("torch")):
        ours, theirs = measured[f"dal_jax {name}"], measured[f"torch {name}"]
        batch = config.batch if name == "training" else int(name.split()[1])
        count = batch * (steps if name == "training" else 1)
        our_count, their_count = count * calls[f"dal_jax {name}"], count * calls[f"torch {name}"]
        gates = {"ours": trainer.learned, "torch": torch_trainer.learned} if name == "training" else {}
        found.append({
            "what": name.split()[0],
            "preset": config.preset,
            "width": config.width,
            "batch": batch,
            "torch_threads": torch.get_num_threads(),
            "torch_poses_per_second": their_count / theirs.wall_s,
            "torch_cpu_s_per_pose": theirs.cpu_s / their_count,
            "poses_per_second": our_count / ours.wall_s,
            "cpu_s_per_pose": ours.cpu_s / our_count,
            "wall_time_ratio": theirs.wall_s / their_count / (ours.wall_s / our_count),
            "cpu_time_ratio": theirs.cpu_s / their_count / (ours.cpu_s / our_count),
            **{f"{program}_{player}": share for program, shares in gates.items() for player, share in shares.items()},
            "matmul_gflops": ours.matmul_gflops,
            "rounds": ours.repeats,
        })  # fmt: skip
    return found


class _TorchTrainer:
    """PyTorch's lifter in training, on batches that it draws."""

    def __init__(self, config: LiftingConfig, poses: np.ndarray):
        self._game = Game(config.width, weights(adversarial.initial_member(config, jax.random.key(0))))
        self._keypoints = torch.tensor(poses)
        self._points, _ = torch_kudo.normalise(self._keypoints)
        self._batch = config.batch
        self.learned: dict[str, float] = {}

    def run(self, steps: int) -> None:
        """Take steps."""
        learned = np.zeros(2)
        for _ in range(steps):
            picked = torch.randint(len(self._points), (self._batch,))
            angle = 2 * torch.pi * torch.rand(self._batch)
            losses = self._game.step(self._points[picked], angle)
            learned += [losses["generator_learns"], losses["discriminator_learns"]]
        self.learned = dict(zip(("generator_learns", "discriminator_learns"), learned / steps, strict=True))

    def lifting_work(self, batch: int) -> Work:
        """Return the work of lifting so many poses."""
        keypoints = torch.from_numpy(np.resize(self._keypoints.numpy(), (batch, 17, 2)))
        return lambda: self._game.lift(keypoints)


def weights(member: Member) -> dict[str, dict[str, torch.Tensor]]:
    """Return the weights of both networks under PyTorch's names, kernels transposed."""
    found = {}
    for name, field in _NETWORKS.items():
        layers = getattr(member, field)["params"]["mlp"]
        found[name] = {f"{layer}.weight": _tensor(layers[layer]["kernel"].T) for layer in torch_kudo.LAYERS}
        found[name] |= {f"{layer}.bias": _tensor(layers[layer]["bias"]) for layer in torch_kudo.LAYERS}
    return found


def _our_step(config: LiftingConfig, member: Member, poses: np.ndarray):
    batch = normalise.normalise_all(poses, np.ones(poses.shape[:2], bool))
    step = functools.partial(adversarial.step, config)
    return jax.jit(step)(member, jnp.int32(0), batch, _key())


def _angles(config: LiftingConfig, poses: np.ndarray) -> np.ndarray:
    """Return the angles of the rotations that our step draws."""
    rotation_key, _ = jax.random.split(_key())
    lifted = jnp.asarray(poses), jnp.zeros(poses.shape[:2])
    level = jnp.float32(0), jnp.zeros(len(poses))
    rotations = views.sample_rotations(config, rotation_key, level, lifted, jnp.int32(0))
    return np.arctan2(rotations[:, 0, 2], rotations[:, 0, 0])


def _key() -> jax.Array:
    return jax.random.key(1)


def _optimizers(member: Member) -> dict[str, Any]:
    """Return Adam's moments of both networks."""
    states: dict[str, Any] = {"generator": member.generator_optimizer, "discriminator": member.discriminator_optimizer}
    return {name: state[1][0] for name, state in states.items()}  # after the L2; before the learning rate


def _flat(tree: dict) -> np.ndarray:
    layers = tree["params"]["mlp"]
    leaves = [leaf for name in torch_kudo.LAYERS for leaf in (layers[name]["kernel"].T, layers[name]["bias"])]
    return np.concatenate([np.ravel(leaf) for leaf in leaves])


def _joined(state: dict, moment: str) -> np.ndarray:
    return np.concatenate([state[row][moment].numpy().ravel() for row in sorted(state)])


def _apart(theirs: np.ndarray | float, ours: np.ndarray | float) -> float:
    return float(np.abs(theirs - np.asarray(ours)).max() / np.abs(ours).max())


def _tensor(values: jax.Array) -> torch.Tensor:
    return torch.from_numpy(np.array(values))
