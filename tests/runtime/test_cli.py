"""A binary's edge: the exit code and the one line for everything that can be wrong with its input."""

import pathlib
import runpy
import signal
import subprocess
import sys

import pytest
from absl import flags

from dal_jax.runtime import cli
from dal_jax.runtime.errors import InputError

_ROOT = pathlib.Path(__file__).parents[2]
_BINARY = '''"""Say how it ends.

    python -m %s --how=well
"""
import time

from absl import flags, logging

from dal_jax.runtime import cli, errors

_WAYS = ["well", "input", "diverged", "file", "bug", "much", "sleep"]
_HOW = flags.DEFINE_enum("how", None, _WAYS, "The end.", required=True)


def main(_):
    logging.info("chatter")
    logging.warning("chatter")
    print("started", flush=True)
    if _HOW.value == "input":
        raise errors.InputError("people.json: annotation 17:\\n  dp_I[3] is 25")
    if _HOW.value == "diverged":
        raise errors.DivergedError("round 1, learn: regressor, step 7: loss is nan")
    if _HOW.value == "file":
        open("absent.json")
    if _HOW.value == "bug":
        raise ValueError("a bug")
    if _HOW.value == "much":
        print("many lines\\n" * 100_000)
    if _HOW.value == "sleep":
        time.sleep(60)


if __name__ == "__main__":
    cli.run(main, "what is done stays")
'''


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    path = tmp_path_factory.mktemp("binary") / "binary.py"
    path.write_text(_BINARY)
    start = "import signal; signal.signal(2, signal.default_int_handler); "  # jobs in the background ignore it
    start += f"import runpy, sys; sys.argv[0] = {str(path)!r}; runpy.run_path({str(path)!r}, run_name='__main__')"
    return lambda *arguments: [sys.executable, "-c", start, *arguments]


def _run(command):
    return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)


def test_a_good_run_is_quiet(command):
    done = _run(command("--how=well"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "started\n", "")


def test_help_is_no_failure(command):
    done = _run(command("--help"))
    assert done.returncode == 0
    assert "Say how it ends." in done.stdout
    for told in ("--how: <well|input|diverged|file|bug|much|sleep>: The end.", "--[no]debug_nans: ", "--platform: "):
        assert told in done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--how=badly"], "flag --how=badly: value should be one of <well|input|diverged|file|bug|much|sleep>"),
        (["--hwo=well"], "Unknown command line flag 'hwo'. Did you mean: how ?"),
        ([], "flag --how is required"),
        (["--how=well", "more"], "unexpected argument 'more': a flag's value follows an equals sign, as in --out=DIR"),
        (["--how=input"], "people.json: annotation 17: dp_I[3] is 25"),
        (["--how=file"], "absent.json: No such file or directory"),
    ],
)
def test_bad_input_is_one_line_and_code_2(command, arguments, told):
    done = _run(command(*arguments))
    assert done.stderr == f"error: {told}\n"
    assert done.returncode == 2


def test_numbers_that_diverge_are_one_line_and_code_1(command):
    done = _run(command("--how=diverged"))
    assert done.stderr.startswith(
        "error: round 1, learn: regressor, step 7: loss is nan; the last checkpoint is finite"
    )
    assert (done.stderr.count("\n"), done.returncode) == (1, 1)


def test_a_bug_keeps_its_traceback(command):
    done = _run(command("--how=bug"))
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("ValueError: a bug\n")


@pytest.mark.parametrize(
    ("number", "told", "code"), [(signal.SIGINT, "interrupted", 130), (signal.SIGTERM, "stopped by SIGTERM", 143)]
)
def test_ctrl_c_and_sigterm_are_one_line_and_a_code(command, number, told, code):
    with subprocess.Popen(command("--how=sleep"), cwd=_ROOT, stdout=-1, stderr=-1, text=True) as child:
        assert child.stdout.readline() == "started\n"
        child.send_signal(number)
        _, said = child.communicate(timeout=120)  # beside other tests leaving takes a while
    assert said.strip() == f"{told}: what is done stays"
    assert child.returncode == code


@pytest.mark.parametrize("flag", ["--help", "--how=much"])
def test_who_reads_the_first_line_alone_sees_no_traceback(command, flag):
    with subprocess.Popen(command(flag), cwd=_ROOT, stdout=-1, stderr=-1, text=True) as child:
        child.stdout.readline()
        child.stdout.close()
        assert child.stderr.read() == ""
        child.wait(timeout=120)
    assert child.returncode in (0, cli.UNREAD)  # 0: the pipe took all before it was closed


def test_every_binary_says_what_ctrl_c_leaves():
    """Those that the same command goes on with say so, by their own words on --workdir, --out or --data_dir."""
    goes_on = {"deform_and_learn", "train_lifting", "compare_lifters", "compare_regressors", "predict", "prepare_data"}
    goes_on.add("reproduce")
    for path in (_ROOT / "experiments").glob("[a-z]*.py"):
        last = path.read_text().rstrip().splitlines()[-1].strip()
        assert (last == "cli.run(main)") == (path.stem not in goes_on), path.name


# --- The numbers of every binary's flags ---

_ODD = {
    "nan": "nan",
    "inf": "inf",
    "-inf": "-inf",
    "1e300": "1e300",
    "2**70": str(2**70),
    "negative": "-1",
    "zero": "0",
}
_SIGNED = {("register", "pitch_deg")}  # degrees down, or up
_MAY_BE_ZERO = _SIGNED | {
    ("benchmark", "seconds"), ("benchmark", "patience_s"), ("calibrate", "depth_noise"), ("calibrate", "seed"),
    ("prepare_data", "workers"), ("prepare_poses", "elevation_deg"), ("prepare_poses", "seed"),
    ("register", "tolerance"), ("register", "joint_limits"), ("register", "holdout"), ("train_lifting", "seed"),
    ("train_lifting", "checkpoint_seconds"),
}  # fmt: skip


@pytest.mark.parametrize("path", sorted((_ROOT / "experiments").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_every_number_of_a_binary_s_flags_is_bounded(path):
    """Each refuses what is odd, in a line that names it, but for what stands in the tables above."""
    text = path.read_text()

    def taken_out() -> dict[str, flags.Flag]:
        own = {name for name in flags.FLAGS if f'"{name}"' in text or name.partition(".")[0] == "config"}
        found = {name: flags.FLAGS[name] for name in own}
        for name in own:
            delattr(flags.FLAGS, name)
        return found

    others = taken_out()  # of another test's imports, under the same names
    runpy.run_path(str(path), run_name=path.stem)
    own = taken_out()
    for name, flag in others.items():
        flags.FLAGS[name] = flag
    numbers = {name: flag for name, flag in own.items() if "." not in name and flag.flag_type() in ("int", "float")}
    for name, flag in numbers.items():
        zero, negative = ((path.stem, name) in table for table in (_MAY_BE_ZERO, _SIGNED))
        assert _accepted(flag) == {odd for odd, may in (("zero", zero), ("negative", negative)) if may}, name


def _accepted(flag: flags.Flag) -> set[str]:
    found, refused = set(), []
    for name, text in _ODD.items():
        try:
            flag.parse(text)
            cli.check_flag(flag)
            found.add(name)
        except (flags.IllegalFlagValueError, InputError) as error:
            refused.append(str(error))
    assert all(line.startswith(f"flag --{flag.name}") for line in refused)
    return found
