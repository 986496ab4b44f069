"""This process and its machine: the cores, what to call it, how it compiles and where that is kept, and how it stops.

SIGTERM is how clusters and `kill` end a process: training saves a checkpoint first, all else stops at once. Training
asks `stop_requested` where it could save, saves, and calls `stop_if_requested`. It has the grace for that, and no
longer.
"""

import contextlib
import contextvars
import functools
import os
import pathlib
import platform
import re
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp

import dal_jax

_CACHE_OPTION = "jax_compilation_cache_dir"


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model() -> str:
    """Return the processor's own name where the system tells it."""
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def describe() -> str:
    """Return one line on processor, system, Python, JAX and its devices, for reports."""
    devices = jax.devices()
    device = "" if devices[0].platform == "cpu" else f" on {len(devices)} x {devices[0].device_kind}"
    used = f"{cores()} core{'s' if cores() > 1 else ''} of {cpu_model()}, {platform.system()}"
    return f"{used}, Python {platform.python_version()}, JAX {jax.__version__}{device}"


def command() -> str:
    """Return the command line of this process, as a shell takes it."""
    return shlex.join([pathlib.Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]])


def configure() -> pathlib.Path | None:
    """Point JAX at the folder of compiled programs, unless JAX_COMPILATION_CACHE_DIR already does; return the folder.

    Each core of a processor is made a device of its own, unless the caller has said how many there are
    (JAX_NUM_CPU_DEVICES), or devices are in use already: registration is faster so (`mesh.of_networks` is not).

    The second process, of a binary, a script or the tests, then compiles next to nothing. The folder is $DAL_CACHE,
    else $XDG_CACHE_HOME/dal_jax, else ~/.cache/dal_jax. An empty DAL_CACHE turns the cache off. Where the folder cannot
    be made, a warning says so and nothing is kept.
    """
    _make_each_core_a_device()
    folder = _folder()
    if getattr(jax.config, _CACHE_OPTION) is None and folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            warnings.warn(f"{folder}: compiled programs cannot be kept there: {error.strerror}", stacklevel=2)
            return None
        jax.config.update(_CACHE_OPTION, str(folder))
        # Of the hundreds of programs of a fit most are tiny: together they take as long to compile as a large one
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    chosen = getattr(jax.config, _CACHE_OPTION)
    return None if chosen is None else pathlib.Path(chosen)


_DEVICES_OPTION = "jax_num_cpu_devices"
_own_devices: list[int] = []  # as many as this module has asked for


def _make_each_core_a_device() -> None:
    said = getattr(jax.config, _DEVICES_OPTION) >= 0 or _HOST_DEVICES in os.environ.get("XLA_FLAGS", "")
    if not said:
        with contextlib.suppress(RuntimeError):  # devices are in use already
            jax.config.update(_DEVICES_OPTION, cores())
            _own_devices.append(cores())


_HOST_DEVICES = "xla_force_host_platform_device_count"


def has_device_a_core() -> bool:
    """Return whether the devices are a processor's cores, because `configure` has made them that."""
    return jax.default_backend() == "cpu" and _own_devices == [getattr(jax.config, _DEVICES_OPTION)]


@contextlib.contextmanager
def compiling(program: str, duration: str) -> Iterator[None]:
    """Say in one line that a program is about to be compiled, unless it has run to its end on this machine before.

        with machine.compiling("register", "a minute"):
            fits = dal.fit(people, body)

    A small file in the folder of compiled programs remembers that; the folder keeps what was compiled.

    Args:
      program: its name; options that make it another program are part of it.
      duration: about how long that takes on two cores, in words.
    """
    folder = configure()
    version = "-".join((program, dal_jax.__version__, jax.__version__, jax.default_backend()))
    mark = None if folder is None else folder / f"compiled-{version}"
    if mark is None:
        print(f"compiling: about {duration} (nothing is kept: DAL_CACHE is empty)", flush=True)
    elif not mark.exists():
        print(f"compiling (first run: about {duration}; later runs read the cache)", flush=True)
    yield
    if mark is not None:
        with contextlib.suppress(OSError):
            mark.touch()


_FEW = 5000
QUICK = {
    "xla_backend_optimization_level": 1, "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
    "xla_disable_hlo_passes": "reshape-mover",  # it moves something for ever in programs as large as a registration
}  # fmt: skip
"""Options of XLA for CPUs that halve its compiling, and the speed of what it compiles.

Note: our choice. When it was made the README's `register` command took 97 s of CPU with them on an empty cache and 193
without, 11 and 11 the next time, registering 256 people 1.3 and 0.6; with optimisation level 0 that was 65, 14 and 8.3.
`_FEW` is about where both are even.
"""
_quickly = contextvars.ContextVar("quickly", default=False)


@contextlib.contextmanager
def for_people(count: int) -> Iterator[None]:
    """Compile what is run inside for so many people: for few of them quickly, for many of them well.

    Where few people are fitted, the first run is nothing but compiling. The numbers are the same but for rounding.
    """
    token = _quickly.set(count <= _FEW)
    try:
        yield
    finally:
        _quickly.reset(token)


def few_people() -> bool:
    """Return whether few people are fitted, for whom a program less is worth more than speed."""
    return _quickly.get()


def compiles_quickly() -> bool:
    """Return whether `QUICK` is for what runs now: few people, on CPUs, and XLA_FLAGS do not say how hard to try."""
    said = "xla_backend_optimization_level" in os.environ.get("XLA_FLAGS", "")
    return few_people() and not said and jax.default_backend() == "cpu"


@functools.cache
def known_options() -> dict[str, Any]:
    """Return those of `QUICK` that this XLA has: they come and go with its releases."""
    known = dict(QUICK)
    while True:
        try:
            jax.jit(jnp.negative, compiler_options=known).lower(0.0).compile()
            return known
        except jax.errors.JaxRuntimeError as error:
            unknown = [name for name in known if f"'{name}'" in str(error)]
            if not unknown:
                raise
            known = {name: value for name, value in known.items() if name not in unknown}


def _folder() -> pathlib.Path | None:
    if (chosen := os.environ.get("DAL_CACHE")) is not None:
        return pathlib.Path(chosen).expanduser() if chosen else None
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(caches).expanduser() / "dal_jax"


GRACE_S = 20.0
"""Between SIGTERM and leaving without another checkpoint: Slurm and Kubernetes kill after 30 seconds."""

_asked = threading.Event()


class Preempted(BaseException):
    """SIGTERM ends this process. No `Exception`: nothing that mends errors may catch it."""


def answer_sigterm(grace_s: float) -> None:
    """Answer SIGTERM in this process from now on; grace_s: 0 raises Preempted at once, wherever the process stands."""

    def ask(number: int, frame: FrameType | None) -> None:
        _asked.set()
        if not grace_s:
            raise Preempted
        signal.setitimer(signal.ITIMER_REAL, grace_s)

    def end(number: int, frame: FrameType | None) -> None:
        raise Preempted

    _asked.clear()
    signal.signal(signal.SIGALRM, end)
    signal.signal(signal.SIGTERM, ask)


def stop_requested() -> bool:
    """Return whether SIGTERM has come: save, and `stop_if_requested`."""
    return _asked.is_set()


def stop_if_requested() -> None:
    """Raise Preempted where SIGTERM has come."""
    if stop_requested():
        raise Preempted
