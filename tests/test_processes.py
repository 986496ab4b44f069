"""The loop on several devices and processes: the history of one device, whoever is killed and however many go on."""

import dataclasses
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest

from dal_jax.config import Config, demo
from dal_jax.loop import judge, run as run_lib
from dal_jax.runtime import progress
from tests.test_algorithm import small_config

pytestmark = pytest.mark.slow

SCORES_MM = 0.5
LOSSES = 1e-4  # relative, of the first steps
LATER_LOSSES = 5e-3  # Adam takes whole steps along gradients that are rounding alone
DEADLINE_S = 900

_DYING = """
import os, runpy, signal, sys
from dal_jax.loop import folder, report

report.EXAMPLES, report.CARDS, report.TILE_PX = 1, 1, 64  # as in tests/conftest.py
lives, save = int(sys.argv.pop(1)), folder.RunFolder.save

def save_and_die(self, *state):
    global lives
    save(self, *state)
    lives -= 1
    if lives == 0:
        os.kill(os.getpid(), signal.SIGKILL)

folder.RunFolder.save = save_and_die
runpy.run_module("experiments.deform_and_learn", run_name="__main__", alter_sys=True)
"""


def _config() -> Config:
    config = small_config(online_fitting=True, rounds=1)
    for plan in (config.first, config.later):  # spread as by `lm`, whose program takes eight times as long to compile
        plan.registration = dataclasses.replace(plan.registration, optimizer="adam", learning_rate=0.03)
    return config


def _flags(config, default, name: str = "config") -> list[str]:
    flags = []
    for field in dataclasses.fields(config):
        value, usual = getattr(config, field.name), getattr(default, field.name)
        if dataclasses.is_dataclass(value):
            flags += _flags(value, usual, f"{name}.{field.name}")
        elif value != usual:
            flags.append(f"--{name}.{field.name}={value}")
    return flags


def _start(workdir: pathlib.Path, data_dir: pathlib.Path, lives: tuple[int, ...], devices: int) -> list:
    """Start a process for each of `lives`, how often it saves before it dies; 0: it does not."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    flags = [f"--workdir={workdir}", f"--data_dir={data_dir}", *_flags(_config(), demo())]
    if len(lives) > 1:
        flags += [f"--coordinator={address}", f"--processes={len(lives)}"]
    started = []
    for number, saves in enumerate(lives):
        this = [f"--process={number}"] if len(lives) > 1 else []
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", _DYING, str(saves), *flags, *this],
                env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return started


def _ended(started: list) -> list[tuple[int, str]]:
    try:
        told = [process.communicate(timeout=DEADLINE_S)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, text) for process, text in zip(started, told, strict=True)]


def _assert_same(workdir: pathlib.Path, reference: pathlib.Path) -> None:
    (found,), (wanted,) = (json.loads((folder / "history.json").read_text()) for folder in (workdir, reference))
    for name, score in wanted.items():
        if name != "seconds":
            assert found[name] == pytest.approx(score, abs=SCORES_MM), name
    lines, expected = (progress.read_metrics(folder / "metrics.jsonl") for folder in (workdir, reference))
    assert len(lines) == len(expected)
    began = False  # a step of the regressor has been taken
    for line, one in zip(lines, expected, strict=True):
        assert line.keys() == one.keys()
        for name in one:
            if "loss" in name:
                assert line[name] == pytest.approx(one[name], rel=LATER_LOSSES if began else LOSSES), name
        began |= one["phase"] == "learn"


def test_devices_and_processes_come_and_go_and_the_history_is_one_device_s(tiny_people, tmp_path):
    (entry,) = run_lib.deform_and_learn(_config(), tmp_path / "one", tiny_people).history
    assert all(np.isfinite(entry[name]) for name in judge.FIELDS)
    learned = [line for line in progress.read_metrics(tmp_path / "one" / "metrics.jsonl") if line["phase"] == "learn"]
    assert [line["epoch"] for line in learned] == [0, 1, 1, 2]
    assert all(line["registration_energy_mean"] > 0 for line in learned)
    ((code, told),) = _ended(_start(tmp_path / "run", tiny_people, (5,), devices=4))  # lift 2 + 1, deform 1, learn 1
    assert code == -9, told
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["4", "5"]
    shutil.copytree(tmp_path / "run", tmp_path / "alone")

    (first, told), (second, _) = _ended(_start(tmp_path / "run", tiny_people, (0, 1), devices=2))
    assert second == -9 and first not in (0, None), told
    ended = _ended(_start(tmp_path / "run", tiny_people, (0, 0), devices=2))
    assert [code for code, _ in ended] == [0, 0], ended
    assert "regressor test" in ended[0][1] and "regressor test" not in ended[1][1], "the first speaks"
    assert (tmp_path / "run" / "report" / "index.html").is_file()
    _assert_same(tmp_path / "run", tmp_path / "one")

    run_lib.deform_and_learn(_config(), tmp_path / "alone", tiny_people)
    _assert_same(tmp_path / "alone", tmp_path / "one")
