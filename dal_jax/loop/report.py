"""The report of a run: Fig. 2 of this run, Fig. 1 for its people, the worst cases, what learning had to beat."""

import pathlib
from typing import Any

import numpy as np

from dal_jax.algorithm import LoopState
from dal_jax.body.parameters import BodyParameters
from dal_jax.data.people import People, Truth
from dal_jax.loop import report_page
from dal_jax.loop.judge import Judge
from dal_jax.loop.report_page import Stage
from dal_jax.observations import residuals
from dal_jax.runtime import metric_log
from dal_jax.viewing import plots


def write(
    directory: pathlib.Path,
    judge: Judge,
    state: LoopState,
    history: list[dict[str, Any]],
    log_path: pathlib.Path,
) -> pathlib.Path:
    """Write DIR/report and return the path of its page."""
    run = judge.run
    stages = [_stage(judge, "Registration, training people", run.people, state.fits, judge.train_truth)]
    if judge.test.truth is None:
        stages.append(_stage(judge, "Regressor, the same people", run.people, state.predictions, None))
    else:
        predicted = judge.predict_test(state)
        stages.append(_stage(judge, "Regressor, test people", judge.test, predicted, judge.test.truth))
    return report_page.write_report(directory, run, history, stages, _loss_plots(log_path))


def _stage(
    judge: Judge,
    title: str,
    people: People,
    bodies: BodyParameters,
    truth: Truth | None,
) -> Stage:
    """Return a stage whose people are sorted by MPJPE where it is known, else by the dense error in px."""
    errors, name, unit = judge.errors_mm(bodies, truth), "MPJPE", "mm"
    if errors is None:
        dense, _ = residuals.errors_px(judge.run.template, bodies, people.observations)
        errors = residuals.root_mean_square(dense, np.asarray(people.observations.point_confidence))
        name, unit = "dense error", "px"
    return Stage(title, people.names, people.images, bodies, errors, name, unit, people.observations)


def _loss_plots(log_path: pathlib.Path) -> dict[str, bytes]:
    """Plot what the log holds of the two networks' training."""
    lines = metric_log.read(log_path)
    lifting = [line for line in lines if "lifting_step" in line]
    learning = [line for line in lines if line.get("phase") == "learn"]
    found = {}
    for caption, chosen, axis in (("Lifting", lifting, "lifting_step"), ("Regressor", learning, "epoch")):
        names = sorted({name for line in chosen for name in line if "loss" in name or "realism" in name})
        series = {
            name: ([line[axis] for line in chosen if name in line], [line[name] for line in chosen if name in line])
            for name in names
        }
        if series:
            found[caption] = plots.plot_curves(series, axis.replace("_", " "), "loss")
    return found
