"""Disturb runs of the whole loop: every one must end in the undisturbed history, or in one line.

    python -m tests.trust.soak --workdir=runs/soak --out=benchmarks/soak.json

Runs are killed again and again until one ends; while they are dead, bits of their files are flipped, and files cut.
Others meet a full disk, another process in their folder, SIGTERM, learning rates of 1e30, JAX's NaN checks. All of it
takes hours on two cores; --seconds ends it sooner, and the summary says how much was done. The runs that nobody
disturbs stay in --workdir: a later soak compares with them, too.
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
    for kind, count in
    {"kills": 50, "sigterms": 5, "full_disks": 3, "double_starts": 2, "wild_rates": 2, "nan_checks": 1}.items()
}  # fmt: skip
_FLIPPED = flags.DEFINE_integer("flipped_bits", 24, "Kills after which a bit is flipped.", lower_bound=0)
_CUT = flags.DEFINE_integer("truncations", 8, "Kills after which a file is cut.", lower_bound=0)
_KILLED = flags.DEFINE_enum("killed", "demo", ["demo", "small"], "Size of the runs that are killed; the rest is small.")

_SMALL = (
    "--config.synthetic=tiny", "--config.rounds=2", "--config.lifting.width=16", "--config.lifting.batch=4",
    "--config.lifting.steps=200", "--config.lifting.steps_per_call=20", "--config.lifting_checkpoint_steps=20",
    "--config.regressor.width=4", "--config.regressor.batch=4", "--config.regressor.epochs=2",
    "--config.regressor.depth=14", "--config.learning_checkpoint_steps=5", "--config.first.registration.steps=3",
    "--config.later.registration.steps=3",
)  # fmt: skip
_DEMO = ("--config.lifting_checkpoint_steps=500", "--config.learning_checkpoint_steps=100")  # the rest is its preset's
_KILLS_A_RUN = {_SMALL: 10.0, _DEMO: 25.0}
"""So many fall into the time that an undisturbed run takes. A start takes its time, too, so a run meets more."""

_FORK = multiprocessing.get_context("fork")
Process = multiprocessing.context.ForkProcess


class Soak:
    """Runs of one configuration in folders of their own, and what is wrong with their ends."""

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
            sums = (folder / "checkpoints", "[0-9]*/checksums.json")
            while child.is_alive() and max([int(one.parent.name) for one in sums[0].glob(sums[1])], default=0) < least:
                time.sleep(0.02)
            child.kill()
            self.end(child)
            if self.read(name) is None:
                return folder
            shutil.rmtree(folder)

    def half_done(self, name: str) -> pathlib.Path:
        """Return a copy of a run that was killed after two checkpoints in learning; it is made once."""
        made = self.root / "half_done"
        if not made.exists():
            os.replace(self.saved("half", 13), made)  # ten of the lifter, one of the fits
        shutil.copytree(made, self.root / name, dirs_exist_ok=True)
        return self.root / name

    # --- What is done to them, once each call; returns the line that was said, or '' ---

    def kill(self, name: str) -> str:
        """Kill a run at a random moment, or the same run again. One that ends sooner is compared; the next begins."""
        while True:
            child = self.start("killed")
            self.wait_to_work("killed", child)
            self.wait(child, self.random.expovariate(_KILLS_A_RUN[self.config] / self.seconds))
            if child.is_alive():
                break
            self._ends(child)
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
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
        saved = [path for path in paths if "checkpoints" in path.parts]
        path = self.random.choice(saved if saved and self.random.random() < 0.75 else paths)
        if not whole.exists():
            shutil.copytree(folder, whole)
        path.write_bytes(change(bytearray(path.read_bytes())))
        return ""

    def last_kill(self, name: str) -> str:
        """Let the run that was killed last end."""
        if (self.root / "killed").exists():
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
        """SIGTERM at a random moment after training has begun; the same command goes on."""
        child = self.start(name)
        while child.is_alive() and not (self.root / name / "metrics.jsonl").exists():
            time.sleep(0.1)
        self.wait(child, self.random.uniform(0, self.seconds))
        child.terminate()
        code, output = self.end(child)
        if code or ("stopped by SIGTERM" not in output and self.read(name) != self.history):
            raise RuntimeError(f"{name}: exit code {code}: {output[-1500:]}")
        return self.judge(name, self.start(name))

    def full_disk(self, name: str) -> str:
        """A disk with little room (in memory); it grows, and the same command goes on.

        Who may not mount one has the system's limit on the size of a file.
        """
        folder, room = self.root / name, self.random.choice((0, 20_000, 100_000))
        folder.mkdir()
        mounted = not subprocess.run(
            ["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False
        ).returncode
        try:
            self.half_done(name)
            if mounted:
                disk = os.statvfs(folder)
                _resize(folder, (disk.f_blocks - disk.f_bfree) * disk.f_frsize + room)
                limited = self.start(name)
            else:
                most = (room + 1000, room + 1000)
                limited = self.start(name, prepare=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, most))
            if not (said := self.judge(name, limited)):
                raise RuntimeError(f"{name}: a room of {room} bytes was enough")
            if mounted:
                _resize(folder, 1 << 30)
            if left := self.judge(name, self.start(name)):
                raise RuntimeError(f"{name}: {left}")
        finally:
            if mounted:
                subprocess.run(["umount", folder], check=True)
        return said

    def double_start(self, name: str) -> str:
        """Two at once: one does the work, the other says that somebody does."""
        children = [self.start(name), self.start(name)]
        said = [self.judge(name, child) for child in children]
        if sum("is working there" in line or "has just worked there" in line for line in said) != 1:
            raise RuntimeError(f"{name}: {said}")
        return max(said)

    def wild_rate(self, name: str) -> str:
        """A learning rate of 1e30, of the lifter and the regressor in turn, and then the usual one."""
        part, least = (("lifting", 1), ("regressor", 11))[name.endswith("1")]
        self.saved(name, least)
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


def _resize(folder: pathlib.Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={-(-size // 4096) * 4096}", folder], check=True)


def main(_: list[str]) -> None:
    """Do everything, and write what came of it as it goes."""
    began, root = time.monotonic(), pathlib.Path(_WORKDIR.value).absolute()
    importlib.import_module("dal_jax.loop.run")  # once, for all processes that are forked
    summary: dict[str, Any] = {}
    soaks: dict[str, Soak] = {}
    for kind, count in ((kind, count.value) for kind, count in _COUNTS.items() if count.value):
        size = _KILLED.value if kind == "kills" else "small"
        if size not in soaks:
            config = {"small": _SMALL, "demo": _DEMO}[size]
            soaks[size] = Soak(root / size, root / "data", config, _SEED.value)
        soak = soaks[size]
        done: dict[str, Any] = {"asked": count, "as_promised": 0, "wrong": [], "one_line": []}
        summary[kind] = {"size": size, "seconds_of_a_run": round(soak.seconds)} | done
        after = ["flipped_bit"] * _FLIPPED.value + ["truncation"] * _CUT.value if kind == "kills" else []
        after = random.Random(_SEED.value).sample(after + [""] * max(0, count - len(after)), count)
        for number, damage in enumerate(after):
            if time.monotonic() - began > _SECONDS.value:
                break
            done["as_promised"] += _attack(soak, getattr(soak, kind.removesuffix("s")), f"{kind}_{number}", done)
            if damage:
                getattr(soak, damage)(f"{damage}_{number}")
                done[damage] = done.get(damage, 0) + 1
            print(f"{kind} {number}: {time.monotonic() - began:.0f} s; {len(done['wrong'])} wrong", flush=True)
            _write(summary, kind, done)
        if kind == "kills":
            while (soak.root / "killed").exists():
                _attack(soak, soak.last_kill, "the last kill", done)
            done |= {"runs_that_ended": soak.ended, "went_on_from": dict(soak.went_on), "refused": soak.refused}
        _write(summary, kind, done)
    print(json.dumps(summary, indent=1))
    if any(one["wrong"] for one in summary.values()):
        sys.exit(1)


def _attack(soak: Soak, attack: Callable[[str], str], name: str, done: dict[str, Any]) -> bool:
    try:
        if line := attack(name):
            done["one_line"].append(line.replace(str(soak.root), "WORKDIR"))
        return True
    except RuntimeError as error:
        done["wrong"].append(f"{name}: {error}")
        print(f"WRONG: {name}: {error}", flush=True)
        return False
    finally:
        shutil.rmtree(soak.root / name, ignore_errors=True)


def _write(summary: dict[str, Any], kind: str, done: dict[str, Any]) -> None:
    summary[kind] |= done
    if _OUT.value:
        files.write_json(_OUT.value, summary)


if __name__ == "__main__":
    cli.run(main)
