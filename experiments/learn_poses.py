"""Learn a pose prior from 2D annotation: the mean and the covariance of every joint's rotation.

  python -m experiments.learn_poses --out=dal_jax/registration/assets/poses.npz

What `experiments.register --weights=pose_prior` pulls joints to, and what --weights=estimated starts from before it has
seen many people. They are synthetic ones of the training subjects, at any azimuth: 120 dense points and visible key
points each, no depth. They are fitted from the T-pose, give or take 30 degrees; then fits and poses alternate. No 3D
truth is read. About a minute.
"""

import dataclasses
import pathlib

import numpy as np
from absl import flags

from benchmarks import problems
from benchmarks.problems import PeopleConfig
from dal_jax.body import skeleton
from dal_jax.body.formats import load
from dal_jax.evaluation import metrics
from dal_jax.registration import priors
from dal_jax.registration.priors import PosePrior
from dal_jax.registration.register import RegistrationConfig
from dal_jax.runtime import cli, files, progress
from dal_jax.runtime.errors import InputError
from dal_jax.uncertainty.noise import alternate, initial

_DATA_DIR = flags.DEFINE_string("data_dir", "runs/data", "Where the people are kept.")
_PEOPLE = flags.DEFINE_integer("people", 512, "How many of them.", 1)
_ROUNDS = flags.DEFINE_integer("rounds", 8, "How often fits and poses alternate.", 1)
_OUT = flags.DEFINE_string("out", None, "The file to write, .npz.", required=True)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the file of --out.")

_POINTS, _SEED = 120, 11


def main(_: list[str]) -> None:
    """Make people, fit, learn, write, print."""
    if pathlib.Path(_OUT.value).exists() and not _OVERWRITE.value:
        raise InputError(f"--out={_OUT.value} exists; --overwrite replaces it")
    config = PeopleConfig(
        people=_PEOPLE.value, points=_POINTS, split="train", seed=_SEED, heading_spread_deg=180.0, grid_px=128,
        keypoint_noise=0.007, depth_noise_m=0.0,
    )  # fmt: skip
    observed = problems.load(config, _DATA_DIR.value).observations
    observed = dataclasses.replace(observed, depth_confidence=np.zeros_like(observed.depth_confidence))
    template = load.load_body()
    registration = RegistrationConfig("lm", 20, starts="headings4")
    broad = initial(priors.broad())
    with progress.bar("fits", total=_PEOPLE.value * (_ROUNDS.value + 1), unit="fit") as bar:
        _fit, noise = alternate(
            template, observed, registration, _ROUNDS.value, progress=lambda done: bar.update(done - bar.n), prior=broad
        )
    prior = noise.pose_prior
    files.savez(_OUT.value, mean=np.asarray(prior.mean), covariance=np.asarray(prior.covariance))
    _show(prior)


def _show(prior: PosePrior) -> None:
    mean = np.degrees(prior.mean)
    spread = np.degrees(np.sqrt(np.diagonal(prior.covariance, axis1=1, axis2=2)))
    rows = [
        [name, *(f"{value:.0f}" for value in (*mean[k], *spread[k]))]
        for k, name in enumerate(skeleton.SMPL_JOINT_NAMES[1:])
    ]
    axes = [f"{what} {axis}" for what in ("mean", "sd") for axis in "xyz"]
    print(metrics.text_table(["joint, degrees", *axes], rows))


if __name__ == "__main__":
    cli.run(main)
