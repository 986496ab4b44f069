"""Rates that can be compared on a busy machine: interleaved with a matrix product, CPU seconds beside wall seconds.

A rate in fits per second belongs to one machine on one afternoon. Divided by the float32 matmul rate measured between
its own repeats it can be compared; CPU seconds (of all threads) stay nearly the same when others use the cores.
"""

import contextlib
import dataclasses
import pathlib
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.stages

from dal_jax.runtime.machine import cores, cpu_model

MATMUL_SIZE = 2048
MOST_REPEATS = 15
_SHORTEST_WORK_S = 0.2
_CACHE_HIT = "/jax/compilation_cache/cache_hits"


@dataclasses.dataclass(frozen=True)
class Rate:
    """Medians over the repeats of one piece of work.

    cpu_s: user and system time of all threads of the process; matmul_gflops: of the probe between the repeats (nan
    without one).
    """

    repeats: int
    wall_s: float
    cpu_s: float
    matmul_gflops: float


def rates(
    works: Mapping[str, Callable[[], object]], probe: Callable[[], float] | None, seconds: float
) -> dict[str, Rate]:
    """Repeat rounds of the probe and then each work once, for about `seconds`: what slows one slows all.

    A work must block until its results are there, and the caller has warmed it up. At least one round, at most
    `MOST_REPEATS`.
    """
    walls: dict[str, list[float]] = {name: [] for name in works}
    cpus: dict[str, list[float]] = {name: [] for name in works}
    probes: list[float] = []
    begin = time.perf_counter()
    while not probes or (time.perf_counter() - begin < seconds and len(probes) < MOST_REPEATS):
        probes.append(probe() if probe else float("nan"))
        for name, work in works.items():
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            walls[name].append(time.perf_counter() - wall)
            cpus[name].append(time.process_time() - cpu)
    return {
        name: Rate(len(probes), *(statistics.median(values) for values in (walls[name], cpus[name], probes)))
        for name in works
    }


def calls(work: Callable[[], object]) -> int:
    """Return how often to call a work in one timed turn: the first milliseconds pay for what ran before them."""
    once = rates({"": work}, None, 0.0)[""].wall_s
    return max(1, round(_SHORTEST_WORK_S / once))


def repeated(work: Callable[[], object], count: int) -> Callable[[], None]:
    """Return the work of so many calls."""

    def run() -> None:
        for _ in range(count):
            work()

    return run


def matmul_probe(devices: Sequence[Any], size: int = MATMUL_SIZE) -> Callable[[], float]:
    """Return a function that measures the float32 matmul rate of all devices at once, GFLOP/s."""
    multiply = jax.jit(lambda a, b: jnp.matmul(a, b, precision="highest"))  # the GPU's default would be TF32
    matrices = [jax.device_put(jnp.full((size, size), 0.5, jnp.float32), device) for device in devices]
    jax.block_until_ready([multiply(matrix, matrix) for matrix in matrices])

    def probe() -> float:
        start = time.perf_counter()
        jax.block_until_ready([multiply(matrix, matrix) for matrix in matrices])
        return len(matrices) * 2e-9 * size**3 / (time.perf_counter() - start)

    return probe


@contextlib.contextmanager
def first_call() -> Iterator[dict[str, object]]:
    """Time a first call; when the block ends, `first_s` and `compile_cached` are in the dict that it yields.

    compile_cached: a compiled program came from the cache on disk, so that `first_s` says little about compiling.
    """
    found: dict[str, object] = {}
    hits = []

    def listen(event: str, **_: object) -> None:
        if event == _CACHE_HIT:
            hits.append(event)

    jax.monitoring.register_event_listener(listen)
    start = time.perf_counter()
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_listener(listen)
        found["first_s"] = time.perf_counter() - start
        found["compile_cached"] = bool(hits)


def machine(devices: Sequence[Any]) -> dict[str, object]:
    """Return what every row says of where it was measured."""
    return {
        "device": devices[0].device_kind if devices[0].platform != "cpu" else "cpu",
        "devices": len(devices),
        "cpu": cpu_model(),
        "cores": cores(),
        "jax": jax.__version__,
        "python": platform.python_version(),
    }


def commit() -> str | None:
    """Return the checkout's commit, `-dirty` where a file differs from it; None outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run(command, cwd=pathlib.Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return found.stdout.strip() or None


def peak_rss_bytes() -> int:
    """Return the most memory that this process has had resident."""
    # VmHWM, where there is one, starts afresh with the program; ru_maxrss can begin with the parent's.
    with contextlib.suppress(OSError):
        found = re.search(r"^VmHWM:\s*(\d+) kB$", pathlib.Path("/proc/self/status").read_text(), re.MULTILINE)
        if found:
            return 1024 * int(found[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def compiled_bytes(compiled: jax.stages.Compiled) -> int:
    """Return the memory that a compiled program needs: arguments, results and temporaries."""
    need: Any = compiled.memory_analysis()  # None on no backend we use
    return need.temp_size_in_bytes + need.argument_size_in_bytes + need.output_size_in_bytes
