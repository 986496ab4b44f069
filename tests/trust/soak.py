"""Disturb runs of the whole loop: every one must end in the undisturbed history, or in one line.

    python -m tests.trust.soak --workdir=runs/soak --out=benchmarks/soak.json

A run is killed again and again until it ends, and the next begins. In between it is ended by SIGTERM, and meets a full
disk and another process in its folder; while it is dead, bits of its files are flipped, and files cut. Runs of their
own meet learning rates of 1e30 and JAX's NaN checks. That takes hours on two cores for the demo's size, and half an
hour for the small one; --seconds ends it sooner, and the summary says how much was done. The run that nobody disturbs
stays in --workdir: a later soak compares with it, too. A soak's summary stands behind earlier ones in --out.
"""

import collections
import importlib
import itertools
import json
import multiprocessing
import multiprocessing.context
import os
import pathlib
import random
import resource
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from absl import flags

from dal_jax.runtime import cli, files

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for the runs.", required=True)
_OUT = flags.DEFINE_string("out", None, "Write the summary there, as JSON.")
_SECONDS = flags.DEFINE_float("seconds", 1e9, "Begin nothing new after this time.")
_SEED = flags.DEFINE_integer("seed", 0, "Of every random choice.")
_COUNTS = {
    kind: flags.DEFINE_integer(kind, count, f"How many {kind.replace('_', ' ')}.", lower_bound=0)
    for kind, count in {
        "kills": 50, "sigterms": 5, "full_disks": 3, "double_starts": 2, "flipped_bits": 24, "truncations": 8,
        "wild_rates": 2, "nan_checks": 1,
    }.items()
}  # fmt: skip
_SIZE = flags.DEFINE_enum("size", "demo", ["demo", "small"], "Of the runs.")

_SMALL = (
    "--config.synthetic=tiny", "--config.rounds=2", "--config.lifting.width=16", "--config.lifting.batch=4",
    "--config.lifting.steps=200", "--config.lifting.steps_per_call=20", "--config.lifting_checkpoint_steps=20",
    "--config.regressor.width=4", "--config.regressor.batch=4", "--config.regressor.epochs=2",
    "--config.regressor.depth=14", "--config.learning_checkpoint_steps=5", "--config.first.registration.steps=3",
    "--config.later.registration.steps=3",
)  # fmt: skip
_DEMO = ("--config.lifting_checkpoint_steps=500", "--config.learning_checkpoint_steps=100")  # the rest is its preset's
_KILLS_A_CHECKPOINT = 0.5
"""A process is killed after 0 or more new checkpoints, two in the mean, and then a random time of a tenth of a run."""

_FORK = multiprocessing.get_context("fork")
Process = multiprocessing.context.ForkProcess


class Soak:
    """Runs of one configuration, one after the other, and what is wrong with their ends."""

    def __init__(self, root: pathlib.Path, data: pathlib.Path, config: tuple[str, ...], seed: int):
        """Make the run that all others are compared with, in `root`, unless it is there; `seed` decides all chance."""
        self.root, self.data, self.config, self.random = root, data, config, random.Random(seed)
        self.went_on: collections.Counter[str] = collections.Counter()  # what killed runs said as they went on
        self.number = itertools.count()
        self.ended = 0  # killed runs
        self.refused: list[str] = []  # what their damage came to
        root.mkdir(parents=True, exist_ok=True)
        output = "" if self.read("undisturbed") else self.end(self.start("undisturbed"))[1]
        self.history = self.read("undisturbed")
        if self.history is None:
            raise RuntimeError(output)
        rounds = json.loads((root / "undisturbed" / "history.json").read_text())
        self.seconds = len(rounds) * rounds[-1]["seconds"]  # the last: the first compiles
        print(f"{root}: a run takes {self.seconds:.0f} s", flush=True)

    def start(self, name: str, *more: str, prepare: Callable[[], None] | None = None) -> Process:
        """Start a run, or go on with it; more: flags; prepare: called in the new process.

        It is forked from this process, which has imported what it imports, and started nothing.
        """
        argv = [f"--workdir={self.root / name}", f"--data_dir={self.data}", *self.config, *more]
        output = self.root / f"{name}.{next(self.number)}.txt"
        child = _FORK.Process(target=_loop, args=(argv, output, prepare), name=str(output))
        child.start()
        return child

    def read(self, name: str) -> Any:
        """Return a run's history without its times, None where it has not ended."""
        path = self.root / name / "history.json"
        if not (self.root / name / "scores.json").exists():
            return None
        return [{key: value for key, value in one.items() if key != "seconds"} for one in json.loads(path.read_text())]

    def end(self, child: Process) -> tuple[int, str]:
        """Wait for the end; return exit code and output.

        Raises:
          RuntimeError: a process that it has started lives on.
        """
        child.join()
        path = pathlib.Path(child.name)
        output, code = path.read_text(errors="replace") if path.exists() else "", child.exitcode
        path.unlink(missing_ok=True)
        for _ in range(100):
            try:
                os.killpg(child.pid, 0)
            except ProcessLookupError:
                return code or 0, output
            time.sleep(0.2)
        raise RuntimeError(f"processes of {child.pid} live on: {output[-500:]}")

    def judge(self, name: str, child: Process) -> str:
        """Wait for the end; '' where it has the undisturbed history, the line where one says what is wrong.

        Raises:
          RuntimeError: anything else.
        """
        code, output = self.end(child)
        lines = [line for line in output.splitlines() if line.startswith("error: ")]
        if code == cli.BAD_INPUT and len(lines) == 1 and "Traceback" not in output:
            return lines[0]
        if code or "Traceback" in output or self.read(name) != self.history:
            raise RuntimeError(f"{name}: exit code {code}, history {self.read(name)}: {output[-1500:]}")
        return ""

    def wait_to_work(self, name: str, child: Process) -> None:
        """Wait until a run has taken its folder, or its end."""
        lock = self.root / name / ".lock"
        while child.is_alive() and not (lock.exists() and f"process {child.pid} " in lock.read_text(errors="replace")):
            time.sleep(0.1)

    def steps(self, name: str) -> int:
        """Return the last step that a run has saved, 0 where there is none."""
        try:
            whole = list((self.root / name / "checkpoints").glob("[0-9]*/checksums.json"))
        except FileNotFoundError:  # one has just been removed
            return self.steps(name)
        return max([int(one.parent.name) for one in whole if one.parent.name.isdecimal()], default=0)

    def wait(self, child: Process, seconds: float) -> None:
        """Wait for so long, or a run's end."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and child.is_alive():
            time.sleep(0.05)

    def saved(self, name: str, least: int) -> pathlib.Path:
        """Return the folder of a run that is killed as soon as it has so many checkpoints, made anew."""
        folder = self.root / name
        while True:
            child = self.start(name)
            while child.is_alive() and self.steps(name) < least:
                time.sleep(0.02)
            child.kill()
            self.end(child)
            if self.read(name) is None:
                return folder
            shutil.rmtree(folder)

    def at_work(self) -> Process:
        """Begin the run, or go on, up to a random moment. One that ends sooner is compared, and the next begins."""
        while True:
            child = self.start("killed")
            self.wait_to_work("killed", child)
            more = int(self.random.expovariate(_KILLS_A_CHECKPOINT))  # a busy machine makes them slowly
            last = self.steps("killed") + more
            while child.is_alive() and self.steps("killed") < last:
                time.sleep(0.02)
            self.wait(child, self.random.expovariate(10.0 / self.seconds))
            if child.is_alive():
                return child
            self._ends(child)

    # --- What is done to the run, once each call; returns the line that was said, or '' ---

    def kill(self, name: str) -> str:
        """Kill the run."""
        child = self.at_work()
        child.kill()
        _, said = self.end(child)
        lines = [line for line in said.splitlines() if line.startswith(("error: ", "warning: "))]
        if "Traceback" in said:
            raise RuntimeError(said[-1500:])
        if resumed := [line for line in said.splitlines() if line.startswith("resuming ")]:
            shutil.rmtree(self.root / "whole", ignore_errors=True)  # all that the folder holds has been read
        self.went_on.update(resumed or ["the beginning"])
        return " | ".join(lines)

    def flipped_bit(self, name: str) -> str:
        """Flip a bit of a random file of the killed run, most often of a checkpoint's."""

        def flip(content: bytearray) -> bytearray:
            content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
            return content

        return self._damage(flip)

    def truncation(self, name: str) -> str:
        """Cut a random file of the killed run."""
        return self._damage(lambda content: content[: self.random.randrange(len(content))])

    def _damage(self, change: Callable[[bytearray], bytearray]) -> str:
        folder, whole = self.root / "killed", self.root / "whole"
        if not folder.exists():
            self.kill("")
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
        saved = [path for path in paths if "checkpoints" in path.parts]
        path = self.random.choice(saved if saved and self.random.random() < 0.75 else paths)
        if not whole.exists():
            shutil.copytree(folder, whole)
        path.write_bytes(change(bytearray(path.read_bytes())))
        return ""

    def last_kill(self, name: str) -> str:
        """Let the run that was killed last end."""
        while (self.root / "killed").exists():
            self._ends(self.start("killed"))
        return ""

    def _ends(self, child: Process) -> None:
        """Compare a killed run that has ended; where a line has refused its damage, the damage is undone instead."""
        folder, whole = self.root / "killed", self.root / "whole"
        try:
            if line := self.judge("killed", child):
                if not whole.exists():
                    raise RuntimeError(line)
                self.refused.append(line.replace(str(self.root), "WORKDIR"))
                shutil.rmtree(folder)
                os.replace(whole, folder)
                return
            self.ended += 1
        except RuntimeError:
            shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)
        shutil.rmtree(whole, ignore_errors=True)

    def sigterm(self, name: str) -> str:
        """SIGTERM: a checkpoint, a word, and exit code 0."""
        child = self.at_work()
        child.terminate()
        code, said = self.end(child)
        if code or "Traceback" in said:
            raise RuntimeError(f"{name}: exit code {code}: {said[-1500:]}")
        if "stopped by SIGTERM" not in said:  # it was about to end
            self._ends(child)
            return ""
        return next(line for line in said.splitlines() if line.startswith("stopped by SIGTERM"))

    def full_disk(self, name: str) -> str:
        """Let the run go on on a disk (in memory) with little room; afterwards it has room again.

        Who may not mount one has the system's limit on the size of a file.
        """
        folder, aside, room = self.root / "killed", self.root / "aside", self.random.choice((0, 20_000, 100_000))
        if not folder.exists():
            self.kill(name)
        os.replace(folder, aside)
        folder.mkdir()
        mounted = not subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True).returncode
        try:
            shutil.copytree(aside, folder, dirs_exist_ok=True)
            disk, most = os.statvfs(folder), (room + 1000, room + 1000)
            if mounted:
                held = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
                subprocess.run(["mount", "-o", f"remount,size={held + -(-room // 4096) * 4096}", folder], check=True)
            limit = None if mounted else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, most)
            if not (said := self.judge("killed", self.start("killed", prepare=limit))):
                raise RuntimeError(f"{name}: a room of {room} bytes was enough")
            shutil.rmtree(aside)
            shutil.copytree(folder, aside)
        finally:
            if mounted:
                subprocess.run(["umount", folder], check=True)
            shutil.rmtree(folder)
            os.replace(aside, folder)
        return said

    def double_start(self, name: str) -> str:
        """Two at once: one does the work, and is killed; the other says that somebody does."""
        children = [self.start("killed"), self.start("killed")]
        while all(child.is_alive() for child in children):
            time.sleep(0.1)
        refused, working = sorted(children, key=Process.is_alive)
        code, said = self.end(refused)
        self.wait_to_work("killed", working)
        working.kill()
        self.end(working)
        lines = [line for line in said.splitlines() if line.startswith("error: ")]
        if (
            code != cli.BAD_INPUT
            or len(lines) != 1
            or not lines[0].endswith(("working there", "run the command again"))
        ):
            raise RuntimeError(f"{name}: exit code {code}: {said[-1500:]}")
        return lines[0]

    def wild_rate(self, name: str) -> str:
        """A learning rate of 1e30, of the lifter and the regressor in turn, and then the usual one."""
        part, least = (("lifting", 1), ("regressor", 11))[name.endswith("1")]
        self.saved(name, least)  # the folder of a run that was killed
        code, output = self.end(self.start(name, f"--config.{part}.learning_rate=1e30"))
        said = [line for line in output.splitlines() if line.startswith("error: ")]
        if code != cli.DIVERGED or len(said) != 1 or "Traceback" in output:
            raise RuntimeError(f"{name}: exit code {code}: {output[-1500:]}")
        if left := self.judge(name, self.start(name)):
            raise RuntimeError(f"{name}: {left}")
        return said[0]

    def nan_check(self, name: str) -> str:
        """Both rounds with JAX's NaN checks."""
        return self.judge(name, self.start(name, "--debug_nans"))


def _loop(argv: list[str], output: pathlib.Path, prepare: Callable[[], None] | None) -> None:
    os.setpgid(0, 0)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    for flag in flags.FLAGS.get_flags_for_module(sys.modules[__name__]):
        delattr(flags.FLAGS, flag.name)
    if prepare:
        prepare()
    sys.argv = ["deform_and_learn", *argv]
    runpy.run_module("experiments.deform_and_learn", run_name="__main__", alter_sys=True)


_AFTER, _ALONE = ("flipped_bits", "truncations"), ("wild_rates", "nan_checks")


def main(_: list[str]) -> None:
    """Do everything, and write what came of it as it goes."""
    began, root = time.monotonic(), pathlib.Path(_WORKDIR.value).absolute()
    importlib.import_module("dal_jax.loop.run")  # once, for all processes that are forked
    config = {"small": _SMALL, "demo": _DEMO}[_SIZE.value]
    soak = Soak(root / _SIZE.value, root / "data", config, _SEED.value)
    summary: dict[str, Any] = {"size": _SIZE.value, "seed": _SEED.value, "seconds_of_a_run": round(soak.seconds)}
    out = pathlib.Path(_OUT.value or root / "soak.json")
    earlier = files.read_json(out) if out.exists() else []
    for kind in _plan(soak.random):
        if time.monotonic() - began > _SECONDS.value and kind != "last_kill":
            continue
        _attack(soak, kind, summary)
        print(f"{kind}: {time.monotonic() - began:.0f} s", flush=True)
        summary |= {"runs_that_ended": soak.ended, "went_on_from": dict(soak.went_on), "refused": soak.refused}
        files.write_json(out, [*earlier, summary])
    print(json.dumps(summary, indent=1))
    if any(summary[kind]["wrong"] for kind in ("last_kill", *_COUNTS) if kind in summary):
        sys.exit(1)


def _plan(chance: random.Random) -> list[str]:
    """Return the kinds in their order: those of one run shuffled, damage only while it is dead."""
    asked = {kind: [kind] * count.value for kind, count in _COUNTS.items()}
    mixed = [kind for kind, each in asked.items() if kind not in (*_AFTER, *_ALONE) for kind in each]
    chance.shuffle(mixed)
    for damage in (one for kind in _AFTER for one in asked[kind]):
        mixed.insert(chance.randrange(min(1, len(mixed)), len(mixed) + 1), damage)
    return [*mixed, "last_kill", *(one for kind in _ALONE for one in asked[kind])]


def _attack(soak: Soak, kind: str, summary: dict[str, Any]) -> None:
    done = summary.setdefault(
        kind, {"asked": _COUNTS[kind].value if kind in _COUNTS else 1, "as_promised": 0, "wrong": [], "said": {}}
    )
    number = done["as_promised"] + len(done["wrong"])
    try:
        line = getattr(soak, kind.removesuffix("s"))(f"{kind}_{number}").replace(str(soak.root), "WORKDIR")
        done["as_promised"] += 1
        if line:
            done["said"][line] = done["said"].get(line, 0) + 1
    except RuntimeError as error:
        done["wrong"].append(str(error))
        print(f"WRONG: {kind} {number}: {error}", flush=True)
    shutil.rmtree(soak.root / f"{kind}_{number}", ignore_errors=True)


if __name__ == "__main__":
    cli.run(main)
