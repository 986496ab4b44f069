"""What this process may use of its machine: the cores, and a folder on disk for XLA's compiled programs."""

import os
import pathlib

import jax

_CACHE_OPTION = "jax_compilation_cache_dir"


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def configure() -> pathlib.Path | None:
    """Point JAX at the folder of compiled programs, unless JAX_COMPILATION_CACHE_DIR already does; return the folder.

    The second run of a binary, or of the tests, then compiles next to nothing. The folder is $DAL_CACHE, else
    $XDG_CACHE_HOME/dal_jax, else ~/.cache/dal_jax. An empty DAL_CACHE turns the cache off.
    """
    folder = _folder()
    if getattr(jax.config, _CACHE_OPTION) is None and folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        jax.config.update(_CACHE_OPTION, str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    chosen = getattr(jax.config, _CACHE_OPTION)
    return None if chosen is None else pathlib.Path(chosen)


def _folder() -> pathlib.Path | None:
    if (chosen := os.environ.get("DAL_CACHE")) is not None:
        return pathlib.Path(chosen).expanduser() if chosen else None
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(caches).expanduser() / "dal_jax"
