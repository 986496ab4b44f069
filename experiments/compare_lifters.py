"""Train lifters of each preset from several seeds on 2D poses of synthetic people, and score them: rows of JSON.

  python -m experiments.compare_lifters --workdir=runs/lifters --out=benchmarks/lifting.json
  python -m experiments.compare_lifters --workdir=runs/ladder --ladder=8000 --presets=best --seeds=3 --out=ladder.json

The second takes the steps that lead from Kudo et al.'s recipe to a preset's, one change a row, each trained for so many
steps, and scores them on other people of the training subjects' kind: by these choices are made.

Every lifter is trained to its last step (--steps_of changes a preset's number) by 2D alone; the same command resumes a
killed run. The test people, S9 and S11, are scored once, by Human3.6M's protocol 1. Rows, by `what`:
  no_depth      z = 0.
  true_joints   the truth itself: what the protocol's size of an average person costs.
  lifter        one preset and seed: errors of the test people, share of depths reversed front to back, share of joints
                within one and two of the predicted deviations, errors with a tenth of the joints missing, 3% of them
                swapped left with right, 2% moved by 60 to 200 px, or all of this (`detected`); `criterion`: what
                held-out 2D poses said.
  preset        median and worst over the seeds.
  selection     rank correlation of the 2D-only criterion with the true error, on people of the training subjects, over
                checkpoints of all lifters and over those of each preset.
  registration  the benchmark's people registered with no depth and with each preset's (first seed).
"""

import dataclasses
import math
import pathlib
from collections.abc import Iterator

import jax
import numpy as np
from absl import flags

from dal_jax.body.formats.load import load_body
from dal_jax.lifting.config import PRESETS, LiftingConfig
from dal_jax.runtime import cli
from dal_jax.runtime.errors import InputError

try:
    from benchmarks import lifters, measure, pose_sets, results
    from benchmarks.lifters import Score
    from benchmarks.pose_sets import PoseSet
    from benchmarks.problems import load, read_config
except ModuleNotFoundError as error:
    if error.name != "benchmarks":
        raise
    cli.fail("experiments.compare_lifters needs a checkout: the folder benchmarks/ is not installed; run it from there")

_PEOPLE = pathlib.Path(__file__).parents[1] / "benchmarks" / "people.json"

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the lifters; trained ones are kept.", required=True)
_PRESETS = flags.DEFINE_list("presets", ["kudo", "best"], f"Of {', '.join(PRESETS)}.")
_SEEDS = flags.DEFINE_integer("seeds", 5, "Lifters of each preset.", lower_bound=1)
_LADDER = flags.DEFINE_integer(
    "ladder", None, "Train so many steps on each change that leads from kudo to the preset, instead.", lower_bound=1
)
_STEPS = flags.DEFINE_list("steps_of", ["kudo=10000"], "Training steps of a preset, instead of its own.")
_POSES = flags.DEFINE_integer("poses", 20_000, "Training poses.", lower_bound=100)
_SCORED = flags.DEFINE_integer("scored_poses", 2000, "Test poses, and as many for choosing.", lower_bound=20)
_CONFIG = flags.DEFINE_string("people", str(_PEOPLE), "Config of the people that are registered.")
_DATA_DIR = flags.DEFINE_string("data_dir", "runs/data", "Folder where the people are kept once made.")
_REGISTRATION = flags.DEFINE_bool("registration", True, "Register with the depths, too.")
_OUT = flags.DEFINE_string("out", None, "Write the rows here too, as one JSON list.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the file of --out.")


def main(_: list[str]) -> None:
    """Train, score, print."""
    results.check_out(_OUT.value, _OVERWRITE.value)
    configs = _configs()
    counts = {"train": _POSES.value, "validation": _SCORED.value, "test": _SCORED.value}
    people = pose_sets.load(counts, _DATA_DIR.value)
    where = measure.machine(jax.devices()[:1]) | {"poses": _POSES.value}
    results.emit((row | where for row in _rows(configs, people)), _OUT.value)


def _configs() -> dict[str, LiftingConfig]:
    for name in _PRESETS.value:
        if name not in PRESETS:
            raise InputError(f"--presets={name}: of {', '.join(PRESETS)}")
    configs = {name: PRESETS[name]() for name in _PRESETS.value}
    for text in _STEPS.value:
        name, _, steps = text.partition("=")
        if name not in PRESETS or not steps.isdecimal() or int(steps) < 1:
            raise InputError(f"--steps_of={text}: a preset and a whole number above 0, as in kudo=10000")
        if name in configs:
            configs[name] = dataclasses.replace(configs[name], steps=int(steps))
    if _LADDER.value is None:
        return configs
    if len(configs) > 1:
        raise InputError(f"--ladder={_LADDER.value}: leads to one of --presets, not {','.join(configs)}")
    (goal,) = configs.values()
    return lifters.ladder(goal, _LADDER.value)


def _rows(configs: dict[str, LiftingConfig], people: dict[str, PoseSet]) -> Iterator[dict[str, object]]:
    score = Score(people["train"].joints_true_mm)
    scored = people["test" if _LADDER.value is None else "validation"]
    yield {"what": "no_depth", **score.no_depth(scored)}
    true = scored.joints_true_mm
    yield {"what": "true_joints", **score.errors(true, true)}
    histories, first = {}, {}
    for number, (preset, config) in enumerate(configs.items()):
        rows = []
        for seed in range(_SEEDS.value):
            folder = pathlib.Path(_WORKDIR.value) / f"{preset if _LADDER.value is None else number}-{seed}"
            lifter, history = lifters.train(folder, config, seed, people["train"], people["validation"], score)
            first.setdefault(preset, (config, lifter))
            histories.setdefault(preset, []).extend(history)
            rows.append(score.lifter(config, lifter, scored) | {"criterion": history[-1]["criterion"]})
            yield {"what": "lifter", "preset": preset, "seed": seed, "steps": config.steps, **rows[-1]}
        yield {"what": "preset", "preset": preset, "seeds": len(rows), "steps": config.steps, **_spread(rows)}
    yield from ({"what": "selection", **row} for row in lifters.selection(histories))
    if _REGISTRATION.value and _LADDER.value is None:
        problems = load(read_config(_CONFIG.value), _DATA_DIR.value).take(points=120)
        template = load_body()
        yield from ({"what": "registration", **row} for row in lifters.registration(template, problems, first))


def _spread(rows: list[dict[str, float]]) -> dict[str, float]:
    spread = {}
    for name in rows[0]:
        values = [row[name] for row in rows if row[name] is not None]
        if values and not any(math.isnan(value) for value in values):
            spread |= {f"{name}_median": float(np.median(values)), f"{name}_worst": float(np.max(values))}
    return spread


if __name__ == "__main__":
    cli.run(main, cli.GOES_ON)
