"""Examples in one .npz file: features stacked, those whose length varies laid end to end; and their counts."""

import dataclasses
import json
import multiprocessing
import os
import pathlib
import signal
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import numpy as np

from dal_jax.data import schema
from dal_jax.data.preparing.source import Example, Noted, Source, Summary, count
from dal_jax.observations.person import Rejected
from dal_jax.runtime import files, machine, progress

_ENDS = "__ends"
_COUNTS = "__counts"


def write(path: pathlib.Path, examples: list[Example], counts: Summary) -> None:
    """Write a file that is whole or absent.

    Raises:
      ValueError: an example lacks a feature of the schema or has one of its own.
    """
    text = json.dumps(dataclasses.asdict(counts))
    files.savez(path, **_pack(examples), **{_COUNTS: np.frombuffer(text.encode(), np.uint8)})


def read(path: pathlib.Path) -> Iterator[Example]:
    """Yield a file's examples."""
    with np.load(path, allow_pickle=False) as archive:
        packed = {name: archive[name] for name in archive.files if name != _COUNTS}
    columns = {}
    for name in (key for key in packed if not key.endswith(_ENDS)):
        values = packed[name]
        ends = packed.get(name + _ENDS)
        if ends is None:
            columns[name] = values
            continue
        pieces = np.split(values, ends[:-1])
        columns[name] = [piece.tobytes() for piece in pieces] if schema.is_bytes(name) else pieces
    for row in range(len(columns.get("name", ()))):
        yield {name: _plain(values[row]) for name, values in columns.items()}


def read_counts(path: pathlib.Path) -> Summary:
    """Return a file's counts, without reading its examples."""
    with np.load(path, allow_pickle=False) as archive:
        return Summary(**json.loads(archive[_COUNTS].tobytes()))


def _pack(examples: list[Example]) -> dict[str, np.ndarray]:
    packed, names = {}, schema.features().keys()
    for one in examples:
        if different := one.keys() ^ names:
            raise ValueError(f"the example and the schema differ in '{min(different)}'")
    for name in names if examples else ():
        values = [one[name] for one in examples]
        if schema.is_bytes(name):
            values = [np.frombuffer(value, np.uint8) for value in values]
        if schema.is_ragged(name):
            packed[name] = np.concatenate(values)
            packed[name + _ENDS] = np.cumsum([len(value) for value in values])
        else:
            packed[name] = np.stack(values)
    return packed


def _plain(value: object) -> object:
    return str(value) if isinstance(value, np.str_) else value


# Units of work in parallel processes, in chunks that survive a kill: a chunk is whole or absent, and done once.


class Chunk(NamedTuple):
    """Some consecutive units of a split, and the file that their people are kept in."""

    source: Source
    split: str
    units: Sequence[Any]
    path: pathlib.Path


def cut(source: Source, folder: pathlib.Path) -> list[Chunk]:
    """Return the chunks of all splits, in order."""
    size = source.units_a_chunk
    return [
        Chunk(source, split, units[start : start + size], folder / f"{split}-{start:08d}.npz")
        for split, units in source.splits().items()
        for start in range(0, len(units), size)
    ]


def record(work: list[Chunk], workers: int | None = None) -> None:
    """Do the chunks that are not there yet; workers: processes, by default one a core (0: this process alone)."""
    missing = [chunk for chunk in work if not chunk.path.exists()]
    if not missing:
        return
    total = sum(len(chunk.units) for chunk in work)
    done = total - sum(len(chunk.units) for chunk in missing)
    source = work[0].source
    workers = min(machine.cores() if workers is None else workers, len(missing))
    with progress.bar(f"recording {source.name}", total=total, unit=source.unit) as bar:
        bar.update(done)
        if not workers:
            for chunk in missing:
                bar.update(record_chunk(chunk))
            return
        # Processes are spawned, not forked: JAX has threads of its own, which a fork would break.
        context = multiprocessing.get_context("spawn")
        with _one_thread_each(), futures.ProcessPoolExecutor(workers, context, _leave_ctrl_c_to_the_parent) as pool:
            tasks = [pool.submit(record_chunk, chunk) for chunk in missing]
            try:
                for task in futures.as_completed(tasks):
                    bar.update(task.result())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # what has begun is finished and kept
                raise


def record_chunk(chunk: Chunk) -> int:
    """Read one chunk's units and write their people; return how many units."""
    items = [item for unit in chunk.units for item in chunk.source.read(unit)]
    examples = [item for item in items if not isinstance(item, Rejected | Noted)]
    write(chunk.path, examples, count(chunk.split, items))
    return len(chunk.units)


def _leave_ctrl_c_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _one_thread_each:
    """While it lasts, new processes start with one thread for linear algebra: the processes are the parallelism."""

    _NAMES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

    def __enter__(self) -> None:
        self._before = {name: os.environ.get(name) for name in self._NAMES}
        os.environ.update(dict.fromkeys(self._NAMES, "1"))

    def __exit__(self, *_: object) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
