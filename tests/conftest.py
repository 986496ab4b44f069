"""Strictness for every test: warnings are errors (pyproject.toml), shapes never broadcast by accident, two devices.

Of the two the first is the default: what asks for several has several, and everything else compiles no partition.
"""

import fcntl
import gc
import os
import pathlib

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: its threads wait busily, and two processes run tests

import jax
import jaxtyping
import pytest

from dal_jax.runtime import machine, programs
from tests import shapes

# Tolerances are written for the CPU; JAX_PLATFORMS=cuda runs the tests on a GPU all the same.
if "JAX_PLATFORMS" not in os.environ:
    jax.config.update("jax_platforms", "cpu")
if os.environ.get("JAX_PLATFORMS", "cpu") == "cpu":
    # Most of the tests' time is XLA's compiling: these halve it, in the binaries that tests start too.
    # Of two values for a flag the later holds: the caller's.
    cheap = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    cheap += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    # In programs as large as a registration this pass moves something for ever: XLA gives up after 2 x 25 rounds
    cheap += " --xla_disable_hlo_passes=reshape-mover"
    os.environ["XLA_FLAGS"] = f"{cheap} {os.environ.get('XLA_FLAGS', '')}"
jax.config.update("jax_num_cpu_devices", 2)  # not XLA_FLAGS: binaries must not inherit the devices
jax.config.update("jax_default_device", jax.devices()[0])
jax.config.update("jax_numpy_rank_promotion", "raise")
jaxtyping.install_import_hook(shapes.modules(), "tests.shapes.checked")
machine.configure()  # shared by the test processes, and by the next run
gc.freeze()  # modules stay: the collector need not look at them again
gc.set_threshold(50_000, 20, 50)  # tracing makes many objects, of which few are garbage


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have slow tests, so that no process is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def reports_show_few_people():
    """Two thirds of a small run of the loop would be the pictures of its report."""
    from dal_jax.loop import report

    report.EXAMPLES, report.CARDS, report.TILE_PX = 1, 1, 64


@pytest.fixture(scope="session")
def tiny_people(tmp_path_factory) -> pathlib.Path:
    """Return a folder of data sets that has the embedded people called tiny, rendered by one process for all."""
    from dal_jax.synthetic import people

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tiny_people"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        people.prepare("tiny", folder)
    return folder


_MAPS = pathlib.Path("/proc/self/maps")  # Linux's
_MOST_MAPS = 45_000


@pytest.fixture(autouse=True, scope="module")
def programs_are_forgotten_in_time():
    """Linux lets a process have 65,530 memory maps and every compiled program takes some: a segmentation fault follows.

    What is compiled again comes from the cache on disk.
    """
    yield
    if _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > _MOST_MAPS:
        jax.clear_caches()
        programs._ready.clear()
        gc.collect()
