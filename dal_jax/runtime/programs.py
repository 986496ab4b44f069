"""Compiled programs, kept on disk between processes: `jax.jit` for what cold processes run (on CPUs).

Of a fit's warm start most is tracing and lowering, which JAX's cache of compiled programs does not save. So what was
compiled once is kept beside it (`jax.experimental.serialize_executable`), and a later process loads that. A program is
found by a hash over everything that tracing and compiling read: the package's files, what its modules hold, versions of
libraries, JAX's options, the processor, the platform and its devices, and the shapes, types, places and static values
of the arguments. Where any of that cannot be told, nothing is kept, and the function is compiled as ever.

Like JAX's own cache the folder is trusted: who writes to it chooses what this process runs. A file that is damaged, cut
short or of another program is noticed, and made anew.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import inspect
import os
import pathlib
import pickle
import platform
import sys
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.experimental import serialize_executable

from dal_jax.runtime import files, machine

_PACKAGE = __name__.partition(".")[0]
_ROOT = pathlib.Path(__file__).parent.parent
_IMPORTED_NS = time.time_ns()
_LIBRARIES = ("jax", "jaxlib", "numpy", "optax")
_NOT_TRACED = ("flax", "jaxtyping", "scipy", "embreex")  # libraries too, whose versions change no program
_OPTIONS = (
    "jax_disable_jit", "jax_debug_nans", "jax_debug_infs",
    "jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl", "jax_threefry_partitionable",
    "jax_numpy_dtype_promotion", "jax_numpy_rank_promotion", "jax_default_device",
)  # fmt: skip
_DEBUGGING = 3  # of these
_PLAIN = (str, int, float, bool, type(None))
_FOLDER = "programs"  # in that of the compiled ones
_FORMAT = "2"  # of the files there: the first was deflated


def kept(function: Callable, variant: tuple = ()) -> Callable[..., Any]:
    """Return a function jitted, its program kept on disk where JAX keeps compiled ones (`machine.configure`).

        @programs.kept
        def _predict(template, people): ...

    Args:
      function: pure, of pytrees of arrays by position; of the package (another is jitted, and not kept).
      variant: plain values that a closure depends on.
    """
    plain = jax.jit(function)

    @functools.wraps(function)
    def call(*args):
        leaves, structure = jax.tree.flatten(args)
        options = [getattr(jax.config, name) for name in _OPTIONS]
        if any(isinstance(leaf, Tracer) for leaf in leaves) or any(options[:_DEBUGGING]):
            return plain(*args)  # a compiled program cannot be batched, differentiated or looked into
        quick = machine.compiles_quickly()
        kind = (plain, structure, quick, *options, *map(_kind, leaves))
        if kind not in _ready:
            _ready[kind] = _compiled(function, (variant, machine.QUICK if quick else None), leaves, structure)
        return _ready[kind](*leaves)

    return call


_ready: dict[tuple, Callable[..., Any]] = {}
"""What this process has compiled or loaded, of all functions."""


def _kind(leaf: Any) -> tuple:
    """Return what a compiled program asks of an argument: shape, type, and devices where it is bound to some."""
    if isinstance(leaf, jax.Array):
        return leaf.shape, leaf.dtype, leaf.weak_type, leaf.sharding if leaf.committed else None
    return (leaf.shape, leaf.dtype) if isinstance(leaf, np.ndarray) else (type(leaf),)


def _compiled(function: Callable, variant: tuple, leaves: list, structure) -> Callable[..., Any]:
    """Return a function of its arguments' leaves as a compiled program, from the disk or, if it can be, kept there.

    Two files: one, by all that tracing reads, says which program it is; the other, by what was traced, is the program,
    so that an edit of the package that does not change it costs no compiling.
    """

    def flat(*leaves):
        return function(*jax.tree.unflatten(structure, leaves))

    flat.__name__ = function.__name__

    def jitted():
        return jax.jit(flat, compiler_options=variant[-1] and machine.known_options())

    folder = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    key, around = _key(function, variant, leaves, structure) if folder else None, _surroundings(leaves)
    # a program of several processes is written by none; on other platforms this has not been tried
    if folder is None or key is None or jax.process_count() > 1 or jax.default_backend() != "cpu":
        return jitted()
    traced, lowered = pathlib.Path(folder) / _FOLDER / f"{function.__name__}-{key.hex()}", None
    if (which := _read(traced, key)) is None:
        lowered = jitted().lower(*leaves)
        which = _digest(_plain(variant[-1]), lowered.as_text(), *around)
        _write(traced, key, which)
    path = traced.with_name(which.hex())
    if (content := _read(path, which)) is not None and (parts := _unpacked(content)) is not None:
        number, program, trees = parts
        if _LAPACK in program:
            _find_lapack()
        devices = {device.id: device for device in jax.devices()}
        return serialize_executable.deserialize_and_load(
            program, *trees, execution_devices=[devices[i] for i in number]
        )
    made, whole = _compile(lowered or jitted().lower(*leaves))
    if whole and (loaded := made.runtime_executable()) is not None:
        program, *trees = serialize_executable.serialize(made)
        number = [device.id for device in loaded.local_devices()]
        _write(path, which, pickle.dumps((number, program, trees)))
    return made


def _compile(lowered: jax.stages.Lowered) -> tuple[jax.stages.Compiled, bool]:
    """Return a compiled program, and whether it can be written: what JAX's own cache gave has lost its functions.

    Nothing goes into that cache, which would hold the program once more.
    """
    hits, slowest = len(_hits), getattr(jax.config, _LEAST_TIME)
    jax.config.update(_LEAST_TIME, float("inf"))
    try:
        made = lowered.compile()
    finally:
        jax.config.update(_LEAST_TIME, slowest)
    return made, len(_hits) == hits


_LEAST_TIME = "jax_persistent_cache_min_compile_time_secs"
_hits: list[str] = []
jax.monitoring.register_event_listener(
    lambda event, **_: _hits.append(event) if event.endswith("/cache_hits") else None
)


_LAPACK = b"lapack_"  # in the names of what such a program calls


@functools.cache
def _find_lapack() -> None:
    """Let JAX look for LAPACK's functions, as it does when it lowers a call of one: a call without them is a crash."""
    jax.jit(jax.lax.linalg.cholesky).lower(np.eye(1, dtype=np.float32))


def _unpacked(content: bytes) -> tuple | None:
    """Return the parts of a program's file; None where a class of its answer has another place or name by now."""
    try:
        return pickle.loads(content)
    except (ImportError, AttributeError):
        return None


def _digest(*words: str) -> bytes:
    return hashlib.sha256("\n".join(words).encode()).digest()


def _write(path: pathlib.Path, key: bytes, content: bytes) -> None:
    with contextlib.suppress(OSError):  # a full disk costs time, not the result
        files.write_bytes(path, key + hashlib.sha256(content).digest() + content)


def _read(path: pathlib.Path, key: bytes) -> bytes | None:
    """Return the program in a file; None where there is none, or another, or a damaged one."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    size = len(key)
    whole = content[:size] == key and content[size : 2 * size] == hashlib.sha256(content[2 * size :]).digest()
    return content[2 * size :] if whole else None


def _key(function: Callable, variant: tuple, leaves: list, structure) -> bytes | None:
    """Return a hash over everything that the traced program depends on; None where it cannot be told."""
    if function.__module__.partition(".")[0] != _PACKAGE:
        return None
    try:
        parts = [
            _package(), function.__module__, function.__qualname__, _plain(variant), _structure(structure),
            *(f"{name}={getattr(jax.config, name)}" for name in _OPTIONS), *_globals(function.__module__),
        ]  # fmt: skip
    except (_UnknownError, OSError):
        return None
    return _digest(*parts, *_surroundings(leaves))


def _surroundings(leaves: list) -> list[str]:
    """Return in words what a program is compiled for, and by what."""
    kinds = (f"{device.id} {device.device_kind}" for device in jax.devices())
    flags = os.environ.get("XLA_FLAGS", "")
    return [_FORMAT, *map(_place, leaves), *_versions(), *_processor(), flags, jax.default_backend(), *kinds]


def _place(leaf: Any) -> str:
    """Return an argument's shape, type and devices in words."""
    one, where = jax.typeof(leaf), ""
    if isinstance(leaf, jax.Array) and leaf.committed:
        where = f"{leaf.sharding} {sorted(device.id for device in leaf.sharding.device_set)}"
    return f"{one.dtype}{one.shape}{one.weak_type}{where}"


@functools.cache
def _processor() -> tuple[str, ...]:
    """Return what is compiled for: a program for one processor may hold instructions that another does not have."""
    described = pathlib.Path("/proc/cpuinfo")  # Linux's
    known = (
        [line for line in described.read_text().splitlines() if line.startswith(("flags", "Features", "model name"))]
        if described.exists()
        else []
    )
    return sys.version, platform.platform(), platform.machine(), *sorted(set(known))


@functools.cache
def _versions() -> tuple[str, ...]:
    return tuple(map(importlib.metadata.version, _LIBRARIES))


class _UnknownError(Exception):
    """What a program depends on cannot be told."""


def _package() -> str:
    """Return a hash over the package's files, if this process has them as they were when it loaded them."""
    paths = _paths()
    if any(path.stat().st_ctime_ns > _IMPORTED_NS for path in paths):  # edited: what runs is not what the file says
        raise _UnknownError
    return _hash()


@functools.cache
def _paths() -> list[pathlib.Path]:
    return sorted(path for path in _ROOT.rglob("*") if "__pycache__" not in path.parts and path.is_file())


@functools.cache
def _hash() -> str:
    digest = hashlib.sha256()
    for path in _paths():
        digest.update(f"{path.relative_to(_ROOT)} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _structure(structure) -> str:
    """Return a pytree's structure in words."""
    node = structure.node_data()
    if node is None:
        return "*" if structure.num_leaves else "None"
    kind, static = node
    if kind.__module__.partition(".")[0] not in ("builtins", _PACKAGE):
        raise _UnknownError
    children = ", ".join(map(_structure, structure.children()))
    return f"{kind.__module__}.{kind.__qualname__}{_plain(static)}({children})"


def _plain(value: Any) -> str:
    """Return a value in words, if these say all of it."""
    if isinstance(value, dict):
        return f"{{{_plain(list(value.items()))}}}"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_plain, value))})"
    if type(value) not in _PLAIN:
        raise _UnknownError
    return repr(value)


def _globals(module: str) -> Iterator[str]:
    """Yield what a module, and those that it uses, hold, in words, so that what a script replaces in them is told."""
    to_do, done = [module], {__name__}
    while to_do:
        name = to_do.pop()
        if name in done or name.partition(".")[0] != _PACKAGE or name not in sys.modules:
            continue
        done.add(name)
        if hasattr(sys.modules[name], "__path__"):  # a package: its names are the modules that were loaded so far
            continue
        for key, value in sorted(vars(sys.modules[name]).items()):
            yield from _words(f"{name}.{key}", value)
            if isinstance(value, type) and value.__module__ == name:
                for attribute, inner in sorted(vars(value).items()):
                    yield from _words(f"{name}.{key}.{attribute}", inner)
            home = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
            if isinstance(home, str):
                to_do.append(home)


def _words(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, np.ndarray):
        yield f"{name} {value.dtype}{value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    elif isinstance(value, dict) and not name.endswith("__"):  # of functions by their names, such as the solvers
        for key, inner in value.items():
            yield from _words(f"{name}[{key!r}]", inner)
    elif isinstance(value, (types.FunctionType, type)):
        yield from _of_code(name, value)
    elif callable(value):
        yield from _of_code.__wrapped__(name, value)  # whatever it is, it may have no hash
    elif not name.endswith("__"):
        with contextlib.suppress(_UnknownError):
            yield f"{name} {_plain(value)}"


@functools.cache
def _of_code(name: str, value: Callable) -> list[str]:
    inner, home = inspect.unwrap(value), getattr(value, "__module__", None)
    top = home.partition(".")[0] if isinstance(home, str) else _PACKAGE
    if top not in (_PACKAGE, *_LIBRARIES, *_NOT_TRACED) and top not in sys.stdlib_module_names:
        raise _UnknownError  # a caller's own, which has no version
    if (code := getattr(inner, "__code__", None)) is None:
        return []
    # wrapped by what checks shapes it is traced apart
    return [f"{name} {home} {code.co_qualname} {code.co_firstlineno} {inner is not value}"]
