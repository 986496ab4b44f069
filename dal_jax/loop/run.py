"""One run of deform-and-learn, from a configuration to a report: load the people, run or go on, judge, show."""

import contextlib
import dataclasses
import pathlib
from typing import Any

import numpy as np

from dal_jax import algorithm
from dal_jax.algorithm import Run, RunState
from dal_jax.body.formats.load import FREE_BODY, load_body
from dal_jax.config import Config
from dal_jax.data import catalogue
from dal_jax.data.people import People, load_people
from dal_jax.data.schema import DatasetBuilder
from dal_jax.loop import report
from dal_jax.loop.folder import RunFolder
from dal_jax.loop.judge import Judge
from dal_jax.runtime import files, machine, mesh
from dal_jax.runtime.errors import InputError
from dal_jax.runtime.files import PathLike
from dal_jax.synthetic.people import named, prepare


@dataclasses.dataclass(frozen=True)
class Result:
    """What a finished run has reached.

    history: one entry a round, the fields of history.json.
    scores: what the history has no field for: `mean_pose_test_mpjpe_mm`, what learning has to beat;
      `regressor_test_vertex_error_mm` of the last round.
    report: the path of the page.
    """

    history: list[dict[str, Any]]
    scores: dict[str, float | None]
    report: pathlib.Path


def deform_and_learn(
    config: Config, workdir: PathLike, data_dir: PathLike | None = None, overwrite: bool = False
) -> Result:
    """Run a configuration in a folder, or go on with the run that is there.

        config = preset("demo")
        config.rounds = 2
        result = deform_and_learn(config, "runs/demo")
        result.history[-1]["regressor_test_mpjpe_mm"], result.report

    Writes history.json, metrics.jsonl, scores.json, checkpoints/ and report/index.html into `workdir`.

    Args:
      config: of the run; a run goes on with the configuration it began with alone.
      workdir: folder of the run.
      data_dir: where data sets are kept once they are rendered or prepared; None: `data` beside `workdir`.
      overwrite: throw away the run in `workdir` and start anew.

    Raises:
      errors.InputError: the configuration, the folder or the data cannot be used, or another process works in
        `workdir`; one line.
      errors.DivergedError: numbers are not finite; the last checkpoint is.
    """
    machine.configure()
    workdir = pathlib.Path(workdir)
    config.check()
    with files.locked(workdir) if mesh.is_first() else contextlib.nullcontext():
        return _deform_and_learn(config, workdir, data_dir, overwrite)


def _deform_and_learn(config: Config, workdir: pathlib.Path, data_dir: PathLike | None, overwrite: bool) -> Result:
    mesh.meet("locked")
    folder = RunFolder(workdir, config, overwrite)
    template = load_body(config.body or FREE_BODY)
    data_dir = workdir.parent / "data" if data_dir is None else data_dir
    if not mesh.is_first():
        mesh.meet("prepared")
    train, test = load(config, data_dir)
    if mesh.is_first():
        mesh.meet("prepared")
    run = Run(config, template, dataclasses.replace(train, truth=None))
    algorithm.held_out_people(run)  # refused now if no one were left, not after the first registration
    judge = Judge(run, train.truth, test)
    with folder:
        state, position = folder.resume(algorithm.initial_state(run))
        if mesh.is_first() and (line := _resuming(position, config.rounds)):
            print(line, flush=True)
        state, position = algorithm.run_rounds(run, state, position, folder.save, folder.log, judge)
    scores = {
        "mean_pose_test_mpjpe_mm": judge.mean_pose_test_mpjpe_mm(),
        "regressor_test_vertex_error_mm": judge.vertex_error_test_mm(state),
    }
    if mesh.is_first():
        files.write_json(workdir / "scores.json", scores)
    history = list(position.history)
    page = report.write(workdir / "report", judge, state, history, workdir / "metrics.jsonl")
    return Result(history, scores, page)


def _resuming(position: RunState, rounds: int) -> str:
    """Return a line on where a run goes on; '' of one that begins."""
    if position.round > rounds:
        return f"all {rounds} rounds are done: only the report is written again"
    epochs = f", epoch {position.epoch}" if position.phase == "learn" else ""
    return "" if position == RunState() else f"resuming round {position.round}, {position.phase}{epochs}"


def load(config: Config, data_dir: PathLike) -> tuple[People, People]:
    """Load (the first time: render or prepare) the training and the test people that a configuration names.

    Both carry their truth where it is known. It is for the judge alone: a run's own people are stripped of it.

    Args:
      config: of the run.
      data_dir: where data sets are kept once they are rendered or prepared.

    With `config.scored=validation` the test people are not read: those of one training subject stand for them.

    Raises:
      errors.InputError: the data do not exist or do not fit the configuration.
    """
    builder, train, test = _opened(config, data_dir)
    asked: dict[str, Any] = {
        "image_size": config.regressor.image_size,
        "along_ray": config.camera == "perspective",
        "with_truth": True,
    }
    people = load_people(builder, train, with_vertices=False, **asked)
    if config.several_views and (people.rig is None or not np.isfinite(people.rig.extrinsics_m).all()):
        missing = "has no moment that several known cameras see, or people before unknown ones"
        raise InputError(f"config.several_views: {builder.data_dir} {missing}")
    if config.scored == "test":
        return people, load_people(builder, test, **asked)
    held_out = np.array([str(name).startswith(f"{_VALIDATION_SUBJECT}_") for name in people.names])
    if held_out.all() or not held_out.any():
        wanted = f"{_VALIDATION_SUBJECT} and of others"
        raise InputError(f"config.scored is 'validation': the people of '{config.data}' are not of {wanted}")
    return people.take(np.flatnonzero(~held_out)), people.take(np.flatnonzero(held_out))


_VALIDATION_SUBJECT = "S8"  # a training subject by Human3.6M's protocol 1


def _opened(config: Config, data_dir: PathLike) -> tuple[DatasetBuilder, str, str]:
    """Return a data set, and its training and test splits."""
    if config.data in catalogue.FROM_FILES:
        return _prepared(config, data_dir)
    if config.data != "synthetic":
        names = ", ".join(["synthetic", *catalogue.FROM_FILES])
        raise InputError(f"config.data is '{config.data}': one of {names}")
    if config.body:
        raise InputError("config.body: the embedded people are annotated on the free body; leave it empty")
    recipe = named(config.synthetic)
    recipe = recipe if config.route == "default" else recipe.annotated_by(config.route)
    recipe = recipe.of_recordings(config.motions) if config.motions else recipe
    builder = prepare(recipe, data_dir)
    size = recipe.image_size
    if size != config.regressor.image_size:
        raise InputError(
            f"config.regressor.image_size is {config.regressor.image_size}, "
            f"the people of '{config.synthetic}' have {size} px"
        )
    return builder, "train", "test"


def _prepared(config: Config, data_dir: PathLike) -> tuple[DatasetBuilder, str, str]:
    """Return a data set; its test people are those of its first test split, or the training people."""
    builder = catalogue.open_prepared(config.data, config.files(), data_dir)
    train = "+".join(split for split in catalogue.TRAIN_SPLITS if split in builder.info.splits)
    test = next((split for split in catalogue.TEST_SPLITS if split in builder.info.splits), train)
    return builder, train, test
