"""In a log file a bar is a few lines, on a terminal one; a killed and resumed log reads like an undisturbed one."""

import io
import json
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.runtime import progress
from dal_jax.runtime.errors import InputError
from dal_jax.runtime.progress import MetricLog


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def _show(monkeypatch, stream, clock_step_s):
    """Advance through 30 units on a clock that moves by a fixed step each time it is read."""
    now = iter(range(10**6))
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.bar("deform", total=30, unit="fit") as bar:
        bar._time = lambda: bar.start_t + clock_step_s * next(now)
        for count in range(30):
            bar.set_postfix(energy=count, refresh=False)
            bar.update(1)
    return stream.getvalue()


def test_a_log_gets_a_line_in_ten_seconds(monkeypatch):
    lines = _show(monkeypatch, io.StringIO(), clock_step_s=1.0).splitlines()
    assert 2 <= len(lines) <= 6
    assert all(line.startswith("deform: ") and "fit/s" in line for line in lines)
    assert lines[-1].startswith("deform: 30/30 [")
    assert "energy=29" in lines[-1]


def test_short_work_says_nothing(monkeypatch):
    assert _show(monkeypatch, io.StringIO(), clock_step_s=0.01) == ""


def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch):
    shown = _show(monkeypatch, _Terminal(), clock_step_s=1.0)
    assert "deform" in shown
    assert "\n" not in shown


def test_it_iterates(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert list(progress.bar("read", [3, 1])) == [3, 1]


def _write(path, steps, after_step=None):
    with MetricLog(path, after_step) as log:
        for step in steps:
            log.write(step, {"loss": step / 4})


def test_numbers_of_every_kind_become_json(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    with MetricLog(path) as log:
        log.write(1, {"a": jnp.float32(0.5), "b": np.int64(3), "c": np.array(2.0), "phase": "lift", "d": None, "e": 7})
        log.write(np.int32(2), {"nan": np.float32("nan"), "inf": jnp.inf, "low": -np.inf})
        assert len(path.read_text().splitlines()) == 2  # flushed, though still open
    assert progress.read_metrics(path) == [
        {"step": 1, "a": 0.5, "b": 3, "c": 2.0, "phase": "lift", "d": None, "e": 7},
        {"step": 2, "nan": None, "inf": None, "low": None},
    ]


def test_an_array_is_no_metric(tmp_path):
    with MetricLog(tmp_path / "m.jsonl") as log, pytest.raises(ValueError, match="size 1"):
        log.write(0, {"loss": np.zeros(2)})


def test_resumed_log_equals_the_undisturbed_one(tmp_path):
    undisturbed, resumed = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    _write(undisturbed, range(10))
    _write(resumed, range(7))
    with resumed.open("a") as file:
        file.write('{"step": 7, "lo')  # killed in the middle of a line
    _write(resumed, range(5, 10), after_step=4)
    assert resumed.read_text() == undisturbed.read_text()


def test_a_new_run_starts_an_empty_log(tmp_path):
    path = tmp_path / "m.jsonl"
    _write(path, range(3))
    _write(path, [0])
    assert [entry["step"] for entry in progress.read_metrics(path)] == [0]


@pytest.mark.parametrize("line", ["oops", "[1]", '{"loss": 1}', '{"step": "1"}'])
def test_a_foreign_line_is_named(tmp_path, line):
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 0}\n' + line + "\n")
    with pytest.raises(InputError, match=r"m\.jsonl: line 2: is no"):
        MetricLog(path, after_step=0)
    assert path.read_text().endswith(line + "\n")


@pytest.mark.parametrize("line", [b'{"step": 1, "phase": "l\x80arn"}', b"[" * 100_000, b"\xff\xfe", b"9" * 5000])
def test_a_line_of_any_bytes_is_named(tmp_path, line):
    (tmp_path / "m.jsonl").write_bytes(b'{"step": 0}\n' + line + b"\n")
    with pytest.raises(InputError, match=r"m\.jsonl: line 2: is no"):
        progress.read_metrics(tmp_path / "m.jsonl")


def test_tensorboard_gets_the_numbers_where_it_is_installed(tmp_path, monkeypatch):
    calls = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            calls.append((folder, purge_step))

        def add_scalar(self, *arguments):
            calls.append(arguments)

        def close(self):
            calls.append("closed")

    module = types.ModuleType("tensorboardX")
    module.SummaryWriter = SummaryWriter
    module.__spec__ = json.__spec__  # any: only its presence is asked for
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    with MetricLog(tmp_path / "m.jsonl", after_step=3) as log:
        log.write(4, {"loss": 0.5, "phase": "lift", "nan": np.nan})
    assert calls == [(str(tmp_path / "tensorboard"), 4), ("loss", 0.5, 4), "closed"]
