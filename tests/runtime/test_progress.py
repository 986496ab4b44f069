"""In a log file a bar is a few lines; on a terminal it is one."""

import io
import sys

from dal_jax.runtime import progress


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
