"""Measure registration, skinning, reading pictures, the lifter or the ConvNet: one JSON object a row on stdout.

  python -m experiments.benchmark --target=registration --optimizer=lm,adam --starts=tpose,closed_form,headings4
  python -m experiments.benchmark --optimizer=lm --batch=64,512 --devices=1,2 --points=120,480 --noreference
  python -m experiments.benchmark --rows=equal_energy,largest_batch,memory --out=rows.json
  python -m experiments.benchmark --target=body --batch=1,64,512
  python -m experiments.benchmark --target=chart --batch=16
  python -m experiments.benchmark --target=pipeline --batch=30
  python -m experiments.benchmark --target=lifting --preset=kudo,best --batch=1,64,4096
  python -m experiments.benchmark --target=regressor --width=16,64 --image_size=64 --batch=30

Rows of --target=registration:
  optimizers     each optimiser x start x batch x number of points x devices: compile time apart, fits a second (median
                 of the repeats), CPU seconds a fit, energies, MPJPE, failures, and the share of people within 1.5 x
                 best + 1 of the best energy known (the lowest of all rows and of `lm` from 32 headings x 50 steps).
  equal_energy   steps and cost of each optimiser to the median energy that Adam 0.1 has after 340 steps from the T-pose
                 and that `lm` has after 10 steps from the closed-form start.
  largest_batch  the most people at once that each optimiser manages within --memory_limit_gb and --time_limit_s.
  memory         peak memory of streaming each number of --stream_people through `lm`, in a process of its own.
  All of them for each of --weights: those of eq. 2 as experiments.register has them; estimated ones come from the
  residuals of the people, whose depths are then trusted by as much as their noise allows.
Rows of --target=lifting: training steps of each preset, then lifting each number of poses at once. Of
--target=regressor: the training step (mean of squares, Adam) and inference of our ResNet50 and of plain Linen's.
Rates are measured between repeats of a float32 matrix product on the same devices: fits_per_second_per_gflops compares
machines, and cpu_s_per_fit compares programs on a busy one. The people (benchmarks/people.json) are made the first
time, in about 15 seconds. Without flags: `lm` and `adam`, about a minute.
"""

import itertools
import json
import math
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import jax
import numpy as np
from absl import flags

from benchmarks import body, equal_energy, lifting, pictures, pipeline, registration, regressor, streaming
from benchmarks.equal_energy import Racer
from benchmarks.problems import Problems, load, read_config
from benchmarks.registration import Patience
from dal_jax.body.formats.load import load_body
from dal_jax.body.template import Template
from dal_jax.lifting.config import PRESETS
from dal_jax.registration import register, schedules
from dal_jax.registration.energy import Objective
from dal_jax.registration.register import RegistrationConfig
from dal_jax.registration.solvers import solve
from dal_jax.runtime import cli, files, progress
from dal_jax.runtime.errors import InputError
from dal_jax.uncertainty import noise as noise_lib

_ROWS = ("optimizers", "equal_energy", "largest_batch", "memory", "stream")
_PEOPLE = pathlib.Path(__file__).parents[1] / "benchmarks" / "people.json"

_TARGETS = ["registration", "body", "chart", "pipeline", "lifting", "regressor"]
_TARGET = flags.DEFINE_enum("target", "registration", _TARGETS, "What is measured.")
_WEIGHT_NAMES = (*schedules.WEIGHTS, "estimated")
_KINDS = flags.DEFINE_list("rows", ["optimizers"], f"Kinds of rows: {', '.join(_ROWS[:-1])}.")
_OPTIMIZERS = flags.DEFINE_string("optimizer", "lm,adam", "Optimisers, as --optimizer of experiments.register.")
_STARTS = flags.DEFINE_list("starts", ["closed_form"], "Of tpose, closed_form, headings4, headings8, headings32.")
_SCHEDULE = flags.DEFINE_enum(
    "schedule", "constant", list(schedules.SCHEDULES), "As --schedule of experiments.register."
)
_WRONG_SHARE = flags.DEFINE_list("wrong_share", ["0"], "Shares of points put where another one was marked.")
_BATCH = flags.DEFINE_list(
    "batch",
    None,
    "People at once. Left out: 64 (body: 1,64,512; chart: 16; pipeline: 30; lifting, to lift: 1,64,4096).",
)
_PRESETS = flags.DEFINE_list("preset", ["kudo", "best"], f"lifting: of {', '.join(PRESETS)}.")
_DEVICES = flags.DEFINE_list("devices", ["1"], "Numbers of devices; each has a process of its own. CPUs are split.")
_WIDTHS = flags.DEFINE_list(
    "width", ["16"], "regressor: channels of the first convolution; 64 is ResNet50 as published."
)
_IMAGE_SIZES = flags.DEFINE_list("image_size", ["64"], "regressor: side of the images, px.")
_POINTS = flags.DEFINE_list("points", ["120"], "Surface points a person, up to what the people have.")
_STEPS = flags.DEFINE_integer("steps", None, "Left out: 20; of first-order optimisers 300.", 1)
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 0.1, "Of first-order optimisers (paper: 0.1).", 1e-9)
_WEIGHTS = flags.DEFINE_list("weights", ["paper_stiff"], f"Of {', '.join(_WEIGHT_NAMES)}: as of experiments.register.")
_CONFIG = flags.DEFINE_string("people", str(_PEOPLE), "Config of the people.")
_DATA_DIR = flags.DEFINE_string("data_dir", "runs/data", "Folder where the people are kept once made.")
_LIMIT = flags.DEFINE_integer("limit", None, "Only so many of the people; pipeline: photographs (240).", 1)
_REFERENCE = flags.DEFINE_bool("reference", True, "Look for the best energy known (32 headings x 50 steps of lm).")
_SECONDS = flags.DEFINE_float("seconds", 3.0, "Repeat each measurement for about so long.", 0.0)
_PATIENCE = flags.DEFINE_float("patience_s", 8.0, "Score fewer people where one pass would take longer.", 0.0)
_MEMORY_LIMIT = flags.DEFINE_float("memory_limit_gb", 4.0, "largest_batch: of the compiled program.", 0.01)
_TIME_LIMIT = flags.DEFINE_float("time_limit_s", 20.0, "largest_batch: of all steps of one batch.", 0.01)
_STREAM = flags.DEFINE_list("stream_people", ["10000", "100000"], "memory: numbers of people.")
_TORCH_THREADS = flags.DEFINE_integer("torch_threads", 1, "body: threads of smplx, if it is installed.", 1)
_OUT = flags.DEFINE_string("out", None, "Write the rows here too, as one JSON list.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the file of --out.")

_TPOSE_RIVAL = ("adam", 0.1, 340)  # the paper's optimiser and rate, for as long as it still gains
_CLOSED_FORM_STEPS = 10
_MOST_STEPS = 2000
_RACE_PEOPLE = 64
_PHOTOGRAPHS = 240


def main(_: list[str]) -> None:
    """Check the flags, measure, print."""
    if _OUT.value and pathlib.Path(_OUT.value).exists() and not _OVERWRITE.value:
        raise InputError(f"--out={_OUT.value} exists; --overwrite replaces it")
    counts = _numbers("devices", _DEVICES.value)
    if len(counts) > 1:
        rows = _relay([[*_argv("devices", "out"), f"--devices={count}"] for count in counts])
    else:
        jax.config.update("jax_num_cpu_devices", counts[0])  # before the first use of a device
        if len(jax.devices()) < counts[0]:
            raise InputError(f"--devices={counts[0]}: there are {len(jax.devices())}")
        targets = {
            "body": _body_rows,
            "chart": _chart_rows,
            "pipeline": _pipeline_rows,
            "lifting": _lifting_rows,
            "regressor": _regressor_rows,
        }
        rows = targets[_TARGET.value]() if _TARGET.value in targets else _registration_rows(counts[0])
    printed = []
    for row in rows:
        printed.append(_plain(row))
        print(json.dumps(printed[-1], allow_nan=False), flush=True)
    if _OUT.value:
        files.write_json(_OUT.value, printed)


def _body_rows() -> Iterator[dict[str, object]]:
    template = load_body()
    if not body.has_smplx():
        print("smplx or torch is not installed: our rows only", file=sys.stderr)
    for batch in _numbers("batch", _BATCH.value or ["1", "64", "512"]):
        for row in body.rows(template, batch, _SECONDS.value, _TORCH_THREADS.value):
            yield {"what": "skinning", **row}


def _chart_rows() -> Iterator[dict[str, object]]:
    template = load_body()
    for batch in _numbers("batch", _BATCH.value or ["16"]):
        yield {"what": "iuv_pictures", **pictures.row(template, batch, _SECONDS.value)}


def _pipeline_rows() -> Iterator[dict[str, object]]:
    for batch in _numbers("batch", _BATCH.value or ["30"]):
        for row in pipeline.rows(batch, _LIMIT.value or _PHOTOGRAPHS, _SECONDS.value):
            yield {"what": "pipeline", **row}


def _lifting_rows() -> Iterator[dict[str, object]]:
    for preset in _PRESETS.value:
        if preset not in PRESETS:
            raise InputError(f"--preset={preset}: of {', '.join(PRESETS)}")
    batches = _numbers("batch", _BATCH.value or ["1", "64", "4096"])
    poses = lifting.people(load_body(), lifting.PEOPLE)
    for preset in _PRESETS.value:
        config = PRESETS[preset]()
        for row in lifting.rows(config, poses, batches, _STEPS.value or lifting.STEPS, _SECONDS.value):
            yield {"what": "lifting", **row}


def _regressor_rows() -> Iterator[dict[str, object]]:
    sizes = (_numbers("width", _WIDTHS.value), _numbers("image_size", _IMAGE_SIZES.value))
    for width, image_size, batch in itertools.product(*sizes, _numbers("batch", _BATCH.value or ["30"])):
        for row in regressor.rows(regressor.Case(width, image_size, batch), _SECONDS.value):
            yield {"what": "regressor", **row}


def _registration_rows(devices: int) -> Iterator[dict[str, object]]:
    """Refuse at once what could not be measured; then yield row after row."""
    for kind in _KINDS.value:
        if kind not in _ROWS:
            raise InputError(f"--rows={kind}: of {', '.join(_ROWS[:-1])}")
    for name in _WEIGHTS.value:
        if name not in _WEIGHT_NAMES:
            raise InputError(f"--weights={name}: of {', '.join(_WEIGHT_NAMES)}")
    cases = _cases(devices)
    config = read_config(_CONFIG.value)
    for points in {case.points for case in cases}:
        if points > config.points:
            raise InputError(f"--points={points}: {_CONFIG.value} has {config.points}")
    stream_people = _numbers("stream_people", _STREAM.value)
    problems = load(config, _DATA_DIR.value).take(_LIMIT.value)
    return _measured(cases, problems, stream_people)


def _measured(
    cases: list[registration.Case], people: Problems, stream_people: list[int]
) -> Iterator[dict[str, object]]:
    template = load_body()
    for name in _WEIGHTS.value:
        problems, objective = _weighed(name, template, people)
        for kind in _KINDS.value:
            if kind == "optimizers":
                rows = _optimizer_rows(cases, template, problems, objective)
            elif kind == "equal_energy":
                rows = _equal_energy_rows(cases, template, problems, objective)
            elif kind == "largest_batch":
                rows = _largest_batch_rows(cases, template, problems, objective)
            elif kind == "stream":
                rows = (streaming.run(cases[0], template, problems, objective, count) for count in stream_people)
            else:
                rows = _memory_rows(cases[0], stream_people, name)
            yield from ({"what": kind, "weights": name, **row} for row in rows)


def _weighed(name: str, template: Template, people: Problems) -> tuple[Problems, Objective]:
    """Return the objective of a name, and the people with their depths as much trusted as goes with them."""
    if name in schedules.WEIGHTS:
        return people, schedules.objective_by_name(name)
    config = RegistrationConfig("lm", registration.DAMPED_STEPS, starts="headings4")
    seen = people.take(points=int(_POINTS.value[0])).observations
    _, noise = noise_lib.alternate(template, seen, config)
    return people.replace(observations=noise_lib.reweighted(people.observations, noise)), noise_lib.objective(noise)


def _optimizer_rows(cases, template, problems, objective) -> Iterator[dict[str, object]]:
    """Yield when all are done: the best energy known is the best of them all."""
    patience = Patience(_SECONDS.value, _PATIENCE.value)
    best: dict[int, np.ndarray] = {}
    if _REFERENCE.value:
        for points in progress.bar("best energies", sorted({case.points for case in cases}), unit="reference"):
            best[points] = registration.best_known(template, problems.take(points=points).observations, objective)
    measured = []
    for case in progress.bar("optimizers", cases, unit="row"):
        found = registration.run(case, template, problems, objective, patience)
        if case.points in best:
            count = len(found.fit.energy)
            best[case.points][:count] = np.minimum(best[case.points][:count], registration.finite(found.fit.energy))
        measured.append((case, found))
    for case, found in measured:
        yield {**found.row, **registration.quality(found.fit, best.get(case.points), template, problems)}


def _equal_energy_rows(cases, template, problems, objective) -> Iterator[dict[str, object]]:
    observations = problems.take(_RACE_PEOPLE, cases[0].points).observations
    batch = cases[0].batch
    rival, rate, rival_steps = _TPOSE_RIVAL
    targets = {"tpose": (rival, rate, rival_steps), "closed_form": ("lm", rate, _CLOSED_FORM_STEPS)}
    for starts, (name, learning_rate, steps) in targets.items():
        leader = Racer(template, objective, name, learning_rate, starts)
        goal = float(np.median(equal_energy.course(leader, observations, batch).energies(steps)))
        for optimizer in progress.bar(f"equal energy from {starts}", _optimizers(), unit="optimiser"):
            racer = Racer(template, objective, optimizer, _LEARNING_RATE.value, starts)
            course = equal_energy.course(racer, observations, batch)
            needed, tried = equal_energy.steps_to(course, goal, _MOST_STEPS, _PATIENCE.value / 4)
            row = {
                "optimizer": optimizer,
                "learning_rate": _LEARNING_RATE.value,
                "starts": starts,
                "points": cases[0].points,
                "energy_target": goal,
                "target_set_by": f"{name} after {steps} steps",
                "steps": needed,
                "most_steps_tried": tried,
            }
            cost = {} if needed is None else equal_energy.cost_row(course, needed, _SECONDS.value)
            yield {**row, "energy_median": float(np.median(course.energies(tried))), **cost}


def _largest_batch_rows(cases, template, problems, objective) -> Iterator[dict[str, object]]:
    observations = problems.take(points=cases[0].points).observations
    for optimizer in progress.bar("largest batches", _optimizers(), unit="optimiser"):
        racer = Racer(template, objective, optimizer, _LEARNING_RATE.value, "closed_form")
        steps = _STEPS.value or registration.default_steps(optimizer)
        limits = (1e9 * _MEMORY_LIMIT.value, _TIME_LIMIT.value)
        found = equal_energy.largest_batch(racer, observations, steps, *limits)
        yield {"optimizer": optimizer, "starts": "closed_form", "points": cases[0].points, **found}


def _memory_rows(case: registration.Case, stream_people: list[int], weights: str) -> Iterator[dict[str, object]]:
    """Yield a row for each number of people, the peak beside that of the first."""
    dropped = ("rows", "stream_people", "out", "optimizer", "weights")
    flags_ = [*_argv(*dropped), "--rows=stream", f"--optimizer={case.optimizer}", f"--weights={weights}"]
    first = None
    rows = _relay([[*flags_, f"--stream_people={people}"] for people in [stream_people[0], *stream_people]])
    next(rows)  # compiles, which takes more memory than the fits do: the others find it in the cache
    for row in rows:
        first = first or row["peak_rss_mb"]
        yield {**row, "what": "memory", "peak_rss_over_first": row["peak_rss_mb"] / first}


# --- flags ---


def _cases(devices: int) -> list[registration.Case]:
    for starts in _STARTS.value:
        if starts not in register.STARTS or starts == "given":
            raise InputError(f"--starts={starts}: of {', '.join(register.STARTS[:-1])}")
    return [
        registration.Case(
            optimizer,
            _STEPS.value or registration.default_steps(optimizer),
            _LEARNING_RATE.value,
            starts,
            batch,
            devices,
            points,
            _SCHEDULE.value,
            share,
        )
        for optimizer in _optimizers()
        for starts in _STARTS.value
        for share in _shares()
        for points in _numbers("points", _POINTS.value)
        for batch in _numbers("batch", _BATCH.value or ["64"])
    ]


def _optimizers() -> list[str]:
    """Split at the commas that no bracket encloses: arguments have commas of their own."""
    names, depth = [""], 0
    for letter in _OPTIMIZERS.value:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            names.append("")
        else:
            names[-1] += letter
    for name in names:
        try:
            solve.check(name)
        except ValueError as error:
            raise InputError(f"--optimizer: {error}") from error
    return names


def _shares() -> list[float]:
    shares = []
    for text in _WRONG_SHARE.value:
        try:
            share = float(text)
        except ValueError:
            share = math.nan
        if not 0 <= share < 1:
            raise InputError(f"--wrong_share={text}: a number from 0 to 1, 1 excluded")
        shares.append(share)
    return shares


def _numbers(name: str, texts: list[str]) -> list[int]:
    if not texts or not all(text.isdecimal() and int(text) > 0 for text in texts):
        raise InputError(f"--{name}={','.join(texts)}: whole numbers above 0, as in --{name}=1,2")
    return [int(text) for text in texts]


def _argv(*without: str) -> list[str]:
    """Return the flags of this run except some, for a process that measures a part of it."""
    given = [flags.FLAGS[name] for name in _named() if flags.FLAGS[name].present and name not in without]
    return [flag.serialize() for flag in given]


def _named() -> list[str]:
    return [flag.name for flag in flags.FLAGS.get_flags_for_module(sys.modules[__name__])]


def _relay(runs: list[list[str]]) -> Iterator[dict[str, object]]:
    """Run this binary with each set of flags, one after the other, and yield the rows that it prints."""
    for run in runs:
        command = [sys.executable, "-m", "experiments.benchmark", *run]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            for line in child.stdout:
                yield json.loads(line)
        if child.returncode:
            sys.exit(child.returncode)  # the child has said why


def _plain(row: dict[str, object]) -> dict[str, object]:
    """Make strict JSON of a row: six digits, and null for what is not finite."""
    plain = {}
    for name, value in row.items():
        if isinstance(value, float | np.floating):
            value = float(f"{value:.6g}") if math.isfinite(value) else None
        plain[name] = value
    return plain


if __name__ == "__main__":
    cli.run(main)
