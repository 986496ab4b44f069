"""One regressor, two teachers: bodies of single views, or of all four cameras of a moment; scored on single test views.

    python -m benchmarks.teachers --data_dir=runs/data --out=benchmarks/teachers.json

The pictures are those of `--config.synthetic=views`: 4,000 moments of training subjects, each seen by four cameras, and
1,000 pictures of test subjects. All but `config.several_views` is the demo's, for one round of nine epochs; depths of
single views are the shipped lifter's, so that nothing is trained but the regressor. A row for each teacher and seed,
then the means. Some eight minutes a run on two quiet cores, and rendering once.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from benchmarks import measure, results
from dal_jax import algorithm
from dal_jax.algorithm import LoopState, Run, RunState
from dal_jax.body.formats.load import load_body
from dal_jax.config import Config, demo
from dal_jax.data.people import People
from dal_jax.lifting import folder
from dal_jax.lifting.training import Lifter
from dal_jax.loop import run as run_lib
from dal_jax.loop.judge import Judge
from dal_jax.runtime import cli, machine

_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder of data sets.", allow_override=True)
_OUT = flags.DEFINE_string("out", None, "JSON to write.", required=True, allow_override=True)
# allow_override: tests import several benchmarks into one process
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Of the runs.", allow_override=True)
_ROUNDS = flags.DEFINE_integer("rounds", 1, "Of each run.", lower_bound=1, allow_override=True)
_EPOCHS = flags.DEFINE_integer("epochs", 9, "Of each round; the demo's are 3.", lower_bound=1, allow_override=True)

TEACHERS = {"one view": False, "four views": True}


def main(_: list[str]) -> None:
    """Run the loop for every seed with either teacher."""
    machine.configure()
    config, seeds = demo(), results.seeds(_SEEDS.value)
    config.synthetic, config.rounds, config.regressor.epochs = "views", _ROUNDS.value, _EPOCHS.value
    train, test = run_lib.load(config, _DATA_DIR.value)
    config.lifting, lifter = folder.load(folder.SHIPPED)
    where = {"epochs": _EPOCHS.value} | measure.machine(jax.devices()[:1])
    results.emit(_rows(seeds, config, lifter, train, test, where), _OUT.value)


def _rows(seeds: list[int], config: Config, lifter: Lifter, train: People, test: People, where: dict[str, Any]):
    each: dict[str, list[results.Row]] = {name: [] for name in TEACHERS}
    for seed in seeds:
        for name, several in TEACHERS.items():
            changed = dataclasses.replace(config, seed=seed, several_views=several)
            each[name].append(taught(changed, lifter, train, test))
            yield {"what": "run", "teacher": name, "seed": seed, **each[name][-1], **where}
    for name, rows in each.items():
        means = {score: float(np.mean([row[score] for row in rows])) for score in rows[0] if score != "rounds"}
        yield {"what": "mean", "teacher": name, "seeds": len(rows), **means}


def taught(config: Config, lifter: Lifter, train: People, test: People) -> results.Row:
    """Return a run's scores after its last round, and the test error of each; the lifter is given."""
    run = Run(config, load_body(), dataclasses.replace(train, truth=None))
    judge = Judge(run, train.truth, test)

    def scores(_: int, state: LoopState) -> dict[str, float | None]:
        registered = judge.errors_mm(state.fits, run.people, train.truth)
        assert registered is not None
        of_test = judge.test_scores(judge.predict_test(state))
        return {
            "registration_train_mpjpe_mm": float(registered.mean()),
            **{f"regressor_test_{name}": score for name, score in of_test.items()},
        }

    history = rounds_of(run, lifter, scores)
    rounds = [round(entry["regressor_test_mpjpe_mm"], 2) for entry in history]
    last = {name: score for name, score in history[-1].items() if name not in ("round", "seconds")}
    return {**last, "rounds": rounds}


@dataclasses.dataclass(frozen=True)
class _Given:
    lifter: Lifter


def rounds_of(run: Run, lifter: Lifter, judge: algorithm.Judge) -> Sequence[dict[str, Any]]:
    """Return the history of a run whose lifter is given, not trained; nothing is kept on disk."""
    given: Any = _Given(lifter)
    state = dataclasses.replace(algorithm.initial_state(run), lifting=given)
    nothing = lambda *_: None  # noqa: E731
    _, position = algorithm.run_rounds(run, state, RunState(phase="deform"), nothing, nothing, judge)
    return position.history


if __name__ == "__main__":
    cli.run(main)
