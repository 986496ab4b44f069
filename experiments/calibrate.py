"""Measure whether the posterior of registration is calibrated, on synthetic people whose truth is known.

  python -m experiments.calibrate --split=test --depth_noise=0.1
  python -m experiments.calibrate --split=test --depth_noise=0          # no depth at all

Registers people with noise levels estimated from their own residuals, predicts the standard deviation of every joint,
and counts how often the truth lies within one and two. Truth is read for that, for the depths that stand for lifted
ones (true depth, a common turn as lifters make it, and independent noise), and for the average person's size. There are
three tables, because one image does not show how large a person is: scaled about the camera, people look the same.

  own size       every person's size is known
  adults         everybody is given the average training person's size, and their true sizes are drawn as adults have
                 them: 6% spread about that average
  two subjects   the same, but their true sizes are those of the test subjects, both of whom are 10% off

About a minute for 512 people, half of it compilation.
"""

import json

import jax
import numpy as np
from absl import flags

from dal_jax.body.formats import load
from dal_jax.data.people import load_people, load_truth
from dal_jax.evaluation import metrics
from dal_jax.observations import observation
from dal_jax.observations.observation import Observation
from dal_jax.registration.register import RegistrationConfig
from dal_jax.runtime import cli, files
from dal_jax.synthetic import people as synthetic_people
from dal_jax.uncertainty import modes, noise as noise_lib, posterior
from dal_jax.uncertainty.posterior import Posterior, SizePrior

_DATA_DIR = flags.DEFINE_string("data_dir", "runs/data", "Where the synthetic people are kept.")
_SYNTHETIC = flags.DEFINE_string("synthetic", "demo", "Which of them: tiny, small, demo, views, full.")
_SPLIT = flags.DEFINE_enum("split", "test", ["train", "test"], "Split whose people are fitted.")
_PEOPLE = flags.DEFINE_integer("people", 512, "How many of them, at most.", 1)
_DEPTH_NOISE = flags.DEFINE_float(
    "depth_noise", 0.1, "Metres, of simulated depths, beside their turn; 0: no depths.", 0.0
)
_SEED = flags.DEFINE_integer("seed", 0, "Of that noise.", lower_bound=0)
_OUT = flags.DEFINE_string("out", None, "Also write the figures there, as JSON.")

_ADULT_SPREAD = 0.06  # of stature, women and men together (NHANES: 10 cm of 169 cm)
_COLUMNS = ("within_1_sd", "within_2_sd", "mean_sd_mm", "rms_error_mm")


def main(_: list[str]) -> None:
    """Load, register, predict, count, print."""
    builder = synthetic_people.load(_SYNTHETIC.value, _DATA_DIR.value)
    people = load_people(builder, _SPLIT.value, _PEOPLE.value, with_truth=True)
    training = load_truth(builder, "train", _PEOPLE.value)
    assert people.truth is not None and training is not None, "synthetic people have a truth"
    truth, canonical = people.truth.joints_h36m_mm, metrics.canonical_bone_sum_mm(training.joints_h36m_mm)
    template = load.load_body()
    observed = people.observations
    if _DEPTH_NOISE.value > 0:
        observed = _simulate_depth(observed, truth, _DEPTH_NOISE.value, _SEED.value)
    config = RegistrationConfig("lm", 30, starts="headings4")
    fit, noise = noise_lib.alternate(template, observed, config)
    used, objective = noise_lib.precisions(noise), noise_lib.objective(noise)
    bodies = modes.find(template, noise_lib.reweighted(observed, noise), fit.parameters, objective)

    def predict(size: SizePrior) -> Posterior:
        return posterior.laplace_posterior(template, observed, fit.parameters, noise, used, bodies, size)

    own_size = np.asarray(jax.vmap(metrics.bone_sum)(truth))[:, None, None] / canonical
    drawn = np.exp(np.random.default_rng(_SEED.value).normal(0.0, _ADULT_SPREAD, own_size.shape))
    average, known = predict(SizePrior(canonical)), predict(SizePrior(canonical, spread=0.0))
    calibration = {
        "own size": _compare(known.h36m_mm * own_size, known.h36m_sd_mm * own_size, truth),
        "adults": _compare(average.h36m_mm, average.h36m_sd_mm, truth * drawn / own_size),
        "two subjects": _compare(average.h36m_mm, average.h36m_sd_mm, truth),
    }
    levels = {name: float(value) for name, value in vars(noise).items() if name != "pose_prior"}
    _show(calibration, levels)
    if _OUT.value:
        flags_given = {"split": _SPLIT.value, "people": len(truth), "depth_noise_m": _DEPTH_NOISE.value}
        files.write_json(_OUT.value, flags_given | {"noise": levels, "calibration": calibration})


def _compare(joints_mm, deviation_mm, truth_mm: np.ndarray) -> dict:
    error = np.asarray(joints_mm) - (truth_mm - truth_mm[:, :1])
    mpjpe = float(np.mean(np.linalg.norm(error, axis=-1)))
    return metrics.coverage(error[:, 1:], np.asarray(deviation_mm)[:, 1:]) | {"mpjpe_mm": mpjpe}


def _simulate_depth(observed: Observation, truth_mm: np.ndarray, noise_m: float, seed: int):
    """Return observations with the true depth of every joint, as a lifter might give it: turned, with noise on each."""
    visible = np.asarray(observed.keypoint_confidence) > 0
    share = visible / np.maximum(visible.sum(axis=1, keepdims=True), 1)

    def centred(points: np.ndarray) -> np.ndarray:
        return (points - np.sum(share[..., None] * points, axis=1, keepdims=True)) * visible[..., None]

    image, world = centred(np.asarray(observed.keypoint_position)), centred(truth_mm[..., :2] / 1000.0)
    crop_units_a_metre = np.sum(image * world, axis=(1, 2)) / np.sum(world**2, axis=(1, 2))
    depth = (truth_mm[..., 2] - truth_mm[:, :1, 2]) / 1000.0
    random = np.random.default_rng(seed)
    depth = depth + random.normal(0.0, noise_m, depth.shape)
    depth += np.einsum(
        "pkc,pc->pk", world, noise_lib.TURN * random.normal(0.0, (observation.HEADING, 1.0), (len(depth), 2))
    )
    depth[:, 0] = 0.0
    return observation.with_depth(observed, depth * crop_units_a_metre[:, None], np.ones_like(depth))


def _show(calibration: dict, levels: dict[str, float]) -> None:
    print("noise levels, crop units: " + json.dumps({name: round(value, 4) for name, value in levels.items()}))
    for size, axes in calibration.items():
        rows = [[axis, *(f"{axes[axis][name]:.3g}" for name in _COLUMNS)] for axis in metrics.AXES]
        print(f"\n{size} (MPJPE {axes['mpjpe_mm']:.1f} mm)")
        print(metrics.text_table(["axis", *_COLUMNS], rows))


if __name__ == "__main__":
    cli.run(main)
