"""The command line: flags and configuration of a binary, and how it begins and ends.

Bad input ends it with one line and an exit code. `--config.first.registration.steps=30` sets one field of a nested
dataclass. A binary reads:

    _CONFIG = cli.define_config(train.TrainConfig())
    _OUT = flags.DEFINE_string("out", None, "Folder for the results.", required=True)

    def main(_: list[str]) -> None:
        ...

    if __name__ == "__main__":
        cli.run(main)
"""

import ast
import dataclasses
import difflib
import gc
import inspect
import os
import re
import sys
import traceback
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from dal_jax.runtime import configs, door, files, machine
from dal_jax.runtime.errors import DivergedError, InputError, one_line

_MOST_MEGAPIXELS = flags.DEFINE_float(
    "most_megapixels", None, "Larger pictures are refused before they are unpacked; default 50.", lower_bound=0.01
)
_PLATFORM = flags.DEFINE_enum("platform", None, ["cpu", "cuda", "rocm", "tpu"], "What to compute on; default: JAX's.")
_DEBUG_NANS = flags.DEFINE_bool(
    "debug_nans", False, "Stop at the first NaN that a compiled program returns, with the line that made it. Slow."
)

flags.disclaim_key_flags()  # what functions below define belongs to the binary, so its --help shows it

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
        gc.freeze()  # modules stay to the end: collecting would look at each of their objects, and so would exiting
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


# --- A configuration as flags ---


def define_config(
    default: Any, presets: Mapping[str, Callable[[], Any]] | None = None, flag_values: flags.FlagValues = flags.FLAGS
) -> flags.FlagHolder:
    """Define `--config.FIELD=VALUE` for every field of a mutable dataclass; call it where other flags are defined.

    Args:
      default: the configuration when nothing is set. The comment behind each field is its help.
      presets: functions that make whole configurations, by name. `--config.preset=NAME` chooses one; other overrides
        apply on top of it, wherever they stand on the command line. The dataclass has a field `preset` for the name.
      flag_values: where the flag is defined.

    Returns:
      A holder whose `.value` is the configuration once flags are parsed.

    Note: ml_collections reads the command line here, before `main`, so bad overrides must be refused here.
    """
    overrides = _overrides(sys.argv)
    if presets is not None and (name := overrides.get("preset")) is not None:
        if name not in presets:
            fail(f"flag --config.preset={name}: one of {', '.join(presets)}")
        default = presets[name]()
    fields = dict(_fields(default))
    for path in overrides:
        _refuse_unknown(path, fields)
    for _, kind, _ in fields.values():
        _register_parser(kind)
    holder = config_flags.DEFINE_config_dataclass("config", default, _help_of(fields), flag_values)
    flag_values["config"].default_as_str = None  # the fields' own defaults are in the help
    return holder


_Field = tuple[Any, Any, str]
"""Value, type, and the comment behind the field."""


def _fields(config: Any, prefix: str = "") -> Iterator[tuple[str, _Field]]:
    """Yield (path, field), nested dataclasses themselves included."""
    kinds = typing.get_type_hints(type(config))
    source = inspect.getsource(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        comment = re.search(rf"^\s+{field.name}\s*:[^\n]*?\s\s#\s*(.*)$", source, re.MULTILINE)
        yield prefix + field.name, (value, kinds[field.name], comment.group(1) if comment else "")
        if dataclasses.is_dataclass(value):
            yield from _fields(value, f"{prefix}{field.name}.")


def _overrides(argv: list[str]) -> dict[str, str]:
    """Collect `--config.PATH=VALUE`, `--config.PATH VALUE` and `--noconfig.PATH` as {PATH: VALUE}."""
    found = {}
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        if match := re.match(r"--?(?:no)?config\.([^=]+)(?:=(.*))?$", argument, re.DOTALL):
            found[match.group(1)] = following if match.group(2) is None else match.group(2)
    return found


def _refuse_unknown(path: str, fields: Mapping[str, _Field]) -> None:
    settable = [name for name, (value, *_) in fields.items() if not dataclasses.is_dataclass(value)]
    if path in settable:
        return
    if path in fields:
        fail(f"flag --config.{path}: is a group, set one of its fields, as in --config.{path}.FIELD=VALUE")
    near = difflib.get_close_matches(path, settable, n=1)
    hint = f"did you mean --config.{near[0]}?" if near else "--help lists the fields"
    fail(f"flag --config.{path}: no such field; {hint}")


def _register_parser(kind: Any) -> None:
    """Teach ml_collections the types it would refuse (choices) or not check (the elements of a tuple)."""
    if typing.get_origin(kind) is typing.Literal:
        config_flags.register_flag_parser_for_type(kind, flags.EnumParser([str(v) for v in typing.get_args(kind)]))
    elif typing.get_origin(kind) is tuple:
        config_flags.register_flag_parser_for_type(kind, _TupleParser(kind))


class _TupleParser(flags.ArgumentParser):
    """Parse `3,4` or `(3, 4)` into a `tuple[int, ...]` or `tuple[int, int]`; an int passes for a float."""

    def __init__(self, kind: Any):
        self._kinds = typing.get_args(kind)

    def parse(self, argument: str | tuple) -> tuple:
        values = self._literal(argument) if isinstance(argument, str) else argument
        kinds = self._kinds[:1] * len(values) if self._kinds[-1] is Ellipsis else self._kinds
        if len(values) != len(kinds):
            raise ValueError(f"{len(kinds)} values are needed")
        return tuple(self._checked(value, kind) for value, kind in zip(values, kinds, strict=True))

    def _literal(self, argument: str) -> tuple:
        words = argument.strip("() ").split(",") if str in self._kinds else None
        if words is not None:
            return tuple(word.strip(" '\"") for word in words if word)
        try:
            values = ast.literal_eval(argument)
        except (SyntaxError, ValueError):
            raise ValueError("is no tuple such as (1, 2)") from None
        return values if isinstance(values, tuple) else (values,)

    def _checked(self, value: Any, kind: type) -> Any:
        if type(value) is kind or (kind is float and type(value) is int):
            return kind(value)
        raise ValueError(f"{value!r} is no {kind.__name__}")


def _help_of(fields: Mapping[str, _Field]) -> str:
    lines = ["Set one field by --config.FIELD=VALUE:"]
    for path, (value, _, comment) in fields.items():
        if not dataclasses.is_dataclass(value):
            lines.append(f"{path}={value!r}  {comment}".rstrip())
    return "\n".join(lines)
