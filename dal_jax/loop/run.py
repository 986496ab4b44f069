"""Where a run's people come from: the embedded ones, or a data set made from the user's files; truth kept apart."""

import dataclasses
import os
import pathlib
from typing import Any

from dal_jax import deform_and_learn
from dal_jax.body.formats.load import FREE_BODY, load_body
from dal_jax.body.template import Template
from dal_jax.config import REST_POSES, Config
from dal_jax.data import catalogue
from dal_jax.data.people import People, Truth, load_people, load_truth
from dal_jax.deform_and_learn import Run
from dal_jax.loop.folder import RunFolder
from dal_jax.loop.judge import Judge
from dal_jax.loop.report import write
from dal_jax.regressor import model
from dal_jax.runtime import files
from dal_jax.runtime.errors import InputError
from dal_jax.synthetic.people import named, prepare
from dal_jax.uncertainty import sample_weights


@dataclasses.dataclass(frozen=True)
class RunData:
    """Training and test people, and what is true of them where that is known (for the judge alone)."""

    train: People
    test: People
    train_truth: Truth | None
    test_truth: Truth | None


def load(config: Config, template: Template, data_dir: str | os.PathLike[str]) -> RunData:
    """Load (the first time: prepare) the people that a configuration names.

    Args:
      data_dir: where data sets are kept once they are prepared.

    Raises:
      errors.InputError: the data do not exist or do not fit the configuration.
    """
    if config.data in catalogue.FROM_FILES:
        return _prepared(config, data_dir)
    if config.data != "synthetic":
        names = ", ".join(["synthetic", *catalogue.FROM_FILES])
        raise InputError(f"config.data is '{config.data}': one of {names}")
    if config.body:
        raise InputError("config.body: the embedded people are annotated on the free body; leave it empty")
    recipe = named(config.synthetic)
    recipe = recipe.of_recordings(config.motions) if config.motions else recipe
    builder = prepare(recipe, data_dir)
    size = recipe.image_size
    if size != config.regressor.image_size:
        raise InputError(
            f"config.regressor.image_size is {config.regressor.image_size}, "
            f"the people of '{config.synthetic}' have {size} px"
        )
    return RunData(
        train=load_people(builder, "train"),
        test=load_people(builder, "test"),
        train_truth=load_truth(builder, "train"),
        test_truth=load_truth(builder, "test"),
    )


def _prepared(config: Config, data_dir: str | os.PathLike[str]) -> RunData:
    """Return the people of a data set; to be tested on those of its first split for it, or the training people."""
    builder = catalogue.open_prepared(config.data, config.files(), data_dir)
    size = config.regressor.image_size
    train = "+".join(split for split in catalogue.TRAIN_SPLITS if split in builder.info.splits)
    test = next((split for split in catalogue.TEST_SPLITS if split in builder.info.splits), train)
    return RunData(
        train=load_people(builder, train, image_size=size),
        test=load_people(builder, test, image_size=size),
        train_truth=load_truth(builder, train),
        test_truth=load_truth(builder, test),
    )


# --- One run from folder to report: open or go on, load, run, judge, show ---


@dataclasses.dataclass(frozen=True)
class Result:
    """history: one entry a round; scores: what the history has no field for; report: the path of the page.

    scores: `mean_pose_test_mpjpe_mm`, what learning has to beat; `regressor_test_vertex_error_mm` of the last round.
    """

    history: list[dict[str, Any]]
    scores: dict[str, float | None]
    report: pathlib.Path


def run(config: Config, workdir: pathlib.Path, data_dir: str | os.PathLike[str], overwrite: bool = False) -> Result:
    """Run a configuration in a folder, or go on with the run that is there.

    Raises:
      errors.InputError: the configuration, the folder or the data cannot be used; one line.
    """
    check(config)
    folder = RunFolder(workdir, config, overwrite)
    template = load_body(config.body or FREE_BODY)
    people = load(config, template, data_dir)
    setting = Run(config, template, people.train)
    deform_and_learn.held_out_people(setting)  # refused now if nobody were left, not after the first registration
    judge = Judge(setting, people.test, people.train_truth, people.test_truth)
    with folder:
        state, position = folder.resume(deform_and_learn.initial_state(setting))
        state = deform_and_learn.run(setting, state, position, folder, judge)
    scores = {
        "mean_pose_test_mpjpe_mm": judge.mean_pose_test_mpjpe_mm(),
        "regressor_test_vertex_error_mm": judge.vertex_error_test_mm(state),
    }
    files.write_json(workdir / "scores.json", scores)
    page = write(workdir / "report", judge, state, position.history, workdir / "metrics.jsonl")
    return Result(position.history, scores, page)


def check(config: Config) -> None:
    """Refuse (`errors.InputError`) what would fail only after hours."""
    if config.rounds < 1:
        raise InputError(f"config.rounds is {config.rounds}: at least 1")
    if config.trust not in sample_weights.NAMES:
        raise InputError(f"config.trust is '{config.trust}': one of {', '.join(sample_weights.NAMES)}")
    for name, known in REST_POSES.items():
        if getattr(config, name) not in known:
            raise InputError(f"config.{name} is '{getattr(config, name)}': one of {', '.join(known)}")
    if config.in_loop and not (config.refit and config.keep_better):
        raise InputError("config.in_loop refits and keeps the better: it needs config.refit and .keep_better")
    model.check(config.regressor)
