"""A run on a tiny Human3.6M, killed once its few people are registered: real fits, an untrained lifter and ConvNet."""

import pathlib

from dal_jax import algorithm
from dal_jax.algorithm import Run, RunState
from dal_jax.body.formats import load
from dal_jax.config import Config
from dal_jax.data import preparing
from dal_jax.data.files import Files
from dal_jax.data.human36m.source import human36m
from dal_jax.loop import run as run_lib
from dal_jax.loop.folder import RunFolder
from tests.data.human36m import release
from tests.loop import one_round


class _Killed(Exception):
    pass


class _DyingFolder(RunFolder):
    def save(self, state, position):
        super().save(state, position)
        raise _Killed


def config() -> Config:
    """Return the run's configuration; its fits are good ones."""
    made = one_round.config("human36m")
    made.first.registration.optimizer = "lm"
    return made


def record(data_dir: pathlib.Path) -> Run:
    """Record the data set (11 people to train on and to test, truth known); return what a run of it is about."""
    made = data_dir.parent / "human36m"
    release.write(made)
    source = human36m(Files(str(made), image_size=one_round.SIZE), frame_step=1)
    preparing.prepare(source, data_dir, workers=0)
    template = load.load_body()
    train, _ = run_lib.load(config(), data_dir)
    return Run(config(), template, train)


def write(workdir: pathlib.Path, setting: Run) -> None:
    """Register everybody in the run's folder."""
    state, position = algorithm.initial_state(setting), RunState(phase="deform")
    try:
        with _DyingFolder(workdir, setting.config) as run:
            run.resume(state)
            algorithm.run_rounds(setting, state, position, run.save, run.log, lambda *_: {})
    except _Killed:
        pass
