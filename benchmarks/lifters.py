"""How good lifters are: errors by the protocol, what disturbs them, whether 2D alone can tell a good one."""

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
from dal_jax.lifting.config import LiftingConfig
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

MISSING_SHARE, SWAPPED_SHARE = 0.1, 0.03
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
        """Return mean errors, mm, and the share of the poses (of some depth) that are reversed front to back."""
        scores = metrics.human36m_protocol_1(joints, joints_true_mm, self._canonical_mm)
        depth, true = (
            values[..., 2] - np.mean(values[..., 2], axis=-1, keepdims=True) for values in (joints, joints_true_mm)
        )
        deep = np.std(true, axis=-1) > _FLAT_MM
        means = {name: float(np.mean(values)) for name, values in scores.items()}
        means["reversed_share"] = float(np.mean(np.sum(depth * true, axis=-1)[deep] < 0))
        return means | {name: float(value) for name, value in _bone_figures(joints).items()}

    def lifter(self, config: LiftingConfig, lifter: Lifter, people: PoseSet) -> dict[str, float | None]:
        """Return the errors, those of disturbed poses, and how well predicted deviations fit."""
        keypoints, whole = people.keypoints_px, np.ones(people.seen.shape, bool)
        term = jax.jit(functools.partial(lift.lift, config))
        lifted = jax.device_get(term(lifter, keypoints, whole))
        found = self.errors(lifted.joints, people.joints_true_mm) | _within(lifted, people.joints_true_mm)
        disturbed = {
            "missing": (keypoints, _present(people.seen.shape)),
            "swapped": (swap_sides(keypoints, SWAPPED_SHARE), whole),
        }
        for name, (points, visible) in disturbed.items():
            joints = jax.device_get(term(lifter, points, visible)).joints
            found[f"mpjpe_{name}_mm"] = self.errors(joints, people.joints_true_mm)["mpjpe_mm"]
        return found


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
