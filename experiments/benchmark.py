"""Measure registration, skinning, image reading, the lifter or the regressor: one JSON object a row on stdout.

  python -m experiments.benchmark --target=registration --optimizer=lm,adam --starts=tpose,closed_form,headings4
  python -m experiments.benchmark --optimizer=lm --batch=64,512 --devices=1,2 --points=120,480 --noreference
  python -m experiments.benchmark --rows=equal_energy,largest_batch,memory --out=rows.json
  python -m experiments.benchmark --target=body --batch=1,64,512
  python -m experiments.benchmark --target=pipeline --batch=30
  python -m experiments.benchmark --target=lifting --preset=kudo,best --batch=1,64,4096
  python -m experiments.benchmark --target=regressor --width=16,64 --image_size=64 --batch=30

Rows of --target=registration:
  optimizers     each optimiser x start x batch x number of points x devices: compile time apart, fits a second (median
                 of the repeats), CPU seconds a fit, energies, MPJPE, failures, and the share of people within 1.5 x
                 best + 1 of the best energy known (the lowest of all rows and of `lm` from 32 headings x 50 steps).
  equal_energy   steps and cost of each optimiser to the median energy that Adam 0.1 has after 340 steps from the T-pose
                 and that `lm` has after 10 steps from the closed-form start.
  largest_batch  the most people at once that each optimiser fits within --memory_limit_gb and --time_limit_s.
  memory         peak memory of streaming each number of --stream_people through `lm`, in a process of its own.
  All of them for each of --weights: those of eq. 2 as experiments.register has them; estimated ones come from the
  residuals of the people, whose depths are then weighted by their estimated noise.
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
from absl import flags

from dal_jax.body.formats.load import load_body
from dal_jax.lifting.config import PRESETS
from dal_jax.registration import schedules, starts as starts_lib
from dal_jax.runtime import cli
from dal_jax.runtime.errors import InputError

try:
    import benchmarks
    from benchmarks import body, lifting, pipeline, registration_rows, regressor, results
    from benchmarks.problems import load, read_config
    from benchmarks.registration import Case, Patience, default_steps
    from benchmarks.results import Row
except ModuleNotFoundError as error:
    if error.name != "benchmarks":
        raise
    cli.fail("experiments.benchmark needs a checkout: the folder benchmarks/ is not installed; run it from there")

_KINDS = ("optimizers", "equal_energy", "largest_batch", "memory", "stream")
_PEOPLE = pathlib.Path(benchmarks.__path__[0]) / "people.json"

_TARGETS = ["registration", "body", "pipeline", "lifting", "regressor"]
_TARGET = flags.DEFINE_enum("target", "registration", _TARGETS, "What is measured.")
_ROWS = flags.DEFINE_list("rows", ["optimizers"], f"Kinds of rows: {', '.join(_KINDS[:-1])}.")
_OPTIMIZERS = flags.DEFINE_string("optimizer", "lm,adam", "Optimisers, as --optimizer of experiments.register.")
_STARTS = flags.DEFINE_list("starts", ["closed_form"], "Of tpose, closed_form, headings4, headings8, headings32.")
_SCHEDULE = flags.DEFINE_enum("schedule", "constant", list(schedules.SCHEDULES), "As experiments.register's.")
_WRONG_SHARE = flags.DEFINE_list("wrong_share", ["0"], "Shares of points put where another one was marked.")
_BATCH = flags.DEFINE_list(
    "batch",
    None,
    "People at once. Left out: 64 (body: 1,64,512; pipeline, regressor: 30; lifting: 1,64,4096).",
)
_PRESETS = flags.DEFINE_list("preset", ["kudo", "best"], f"lifting: of {', '.join(PRESETS)}.")
_DEVICES = flags.DEFINE_list("devices", ["1"], "Numbers of devices; each has a process of its own. CPUs are split.")
_WIDTHS = flags.DEFINE_list("width", ["16"], "regressor: channels of the first convolution (64: as published).")
_IMAGE_SIZES = flags.DEFINE_list("image_size", ["64"], "regressor: side of the images, px.")
_POINTS = flags.DEFINE_list("points", ["120"], "Surface points a person, up to what the people have.")
_STEPS = flags.DEFINE_integer("steps", None, "Left out: 20; of first-order optimisers 300.", 1)
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 0.1, "Of first-order optimisers (paper: 0.1).", 1e-9)
_WEIGHTS = flags.DEFINE_list("weights", ["paper_stiff"], f"Of eq. 2: {', '.join(registration_rows.WEIGHTS)}.")
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

_PHOTOGRAPHS = 240


def main(_: list[str]) -> None:
    """Check the flags, measure, print."""
    results.check_out(_OUT.value, _OVERWRITE.value)
    counts = _numbers("devices", _DEVICES.value)
    if len(counts) > 1:
        rows = _relay([[*_argv("devices", "out"), f"--devices={count}"] for count in counts])
    else:
        jax.config.update("jax_num_cpu_devices", counts[0])  # before the first use of a device
        if len(jax.devices()) < counts[0]:
            raise InputError(f"--devices={counts[0]}: there are {len(jax.devices())}")
        rows = _registration_rows(counts[0]) if _TARGET.value == "registration" else _other_rows(_TARGET.value)
    results.emit(rows, _OUT.value)


def _other_rows(target: str) -> Iterator[Row]:
    defaults = {"body": ["1", "64", "512"], "pipeline": ["30"], "lifting": ["1", "64", "4096"], "regressor": ["30"]}
    batches, seconds = _numbers("batch", _BATCH.value or defaults[target]), _SECONDS.value
    if target == "body":
        if not body.has_smplx():
            print("smplx or torch is not installed: our rows only", file=sys.stderr)
        template = load_body()
        rows = (row for batch in batches for row in body.rows(template, batch, seconds, _TORCH_THREADS.value))
    elif target == "pipeline":
        photographs = _LIMIT.value or _PHOTOGRAPHS
        rows = (row for batch in batches for row in pipeline.rows(batch, photographs, seconds))
    elif target == "lifting":
        for preset in _PRESETS.value:
            if preset not in PRESETS:
                raise InputError(f"--preset={preset}: of {', '.join(PRESETS)}")
        poses, steps = lifting.people(load_body(), lifting.PEOPLE), _STEPS.value or lifting.STEPS
        configs = [PRESETS[preset]() for preset in _PRESETS.value]
        rows = (row for config in configs for row in lifting.rows(config, poses, batches, steps, seconds))
    else:
        sizes = _numbers("width", _WIDTHS.value), _numbers("image_size", _IMAGE_SIZES.value), batches
        cases = [regressor.Case(*each) for each in itertools.product(*sizes)]
        rows = (row for case in cases for row in regressor.rows(case, seconds))
    return ({"what": "skinning" if target == "body" else target, **row} for row in rows)


def _registration_rows(devices: int) -> Iterator[Row]:
    """Refuse at once what cannot be measured; then yield row after row."""
    for kind in _ROWS.value:
        if kind not in _KINDS:
            raise InputError(f"--rows={kind}: of {', '.join(_KINDS[:-1])}")
    for name in _WEIGHTS.value:
        if name not in registration_rows.WEIGHTS:
            raise InputError(f"--weights={name}: of {', '.join(registration_rows.WEIGHTS)}")
    try:
        optimizers = registration_rows.split_optimizers(_OPTIMIZERS.value)
    except ValueError as error:
        raise InputError(f"--optimizer: {error}") from error
    options = registration_rows.Options(
        cases=_cases(optimizers, devices),
        optimizers=optimizers,
        learning_rate=_LEARNING_RATE.value,
        steps=_STEPS.value,
        reference=_REFERENCE.value,
        patience=Patience(_SECONDS.value, _PATIENCE.value),
        memory_limit_gb=_MEMORY_LIMIT.value,
        time_limit_s=_TIME_LIMIT.value,
        stream_people=_numbers("stream_people", _STREAM.value),
    )
    config = read_config(_CONFIG.value)
    for points in {case.points for case in options.cases}:
        if points > config.points:
            raise InputError(f"--points={points}: {_CONFIG.value} has {config.points}")
    people = load(config, _DATA_DIR.value).take(_LIMIT.value)
    template = load_body()

    def rows() -> Iterator[Row]:
        for name in _WEIGHTS.value:
            problems, objective = registration_rows.weighted(name, options.cases[0].points, template, people)
            for kind in _ROWS.value:
                if kind == "memory":
                    made = _memory_rows(options.cases[0].optimizer, options.stream_people, name)
                else:
                    made = registration_rows.rows(kind, options, template, problems, objective)
                yield from ({"what": kind, "weights": name, **row} for row in made)

    return rows()


def _memory_rows(optimizer: str, stream_people: list[int], weights: str) -> Iterator[Row]:
    """Yield a row for each number of people, measured in a process of its own, the peak beside that of the first."""
    dropped = ("rows", "stream_people", "out", "optimizer", "weights")
    given = [*_argv(*dropped), "--rows=stream", f"--optimizer={optimizer}", f"--weights={weights}"]
    first = None
    rows = _relay([[*given, f"--stream_people={people}"] for people in [stream_people[0], *stream_people]])
    next(rows)  # compiles, which takes more memory than the fits do: the others find it in the cache
    for row in rows:
        first = first or row["peak_rss_mb"]
        yield {**row, "what": "memory", "peak_rss_over_first": row["peak_rss_mb"] / first}


def _cases(optimizers: list[str], devices: int) -> list[Case]:
    for starts in _STARTS.value:
        if starts not in starts_lib.STARTS or starts == "given":
            raise InputError(f"--starts={starts}: of {', '.join(starts_lib.STARTS[:-1])}")
    sizes = _numbers("points", _POINTS.value), _numbers("batch", _BATCH.value or ["64"])
    table = itertools.product(optimizers, _STARTS.value, _shares(), *sizes)
    return [
        Case(
            optimizer=optimizer,
            steps=_STEPS.value or default_steps(optimizer),
            learning_rate=_LEARNING_RATE.value,
            starts=starts,
            batch=batch,
            devices=devices,
            points=count,
            schedule=_SCHEDULE.value,
            wrong_share=share,
        )
        for optimizer, starts, share, count, batch in table
    ]


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
    own = flags.FLAGS.get_flags_for_module(sys.modules[__name__])
    given = [flag for flag in own if flag.present and flag.name not in without]
    return [flag.serialize() for flag in given]


def _relay(runs: list[list[str]]) -> Iterator[Row]:
    """Run this binary with each set of flags, one after the other, and yield the rows that it prints."""
    for run in runs:
        command = [sys.executable, "-m", "experiments.benchmark", *run]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            for line in child.stdout or ():
                yield json.loads(line)
        if child.returncode:
            sys.exit(child.returncode)  # the child has said why


if __name__ == "__main__":
    cli.run(main)
