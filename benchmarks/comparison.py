"""Runs of the loop side by side: where their regressors err on the test people, read from their last checkpoints."""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from dal_jax.algorithm import Run
from dal_jax.body import skeleton
from dal_jax.body.formats.load import FREE_BODY, load_body
from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.template import Template
from dal_jax.config import Config
from dal_jax.data.people import People
from dal_jax.loop import folder, prediction, report, run as run_lib
from dal_jax.loop.judge import Judge
from dal_jax.loop.report import Stage
from dal_jax.regressor import model
from dal_jax.runtime import configs
from dal_jax.runtime.errors import InputError
from dal_jax.runtime.files import PathLike

HEADINGS_DEG, DISTANCE_SHARES, VISIBLE_SHARES = (0, 45, 90, 135, 180), (0, 0.25, 0.5, 0.75, 1), (0, 0.6, 0.8, 0.9, 1)
"""Between which people are grouped: by how far they turn from the camera, by quarters of their distances, and by the
share of their key points that is seen."""


@dataclasses.dataclass(frozen=True)
class Scored:
    """A run's regressor on its test people.

    name: the run's folder. bodies: predicted. errors_mm: (n, 17) of joints, as Human3.6M's protocol 1 scores them.
    """

    name: str
    judge: Judge
    bodies: BodyParameters
    errors_mm: Float[np.ndarray, "n 17"]

    @property
    def people(self) -> People:
        """Return the test people."""
        return self.judge.test


def score(path: PathLike, data_dir: PathLike | None) -> Scored:
    """Load a run's regressor and its people, and score it.

    Args:
      path: the run's folder (--workdir).
      data_dir: where the run's data set is kept; None: `data` beside the run's folder.

    Raises:
      errors.InputError: it is no such folder, nothing is trained yet, or its test people have no 3D truth.
    """
    config_path = folder.find(path)
    config = configs.with_values(Config(), folder.read(config_path), config_path)
    trained = prediction.load(path)
    train, test = run_lib.load(config, data_dir or config_path.parent.parent / "data")
    if train.truth is None or test.truth is None:
        raise InputError(f"{config_path.parent}: its people have no 3D truth to score against")
    run = Run(config, load_body(config.body or FREE_BODY), dataclasses.replace(train, truth=None))
    judge = Judge(run, train.truth, test)
    bodies = model.predict(trained.config, trained.learned, test.images)
    return Scored(str(path), judge, bodies, judge.joint_errors_mm(bodies))


def check_same_people(runs: Sequence[Scored]) -> None:
    """Refuse runs that were not scored on the same people.

    Raises:
      errors.InputError: names the first that was not.
    """
    for one in runs[1:]:
        if list(one.people.names) != list(runs[0].people.names):
            raise InputError(f"{one.name}: its test people are not those of {runs[0].name}")


def groups(people: People) -> dict[str, dict[str, Bool[np.ndarray, "n"]]]:
    """Return who belongs together, by `action`, `heading`, `distance` and `visible`; nobody's groups are left out."""
    truth = people.truth
    assert truth is not None
    joints, known = truth.joints_h36m_mm, np.asarray(people.observations.keypoint_confidence)
    actions = np.array([re.split("[ ._]", str(name))[1] for name in people.names])
    across = joints[:, _LEFT_HIP] - joints[:, _RIGHT_HIP]  # a person who faces the camera has the left where x grows
    heading = np.degrees(np.abs(np.arctan2(across[:, 2], across[:, 0])))
    distance = np.linalg.norm(joints[:, 0], axis=1) / 1000
    made = {
        "action": {str(action): actions == action for action in np.unique(actions)},
        "heading": _between(heading, HEADINGS_DEG, "{:.0f} to {:.0f} deg"),
        "distance": _between(distance, np.quantile(distance, DISTANCE_SHARES), "{:.1f} to {:.1f} m"),
        "visible": _between(np.mean(known >= 1, axis=1), VISIBLE_SHARES, "{:.0%} to {:.0%} of key points"),
    }
    return {kind: {name: rows for name, rows in found.items() if rows.any()} for kind, found in made.items()}


_LEFT_HIP, _RIGHT_HIP = (skeleton.H36M_JOINT_NAMES.index(name) for name in ("left_hip", "right_hip"))


def _between(values: np.ndarray, edges: Sequence[float] | np.ndarray, text: str) -> dict[str, np.ndarray]:
    """Return who lies between neighbouring edges; the last belongs to the last group."""
    group = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    return {text.format(edges[row], edges[row + 1]): group == row for row in range(len(edges) - 1)}


def table(runs: Sequence[Scored]) -> list[tuple[str, str, int, list[float]]]:
    """Return (kind, name, people, mean error of each run, mm): all people, each joint, each group."""
    count = len(runs[0].people.names)
    rows = [("all", "all", count, [float(run.errors_mm.mean()) for run in runs])]
    for number, name in enumerate(skeleton.H36M_JOINT_NAMES):
        rows.append(("joint", name, count, [float(run.errors_mm[:, number].mean()) for run in runs]))
    for kind, found in groups(runs[0].people).items():
        for name, chosen in found.items():
            rows.append((kind, name, int(chosen.sum()), [float(run.errors_mm[chosen].mean()) for run in runs]))
    return rows


def cases(runs: Sequence[Scored], count: int) -> dict[str, list[int]]:
    """Return the people with the largest and with the middle error, as the mean over the runs has it."""
    order = np.argsort(np.mean([run.errors_mm.mean(axis=1) for run in runs], axis=0), kind="stable")
    middle = (len(order) - count) // 2
    return {"worst": order[::-1][:count].tolist(), "median": order[max(middle, 0) : max(middle, 0) + count].tolist()}


def picture(stages: Sequence[Stage], rows: Sequence[int], template: Template, tile_px: int = 160) -> np.ndarray:
    """Return (h, w, 3) uint8: a row a person, image and annotation, then overlay, front and side of each stage."""

    def person(row: int) -> np.ndarray:
        first, *others = (report.draw_person(stage, row, template, tile_px) for stage in stages)
        return np.concatenate([first, *(other[:, tile_px:] for other in others)], axis=1)

    return np.concatenate([person(row) for row in rows])


def stage_of(name: str, people: People, bodies: BodyParameters) -> Stage:
    """Return what is drawn of people's bodies."""
    return Stage(name, people.names, people.images, bodies, observations=people.observations)
