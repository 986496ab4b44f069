"""Strictness for every test: warnings are errors (pyproject.toml), shapes never broadcast by accident, four devices."""

import os

import jax

from dal_jax.runtime import compilation_cache

# Tolerances are written for the CPU; JAX_PLATFORMS=cuda runs the tests on a GPU all the same.
if "JAX_PLATFORMS" not in os.environ:
    jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4)  # not XLA_FLAGS: the binaries that tests start must not inherit it
jax.config.update("jax_numpy_rank_promotion", "raise")
compilation_cache.configure()  # shared by the test processes, and by the next run
