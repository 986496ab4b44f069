"""What this process may use of the machine that it runs on."""

import os
import pathlib

import jax


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- XLA's compiled programs kept on disk: the second run of a binary, or of the tests, compiles next to nothing ---


def configure() -> pathlib.Path | None:
    """Point JAX at the cache folder, unless JAX_COMPILATION_CACHE_DIR already does; return the folder.

    The folder is $DAL_CACHE, else $XDG_CACHE_HOME/dal_jax, else ~/.cache/dal_jax. DAL_CACHE set to nothing turns the
    cache off.
    """
    if jax.config.jax_compilation_cache_dir is None and (folder := _folder()) is not None:
        folder.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    chosen = jax.config.jax_compilation_cache_dir
    return None if chosen is None else pathlib.Path(chosen)


def _folder() -> pathlib.Path | None:
    if (chosen := os.environ.get("DAL_CACHE")) is not None:
        return pathlib.Path(chosen).expanduser() if chosen else None
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(caches).expanduser() / "dal_jax"
