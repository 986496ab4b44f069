"""Strictness for every test: warnings are errors (pyproject.toml), shapes never broadcast by accident, two devices."""

import gc
import os
import pathlib

import jax
import jaxtyping
import pytest

from dal_jax.runtime import machine
from tests import shapes

# Tolerances are written for the CPU; JAX_PLATFORMS=cuda runs the tests on a GPU all the same.
if "JAX_PLATFORMS" not in os.environ:
    jax.config.update("jax_platforms", "cpu")
if os.environ.get("JAX_PLATFORMS", "cpu") == "cpu":
    # Most of the tests' time is XLA's compiling: these halve it, in the binaries that tests start too.
    # Of two values for a flag the later holds: the caller's.
    cheap = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    cheap += " --xla_cpu_use_fusion_emitters=false"
    os.environ["XLA_FLAGS"] = f"{cheap} {os.environ.get('XLA_FLAGS', '')}"
jax.config.update("jax_num_cpu_devices", 2)  # not XLA_FLAGS: binaries must not inherit the devices
jax.config.update("jax_numpy_rank_promotion", "raise")
jaxtyping.install_import_hook(shapes.modules(), "tests.shapes.checked")
machine.configure()  # shared by the test processes, and by the next run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have slow tests, so that no process is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


_MAPS = pathlib.Path("/proc/self/maps")  # Linux's
_MOST_MAPS = 25_000


@pytest.fixture(autouse=True, scope="module")
def programs_are_forgotten_in_time():
    """Linux lets a process have 65,530 memory maps and every compiled program takes some: a segmentation fault follows.

    What is compiled again comes from the cache on disk.
    """
    yield
    if _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > _MOST_MAPS:
        jax.clear_caches()
        gc.collect()
