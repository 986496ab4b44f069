"""How the loop's phases scale: over devices and processes, over people, and what a checkpoint costs.

    python -m benchmarks.scale --rows=layouts,open,checkpoint --out=benchmarks/scale.json

Every row is measured in a process (or processes) of its own, one after the other.
"""

import dataclasses
import functools
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import jax
import numpy as np
from absl import flags

from benchmarks import measure, results
from benchmarks.results import Row
from dal_jax import algorithm
from dal_jax.algorithm import Run, RunState
from dal_jax.body import kinematics
from dal_jax.body.formats.load import load_body
from dal_jax.config import Config, demo
from dal_jax.data.people import COLUMNS, People, load_people
from dal_jax.data.schema import DatasetBuilder
from dal_jax.loop.folder import RunFolder
from dal_jax.registration import register
from dal_jax.registration.register import RegistrationConfig
from dal_jax.regressor import training
from dal_jax.runtime import cli, mesh
from dal_jax.runtime.errors import InputError
from dal_jax.synthetic import people as synthetic_people

_ROWS = flags.DEFINE_list("rows", ["layouts", "open", "checkpoint"], "What to measure.", allow_override=True)
_LAYOUTS = flags.DEFINE_list(
    "layouts", ["1x1", "2x1", "4x1", "1x2", "2x2"], "Devices a process x processes.", allow_override=True
)
_PEOPLE = flags.DEFINE_integer("people", 2_000_000, "How many are opened.", lower_bound=100_000, allow_override=True)
_SAVED = flags.DEFINE_list("saved", ["1000", "100000"], "checkpoint: numbers of people.", allow_override=True)
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Where data sets are kept.", allow_override=True)
_OUT = flags.DEFINE_string("out", None, "JSON to write.", allow_override=True)
_WORK = flags.DEFINE_string("work", None, "What one of the processes does; set by the command itself.")
cli.define_processes()

_REGISTERED, _SHOWN, _STEPS = 1024, 32, 20
_SHARD = 2_000


def main(_: list[str]) -> None:
    """Measure each row in processes of its own; or, in one of them, do its work."""
    if _WORK.value is not None:
        what, _, argument = _WORK.value.partition(":")
        for row in _WORKS[what](argument):
            if mesh.is_first():
                print("row: " + json.dumps(results.plain(row), allow_nan=False), flush=True)
        return
    measured = results.names("rows", _ROWS.value, ["layouts", "open", "checkpoint"])
    try:
        layouts = [(int(devices), int(processes)) for devices, processes in (one.split("x") for one in _LAYOUTS.value)]
        saved = [int(one) for one in _SAVED.value]
    except ValueError as error:
        asked = f"--layouts={','.join(_LAYOUTS.value)} --saved={','.join(_SAVED.value)}"
        raise InputError(f"{asked}: layouts as in 2x1, devices a process x processes, and whole numbers") from error
    synthetic_people.prepare("tiny", _DATA_DIR.value)
    results.emit(_rows(measured, layouts, saved), _OUT.value)


def _rows(measured: list[str], layouts: list[tuple[int, int]], saved: list[int]) -> Iterator[Row]:
    if "layouts" in measured:
        for devices, processes in layouts:
            yield from _worked("layout", devices, processes)
    if "open" in measured:
        with tempfile.TemporaryDirectory(dir=_DATA_DIR.value) as folder:
            repeat(pathlib.Path(folder), _PEOPLE.value)
            yield from _worked(f"open:{folder}")
    if "checkpoint" in measured:
        for people in saved:
            yield from _worked(f"checkpoint:{people}")


def _worked(work: str, devices: int = 1, processes: int = 1) -> list[Row]:
    """Return the rows of a work that as many processes do together."""
    command = [sys.executable, "-m", "benchmarks.scale", f"--work={work}", f"--data_dir={_DATA_DIR.value}"]
    if processes > 1:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            command += [f"--coordinator=localhost:{free.getsockname()[1]}", f"--processes={processes}"]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)}
    numbers = [[f"--process={number}"] if processes > 1 else [] for number in range(processes)]
    started = [
        subprocess.Popen([*command, *one], env=environment, stdout=subprocess.PIPE, text=True) for one in numbers
    ]
    told = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise InputError(f"--work={work}: ended with {[process.returncode for process in started]}")
    rows = [json.loads(line) for line in re.findall(r"^row: (.*)$", told[0], re.MULTILINE)]
    return [row | {"processes": processes} for row in rows]


def _tiny() -> DatasetBuilder:
    return synthetic_people.load("tiny", _DATA_DIR.value)


def _config() -> Config:
    """Return the demo's configuration with a network that compiles in seconds."""
    config = demo()
    config.synthetic = "tiny"
    config.regressor = dataclasses.replace(config.regressor, width=8, depth=14, batch=_SHOWN)
    return config


# --- Devices and processes: registration and learning, weak scaling (work grows with the devices) and strong ---


def _layout(_: str) -> Iterator[Row]:
    people, template, everyone = load_people(_tiny(), "train"), load_body(), mesh.of()
    for scaling, factor in (("strong", 1), ("weak", everyone.size)):
        rows = np.arange(_REGISTERED * factor) % len(people.names)
        observed = jax.tree.map(lambda leaf, rows=rows: leaf[rows], people.observations)
        config = RegistrationConfig("lm", 10, starts="tpose")
        objective = demo().first.objective()
        fit = functools.partial(register.register, template, observed, config, objective)
        yield _timed("registration", scaling, len(rows), fit)
    for scaling, factor in (("strong", 1), ("weak", mesh.of_networks().size)):
        config = dataclasses.replace(_config().regressor, batch=_SHOWN * factor)
        rows = np.arange(config.batch * _STEPS) % len(people.names)
        shown = _training_set(people, rows)
        state = training.initial_state(config, jax.random.key(0))

        learn = functools.partial(training.train_epoch, config, state, shown, jax.random.key(1), span=(0, 1))
        yield _timed("learning", scaling, len(rows), learn)


def _training_set(people: People, rows: np.ndarray) -> training.TrainingSet:
    observed = jax.tree.map(lambda leaf: leaf[rows], people.observations)
    bodies = _t_pose(len(rows))
    return training.TrainingSet(load_body(), np.asarray(people.images)[rows], observed, bodies)


def _t_pose(people: int):
    return jax.tree.map(lambda leaf: np.broadcast_to(np.asarray(leaf), (people, *leaf.shape)), kinematics.t_pose())


def _timed(phase: str, scaling: str, people: int, work) -> Row:
    with measure.first_call() as first:
        work()
    rate = measure.rates({"": work}, None, 20.0)[""]
    return {
        "phase": phase, "scaling": scaling, "people": people, "people_per_second": people / rate.wall_s,
        "cpu_s_per_person_of_one_process": rate.cpu_s / people, "repeats": rate.repeats, "first_s": first["first_s"],
        **measure.machine(jax.devices()),
    }  # fmt: skip


# --- Many people: a data set that repeats the tiny one ---


def repeat(folder: pathlib.Path, people: int) -> None:
    """Make a data set of so many people, who are the tiny one's again and again; its shards are links to one file."""
    from array_record.python import array_record_module

    tiny = pathlib.Path(_tiny().data_dir)
    info = json.loads((tiny / "dataset_info.json").read_text())
    (split,) = (one for one in info["splits"] if one["name"] == "train")
    known = sum(map(int, split["shardLengths"]))
    (file,) = tiny.glob("*-train.array_record-*")
    reader = array_record_module.ArrayRecordReader(os.fspath(file))
    records, shards = reader.read_all(), people // _SHARD
    writer = array_record_module.ArrayRecordWriter(os.fspath(folder / "shard"), "group_size:1")
    for row in range(_SHARD):
        writer.write(records[row % known])
    writer.close()
    for shard in range(shards):
        (folder / f"{info['name']}-train.array_record-{shard:05d}-of-{shards:05d}").symlink_to(folder / "shard")
    split["shardLengths"] = [str(_SHARD)] * shards
    (folder / "dataset_info.json").write_text(json.dumps(info | {"splits": [split]}))
    shutil.copy(tiny / "features.json", folder)
    shutil.copy(tiny / "metadata.json", folder)
    (folder / COLUMNS / "train").mkdir(parents=True)
    for path in (tiny / COLUMNS / "train").glob("*.npy"):
        values = np.load(path)
        made = np.lib.format.open_memmap(
            folder / COLUMNS / "train" / path.name, "w+", values.dtype, (shards * _SHARD, *values.shape[1:])
        )
        piece = values[np.arange(_SHARD) % known]
        for first in range(0, len(made), _SHARD):
            made[first : first + _SHARD] = piece


def _open(folder: str) -> Iterator[Row]:
    """Open everybody, register the first thousands, take steps of an epoch of everybody."""
    import tensorflow_datasets as tfds

    started = {"peak_rss_mb_before": measure.peak_rss_bytes() / 1e6}
    begin = time.perf_counter()
    people = load_people(tfds.builder_from_directory(folder), "train", along_ray=True)
    started |= {"people": len(people.names), "open_s": time.perf_counter() - begin}
    yield started | {"phase": "open", "anonymous_mb": _anonymous_mb(), "peak_rss_mb": measure.peak_rss_bytes() / 1e6}
    config, template = RegistrationConfig("lm", 3, starts="tpose"), load_body()
    for count in (2_048, 16_384):
        few = jax.tree.map(lambda leaf, count=count: leaf[:count], people.observations)
        for _ in register.stream(template, [few], config, demo().first.objective()):
            pass
        yield {"phase": "registration", "people": count, "anonymous_mb": _anonymous_mb()}
    config = _config().regressor
    shown = training.TrainingSet(template, people.images, people.observations, _t_pose(len(people.names)))
    state = training.initial_state(config, jax.random.key(0))
    for steps in (5, 50):
        state, told = training.train_epoch(
            config, state, shown, jax.random.key(1), span=(0, config.epochs), steps=steps
        )
        yield {
            "phase": "learning", "people": len(people.names), "steps": steps, "anonymous_mb": _anonymous_mb(),
            "peak_rss_mb": measure.peak_rss_bytes() / 1e6, "input_wait_share": told["input_wait_share"],
        }  # fmt: skip


def _anonymous_mb() -> float:
    """Return the process's own memory: mapped files, which the system takes back when it needs to, are not counted."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.findall(r"^RssAnon:\s*(\d+) kB$", status, re.MULTILINE)[0]) / 1e3


# --- What learning saves ---


def _checkpoint(people: str) -> Iterator[Row]:
    """Save as learning does: once with new bodies, then with new weights alone."""
    config, count = _config(), int(people)
    one = load_people(_tiny(), "train")
    run = Run(config, load_body(), dataclasses.replace(one, names=np.full(count, "somebody")))
    state, seconds, grown = algorithm.initial_state(run), [], []
    random = np.random.default_rng(0)  # what is alike would be packed
    fits, predictions = (
        jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(np.float32), state.fits) for _ in range(2)
    )
    state = dataclasses.replace(state, fits=fits, predictions=predictions)
    with tempfile.TemporaryDirectory() as folder, RunFolder(folder, config) as saved:
        saved.resume(state)
        for _ in range(4):
            state = dataclasses.replace(state, regressor=jax.tree.map(lambda leaf: leaf + 0, state.regressor))
            before, begin = _bytes(folder), time.perf_counter()
            saved.save(state, RunState(phase="learn"))
            seconds.append(time.perf_counter() - begin)
            grown.append(_bytes(folder) - before if not grown else _bytes(folder, newest=True))
    yield {
        "phase": "checkpoint", "people": count, "with_bodies_s": seconds[0], "with_bodies_mb": grown[0] / 1e6,
        "of_learning_s": min(seconds[1:]), "of_learning_mb": grown[-1] / 1e6,
    }  # fmt: skip


def _bytes(folder: str, newest: bool = False) -> int:
    root = pathlib.Path(folder)
    if newest:
        root = max((root / "checkpoints").iterdir(), key=lambda path: int(path.name))
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


_WORKS = {"layout": _layout, "open": _open, "checkpoint": _checkpoint}


if __name__ == "__main__":
    cli.run(main)
