"""Runs of the loop side by side: errors of the test people by joint, action, heading, distance and visibility.

    python -m experiments.report --runs=runs/demo,runs/control --out=runs/compared

Reads each run's last checkpoint and predicts its test people again, in seconds. All runs must have the same ones, with
3D truth. Prints the table and writes OUT/errors.json (rows, and every person's error), OUT/worst.png and
OUT/median.png: a row a person, with image, and overlay, front and side by each run.
"""

import io

from absl import flags
from PIL import Image

from dal_jax.evaluation import metrics
from dal_jax.runtime import cli, files, machine
from dal_jax.runtime.errors import InputError

try:
    from benchmarks import comparison
except ModuleNotFoundError as error:
    if error.name != "benchmarks":
        raise
    cli.fail("experiments.report needs a checkout: the folder benchmarks/ is not installed; run it from there")

_RUNS = flags.DEFINE_list("runs", None, "Folders of deform_and_learn runs.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of their data sets; default: 'data' beside each run.")
_PEOPLE = flags.DEFINE_integer("people", 6, "People in each picture.", 1, 100)
_OUT = flags.DEFINE_string("out", None, "Folder for the report.", required=True)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the report in --out.")

_NAMES = ("errors.json", "worst.png", "median.png")


def main(_: list[str]) -> None:
    """Score, print, draw."""
    if len(set(_RUNS.value)) < len(_RUNS.value):
        raise InputError(f"--runs={','.join(_RUNS.value)}: different folders")
    files.refuse_taken(_OUT.value, _NAMES, _OVERWRITE.value)
    with machine.compiling("report", "half a minute"):
        runs = [comparison.score(path, _DATA_DIR.value) for path in _RUNS.value]
    comparison.check_same_people(runs)
    rows, names = comparison.table(runs), [run.name for run in runs]
    print("MPJPE in mm (17 joints, pelvis aligned, bone-sum scaled) of the test people")
    print(
        metrics.text_table(["by", "", "people", *names], [[kind, name, n, *errors] for kind, name, n, errors in rows])
    )
    cases = comparison.cases(runs, _PEOPLE.value)
    stages = [comparison.stage_of(run.name, run.people, run.bodies) for run in runs]
    for kind, chosen in cases.items():
        buffer = io.BytesIO()
        Image.fromarray(comparison.picture(stages, chosen, runs[0].judge.run.template)).save(buffer, format="png")
        files.write_bytes(f"{_OUT.value}/{kind}.png", buffer.getvalue())
    written = {
        "runs": list(_RUNS.value),
        "rows": [
            {"by": kind, "name": name, "people": n, "mpjpe_mm": dict(zip(names, errors, strict=True))}
            for kind, name, n, errors in rows
        ],
        "people": [
            {"name": str(name)} | {run.name: round(float(run.errors_mm[row].mean()), 2) for run in runs}
            for row, name in enumerate(runs[0].people.names)
        ],
    }
    files.write_json(f"{_OUT.value}/errors.json", written)
    for kind, chosen in cases.items():
        print(f"{kind}: {', '.join(str(runs[0].people.names[row]) for row in chosen)}")


if __name__ == "__main__":
    cli.run(main)
