"""One run from folder to report: open or go on, load, run, judge, show."""

import dataclasses
import os
import pathlib
from typing import Any

from dal_jax import deform_and_learn, presets, round_weights
from dal_jax.body import template as template_lib
from dal_jax.loop import data, folder as folder_lib, judge as judge_lib, report
from dal_jax.registration import trust
from dal_jax.regressor import model as regressor_model
from dal_jax.runtime import atomic, errors


@dataclasses.dataclass(frozen=True)
class Result:
    """history: one entry a round; scores: what the history has no field for; report: the path of the page.

    scores: `mean_pose_test_mpjpe_mm`, what learning has to beat; `regressor_test_vertex_error_mm` of the last round.
    """

    history: list[dict[str, Any]]
    scores: dict[str, float | None]
    report: pathlib.Path


def run(
    config: presets.Config, workdir: pathlib.Path, data_dir: str | os.PathLike[str], overwrite: bool = False
) -> Result:
    """Run a configuration in a folder, or go on with the run that is there.

    Raises:
      errors.InputError: the configuration, the folder or the data cannot be used; one line.
    """
    check(config)
    folder = folder_lib.RunFolder(workdir, config, overwrite)
    template = template_lib.load_template(config.body or template_lib.FREE_BODY)
    people = data.load(config, template, data_dir)
    setting = deform_and_learn.Setting(config, template, people.train)
    deform_and_learn.held_out_people(setting)  # refused now if nobody were left, not after the first registration
    judge = judge_lib.Judge(setting, people.test, people.train_truth, people.test_truth)
    with folder:
        state, position = folder.resume(deform_and_learn.initial_state(setting))
        state = deform_and_learn.run(setting, state, position, folder, judge)
    scores = {
        "mean_pose_test_mpjpe_mm": judge.mean_pose_test_mpjpe_mm(),
        "regressor_test_vertex_error_mm": judge.vertex_error_test_mm(state),
    }
    atomic.write_json(workdir / "scores.json", scores)
    page = report.write(workdir / "report", judge, state, position.history, workdir / "metrics.jsonl")
    return Result(position.history, scores, page)


def check(config: presets.Config) -> None:
    """Refuse (`errors.InputError`) what would fail only after hours."""
    if config.rounds < 1:
        raise errors.InputError(f"config.rounds is {config.rounds}: at least 1")
    if config.trust not in trust.NAMES:
        raise errors.InputError(f"config.trust is '{config.trust}': one of {', '.join(trust.NAMES)}")
    for name, known in round_weights.REST_POSES.items():
        if getattr(config, name) not in known:
            raise errors.InputError(f"config.{name} is '{getattr(config, name)}': one of {', '.join(known)}")
    if config.in_loop and not (config.refit and config.keep_better):
        raise errors.InputError("config.in_loop refits and keeps the better: it needs config.refit and .keep_better")
    regressor_model.check(config.regressor)
