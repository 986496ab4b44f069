"""Many people in parallel processes, in chunks that survive a kill: a chunk is whole or absent, and done once."""

import multiprocessing
import os
import pathlib
import signal
from collections.abc import Iterator
from concurrent import futures
from typing import NamedTuple

import numpy as np

from dal_jax.data.synthetic import example, recipe as recipe_lib
from dal_jax.runtime import atomic, progress

CHUNK = 250


class Chunk(NamedTuple):
    """People `start` to `stop` (not included) of a split, and the file they are kept in."""

    recipe: recipe_lib.Recipe
    split: str
    start: int
    stop: int
    path: pathlib.Path


def chunks(recipe: recipe_lib.Recipe, folder: pathlib.Path, split: str) -> list[Chunk]:
    """Return the chunks of a split, in order."""
    count = recipe.count(split)
    return [
        Chunk(recipe, split, start, min(start + CHUNK, count), folder / f"{split}-{start:07d}.npz")
        for start in range(0, count, CHUNK)
    ]


def generate(work: list[Chunk], workers: int | None = None) -> None:
    """Make the chunks that are not there yet; workers: processes, by default one a core (0: this process alone)."""
    missing = [chunk for chunk in work if not chunk.path.exists()]
    if not missing:
        return
    total = sum(chunk.stop - chunk.start for chunk in work)
    done = total - sum(chunk.stop - chunk.start for chunk in missing)
    workers = min(_cores() if workers is None else workers, len(missing))
    with progress.bar("rendering people", total=total, unit="person") as bar:
        bar.update(done)
        if not workers:
            for chunk in missing:
                bar.update(make_chunk(chunk))
            return
        # Processes are spawned, not forked: JAX has threads of its own, which a fork would break.
        context = multiprocessing.get_context("spawn")
        with _one_thread_each(), futures.ProcessPoolExecutor(workers, context, _leave_ctrl_c_to_the_parent) as pool:
            tasks = [pool.submit(make_chunk, chunk) for chunk in missing]
            try:
                for task in futures.as_completed(tasks):
                    bar.update(task.result())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # what has begun is finished and kept
                raise


def make_chunk(chunk: Chunk) -> int:
    """Make one chunk's people and write them; return how many."""
    examples = [example.make(chunk.recipe, chunk.split, index) for index in range(chunk.start, chunk.stop)]
    atomic.savez(chunk.path, **_pack(examples))
    return len(examples)


def read_chunk(path: pathlib.Path) -> Iterator[dict[str, object]]:
    """Yield a chunk's examples."""
    with np.load(path, allow_pickle=False) as archive:
        packed = {name: archive[name] for name in archive.files}
    columns = {}
    for name in (key for key in packed if not key.endswith(_ENDS)):
        values = packed[name]
        ends = packed.get(name + _ENDS)
        if ends is None:
            columns[name] = values
            continue
        pieces = np.split(values, ends[:-1])
        columns[name] = [piece.tobytes() for piece in pieces] if name in _BYTES else pieces
    for row in range(len(columns["name"])):
        yield {name: _plain(values[row]) for name, values in columns.items()}


_BYTES = ("image", "iuv")
_RAGGED = (*_BYTES, "truth_vertices_tenth_mm")
_ENDS = "__ends"


def _pack(examples: list[dict[str, object]]) -> dict[str, np.ndarray]:
    """Stack features; those whose length varies are laid end to end."""
    packed = {}
    for name in examples[0]:
        values = [one[name] for one in examples]
        if name in _BYTES:
            values = [np.frombuffer(value, np.uint8) for value in values]
        if name in _RAGGED:
            packed[name] = np.concatenate(values)
            packed[name + _ENDS] = np.cumsum([len(value) for value in values])
        else:
            packed[name] = np.stack(values)
    return packed


def _plain(value: object) -> object:
    return str(value) if isinstance(value, np.str_) else value


def _leave_ctrl_c_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
