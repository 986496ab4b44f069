"""Pose priors on real 2D poses: where joints that a fit has not seen are expected, and where they were annotated.

    python -m benchmarks.pose_priors --poses=FILE [--lifting=DIR] --out=pose_priors.json

FILE is what `experiments.train_lifting --poses` reads. A prior is learned from some of its poses as
`experiments.learn_poses` learns the shipped one from synthetic people: fits and poses take turns, and no 3D is read. On
held-out poses each limb joint is left out in turn, and the body is fitted to the others under each prior.
Minutes on two cores.
"""

import dataclasses
import functools

import numpy as np
from absl import flags

import dal_jax as dal
from benchmarks import results
from dal_jax.body import skeleton
from dal_jax.body.template import Template
from dal_jax.fits import fitting
from dal_jax.lifting import poses as pose_files
from dal_jax.observations import residuals
from dal_jax.observations.observation import Observation
from dal_jax.registration import priors, register, single_views
from dal_jax.registration.energy import Objective
from dal_jax.registration.priors import PosePrior
from dal_jax.registration.register import RegistrationConfig
from dal_jax.runtime import cli
from dal_jax.runtime.errors import InputError
from dal_jax.uncertainty import noise

# allow_override: tests import several benchmarks into one process, and theirs may have flags of the same names
_POSES = flags.DEFINE_string("poses", None, "2D poses, .npz, .npy or COCO's JSON.", required=True, allow_override=True)
_LIFTING = flags.DEFINE_string("lifting", None, "Folder of a trained lifter, for depths.", allow_override=True)
_OUT = flags.DEFINE_string("out", None, "JSON to write.", required=True, allow_override=True)
_LEARN = flags.DEFINE_integer("learn", 1024, "How many poses teach.", lower_bound=1)
_HELD_OUT = flags.DEFINE_integer("held_out", 512, "How many others are scored.", lower_bound=1)

LIMBS = tuple(
    skeleton.H36M_JOINT_NAMES.index(f"{side}_{name}")
    for name in ("hip", "knee", "foot", "shoulder", "elbow", "wrist")
    for side in ("left", "right")
)
_LIMIT_WEIGHT, _ROUNDS = 1.0, 8


def main(_: list[str]) -> None:
    """Learn, leave joints out, score, write one row a prior."""
    poses = pose_files.read(_POSES.value)
    if len(poses.entry) < (needed := _LEARN.value + _HELD_OUT.value):
        raise InputError(f"--poses={_POSES.value}: {len(poses.entry)} poses; --learn and --held_out need {needed}")
    order = np.random.default_rng(0).permutation(len(poses.entry))
    marked = np.where(poses.visible[..., None], poses.keypoints_px, np.nan)
    body = dal.load_body()

    def observed(rows: np.ndarray) -> Observation:
        people = dal.Observations.from_points(keypoints_px=marked[rows], keypoint_set="h36m")
        lifted = functools.partial(fitting.lifted, _LIFTING.value)
        return (people if _LIFTING.value is None else people.replace(lifted)).stacked

    held_out, options = observed(order[-_HELD_OUT.value :]), dal.FitOptions()
    found = {
        "broad": priors.broad(),
        "shipped": priors.population(),
        "learned": learned(body, observed(order[: _LEARN.value]), _ROUNDS),
    }
    objectives = {name: dataclasses.replace(options.objective(), prior=prior) for name, prior in found.items()}
    objectives["shipped, joint limits"] = objectives["shipped"].reweighted(limit=_LIMIT_WEIGHT)
    rows = []
    for name, objective in objectives.items():
        error = left_out_percent(body, held_out, options.registration(_HELD_OUT.value), objective)
        rows.append({
            "prior": name,
            "lifted": _LIFTING.value is not None,
            "mean_percent": float(np.nanmean(error)),
            "median_percent": float(np.nanmedian(error)),
            "by_joint": {
                skeleton.H36M_JOINT_NAMES[joint]: float(np.nanmean(each))
                for joint, each in zip(LIMBS, error, strict=True)
            },
        })  # fmt: skip
    results.emit(rows, _OUT.value)


def learned(body: Template, observations: Observation, rounds: int) -> PosePrior:
    """Return the prior that fits of the observations speak for, from the T-pose, give or take 30 degrees."""
    config = RegistrationConfig("lm", 20, starts="headings4")
    return noise.alternate(body, observations, config, rounds, prior=noise.initial(priors.broad()))[1].pose_prior


def left_out_percent(
    body: Template, observations: Observation, config: RegistrationConfig, objective: Objective
) -> np.ndarray:
    """Return how far left-out joints lie from their places, % of the crop's side, (12, people); NaN: not annotated."""
    error = []
    for joint in LIMBS:
        keypoint, depth = (
            np.where(np.arange(17) == joint, 0.0, np.asarray(each)).astype(np.float32)
            for each in (observations.keypoint_confidence, observations.depth_confidence)
        )
        without = dataclasses.replace(observations, keypoint_confidence=keypoint, depth_confidence=depth)
        fit = register.register(body, single_views.complete(without), config, objective)
        apart = residuals.errors_px(body, fit.parameters, observations)[1][:, joint]
        percent = 100.0 * apart / np.asarray(observations.box_px)[:, 2]
        error.append(np.where(np.asarray(observations.keypoint_confidence)[:, joint] > 0, percent, np.nan))
    return np.stack(error)


if __name__ == "__main__":
    cli.run(main)
