"""A run on a tiny Human3.6M, killed once its few people are registered: real fits, an untrained lifter and ConvNet."""

import pathlib

from dal_jax import deform_and_learn, presets
from dal_jax.body import template as template_lib
from dal_jax.data import files as files_lib
from dal_jax.data.human36m import source as source_lib
from dal_jax.data.recording import builder as builder_lib
from dal_jax.loop import data, folder as folder_lib
from tests.data.human36m import release
from tests.loop import one_round


class _Killed(Exception):
    pass


class _DyingFolder(folder_lib.RunFolder):
    def save(self, number, state, position):
        super().save(number, state, position)
        raise _Killed


def config() -> presets.Config:
    """Return the run's configuration."""
    return one_round.config("human36m")


def record(data_dir: pathlib.Path) -> deform_and_learn.Setting:
    """Record the data set (11 people to train on and to test, truth known); return what a run of it is about."""
    made = data_dir.parent / "human36m"
    release.write(made)
    source = source_lib.Human36m(files_lib.Files(str(made), image_size=one_round.SIZE), frame_step=1)
    builder_lib.prepare(source, data_dir, workers=0)
    template = template_lib.load_template()
    return deform_and_learn.Setting(config(), template, data.load(config(), template, data_dir).train)


def write(workdir: pathlib.Path, setting: deform_and_learn.Setting) -> None:
    """Register everybody in the run's folder."""
    state, position = deform_and_learn.initial_state(setting), deform_and_learn.Progress(phase="deform")
    try:
        with _DyingFolder(workdir, setting.config) as run:
            run.resume(state)
            deform_and_learn.run(setting, state, position, run, lambda *_: {})
    except _Killed:
        pass
