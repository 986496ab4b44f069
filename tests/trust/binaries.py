"""Damaged files and odd flags given to binaries: each ends with one line and exit code 2."""

import collections
import pathlib
import random
import re
import tempfile
from collections.abc import Callable
from typing import Any

from dal_jax.runtime.errors import InputError
from tests.experiments import binaries
from tests.trust.readers import ROOT, readers

_ODD = (
    "", "0", "-1", "nan", "inf", "-inf", "1e30", "1e400", "99999999999999999999", "x", "true", ",", ",,1", "../..",
    "/dev/zero", "/proc/self/mem",
    "a\nb", "\x1b[2J", "\u202e", "x" * 5000, "{}", "[1]", "lm,lm", "optax.adam(", "os:system",
)  # fmt: skip


Done = tuple[dict[str, int], list[Any]]
"""How many by name, and those that did harm."""


def run(files: int, flags: int, draw: Callable[[str, int, bytes], bytes], keep: Callable) -> dict[str, Any]:
    """Run binaries on so many damaged files, and so often with odd flags; return the summary.

    draw, keep: `tests.trust.fuzz.draw` and what keeps an input (this module is imported by that program).
    """
    with tempfile.TemporaryDirectory() as root:
        damaged, harms = _on_damaged_files(files, pathlib.Path(root), draw, keep)
        odd, more = _with_odd_flags(flags, pathlib.Path(root))
    return {"binaries": damaged, "flags": odd, "harm": harms + more}


def _harm(name: str, arguments: list[str]) -> str:
    result = binaries.run(name, *arguments)
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    fine = result.returncode == 2 and lines and lines[-1].startswith("error: ") and "Traceback" not in result.stderr
    return "" if fine else f"{name} {arguments}: exit code {result.returncode}: {result.stderr[-300:]}"


def _on_damaged_files(
    count: int, root: pathlib.Path, draw: Callable, keep: Callable
) -> tuple[dict[str, int], list[Any]]:
    """Give what readers refuse to binaries; what they read takes a binary its time."""
    every = {name: one for name, one in readers().items() if one.flags}
    names, harms, done, number = sorted(every), [], collections.Counter(), 0
    while sum(done.values()) < count:
        name = names[number % len(names)]
        (root / name).mkdir(exist_ok=True)
        path = every[name].write(root / name)
        path.write_bytes(draw(name, number, path.read_bytes()))
        number += 1
        try:
            every[name].read(path)
            continue
        except InputError:
            pass
        binary, *arguments = (part.format(path=path, out=root / name / "out") for part in every[name].flags)
        done[name] += 1
        if said := _harm(binary, arguments):
            harms.append({"at": number - 1, "reader": name, "harm": said})
            keep(name, number - 1, path)
    return dict(sorted(done.items())), harms


def _with_odd_flags(count: int, root: pathlib.Path) -> Done:
    """Give odd values to one or two flags of a binary whose files are missing, so that it always ends in an error."""
    of_binary = {path.stem: _flags(path) for path in sorted((ROOT / "experiments").glob("[a-z]*.py"))}
    of_binary.pop("benchmark")  # it measures what it can before it looks
    names, harms, done = sorted(of_binary), [], collections.Counter()
    for number in range(count):
        drawn = random.Random(f"flags {number}")
        name = names[number % len(names)]
        absent = {flag: str(root / "absent" / flag) for flag in of_binary[name] if flag in _FILES}
        chosen = drawn.sample(of_binary[name], min(drawn.randrange(1, 3), len(of_binary[name])))
        values = absent | {flag: drawn.choice(_ODD) for flag in chosen if flag not in _WRITES}
        done[name] += 1
        if said := _harm(f"experiments.{name}", [f"--{flag}={value}" for flag, value in values.items()]):
            harms.append({"at": number, "reader": f"flags of {name}", "harm": said})
    return dict(sorted(done.items())), harms


_FILES = (
    "annotations", "images", "poses", "checkpoint", "source", "poses_3d", "truth", "fits", "data", "body", "initial",
    "runs", "data_dir", "workdir", "out",
)  # fmt: skip
_WRITES = ("out", "workdir", "data_dir", "asset")  # an odd folder may be a good one


def _flags(path: pathlib.Path) -> list[str]:
    """Return the flags that a binary defines."""
    return re.findall(r'DEFINE_\w+\(\s*"(\w+)"', path.read_text())
