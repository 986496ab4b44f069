"""How every binary begins and ends: it parses flags, and bad input ends it with one line and an exit code.

A binary reads:

    _CONFIG = config_flag.define(train.TrainConfig())
    _OUT = flags.DEFINE_string("out", None, "Folder for the results.", required=True)

    def main(_: list[str]) -> None:
        ...

    if __name__ == "__main__":
        cli.run(main)
"""

import os
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import NoReturn

import jax
from absl import app, flags, logging

from dal_jax.runtime import configs, door, files, machine
from dal_jax.runtime.errors import DivergedError, InputError, one_line

_MOST_MEGAPIXELS = flags.DEFINE_float(
    "most_megapixels", None, "Larger pictures are refused before they are unpacked; default 50.", lower_bound=0.01
)
_PLATFORM = flags.DEFINE_enum("platform", None, ["cpu", "cuda", "rocm", "tpu"], "What to compute on; default: JAX's.")
_DEBUG_NANS = flags.DEFINE_bool(
    "debug_nans", False, "Stop at the first NaN that a compiled program returns, with the line that made it. Slow."
)

PROCESSES = ("coordinator", "processes", "process")
"""Flags of a binary that several processes run together."""


def define_processes() -> None:
    """Define the flags of a binary that several processes run together, each with devices of its own."""
    flags.DEFINE_string(
        "coordinator", None, "HOST:PORT of the first of several processes, or 'auto': as JAX finds them on a cluster "
        "(Slurm, Open MPI, GKE, TPU)."
    )  # fmt: skip
    flags.DEFINE_integer("processes", None, "How many processes there are, with --coordinator=HOST:PORT.", 1)
    flags.DEFINE_integer("process", None, "Which of them this is, from 0.", 0)


def _join_processes() -> None:
    """Begin `jax.distributed` where flags ask for it; that must come before anything else of JAX."""
    address, count, number = (flags.FLAGS[name].value if name in flags.FLAGS else None for name in PROCESSES)
    if address is None:
        if count is not None or number is not None:
            raise InputError("--processes and --process go with --coordinator")
        return
    if address == "auto":
        jax.distributed.initialize()
    elif count is None or number is None or number >= count:
        raise InputError(f"--coordinator={address} goes with --processes=N and --process=0..N-1")
    else:
        jax.distributed.initialize(address, count, number, heartbeat_timeout_seconds=_HEARTBEAT_S)
    if jax.process_index() > 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the first speaks for all


_HEARTBEAT_S = 30  # without one of another process

DIVERGED = 1  # exit codes
BAD_INPUT = 2  # as argparse's
INTERRUPTED = 130  # 128 + SIGINT, as a shell's
TERMINATED = 143  # 128 + SIGTERM; 0 where the same command goes on from a checkpoint
UNREAD = 141  # 128 + SIGPIPE: what stdout goes to has been closed, as by `head`

NOTHING_KEPT = "no results are written; the same command begins anew"
GOES_ON = "the same command goes on from the last checkpoint"
"""What is said of a binary that Ctrl-C or SIGTERM ends."""


def run(main: Callable[[list[str]], None], interrupted: str = NOTHING_KEPT) -> NoReturn:
    """Parse the flags, call `main(argv)` and exit: 0, or with one line 2 (bad input), 1 (diverged), 130 (Ctrl-C).

    SIGTERM lets what has checkpoints save one first, and ends it with 0, everything else with 143.

    interrupted: what Ctrl-C and SIGTERM leave, and how to go on.

    Bad input is a flag absl refuses, a stray argument, `InputError`, or an operating system error about a named file.
    Any other exception is a bug and keeps its traceback.
    """

    def guarded(argv: list[str]) -> None:
        warnings.formatwarning = lambda message, *_, **__: f"warning: {one_line(str(message))}\n"
        if _PLATFORM.value is not None:
            jax.config.update("jax_platforms", _PLATFORM.value)
        if _MOST_MEGAPIXELS.value is not None:
            os.environ[door.MOST_MEGAPIXELS] = str(_MOST_MEGAPIXELS.value)
        if _DEBUG_NANS.value:
            jax.config.update("jax_debug_nans", True)
        try:
            machine.configure()
            _join_processes()
            alone = not jax.distributed.is_initialized()  # several do not agree on when to save one more
            machine.answer_sigterm(machine.GRACE_S if alone and interrupted == GOES_ON else 0.0)
            main(argv)
            sys.stdout.flush()
        except machine.Preempted:
            print(f"\nstopped by SIGTERM: {interrupted}", file=sys.stderr)
            sys.exit(0 if interrupted == GOES_ON else TERMINATED)
        except InputError as error:
            fail(str(error))
        except BrokenPipeError:
            _leave_unread()
        except OSError as error:
            if error.errno in files.DISK_FULL:
                where = f"{error.filename}: " if error.filename else ""
                fail(f"{where}{error.strerror}: free some space; {interrupted}")
            if error.filename is None:
                raise
            fail(f"{error.filename}: {error.strerror}")
        except DivergedError as error:
            fail(f"{error}; the last checkpoint is finite, and a lower learning rate goes on from it", DIVERGED)
        except KeyboardInterrupt:
            print(f"\ninterrupted: {interrupted}", file=sys.stderr)
            sys.exit(INTERRUPTED)

    def together(argv: list[str]) -> None:
        try:
            guarded(argv)
        except BaseException as error:
            if jax.distributed.is_initialized():
                _leave_the_others(error)
            raise

    names = (_MOST_MEGAPIXELS.name, _PLATFORM.name, _DEBUG_NANS.name, *PROCESSES)
    for name in names:  # so that --help, which shows a binary's own flags, shows these
        if name in flags.FLAGS:
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
    app.run(together, flags_parser=_parse)
    raise AssertionError("absl.app.run exits")


def fail(message: str, code: int = BAD_INPUT) -> NoReturn:
    """Print `error: MESSAGE` as one line on stderr and exit."""
    print("error: " + one_line(message), file=sys.stderr)
    sys.exit(code)


def _leave_the_others(error: BaseException) -> None:
    """End at once: to end together, as JAX does at exit, would wait minutes for processes that wait for this one."""
    code = error.code if isinstance(error, SystemExit) else 1
    if not isinstance(error, SystemExit):
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    if code:
        os._exit(code if isinstance(code, int) else 1)


def _leave_unread() -> NoReturn:
    """Exit quietly: Python would flush what is left to the closed pipe, and print a traceback."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(UNREAD)


def _parse(argv: list[str]) -> list[str]:
    try:
        try:
            rest = flags.FLAGS(argv)
        except SystemExit:  # absl has printed --help, and would call that a failure
            sys.stdout.flush()
            sys.exit(0)
    except BrokenPipeError:
        _leave_unread()
    except flags.Error as error:
        fail(_readable(str(error)))
    try:
        for name in flags.FLAGS:
            check_flag(flags.FLAGS[name])
    except InputError as error:
        fail(str(error))
    if len(rest) > 1:
        fail(f"unexpected argument '{rest[1]}': a flag's value follows an equals sign, as in --out=DIR")
    if flags.FLAGS["verbosity"].using_default_value:
        flags.FLAGS.verbosity = logging.ERROR  # absl's default would print Orbax's every step
    return rest


def check_flag(flag: flags.Flag) -> None:
    """Refuse a number that no flag can have: absl lets NaN through any bounds, and infinity where there is none above.

    Raises:
      InputError: names the flag, the value and the bound.
    """
    if "." not in flag.name:  # fields of a configuration are checked with it: its rates may be wilder
        configs.check_number(f"flag --{flag.name}", flag.value, _MOST)


_MOST = 1e12  # metres, pixels, seconds, shares: what a flag counts stays below


def _readable(message: str) -> str:
    if message.endswith("must have a value other than None."):
        return message.split("=", 1)[0] + " is required"
    return message
