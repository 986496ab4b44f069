"""What a loop's ConvNet learned from, loaded to train another: registered bodies, annotation, lifted depths."""

import dataclasses
import functools
import os
import pathlib
from typing import Any

import jax
import numpy as np

from dal_jax import config as config_lib, deform_and_learn
from dal_jax.body import parameters
from dal_jax.body.formats.load import FREE_BODY, load_body
from dal_jax.body.parameters import BodyParameters
from dal_jax.config import Config
from dal_jax.deform_and_learn import LoopState, Run
from dal_jax.lifting import training
from dal_jax.loop import folder, run as run_lib
from dal_jax.loop.judge import Judge
from dal_jax.observations import residuals
from dal_jax.observations.observation import Observation
from dal_jax.registration import priors
from dal_jax.registration.energy import Objective
from dal_jax.regressor import model
from dal_jax.regressor.model import Learned, RegressorConfig
from dal_jax.runtime.checkpoints import Checkpoints
from dal_jax.runtime.errors import InputError


@dataclasses.dataclass(frozen=True)
class Registered:
    """The training people of a run as its last deformation left them.

    judge: scores predictions; its setting has the configuration, the body and the people.
    observations: of the training people, lifted depths attached. fits: their registered bodies (host arrays).
    objective: that the fits were made with. step: the number of the checkpoint.
    """

    judge: Judge
    observations: Observation
    fits: BodyParameters
    objective: Objective
    step: int

    def score(self, config: RegressorConfig, learned: Learned) -> dict[str, Any]:
        """Return what a ConvNet's bodies of the test people are worth; what needs 3D truth is None where there is none.

        Returns:
          `mpjpe_mm` and `pa_mpjpe_mm` (Human3.6M's protocol 1), and `keypoint_error_px`: each person's root mean square
          in the photograph, its mean over those who have key points.
        """
        test = self.judge.test
        bodies = model.predict(config, learned, test.images)
        _, distance = residuals.errors_px(self.judge.setting.template, bodies, test.observations)
        marked = np.any(test.observations.keypoint_confidence > 0, axis=1)
        each = residuals.root_mean_square(distance, test.observations.keypoint_confidence)[marked]
        return self.judge.test_scores(bodies) | {"keypoint_error_px": float(np.mean(each)) if len(each) else None}


def load(path: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None) -> Registered:
    """Load the last checkpoint of a `deform_and_learn` run, and its people.

    Args:
      path: the run's folder (--workdir), or the checkpoints/ in it.
      data_dir: where the run's data set is kept; None: `data` beside the run's folder.

    Raises:
      errors.InputError: it is no such folder, nobody is registered in it yet, or it does not fit the data.
    """
    config_path = folder.find(path)
    run = config_path.parent
    config = folder.filled(config_path, "config", Config(), folder.read(config_path))
    run_lib.check(config)
    saved = Checkpoints(run / "checkpoints")
    step = saved.latest_step()
    if step is None:
        raise InputError(f"{run}: has no checkpoint yet")
    template = load_body(config.body or FREE_BODY)
    people = run_lib.load(config, template, data_dir or run.parent / "data")
    setting = Run(config, template, people.train)
    state, objective = _restore(saved, step, setting, run)
    return Registered(
        judge=Judge(setting, people.test, people.train_truth, people.test_truth),
        observations=deform_and_learn.with_lifted_depth(setting, state, people.train.observations),
        fits=jax.device_get(state.fits),
        objective=objective,
        step=step,
    )


def _restore(saved: Checkpoints, step: int, setting: Run, run: pathlib.Path) -> tuple[LoopState, Objective]:
    """Return the lifter and the registered bodies, nothing else, and the objective that these were registered with."""
    config = setting.config
    state, position = saved.restore(_example(setting), step, partial=True)
    learned = position["phase"] in ("learn", "judge")
    deformed = position["round"] if learned else position["round"] - 1
    if deformed < 1:
        raise InputError(f"{run}: nobody is registered yet, all stand in the T-pose; round 1 is before 'learn'")
    learned_once = position["phase"] == "judge" or position["round"] > 1
    first = not learned_once if config.in_loop else deformed == 1 or not config.refit
    rest = dict.fromkeys(("energy", "trust", "regressor", "predictions"))
    return LoopState(**state, **rest), config_lib.objective(config, first, state["poses"])


def _example(setting: Run) -> dict[str, Any]:
    """Return the wanted leaves of a `deform_and_learn.LoopState` as shapes, by the names they are saved under.

    A dict, because Orbax takes a field that is None for an empty one, not for one left out.
    """
    people = len(setting.people.names)
    draw = functools.partial(training.initial_state, setting.config.lifting)
    return {
        "lifting": jax.eval_shape(draw, jax.random.key(0)),
        "fits": jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((people, *leaf.shape), leaf.dtype), parameters.t_pose()),
        "poses": jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), priors.population()),
    }
