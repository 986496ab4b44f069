"""How good lifters are: errors by the protocol, what disturbs them, whether 2D alone can tell a good one."""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import scipy.stats
from jaxtyping import Bool, Float

from benchmarks.pose_sets import PoseSet
from benchmarks.problems import Problems
from benchmarks.registration import quality
from dal_jax.body import skeleton
from dal_jax.body.template import Template
from dal_jax.evaluation import metrics
from dal_jax.lifting import folder, lift, losses, training
from dal_jax.lifting.config import LiftingConfig, kudo
from dal_jax.lifting.lift import Lifted, Lifter
from dal_jax.lifting.poses import Poses2D
from dal_jax.lifting.training import LiftingState
from dal_jax.observations import observation
from dal_jax.registration import register, schedules
from dal_jax.registration.energy import Objective
from dal_jax.registration.register import RegistrationConfig
from dal_jax.runtime import progress
from dal_jax.runtime.progress import MetricLog
from dal_jax.uncertainty import noise

MISSING_SHARE, SWAPPED_SHARE, MOVED_SHARE = 0.1, 0.03, 0.02
MOVED_PX = (60.0, 200.0)  # of photographs with a side of 1,000 px
_FLAT_MM = 50.0  # a pose whose depths spread by less than this has no front and back to confuse


class Score:
    """Human3.6M's protocol 1, with the size of the mean training skeleton."""

    def __init__(self, joints_train_mm: Float[np.ndarray, "n 17 3"]):
        self._canonical_mm = metrics.canonical_bone_sum_mm(joints_train_mm)

    def no_depth(self, people: PoseSet) -> dict[str, float]:
        """Return the errors of depth 0."""
        flat = np.zeros_like(people.joints_true_mm)
        flat[..., :2] = people.keypoints_px - people.keypoints_px[:, :1]
        return self.errors(flat, people.joints_true_mm)

    def errors(self, joints: np.ndarray, joints_true_mm: np.ndarray) -> dict[str, float]:
        """Return mean errors, mm, the share of the poses (of some depth) that are reversed, and the depths' extent.

        That is over the true one, of poses as wide and high as the true ones.
        """
        scores = metrics.human36m_protocol_1(joints, joints_true_mm, self._canonical_mm)
        depth, true = (
            values[..., 2] - np.mean(values[..., 2], axis=-1, keepdims=True) for values in (joints, joints_true_mm)
        )
        deep = np.std(true, axis=-1) > _FLAT_MM
        means = {name: float(np.mean(values)) for name, values in scores.items()}
        means["reversed_share"] = float(np.mean(np.sum(depth * true, axis=-1)[deep] < 0))
        width, wide = (np.linalg.norm(np.std(values[..., :2], axis=-2), axis=-1) for values in (joints, joints_true_mm))
        extent = np.std(depth, axis=-1) * wide / width / np.std(true, axis=-1)
        means["depth_extent"] = float(np.mean(extent[deep]))
        return means | {name: float(value) for name, value in _bone_figures(joints).items()}

    def lifter(self, config: LiftingConfig, lifter: Lifter, people: PoseSet) -> dict[str, float | None]:
        """Return the errors, those of disturbed poses, and how well predicted deviations fit."""

        def lifted(keypoints: np.ndarray, visible: np.ndarray) -> Lifted:
            return folder.lift(keypoints, (config, lifter), visible)

        whole = lifted(people.keypoints_px, np.ones(people.seen.shape, bool))
        found = self.errors(np.asarray(whole.joints), people.joints_true_mm) | _within(whole, people.joints_true_mm)
        for name, disturbed in disturbances(people.keypoints_px).items():
            errors = self.errors(np.asarray(lifted(*disturbed).joints), people.joints_true_mm)
            found[f"mpjpe_{name}_mm"] = errors["mpjpe_mm"]
            found[f"mpjpe_scale_matched_{name}_mm"] = errors["mpjpe_scale_matched_mm"]
        return found


def disturbances(keypoints_px: Float[np.ndarray, "n 17 2"]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return key points and which of them are known, by what is wrong with them; `detected`: all of it at once."""
    whole, present = np.ones(keypoints_px.shape[:2], bool), _present(keypoints_px.shape[:2])
    swapped = swap_sides(keypoints_px, SWAPPED_SHARE)
    return {
        "missing": (keypoints_px, present),
        "swapped": (swapped, whole),
        "moved": (_moved(keypoints_px), whole),
        "detected": (_moved(swapped), present),
    }


def _moved(keypoints_px: np.ndarray, seed: int = 2) -> np.ndarray:
    random = np.random.default_rng(seed)
    chosen = random.random(keypoints_px.shape[:2]) < MOVED_SHARE
    angle, distance_px = random.uniform(0, 2 * np.pi, chosen.shape), random.uniform(*MOVED_PX, chosen.shape)
    away = distance_px[..., None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return (keypoints_px + chosen[..., None] * away).astype(keypoints_px.dtype)


_bone_figures = jax.jit(losses.bone_figures)


def swap_sides(keypoints: Float[np.ndarray, "n 17 2"], share: float, seed: int = 1) -> Float[np.ndarray, "n 17 2"]:
    """Exchange this share of the joints with the joint of the other side."""
    mirror = np.array(skeleton.H36M_MIRROR)
    paired = mirror != np.arange(17)
    chance = np.random.default_rng(seed).random(keypoints.shape[:2])
    swapped = (np.minimum(chance, chance[:, mirror]) < share / 2) & paired  # a pair swaps for either of its joints
    return np.where(swapped[..., None], keypoints[:, mirror], keypoints)


def _present(shape: tuple[int, int], seed: int = 0) -> Bool[np.ndarray, "n 17"]:
    return np.random.default_rng(seed).random(shape) >= MISSING_SHARE


def _within(lifted: Lifted, joints_true_mm: np.ndarray) -> dict[str, float | None]:
    """Return the share of true depths within one and two deviations, at the least-squares scale of each pose."""
    if lifted.depth_sd is None:
        return {"within_1_sd": None, "within_2_sd": None, "depth_rms_mm": None, "depth_sd_rms_mm": None}
    true = joints_true_mm - joints_true_mm[:, :1]
    joints = np.asarray(lifted.joints)
    scale = np.sum(joints * true, axis=(1, 2)) / np.sum(joints**2, axis=(1, 2))
    error = np.abs(scale[:, None] * lifted.depth - true[..., 2])[:, 1:]
    deviation = (scale[:, None] * lifted.depth_sd)[:, 1:]
    return {
        "within_1_sd": float(np.mean(error < deviation)),
        "within_2_sd": float(np.mean(error < 2 * deviation)),
        "depth_rms_mm": float(np.sqrt(np.mean(error**2))),
        "depth_sd_rms_mm": float(np.sqrt(np.mean(deviation**2))),
    }


def train(
    path: pathlib.Path, config: LiftingConfig, seed: int, people: PoseSet, validation: PoseSet, score: Score
) -> tuple[Lifter, list[dict[str, float]]]:
    """Train a lifter in its folder, or finish it; return it and, at every stop, criteria beside the true error.

    The truth goes into `NAME-truth.jsonl` beside the folder, which training never reads.
    """
    poses = Poses2D(people.keypoints_px, np.ones(people.seen.shape, bool), np.arange(len(people.keypoints_px)))
    term = jax.jit(functools.partial(lift.lift, config))
    log_path = path.with_name(f"{path.name}-truth.jsonl")

    def stop(state: LiftingState, figures: dict[str, float]) -> None:
        lifted = jax.device_get(
            term(training.lifter_so_far(config, state), validation.keypoints_px, np.ones(validation.seen.shape, bool))
        )
        truth = score.errors(lifted.joints, validation.joints_true_mm)
        held_out = {k.removeprefix("held_out_"): v for k, v in figures.items() if k.startswith("held_out_")}
        step = int(state.step)
        with MetricLog(log_path, step - 1) as log:  # drops what a killed run logged after its last checkpoint
            log.write(step, truth | held_out)

    state = folder.train(path, poses, config, seed, checkpoint_seconds=0.0, on_stop=stop)
    return state.lifter, progress.read_metrics(log_path)


RUNGS = (
    (
        "128 poses a step, rates of 1e-3 that decay, averaged weights",
        ("batch", "learning_rate", "decay", "average_decay"),
    ),
    ("fakes of unit size, lifted again and rotated back", ("normalise_fakes", "cycle_consistency_weight")),
    ("left as long as right, proportions alike, bones shown", ("bone_weight", "discriminator_bones")),
    ("mirror images, noses square to the shoulders", ("mirror_poses", "mirror_margin")),
    ("headings of other poses", ("matched_azimuths",)),
    (
        "a camera that looks down from near by",
        ("elevation_start_deg", "elevation_rate", "inverse_distance_start", "inverse_distance_rate"),
    ),
    ("missing joints placed", ("complete",)),
    ("noise taken off", ("denoise",)),
    ("an estimator", ("estimated_share",)),
    ("each camera's own elevation", ("elevation_spread_deg",)),
    ("a flow's likelihood", ("flow_weight",)),
)
"""What leads from Kudo et al.'s recipe to ours, in this order: what it is, and the fields of the configuration."""


def ladder(goal: LiftingConfig, steps: int) -> dict[str, LiftingConfig]:
    """Return configurations of one size, each with one change more than the one before; the last is `goal`.

    All but the last have `steps`.
    """
    config = dataclasses.replace(kudo(), width=goal.width, members=goal.members, steps=steps)
    found = {"kudo": config}
    for name, fields in RUNGS:
        config = dataclasses.replace(config, **{field: getattr(goal, field) for field in fields})
        found[name] = config
    return found | {f"{goal.steps} steps": goal}


def selection(histories: dict[str, list[dict[str, float]]]) -> list[dict[str, object]]:
    """Return rank correlations (Spearman) of 2D-only figures with the true MPJPE over checkpoints."""
    groups = {"all": list(itertools.chain(*histories.values()))} | histories
    rows = []
    for name, checkpoints in groups.items():
        true = [one["mpjpe_mm"] for one in checkpoints]
        row = {"lifters": name, "checkpoints": len(checkpoints)}
        for figure in ("criterion", "mmd", "reflection", "cycle_consistency", "bone_spread"):
            values = [one[figure] for one in checkpoints]
            known = len(set(values)) > 1 and len(set(true)) > 1
            row[f"rank_correlation_{figure}"] = _rank_correlation(values, true) if known else None
        chosen = min(checkpoints, key=lambda one: one["criterion"])
        rows.append(row | {"chosen_mpjpe_mm": chosen["mpjpe_mm"], "best_mpjpe_mm": min(true)})
    return rows


def _rank_correlation(one: list[float], other: list[float]) -> float:
    found: Any = scipy.stats.spearmanr(one, other)  # SciPy has no types
    return float(found.statistic)


def registration(
    template: Template,
    problems: Problems,
    trained: dict[str, tuple[LiftingConfig, Lifter]],
) -> Iterator[dict[str, object]]:
    """Yield scores of registration with no depth and with each lifter's: `lm` from four headings.

    With the paper's soft weights, with a pose prior (`registration.schedules`), and with weights that come from
    the residuals (`uncertainty.noise`).
    """
    observed = problems.observations
    nothing = np.zeros_like(observed.depth)
    given = {"none": observation.with_depth(observed, nothing, nothing)}
    given |= {name: lift.with_lifted_depth(*one, observed) for name, one in trained.items()}
    given["true, with noise"] = observed
    config = RegistrationConfig("lm", 20, starts="headings4")
    for name, people in progress.bar("registration", given.items(), unit="lifter"):
        fits = {
            "paper": register.register(template, people, config, Objective()),
            "pose_prior": register.register(template, people, config, schedules.objective_by_name("pose_prior")),
            "estimated": noise.alternate(template, people, config)[0],
        }
        for weights, fit in fits.items():
            scores = quality(fit, None, template, problems)
            yield {"depth": name, "weights": weights, **{key: scores[key] for key in ("mpjpe_mm", "mpjpe_median_mm")}}
