"""Disturb small runs of the whole loop: every one must end in the undisturbed history, or in one line.

    python -m tests.trust.soak --workdir=runs/soak --out=benchmarks/soak.json

Kills, flipped bits, truncated files, full disks (the system's limit on a file's size stands for them), two starts at
once, SIGTERM. It takes hours on two cores; --seconds ends it sooner, and the summary says how much was done.
"""

import json
import os
import pathlib
import random
import resource
import shutil
import signal
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
    {"sigterms": 5, "flipped_bits": 24, "truncations": 8, "full_disks": 3, "double_starts": 2, "kills": 50}.items()
}  # fmt: skip

_SMALL = (
    "--config.synthetic=tiny", "--config.rounds=2", "--config.lifting.width=16", "--config.lifting.batch=4",
    "--config.lifting.steps=200", "--config.lifting.steps_per_call=20", "--config.lifting_checkpoint_steps=100",
    "--config.regressor.width=4", "--config.regressor.batch=4", "--config.regressor.epochs=2",
    "--config.learning_checkpoint_steps=5", "--config.first.registration.steps=3",
    "--config.later.registration.steps=3",
)  # fmt: skip

Process = subprocess.Popen[str]


class Soak:
    """Runs of one configuration in folders of their own, and what is wrong with their ends."""

    def __init__(self, root: pathlib.Path, seed: int):
        """Make the folder; `seed` decides what happens when."""
        self.root, self.random = root, random.Random(seed)
        root.mkdir(parents=True, exist_ok=True)
        self.history: Any = None
        self.seconds = 60.0

    def start(self, name: str, prepare: Callable[[], None] | None = None) -> Process:
        """Start a run, or go on with it; prepare: called in the new process."""
        command = [
            sys.executable, "-m", "experiments.deform_and_learn", f"--workdir={self.root / name}",
            f"--data_dir={self.root / 'data'}", *_SMALL,
        ]  # fmt: skip
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=prepare
        )

    def undisturbed(self) -> None:
        """Make the run that all others are compared with, twice: the second compiles nothing and is timed.

        They stay where they are: a later soak in the same folder compares with them, too.
        """
        for name in ("first", "undisturbed"):
            output = self.end(self.start(name))[1]
            self.history = self.read(name)
            if self.history is None:
                raise RuntimeError(output)
        rounds = json.loads((self.root / "undisturbed" / "history.json").read_text())
        self.seconds = sum(one["seconds"] for one in rounds)

    def read(self, name: str) -> Any:
        """Return a run's history without its times, None where there is none."""
        path = self.root / name / "history.json"
        if not path.exists():
            return None
        return [{key: value for key, value in one.items() if key != "seconds"} for one in json.loads(path.read_text())]

    def end(self, child: Process) -> tuple[int, str]:
        """Wait for the end; return exit code and output."""
        output, _ = child.communicate(timeout=1800)
        return child.returncode, output

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

    def wait(self, child: Process, least: float = 0.0) -> None:
        """Wait for a random time of a run's length, or its end."""
        until = time.monotonic() + self.random.uniform(least, max(self.seconds, least))
        while time.monotonic() < until and child.poll() is None:
            time.sleep(0.1)

    def half_done(self, name: str) -> pathlib.Path:
        """Return a copy of a run that was killed when it had two checkpoints; it is made once."""
        made = self.root / "half_done"
        while not made.exists():
            child = self.start("half")
            checkpoints = self.root / "half" / "checkpoints"
            while child.poll() is None and len(list(checkpoints.glob("[0-9]*/checksums.json"))) < 2:
                time.sleep(0.2)
            time.sleep(self.random.uniform(0, self.seconds / 4))
            child.kill()
            child.wait()
            if self.read("half") != self.history:
                os.replace(self.root / "half", made)
            else:
                shutil.rmtree(self.root / "half")
        shutil.copytree(made, self.root / name)
        return self.root / name

    # --- What is done to them, once each call; returns the line that was said, or '' ---

    def kill(self, name: str) -> str:
        """Kill a run, or the same run again: it ends when the last is asked for."""
        child = self.start("killed")
        self.wait(child)
        child.kill()
        child.wait()
        said = child.stdout.read() if child.stdout is not None else ""
        if "Traceback" in said:
            raise RuntimeError(said)
        if self.read("killed") == self.history:  # it was finished; the next begins anew
            self.judge("killed", self.start("killed"))
            shutil.rmtree(self.root / "killed")
        return ""

    def last_kill(self) -> None:
        """Let a killed run end."""
        if (self.root / "killed").exists():
            self.judge("killed", self.start("killed"))

    def sigterm(self, name: str) -> str:
        """SIGTERM at a random moment after training has begun; the same command goes on."""
        child = self.start(name)
        while child.poll() is None and not (self.root / name / "metrics.jsonl").exists():
            time.sleep(0.1)
        self.wait(child)
        child.send_signal(signal.SIGTERM)
        code, output = self.end(child)
        if code or ("stopped by SIGTERM" not in output and self.read(name) != self.history):
            raise RuntimeError(f"{name}: exit code {code}: {output[-1500:]}")
        return self.judge(name, self.start(name))

    def _damage(self, name: str, change: Callable[[bytearray], bytearray]) -> str:
        folder = self.half_done(name)
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
        saved = [path for path in paths if "checkpoints" in path.parts]
        path = self.random.choice(saved if self.random.random() < 0.75 else paths)
        path.write_bytes(change(bytearray(path.read_bytes())))
        return self.judge(name, self.start(name))

    def flipped_bit(self, name: str) -> str:
        """One bit of a random file, most often of a checkpoint's."""

        def flip(content: bytearray) -> bytearray:
            content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
            return content

        return self._damage(name, flip)

    def truncation(self, name: str) -> str:
        """A random file is cut."""
        return self._damage(name, lambda content: content[: self.random.randrange(len(content))])

    def full_disk(self, name: str) -> str:
        """No file may grow beyond some kilobytes; then the same command without that limit goes on."""
        self.half_done(name)
        most = self.random.choice((2_000, 20_000, 100_000))
        limited = self.start(name, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)))
        said = self.judge(name, limited)
        if not said:
            raise RuntimeError(f"{name}: {most} bytes a file were enough")
        if left := self.judge(name, self.start(name)):
            raise RuntimeError(f"{name}: {left}")
        return said

    def double_start(self, name: str) -> str:
        """Two at once: one does the work, the other says that somebody does."""
        children = [self.start(name), self.start(name)]
        said = [self.judge(name, child) for child in children]
        if sum("is working there" in line or "has just worked there" in line for line in said) != 1:
            raise RuntimeError(f"{name}: {said}")
        return max(said)


def main(_: list[str]) -> None:
    """Do everything, and write what came of it as it goes."""
    began, soak = time.monotonic(), Soak(pathlib.Path(_WORKDIR.value).absolute(), _SEED.value)
    soak.undisturbed()
    summary: dict[str, Any] = {"undisturbed_seconds": round(soak.seconds, 1)}
    for kind, count in _COUNTS.items():
        said: list[str] = []
        same = wrong = 0
        for number in range(count.value):
            if time.monotonic() - began > _SECONDS.value:
                break
            name = f"{kind}_{number}"
            try:
                line = getattr(soak, kind.removesuffix("s"))(name)
                said += [line.replace(str(soak.root), "WORKDIR")] * bool(line)
                same += not line
            except RuntimeError as error:
                wrong += 1
                print(f"WRONG: {kind} {number}: {error}", flush=True)
            shutil.rmtree(soak.root / name, ignore_errors=True)
            print(f"{kind} {number}: {time.monotonic() - began:.0f} s; {same} same, {wrong} wrong", flush=True)
            summary[kind] = {"asked": count.value, "undisturbed_history": same, "wrong": wrong, "one_line": said}
            if _OUT.value:
                files.write_json(_OUT.value, summary)
    soak.last_kill()
    print(json.dumps(summary, indent=1))
    if any(one["wrong"] for one in summary.values() if isinstance(one, dict)):
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
