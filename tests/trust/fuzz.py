"""Damaged files into every public reader: read as finite numbers, or refused in one line; no crash, no hang.

    python -m tests.trust.fuzz --inputs=100000 --binaries=500 --flags=500 --cases=FOLDER --out=benchmarks/trust.json

Input number N of a reader is always the same: `--reader=NAME --number=N` writes it to --found and reads it again.
"""

import collections
import contextlib
import copy
import dataclasses
import io
import json
import pathlib
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from typing import Any

import numpy as np
from absl import flags

from dal_jax.runtime import cli, door, files
from dal_jax.runtime.errors import InputError
from tests.trust import binaries
from tests.trust.readers import ROOT, Read, readers, written

_INPUTS = flags.DEFINE_integer("inputs", 1000, "Damaged files in all.", lower_bound=0)
_BINARIES = flags.DEFINE_integer("binaries", 0, "Damaged files for binaries, which take seconds each.", lower_bound=0)
_FLAGS = flags.DEFINE_integer("flags", 0, "Odd values for flags of binaries.", lower_bound=0)
_CASES = flags.DEFINE_string("cases", None, "Folder of hand-made files, each for the binary that reads it.")
_SECONDS = flags.DEFINE_float(
    "seconds", 1e9, "Begin no further batch of files, and no further binary, after this time."
)
_FOUND = flags.DEFINE_string("found", "fuzz_found", "Folder for files that did harm.")
_OUT = flags.DEFINE_string("out", None, "Write the summary there, as JSON, beside what other runs have written.")
_READER = flags.DEFINE_string("reader", None, "Of one input.")
_NUMBER = flags.DEFINE_integer("number", 0, "Of one input, or the first of a batch.")
_BATCH = flags.DEFINE_integer("batch", 0, "Read so many inputs in this process (used by the program itself).")

SECONDS, MEGABYTES = 20, 1500  # an input may take: it has two busy cores for itself only on a good day
# --- Damage ---

_JUNK: tuple[Any, ...] = (
    None, True, "x", "../x", "\ud800", "a\nb\x1b[2J", -1, 0, 1, 2**31, 2**70, 10**400, 1e308, -0.5, float("nan"),
    float("inf"), [], {}, [[]], [None], [1.5] * 4, ["1"] * 4, [0] * 51, {"size": [1 << 40, 1], "counts": "0"},
)  # fmt: skip
_WORDS = (b"nan", b"-1", b"1e400", b"}", b"{", b"JOINT", b":root", b"\xff", b"", b"99999999999", b'"', b"[[[[", b"\\")


def damage(content: bytes, drawn: random.Random) -> bytes:
    """Return a damaged copy: by bytes, words, JSON's values or the arrays of an archive. `drawn` decides all."""
    kind = drawn.randrange(6)
    if kind in (1, 2):  # where it still is JSON, or an archive
        with contextlib.suppress(*door.UNREADABLE):
            return (_other_json if kind == 1 else _other_arrays)(content, drawn)
    if kind == 0:
        return content[: drawn.randrange(len(content) + 1)]
    if kind == 3:
        words = content.split(b" ")
        words[drawn.randrange(len(words))] = drawn.choice(_WORDS)
        return b" ".join(words)
    if kind == 4:
        start, end = sorted(drawn.randrange(len(content) + 1) for _ in range(2))
        end = min(end, start + 200)
        piece = content[start:end] * drawn.choice((0, 2, 20))
        return content[:start] + piece + content[end:]
    changed = bytearray(content)
    for _ in range(drawn.randrange(1, 6)):
        if changed:
            changed[drawn.randrange(len(changed))] = drawn.randrange(256)
    return bytes(changed)


def _other_json(content: bytes, drawn: random.Random) -> bytes:
    value = json.loads(content)
    for _ in range(drawn.randrange(1, 4)):
        at, depth = value, drawn.randrange(1, 7)
        for level in range(depth):
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = drawn.choice(keys)
            if level == depth - 1 or not isinstance(at[key], dict | list):
                if isinstance(at, dict) and drawn.random() < 0.2:
                    del at[key]
                else:
                    junk = _nested(drawn.randrange(30, 2000)) if drawn.random() < 0.02 else drawn.choice(_JUNK)
                    at[key] = copy.deepcopy(junk)  # the next change may be inside it
                break
            at = at[key]
    return json.dumps(value).encode()


def _nested(depth: int) -> list:
    value: list = []
    for _ in range(min(depth, 200)):
        value = [value]
    return value


def _other_arrays(content: bytes, drawn: random.Random) -> bytes:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        fields: dict[str, Any] = {name: archive[name] for name in archive.files}
    name = drawn.choice(sorted(fields))
    values = np.array(fields[name])
    kind = drawn.randrange(6)
    if kind == 0:
        del fields[name]
    elif kind == 1 and values.dtype.kind == "f" and values.size:
        values.flat[drawn.randrange(values.size)] = drawn.choice((np.nan, np.inf, -np.inf, 1e30, -1e30))
        fields[name] = values
    elif kind == 2:
        fields[name] = values[:0]
    elif kind == 3:
        fields[name] = values[..., None]
    elif kind == 4:
        with np.errstate(all="ignore"):
            fields[name] = values.astype(drawn.choice(("U8", "f2", "i1", "c8", "?")), casting="unsafe")
    else:
        fields[name] = np.array(drawn.choice((0, -1, 2**40, np.nan, "x", b"\xff")))
    stream = io.BytesIO()
    np.savez(stream, **fields)
    return stream.getvalue()


# --- The law ---


def harm(read: Read, path: pathlib.Path) -> str:
    """Return what a reader did that it must not, '' where all is well."""
    try:
        value = read(path)
    except InputError as error:
        line = str(error)
        fine = "\n" not in line and line.isprintable() and len(line) < 1000
        return "" if fine else f"a message that is no line: {line[:100]!r}"
    except Exception as error:  # whatever else it is, is what is looked for
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:200]} ({pathlib.Path(place.filename).name}:{place.lineno})"
    return unfinite(value)


def unfinite(value: object, name: str = "", depth: int = 0) -> str:
    """Return the place of a number in a result that is not finite, '' where there is none.

    Rows and points that are marked missing may hold NaN: fields beside a `valid`, `visible` or `flag`.
    """
    if depth > 8 or callable(value):
        return ""
    if isinstance(value, float):
        return "" if np.isfinite(value) else f"{name} is {value}"
    if isinstance(value, np.ndarray):
        return "" if value.dtype.kind not in "fc" or np.isfinite(value).all() else f"{name} holds what is not finite"
    if isinstance(value, list | tuple):
        return next(filter(None, (unfinite(one, f"{name}[{row}]", depth + 1) for row, one in enumerate(value))), "")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {one.name: getattr(value, one.name) for one in dataclasses.fields(value) if one.name not in _MAY_LACK}
        shown = next((fields[one] for one in ("valid", "visible", "flag") if one in fields), None)
        if isinstance(shown, np.ndarray):
            named = _ONLY_SHOWN.get(type(value).__name__, ())
            fields = {one: np.asarray(fields[one])[shown > 0] for one in named}
        return next(filter(None, (unfinite(one, f"{name}.{key}", depth + 1) for key, one in fields.items())), "")
    return ""


_MAY_LACK = ("keypoint_regressor", "keypoint_matrix")  # a body without BODY_25B's regressor has NaN for its rows
_ONLY_SHOWN = {
    "Keypoints": ("position_px",), "Poses2D": ("keypoints_px",),
    "FitRows": ("pose", "segment_scale", "rotation", "camera_scale", "translation", "joints", "joints_px"),
}  # fmt: skip


def draw(name: str, number: int, good: bytes) -> bytes:
    """Return input `number` of a reader: damaged once, or more often."""
    drawn = random.Random(f"{name} {number}")
    content = damage(good, drawn)
    while drawn.random() < 0.3:
        content = damage(content, drawn)
    return content


# --- A batch in this process, and all batches ---


class _TooLong(BaseException):
    pass


def batch(number: int, count: int, only: str | None = None) -> None:
    """Read inputs and print a line of JSON for each that does harm, and at the end the counts."""
    every = readers()
    names = [only] if only else sorted(every)
    limit = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024 + MEGABYTES

    def late(*_: object) -> None:
        raise _TooLong

    warnings.simplefilter("error", RuntimeWarning)  # NumPy's, of what is not finite
    signal.signal(signal.SIGALRM, late)
    counts: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as root:
        good: dict[str, tuple[pathlib.Path, bytes]] = {}
        for name in names:
            folder = pathlib.Path(root, name)
            folder.mkdir()
            path = every[name].write(folder)
            good[name] = path, path.read_bytes()
        for one in range(number, number + count):
            name = names[one % len(names)]
            path, content = good[name]
            path.write_bytes(draw(name, one, content))
            print(json.dumps({"at": one, "reader": name}), flush=True)
            began = time.process_time()
            signal.alarm(6 * SECONDS)
            try:
                said = harm(every[name].read, path)
            except _TooLong:
                said = f"took more than {6 * SECONDS} s"
            finally:
                signal.alarm(0)
            if (seconds := time.process_time() - began) > SECONDS:
                said = said or f"took {seconds:.0f} s of the processor"
            if (used := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024) > limit:
                said, limit = said or f"took {used} MB", used + MEGABYTES
            counts[name] += 1
            if said:
                print(json.dumps({"at": one, "reader": name, "harm": said}), flush=True)
                keep(name, one, path)
            path.write_bytes(content)
    print(json.dumps({"counts": counts}), flush=True)


_A_BATCH = 10_000  # a process takes seconds to import what it reads with


def run(first: int, inputs: int, seconds: float) -> dict[str, Any]:
    """Read many inputs, in processes that may die; return the summary."""
    began, number, harms, done = time.monotonic(), first, [], {"harm": []}
    counts: collections.Counter[str] = collections.Counter()
    while number < first + inputs and time.monotonic() - began < seconds:
        size = min(_A_BATCH, first + inputs - number)
        flags_of_it = f"--batch={size}", f"--number={number}", f"--found={_FOUND.value}"
        command = [sys.executable, "-m", "tests.trust.fuzz", *flags_of_it]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        for line in (line for line in lines if "harm" in line):
            print(json.dumps(line), flush=True)
            harms.append(line)
        ended = next((line["counts"] for line in lines if "counts" in line), None)
        if ended is None:  # the process died: of the last input, or before the first
            at = [line for line in lines if "at" in line]
            if not at:
                raise RuntimeError(done.stderr[-2000:])
            harms.append(at[-1] | {"harm": f"the process ended with {done.returncode}: {done.stderr[-200:]}"})
            print(json.dumps(harms[-1]), flush=True)
            counts.update(line["reader"] for line in at if "harm" not in line)
            number = at[-1]["at"] + 1
        else:
            counts.update(ended)
            number += size
        print(f"{number} inputs, {len(harms)} did harm, {time.monotonic() - began:.0f} s", flush=True)
        done = {"inputs": number - first, "first": first, "of_each": dict(sorted(counts.items())), "harm": harms}
        _kept("readers", done)
    return done


def keep(name: str, number: int, path: pathlib.Path) -> pathlib.Path:
    """Copy an input that did harm to --found; return the copy."""
    folder = pathlib.Path(_FOUND.value)
    folder.mkdir(parents=True, exist_ok=True)
    return written(folder / f"{name}-{number}{path.suffix}", path.read_bytes())


def main(_: list[str]) -> None:
    """Read one input, a batch, or all."""
    if _READER.value:
        one = readers()[_READER.value]
        with tempfile.TemporaryDirectory() as folder:
            path = one.write(pathlib.Path(folder))
            path.write_bytes(draw(_READER.value, _NUMBER.value, path.read_bytes()))
            print(keep(_READER.value, _NUMBER.value, path))
            print(one.read(path))
        return
    if _BATCH.value:
        batch(_NUMBER.value, _BATCH.value)
        return
    found = {}
    if _INPUTS.value:
        found["readers"] = run(_NUMBER.value, _INPUTS.value, _SECONDS.value)
    if _BINARIES.value:
        found["binaries"] = _kept("binaries", binaries.on_damaged_files(_BINARIES.value, _SECONDS.value, draw, keep))
    if _FLAGS.value:
        found["flags"] = _kept("flags", binaries.with_odd_flags(_FLAGS.value))
    if _CASES.value:
        found["cases"] = _kept("cases", binaries.cases(pathlib.Path(_CASES.value).absolute()))
    harms = [one for part in found.values() for one in part["harm"]]
    print(f"{len(harms)} did harm")
    for one in harms:
        print(json.dumps(one))
    if harms:
        sys.exit(1)


def _kept(part: str, found: dict[str, Any]) -> dict[str, Any]:
    """Write a part of the summary; those of other runs stay."""
    if _OUT.value:
        path = pathlib.Path(_OUT.value)
        files.write_json(path, (files.read_json(path) if path.exists() else {}) | {part: found}, 1)
    return found


if __name__ == "__main__":
    cli.run(main)
