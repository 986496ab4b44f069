r"""Run what the paper's table, figures and claims need, and print them with their spread over seeds.

    python -m experiments.reproduce --table=1 --workdir=runs/reproduce --out=table_1.json
    python -m experiments.reproduce --figure=1 --workdir=runs/reproduce --out=figure_1.json
    python -m experiments.reproduce --figure=1 --data=iuv_folder --source=DIR --chart=UV_Processed.mat \
        --workdir=runs/reproduce --out=photographs.json
    python -m experiments.reproduce --figure=2 --workdir=runs/reproduce --out=figure_2.json
    python -m experiments.reproduce --section=6.3 --workdir=runs/reproduce --out=section_6_3.json
    python -m experiments.reproduce --ablation=recipe --seeds=0 --workdir=runs/reproduce --out=recipe.json

Each needs some cells, a variant and a seed each (`benchmarks/recipes.py` lists them); a cell is a run of the loop in a
folder of its own in --workdir. Cells that are done are not run again, also by another table that needs them; killed,
the same command goes on. --size=small takes about five minutes and 100 MB a cell on two quiet cores, --size=demo a
quarter of an hour and 250 MB, --size=tiny half a minute and shows only that all works.

Rows of --out, by `what`: `cell`, with history, seconds, machine and commit; `summary`, over the seeds; `claim`, which
holds where the worst seed of one side keeps it against the best of the other. Figures write pictures beside it.
--figure=1 is of the first test people, none is chosen: image and annotation, then overlay, front and side, before and
after refinement; `refined` has the mean errors of all, where there is truth. --data, --source and --chart, as
experiments.deform_and_learn has them, show people in photographs instead.
"""

import dataclasses
import json
import pathlib
import time
from typing import Any

import jax
from absl import flags

from dal_jax.evaluation import metrics
from dal_jax.loop import prediction, run
from dal_jax.observations import photographs
from dal_jax.regressor import model
from dal_jax.runtime import cli, files, machine
from dal_jax.runtime.errors import InputError
from dal_jax.viewing import plots

try:
    from benchmarks import comparison, measure, recipes, registered_runs, results
    from benchmarks.recipes import Recipe
    from benchmarks.results import Row
except ModuleNotFoundError as error:
    if error.name != "benchmarks":
        raise
    cli.fail("experiments.reproduce needs a checkout: the folder benchmarks/ is not installed; run it from there")

_ABLATIONS = [name.removeprefix("ablation ") for name in recipes.RECIPES if name.startswith("ablation ")]
_TABLE = flags.DEFINE_enum("table", None, ["1"], "The paper's table.")
_FIGURE = flags.DEFINE_enum("figure", None, ["1", "2"], "The paper's figure.")
_SECTION = flags.DEFINE_enum("section", None, ["6.3"], "The paper's section.")
_ABLATION = flags.DEFINE_enum("ablation", None, _ABLATIONS, "What is changed, one thing at a time.")
_SIZE = flags.DEFINE_enum("size", "small", list(recipes.SIZES), "People and networks of every cell.")
_VARIANTS = flags.DEFINE_list("variants", [], "Only these; claims about others are left out. Left out: all.")
_SCORED = flags.DEFINE_enum(
    "scored", "test", ["test", "validation"], "validation: a training subject is held out and scored, for choices."
)
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "One run of every variant for each.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the runs; those that are there are kept.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder where people are kept once rendered; default: WORKDIR/data.")
_DATA = flags.DEFINE_string("data", None, "--figure=1: a data set made from files, whose people are shown instead.")
_SOURCE = flags.DEFINE_string("source", "", "Its folder.")
_CHART = flags.DEFINE_string("chart", "", "Its chart, DensePose's UV_Processed.mat.")
_OUT = flags.DEFINE_string("out", None, "Write the rows here, as one JSON list.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the file of --out.")


def main(_: list[str]) -> None:
    """Say what there is to do, do it, print."""
    results.check_out(_OUT.value, _OVERWRITE.value)
    name, seeds = _asked(), results.seeds(_SEEDS.value)
    recipe = _restricted(recipes.RECIPES[name])
    if (_DATA.value or _SOURCE.value or _CHART.value) and name != "figure 1":
        raise InputError("--data, --source and --chart go with --figure=1")
    if _DATA.value and not _SOURCE.value:
        raise InputError(f"--data={_DATA.value} needs --source, the folder of its files")
    _announce(name, recipe, seeds)
    where = measure.machine(jax.devices()[:1]) | {"commit": measure.commit()}
    planned = [(variant, seed) for seed in seeds for variant in recipe.variants]  # all of one seed say something
    cells: dict[str, list[Row]] = {variant: [] for variant in recipe.variants}
    for number, (variant, seed) in enumerate(planned, 1):
        if not _row_file(variant, seed).exists():
            print(f"cell {number} of {len(planned)}: {variant}, seed {seed}", flush=True)
        cells[variant].append(_six_digits(_cell(variant, seed, where)))  # as published: all else follows from that
    summaries = [recipes.summary(variant, cells[variant]) for variant in recipe.variants]
    claims = [recipes.judged(claim, cells) for claim in recipe.claims]
    _print(name, recipe, summaries, claims)
    if _OUT.value:
        rows = [{"what": "cell", **row} for of_variant in cells.values() for row in of_variant] + summaries + claims
        if name == "figure 1":
            rows += [_refined(variant, seeds[0], pathlib.Path(_OUT.value)) for variant in recipe.variants]
        if name == "figure 2":
            _draw(cells, pathlib.Path(_OUT.value))
        of = {"recipe": name, "size": _SIZE.value, "scored": _SCORED.value}
        files.write_json(_OUT.value, [of | _six_digits(row) for row in rows])


def _asked() -> str:
    """Return the name of the one recipe that the flags ask for."""
    asked = [f"{flag.name} {flag.value}" for flag in (_TABLE, _FIGURE, _SECTION, _ABLATION) if flag.value is not None]
    if len(asked) != 1:
        raise InputError("one of --table, --figure, --section and --ablation is needed")
    return asked[0]


def _restricted(recipe: Recipe) -> Recipe:
    """Return the recipe with the variants that are asked for alone, and the claims about them."""
    asked = _VARIANTS.value or recipe.variants
    for variant in asked:
        if variant not in recipe.variants:
            raise InputError(f"--variants={variant}: of {', '.join(recipe.variants)}")
    claims = [claim for claim in recipe.claims if claim.less[0] in asked and claim.more[0] in asked]
    return dataclasses.replace(recipe, variants=[one for one in recipe.variants if one in asked], claims=claims)


def _announce(name: str, recipe: Recipe, seeds: list[int]) -> None:
    files_of = [_row_file(variant, seed) for variant in recipe.variants for seed in seeds]
    done = [json.loads(path.read_text())["row"]["seconds"] for path in files_of if path.exists()]
    minutes = sum(done) / len(done) / 60 if done else recipes.SIZES[_SIZE.value].minutes
    left = len(files_of) - len(done)
    print(f"{name}: {recipe.about}\n{', '.join(recipe.variants)}; seeds {', '.join(map(str, seeds))}")
    print(
        f"{len(files_of)} cells of size {_SIZE.value}, {len(done)} done; the others take about {left * minutes:.0f} "
        f"minutes, {minutes:.1f} each",
        flush=True,
    )


def _row_file(variant: str, seed: int) -> pathlib.Path:
    return pathlib.Path(_WORKDIR.value) / f"{recipes.cell_name(variant, _SIZE.value, seed, _SCORED.value)}.json"


def _cell(variant: str, seed: int, where: dict[str, Any]) -> Row:
    """Return a cell's row: run the loop, unless that is done."""
    config, kept = recipes.config_of(variant, _SIZE.value, seed, _SCORED.value), _row_file(variant, seed)
    folder = kept.with_suffix("")

    def make() -> Row:
        anew, began = not folder.exists(), time.process_time()
        with machine.compiling("reproduce", "two minutes over the first round"):
            done = run.deform_and_learn(config, folder, _DATA_DIR.value or pathlib.Path(_WORKDIR.value) / "data")
        cpu_s = round(time.process_time() - began, 1) if anew else None  # of an interrupted run a part is not known
        seconds = round(sum(entry["seconds"] for entry in done.history), 1)
        of = {"variant": variant, "seed": seed, "seconds": seconds, "cpu_s": cpu_s}
        return of | {"history": done.history} | done.scores | where

    return results.kept(kept, {"variant": variant, "seed": seed, "size": _SIZE.value}, make)


def _print(name: str, recipe: Recipe, summaries: list[Row], claims: list[Row]) -> None:
    heads = ["variant", "registration, first", "last", "test, first", "last", "PA, last", "lifter, test"]
    test, pa = recipes.TEST, recipes.ALIGNED
    columns = [
        ("first_round", recipes.REGISTRATION), ("last_round", recipes.REGISTRATION), ("first_round", test),
        ("last_round", test), ("last_round", pa), ("last_round", recipes.LIFTER),
    ]  # fmt: skip
    rows = [[row["variant"], *(_with_spread(row[which][field]) for which, field in columns)] for row in summaries]
    print(f"\n{name}, MPJPE in mm, mean and standard deviation over seeds")
    print(f"registration: of training people; test: of {_SCORED.value} people")
    print(metrics.text_table(heads, rows))
    if recipe.paper:
        print("the paper's own, on Human3.6M:")
        print(metrics.text_table(["method", "mm"], [[method, f"{mm:g}"] for method, mm in recipe.paper.items()]))
    for row in claims:
        verdict = {True: "holds", False: "does not hold", None: "one seed says nothing of spread"}[row["holds"]]
        print(f"{row['claim']}: {verdict}; mean {row['mean']:.2f}, worst {row['worst']:.2f}, asked {row['share']:.2f}")


def _with_spread(figure: dict[str, float | None]) -> str:
    mean, deviation = figure["mean"], figure["sd"]
    return metrics.cell_text(mean) + ("" if deviation is None else f" ± {deviation:.1f}")


def _draw(cells: dict[str, list[Row]], out: pathlib.Path) -> None:
    for variant, rows in cells.items():
        picture = plots.plot_history(*(row["history"] for row in rows))
        files.write_bytes(out.with_name(f"{out.stem}_{variant}.png"), picture)


def _refined(variant: str, seed: int, out: pathlib.Path) -> Row:
    """Predict people, refine their bodies, draw the first of them; return a row with mean errors."""
    folder = _row_file(variant, seed).with_suffix("")
    data_dir = _DATA_DIR.value or pathlib.Path(_WORKDIR.value) / "data"
    run_of, trained = registered_runs.load(folder, data_dir), prediction.load(folder)
    judge = run_of.judge
    people, config = judge.test, judge.run.config
    if _DATA.value:
        config = dataclasses.replace(config, data=_DATA.value, source=_SOURCE.value, chart=_CHART.value)
        _, people = run.load(config, data_dir)
    before = model.predict(trained.config, trained.learned, people.images)
    after = run_of.refine(before, people)
    stages = [comparison.stage_of(name, people, bodies) for name, bodies in (("before", before), ("after", after))]
    shown = range(min(_SHOWN, len(people.names)))
    picture = comparison.picture(stages, shown, judge.run.template)
    files.write_bytes(out.with_name(f"{out.stem}_{variant}.png"), photographs.png(picture))
    errors = [judge.errors_mm(bodies, people, people.truth) for bodies in (before, after)]
    means = [None if error is None else float(error.mean()) for error in errors]
    text = ", ".join(metrics.cell_text(one) for one in means)
    print(f"{variant}, seed {seed}, {len(people.names)} people, before and after refinement, mm: {text}")
    of = {"what": "refined", "variant": variant, "seed": seed, "people": len(people.names), "data": config.data}
    return of | {"before_mpjpe_mm": means[0], "after_mpjpe_mm": means[1]}


_SHOWN = 8


def _six_digits(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _six_digits(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_six_digits(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


if __name__ == "__main__":
    cli.run(main, cli.GOES_ON)
