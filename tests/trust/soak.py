"""Disturb runs of the whole loop: every one must end in the undisturbed history, or in one line.

    python -m tests.trust.soak --workdir=runs/soak --out=benchmarks/soak.json

A run is killed again and again until it ends, and the next begins. In between it is ended by SIGTERM, and meets a full
disk (in memory, which needs the right to mount one), another process in its folder and learning rates of 1e30; while it
is dead, bits of its files are flipped, and files cut. A run of its own meets JAX's NaN checks. That takes an hour on
two cores for the demo's size, half as long for the small one; --seconds ends it sooner; the summary says how much
was done. The run that nobody disturbs stays in --workdir: a later soak compares with it, too. A soak's summary stands
behind earlier ones in --out.
"""

import collections
import importlib
import itertools
import json
import os
import pathlib
import random
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkProcess
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
_WILD = itertools.cycle(["--config.lifting.learning_rate=1e30", "--config.regressor.learning_rate=1e30"])
_DEMO = ("--config.lifting_checkpoint_steps=500", "--config.learning_checkpoint_steps=100")  # the rest is its preset's
_KILLS_A_CHECKPOINT, _KILLS_A_RUN = 1.0, 40.0
"""A process is killed after some new checkpoints, 0.6 in the mean, and then a random time, a fortieth of a run."""


class Soak:
    """Runs of one configuration, one after the other, and what is wrong with their ends."""

    def __init__(self, root: pathlib.Path, data: pathlib.Path, config: tuple[str, ...], seed: int):
        """Make the run that all others are compared with, in `root`, unless it is there; `seed` decides all chance."""
        self.root, self.data, self.config, self.random = root, data, config, random.Random(seed)
        self.whole = root / "whole"  # the killed run before it was damaged
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

    def start(self, name: str, *more: str) -> ForkProcess:
        """Start a run, or go on with it, in a fork of this process, which has only imported; more: flags."""
        argv = [f"--workdir={self.root / name}", f"--data_dir={self.data}", *self.config, *more]
        output = self.root / f"{name}.{next(self.number)}.txt"
        child = ForkProcess(target=_loop, args=(argv, output), name=str(output))
        child.start()
        return child

    def read(self, name: str) -> Any:
        """Return a run's history without its times, None where it has not ended."""
        path = self.root / name / "history.json"
        if not (self.root / name / "scores.json").exists():
            return None
        return [{key: value for key, value in one.items() if key != "seconds"} for one in json.loads(path.read_text())]

    def end(self, child: ForkProcess) -> tuple[int, str, list[str]]:
        """Wait for the end; return exit code, output, and its lines that say what is wrong.

        Raises:
          RuntimeError: a traceback, or a process that it has started lives on.
        """
        child.join()
        path = pathlib.Path(child.name)
        output, code = path.read_text(errors="replace") if path.exists() else "", child.exitcode or 0
        path.unlink(missing_ok=True)
        if "Traceback" in output:
            raise RuntimeError(output[-3000:])
        for _ in range(100):
            try:
                os.killpg(child.pid, 0)
            except ProcessLookupError:
                return code, output, [line for line in output.splitlines() if line.startswith("error: ")]
            time.sleep(0.2)
        raise RuntimeError(f"processes of {child.pid} live on: {output[-500:]}")

    def refusal(self, child: ForkProcess, code: int = cli.BAD_INPUT) -> str:
        """Wait for the end, which must be one line and this exit code; return the line.

        Raises:
          RuntimeError: it is another one.
        """
        found, output, lines = self.end(child)
        if found != code or len(lines) != 1:
            raise RuntimeError(f"exit code {found}: {output[-1500:]}")
        return lines[0]

    def judge(self, name: str, child: ForkProcess) -> str:
        """Wait for the end; '' where it has the undisturbed history, the line where one says what is wrong.

        Raises:
          RuntimeError: anything else.
        """
        child.join()
        if child.exitcode:
            return self.refusal(child)
        _, output, _ = self.end(child)
        if self.read(name) != self.history:
            raise RuntimeError(f"history {self.read(name)}: {output[-1500:]}")
        return ""

    def wait_to_work(self, child: ForkProcess) -> None:
        """Wait until the run to be killed has taken its folder, or its end."""
        lock = self.root / "killed" / ".lock"
        while child.is_alive() and not (lock.exists() and f"process {child.pid} " in lock.read_text(errors="replace")):
            time.sleep(0.1)

    def saved(self) -> set[tuple[str, int]]:
        """Return the whole checkpoints of the run to be killed: step, and which file says that it is whole."""
        try:
            whole = list((self.root / "killed" / "checkpoints").glob("[0-9]*/checksums.json"))
            return {(one.parent.name, one.stat().st_mtime_ns) for one in whole if one.parent.name.isdecimal()}
        except FileNotFoundError:  # one has just been removed
            return self.saved()

    def at_work(self, checkpoints: int | None = None) -> ForkProcess:
        """Begin the run, or go on, to a random moment, or to the first with so many more checkpoints.

        One that ends sooner is compared, and the next begins.
        """
        while True:
            child, seen = self.start("killed"), self.saved()
            self.wait_to_work(child)
            more = int(self.random.expovariate(_KILLS_A_CHECKPOINT)) if checkpoints is None else checkpoints
            enough = len(seen) + more
            while child.is_alive() and len(seen) < enough:
                time.sleep(0.02)
                seen |= self.saved()
            if checkpoints is None:
                child.join(self.random.expovariate(_KILLS_A_RUN / self.seconds))
            if child.is_alive():
                return child
            self._ends(child)

    def stop(self, child: ForkProcess) -> str:
        """Kill a run at work; return what it has said of damage."""
        child.kill()
        _, said, _ = self.end(child)
        if resumed := [line for line in said.splitlines() if line.startswith("resuming ")]:
            shutil.rmtree(self.whole, ignore_errors=True)  # all that the folder holds has been read
        self.went_on.update(resumed or ["the beginning"])
        return " | ".join(line for line in said.splitlines() if line.startswith(("error: ", "warning: ")))

    def dead(self) -> None:
        """See to it that there is a killed run with a checkpoint, which has met what was damaged."""
        while not self.saved() or self.whole.exists():
            self.stop(self.at_work(1))

    # --- What is done to the run, once each call; returns the line that was said, or '' ---

    def kill(self) -> str:
        """Kill the run."""
        return self.stop(self.at_work())

    def flipped_bit(self) -> str:
        """Flip a bit of a random file of the killed run, most often of a checkpoint's."""
        bit = 1 << self.random.randrange(8)
        return self._damage(lambda content, at: content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])

    def truncation(self) -> str:
        """Cut a random file of the killed run."""
        return self._damage(lambda content, at: content[:at])

    def _damage(self, change: Callable[[bytes, int], bytes]) -> str:
        folder = self.root / "killed"
        if not folder.exists():
            self.kill()
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
        saved = [path for path in paths if "checkpoints" in path.parts]
        path = self.random.choice(saved if saved and self.random.random() < 0.75 else paths)
        if not self.whole.exists():
            shutil.copytree(folder, self.whole)
        content = path.read_bytes()
        path.write_bytes(change(content, self.random.randrange(len(content))))
        return ""

    def last_kill(self) -> str:
        """Let the run that was killed last end."""
        while (self.root / "killed").exists():
            self._ends(self.start("killed"))
        return ""

    def _ends(self, child: ForkProcess) -> None:
        """Compare a killed run that has ended; where a line has refused its damage, the damage is undone instead."""
        folder = self.root / "killed"
        try:
            line = self.judge("killed", child)
        finally:
            shutil.rmtree(folder)
        if not line:
            shutil.rmtree(self.whole, ignore_errors=True)
            self.ended += 1
        elif self.whole.exists() and "--overwrite" in line:  # what to do
            os.replace(self.whole, folder)
            self.refused.append(line.replace(str(self.root), "WORKDIR"))
        else:
            raise RuntimeError(line)

    def sigterm(self) -> str:
        """SIGTERM: a checkpoint, a word, and exit code 0."""
        child = self.at_work()
        child.terminate()
        code, said, _ = self.end(child)
        if code:
            raise RuntimeError(f"exit code {code}: {said[-1500:]}")
        if line := next((line for line in said.splitlines() if line.startswith("stopped by SIGTERM")), ""):
            return line
        self._ends(child)  # it was about to end
        return self.sigterm()

    def full_disk(self) -> str:
        """Let the run go on on a disk (in memory) with little room; afterwards it has room again."""
        folder, disk, room = self.root / "killed", self.root / "disk", self.random.choice((0, 20_000, 100_000))
        self.dead()
        disk.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", disk], check=True)
        try:
            shutil.copytree(folder, disk, dirs_exist_ok=True)
            found = os.statvfs(disk)
            size = (found.f_blocks - found.f_bfree) * found.f_frsize + -(-room // 4096) * 4096
            subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)
            line = self.refusal(self.start("disk"))
            shutil.rmtree(folder)
            shutil.copytree(disk, folder)
        finally:
            subprocess.run(["umount", disk], check=True)
        return line

    def double_start(self) -> str:
        """Two at once: one does the work, and is killed; the other says that somebody does."""
        self.dead()
        children = [self.start("killed"), self.start("killed")]
        while all(child.is_alive() for child in children):
            time.sleep(0.1)
        refused, working = sorted(children, key=ForkProcess.is_alive)
        line = self.refusal(refused)
        self.wait_to_work(working)
        self.stop(working)
        if not line.endswith(("working there", "run the command again")):
            raise RuntimeError(line)
        return line

    def wild_rate(self) -> str:
        """Go on with a rate of 1e30, the lifter's or the regressor's; the usual one goes on from the checkpoint."""
        self.dead()
        child = self.start("killed", next(_WILD))
        child.join()
        if not child.exitcode:  # it was about to end
            self._ends(child)
            return self.wild_rate()
        return self.refusal(child, cli.DIVERGED)

    def nan_check(self) -> str:
        """Run all rounds with JAX's NaN checks."""
        line = self.judge("checked", self.start("checked", "--debug_nans"))
        shutil.rmtree(self.root / "checked")
        return line


def _loop(argv: list[str], output: pathlib.Path) -> None:
    os.setpgid(0, 0)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    for flag in flags.FLAGS.get_flags_for_module(sys.modules[__name__]):
        delattr(flags.FLAGS, flag.name)
    sys.argv = ["deform_and_learn", *argv]
    runpy.run_module("experiments.deform_and_learn", run_name="__main__", alter_sys=True)


def main(_: list[str]) -> None:
    """Do everything, and write what came of it as it goes."""
    began, root = time.monotonic(), pathlib.Path(_WORKDIR.value).absolute()
    importlib.import_module("dal_jax.loop.run")  # once, for all processes that are forked
    soak = Soak(root / _SIZE.value, root / "data", {"small": _SMALL, "demo": _DEMO}[_SIZE.value], _SEED.value)
    summary: dict[str, Any] = {"size": _SIZE.value, "seed": _SEED.value, "seconds_of_a_run": round(soak.seconds)}
    out = pathlib.Path(_OUT.value or root / "soak.json")
    earlier = files.read_json(out) if out.exists() else []
    plan = _plan(soak.random)
    for kind, asked in collections.Counter(plan).items():
        summary[kind] = {"asked": asked, "as_promised": 0, "wrong": [], "said": {}}
    for kind in plan:
        if time.monotonic() - began > _SECONDS.value and kind != "last_kill":
            continue
        _attack(soak, kind, summary[kind])
        print(f"{kind}: {time.monotonic() - began:.0f} s", flush=True)
        summary |= {"runs_that_ended": soak.ended, "went_on_from": dict(soak.went_on), "refused": soak.refused}
        files.write_json(out, [*earlier, summary])
    print(json.dumps(summary, indent=1))
    if any(summary[kind]["wrong"] for kind in plan):
        sys.exit(1)


def _plan(chance: random.Random) -> list[str]:
    """Return the kinds in their order: all of one run shuffled, but one wild rate first, which is the lifter's then."""
    asked = {kind: [kind] * count.value for kind, count in _COUNTS.items()}
    first, alone = asked["wild_rates"][:1], asked.pop("nan_checks")
    mixed = [one for each in (asked | {"wild_rates": asked["wild_rates"][1:]}).values() for one in each]
    chance.shuffle(mixed)
    return [*first, *mixed, "last_kill", *alone]


def _attack(soak: Soak, kind: str, done: dict[str, Any]) -> None:
    try:
        line = getattr(soak, kind.removesuffix("s"))().replace(str(soak.root), "WORKDIR")
        done["as_promised"] += 1
        done["said"] |= {line: done["said"].get(line, 0) + 1} if line else {}
    except (RuntimeError, subprocess.CalledProcessError) as error:
        done["wrong"].append(str(error))
        print(f"WRONG: {kind}: {error}", flush=True)


if __name__ == "__main__":
    cli.run(main)
