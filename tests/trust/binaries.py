"""Damaged files, odd flags and hand-made hostile files given to binaries: each ends with one line and exit code 2."""

import collections
import fnmatch
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from dal_jax.runtime.errors import InputError
from tests.experiments import binaries
from tests.trust.readers import ROOT, readers

_ODD = (
    "", "0", "-1", "nan", "inf", "-inf", "1e30", "1e400", "99999999999999999999", "x", "true", ",", ",,1", "../..",
    "/dev/zero", "/proc/self/mem",
    "a\nb", "\x1b[2J", "\u202e", "x" * 5000, "{}", "[1]", "lm,lm", "optax.adam(", "os:system",
)  # fmt: skip


Summary = dict[str, Any]
"""`of_each`: how many by name; `harm`: those that did."""


def _harm(name: str, arguments: list[str]) -> str:
    result = binaries.run(name, *arguments)
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    fine = result.returncode == 2 and lines and lines[-1].startswith("error: ") and "Traceback" not in result.stderr
    return "" if fine else f"{name} {arguments}: exit code {result.returncode}: {result.stderr[-300:]}"


def on_damaged_files(count: int, seconds: float, draw: Callable[[str, int, bytes], bytes], keep: Callable) -> Summary:
    """Give what readers refuse to binaries; what they read takes a binary its time.

    seconds: after which no further input is begun.
    draw, keep: `tests.trust.fuzz.draw` and what keeps an input (this module is imported by that program).
    """
    with tempfile.TemporaryDirectory() as folder:
        return _on_damaged_files(count, time.monotonic() + seconds, pathlib.Path(folder), draw, keep)


def _on_damaged_files(count: int, until: float, root: pathlib.Path, draw: Callable, keep: Callable) -> Summary:
    every = {name: one for name, one in readers().items() if one.flags}
    names, harms, done, number = sorted(every), [], collections.Counter(), 0
    while sum(done.values()) < count and time.monotonic() < until:
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
            print(harms[-1], flush=True)
            keep(name, number - 1, path)
    return {"of_each": dict(sorted(done.items())), "harm": harms}


def with_odd_flags(count: int) -> Summary:
    """Give odd values to one or two flags of a binary whose files are missing, so that it always ends in an error."""
    with tempfile.TemporaryDirectory() as folder:
        return _with_odd_flags(count, pathlib.Path(folder))


def _with_odd_flags(count: int, root: pathlib.Path) -> Summary:
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
            print(harms[-1], flush=True)
    return {"of_each": dict(sorted(done.items())), "harm": harms}


_FILES = (
    "annotations", "images", "poses", "checkpoint", "source", "poses_3d", "truth", "fits", "data", "body", "initial",
    "runs", "data_dir", "workdir", "out",
)  # fmt: skip
_WRITES = ("out", "workdir", "data_dir", "asset")  # an odd folder may be a good one


def _flags(path: pathlib.Path) -> list[str]:
    """Return the flags that a binary defines."""
    return re.findall(r'DEFINE_\w+\(\s*"(\w+)"', path.read_text())


# --- Hand-made files, each to a binary in a process of its own ---

_SAMPLE = ROOT / "examples" / "sample"
_REGISTER = f"register --out={{out}} --annotations={_SAMPLE / 'people.json'}"
_PREDICT = f"predict --out={{out}} --checkpoint={{run}} --images={_SAMPLE / 'photos'}"
_BINARY_OF = {
    "bvh/*": "prepare_poses --source={path} --out={out}.npz",
    "chart_misshaped/*": _REGISTER + " --chart={path}",
    "degenerate/*/people.json": "register --annotations={path} --out={out}",
    "fuzz/boxes_json*": _PREDICT + " --boxes={path}",
    "fuzz/config_json*": _PREDICT,
    "fuzz/fits_npz*": _REGISTER + " --initial={path}",
    "fuzz/iuv_pictures*": "register --iuv={path} --out={out}",
    "fuzz/lifter_config*": "lift --poses={poses} --checkpoint={run} --out={out}.npz",
    "fuzz/metrics_jsonl*": "deform_and_learn --workdir={run} --data_dir={out} --config.regressor.width=4"
    " --config.regressor.depth=14 --config.regressor.image_size=32",
    "fuzz/motions*": "prepare_poses --source={path} --out={out}.npz",
    "fuzz/photographs*": "predict --images={path} --checkpoint={run} --out={out}",
    "fuzz/poses_2d*": "lift --poses={path} --checkpoint=shipped --out={out}.npz",
    "fuzz/run_json*": _PREDICT,
    "mat_segfault/*": _REGISTER + " --chart={path}",
    "pickles/*_amass.pkl": "prepare_poses --source={path} --out={out}.npz",
    "pickles/hash_collisions.pkl": "prepare_poses --source={path} --out={out}.npz",
    "pickles/*": _REGISTER + " --body={path}",
    "pictures/*": "predict --images={path} --checkpoint={run} --out={out}",
    "polygon/*/train.json": "prepare_data --dataset=coco_folder --source={folder} --data_dir={out}",
    "zipbomb/body*": _REGISTER + " --body={path}",
    "zipbomb/smpl*": _REGISTER + " --body={path}",
    "zipbomb/fits*": _REGISTER + " --initial={path}",
    "zipbomb/poses*": "lift --poses={path} --checkpoint=shipped --out={out}.npz",
    "zipbomb/amass*": "prepare_poses --source={path} --out={out}.npz",
}
_LIES_AT = {
    "fuzz/config_json*": "run/config.json",
    "fuzz/lifter_config*": "run/config.json",
    "fuzz/metrics_jsonl*": "run/metrics.jsonl",
    "fuzz/run_json*": "out/.unfinished/run.json",
}
"""Where a file must lie that no flag names."""


SECONDS, MEGABYTES = 5.0, 1000  # of the processor; most goes into importing


def cases(folder: pathlib.Path) -> Summary:
    """Give each file of a folder to the binary that reads it; return how each ended, and those that did harm.

    What is read in spite of its damage (exit code 0) is no harm.
    """
    found = []
    with tempfile.TemporaryDirectory() as root:
        write = f"from tests.loop import small_run; small_run.write({root + '/whole'!r})"
        subprocess.run([sys.executable, "-c", write], cwd=ROOT, check=True)  # a child's memory begins at its parent's
        for path in sorted(one for one in folder.rglob("*") if one.is_file()):
            name = path.relative_to(folder).as_posix()
            if command := next((flags for kind, flags in _BINARY_OF.items() if fnmatch.fnmatch(name, kind)), None):
                found.append({"case": name} | _case(path, name, command, pathlib.Path(root)))
                print(found[-1], flush=True)
    fine = [
        (one["exit_code"] == 0 or (one["exit_code"] == 2 and one["lines"] == 1 and one["said"].startswith("error: ")))
        and one["cpu_seconds"] <= SECONDS
        and one["megabytes"] <= MEGABYTES
        for one in found
    ]
    return {"cases": found, "harm": [one for one, good in zip(found, fine, strict=True) if not good]}


def _case(path: pathlib.Path, name: str, command: str, root: pathlib.Path) -> dict[str, Any]:
    place = pathlib.Path(tempfile.mkdtemp(dir=root))
    shutil.copytree(root / "whole", place / "run")
    if lies_at := next((at for kind, at in _LIES_AT.items() if fnmatch.fnmatch(name, kind)), None):
        (place / lies_at).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place / lies_at)
    names = {"path": path, "folder": path.parent, "run": place / "run", "out": place / "out", "poses": place / "a.npy"}
    np.save(names["poses"], np.random.default_rng(0).uniform(0, 200, (5, 17, 2)))
    binary, *flags = (part.format(**names) for part in command.split())
    child = subprocess.Popen(
        [sys.executable, "-m", f"experiments.{binary}", *flags], cwd=ROOT, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    said = child.stderr.read() if child.stderr is not None else ""
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    lines = [line for line in said.splitlines() if line.strip()]
    return {
        "binary": binary, "exit_code": child.returncode, "lines": len(lines),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1), "megabytes": used.ru_maxrss // 1024,
        "said": (lines or [""])[-1].replace(str(place), "").replace(str(path.parent), "").replace(str(ROOT), "")[:300],
    }  # fmt: skip
