"""Units of work in parallel processes, in chunks that survive a kill: a chunk is whole or absent, and done once."""

import multiprocessing
import os
import pathlib
import signal
from collections.abc import Sequence
from concurrent import futures
from typing import Any, NamedTuple

from dal_jax.correspondences import person as person_lib
from dal_jax.data.recording import packing, source as source_lib, summary as summary_lib
from dal_jax.runtime import machine, progress


class Chunk(NamedTuple):
    """Some consecutive units of a split, and the file that their people are kept in."""

    source: source_lib.Source
    split: str
    units: Sequence[Any]
    path: pathlib.Path


def cut(source: source_lib.Source, folder: pathlib.Path) -> list[Chunk]:
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
    examples = [item for item in items if not isinstance(item, person_lib.Rejected | source_lib.Noted)]
    packing.write(chunk.path, examples, summary_lib.count(chunk.split, items))
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
