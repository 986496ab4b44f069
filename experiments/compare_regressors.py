"""Train regressors on the registered bodies of a run, one thing changed at a time, and score them: rows of JSON.

    python -m experiments.compare_regressors --run=runs/demo --workdir=runs/regressors --out=benchmarks/learning.json

The run gives configuration, people, registered bodies and lifted depths (its last checkpoint). Every variant trains a
regressor from nothing; at one seed all have the same first weights, order of people and number of steps. The test
people are scored once, at the end. Finished variants are kept in --workdir; killed, the same command goes on.

Variants: `base`, as the run; `augmented`, and `geometry`, `colours`, `occlusion`, parts of it; `unaltered`, pictures as
they are; `rotations_6d` and `iterated` (HMR's, three times), other heads; `average`, of the weights; `constant_rate`;
`weighted_*`, bad fits teach less (`uncertainty.posterior`); `bad_fits*`, a share of the people (--bad_fits) have
another's body, without weights and with both kinds.

Rows, by `what`:
  variant  one variant and seed: errors of the test people (mm; by Human3.6M's protocol 1, and of key points in px),
           `train_joint_to_fit_mm` of the last epoch, as augmented and weighted; `bad_weight_share`: of all weight, what
           bad fits have; `seconds` of training, the first of a configuration with its compilation.
  summary  medians over the seeds, and of the differences to `base`, seed by seed.
"""

import functools
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
from absl import flags

from benchmarks import measure, registered_runs, regressors, results
from benchmarks.registered_runs import Registered
from benchmarks.regressors import Comparison, Lesson
from dal_jax.regressor.training import TrainingSet
from dal_jax.runtime import cli, files
from dal_jax.runtime.errors import InputError

_RUN = flags.DEFINE_string("run", None, "Folder of a deform_and_learn run, or the checkpoints/ in it.", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the finished variants, which are kept.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of the run's data set; default: 'data' beside --run.")
_VARIANTS = flags.DEFINE_list("variants", [], f"Of {', '.join(regressors.VARIANTS)}. Left out: all.")
_SEEDS = flags.DEFINE_integer("seeds", 2, "regressors of each variant.", lower_bound=1)
_EPOCHS = flags.DEFINE_integer("epochs", None, "Of training; default: the run's own, of one round.", lower_bound=1)
_BAD_FITS = flags.DEFINE_float("bad_fits", 0.2, "Share of bad fits in variants of that name.", 1e-6, 1.0)
_OUT = flags.DEFINE_string("out", None, "Write the rows here too, as one JSON list.")
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Replace the file of --out, and variants in --workdir that were made of something else."
)


def main(_: list[str]) -> None:
    """Load, train, score, print."""
    if _OUT.value and pathlib.Path(_OUT.value).exists() and not _OVERWRITE.value:
        raise InputError(f"--out={_OUT.value} exists; --overwrite replaces it")
    names = regressors.chosen(_VARIANTS.value)
    run = registered_runs.load(_RUN.value, _DATA_DIR.value)
    printed = []
    for row in _rows(names, run):
        printed.append({key: _plain(value) for key, value in row.items()})
        print(json.dumps(printed[-1], allow_nan=False), flush=True)
    if _OUT.value:
        files.write_json(_OUT.value, printed)


def _rows(names: list[str], run: Registered) -> Iterator[dict[str, Any]]:
    people = (run.judge.run.people.observations, run.fits, run.judge.test.observations)
    made_of = {"checkpoint": run.step, "people": results.digest(people)}
    where = measure.machine(jax.devices()[:1]) | {"people": len(run.fits.camera_scale), "checkpoint": run.step}
    comparison, base = _comparison(names, run), None
    for name in names:
        rows = []
        for seed in range(_SEEDS.value):
            path = pathlib.Path(_WORKDIR.value) / f"{name}-{seed}.json"
            make = functools.partial(_row, comparison, name, seed, where)
            rows.append(results.kept(path, made_of | comparison.made_of(name, seed), make, _OVERWRITE.value))
            yield {"what": "variant"} | rows[-1]
        base = rows if name == "base" else base
        yield {"what": "summary"} | regressors.summary(name, rows, base) | where


def _row(comparison: Comparison, name: str, seed: int, where: dict[str, Any]) -> dict[str, Any]:
    return comparison.row(name, seed) | where


def _comparison(names: list[str], run: Registered) -> Comparison:
    config, people = run.judge.run.config, run.judge.run.people
    lesson = Lesson(
        config=config.regressor,
        people=TrainingSet(run.judge.run.template, people.images, run.observations, run.fits),
        sample_weight=config.sample_weight,
        objective=run.objective,
    )
    spoiled = any(regressors.VARIANTS[name].bad_fits for name in names)
    epochs = _EPOCHS.value or config.regressor.epochs
    return Comparison(lesson, epochs, _BAD_FITS.value if spoiled else 0.0, run.score)


def _plain(value: object) -> object:
    """Return six digits of a number."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


if __name__ == "__main__":
    cli.run(main, "finished variants are kept in --workdir; the same command goes on")
