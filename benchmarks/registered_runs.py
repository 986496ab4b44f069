"""What a run's regressor learned from, loaded to train another: registered bodies, annotation, lifted depths."""

import dataclasses
import functools
import os
from typing import Any

import jax
import numpy as np

from dal_jax import algorithm
from dal_jax.algorithm import Run
from dal_jax.body import kinematics
from dal_jax.body.formats.load import FREE_BODY, load_body
from dal_jax.body.kinematics import BodyParameters
from dal_jax.config import Config
from dal_jax.data.people import People
from dal_jax.lifting import training
from dal_jax.lifting.training import LiftingState
from dal_jax.loop import folder, run as run_lib
from dal_jax.loop.judge import Judge
from dal_jax.observations import residuals
from dal_jax.observations.observation import Observation
from dal_jax.registration import register
from dal_jax.registration.energy import Objective
from dal_jax.regressor import model
from dal_jax.regressor.model import Learned, RegressorConfig
from dal_jax.runtime import configs
from dal_jax.runtime.checkpoints import Checkpoints
from dal_jax.runtime.errors import InputError


@dataclasses.dataclass(frozen=True)
class Registered:
    """The training people of a run as its last deformation left them.

    judge: scores predictions; its run has the configuration, the body and the people.
    observations: of the training people, lifted depths attached. fits: their registered bodies (host arrays).
    objective: that the fits were made with. lifting: the lifter. step: the number of the checkpoint.
    """

    judge: Judge
    observations: Observation
    fits: BodyParameters
    objective: Objective
    lifting: LiftingState
    step: int

    def refine(self, bodies: BodyParameters, people: People) -> BodyParameters:
        """Register people from bodies alone, as the run's later rounds do, with the objective of its fits.

        Args:
          bodies: the starts, such as a regressor's.
          people: annotated; the run's own or others.
        """
        run, observed = self.judge.run, people.observations
        plan = dataclasses.replace(run.config.later.registration, starts="given")
        lifted = algorithm.with_lifted_depth(run, self.lifting, observed)
        return register.register(run.template, lifted, plan, self.objective, [bodies]).parameters

    def score(self, config: RegressorConfig, learned: Learned) -> dict[str, Any]:
        """Score a regressor's bodies of the test people; scores that need 3D truth are None where there is none.

        Returns:
          `mpjpe_mm` and `pa_mpjpe_mm` (Human3.6M's protocol 1), and `keypoint_error_px`: each person's root mean square
          in the photograph, its mean over the people with key points.
        """
        test = self.judge.test
        bodies = model.predict(config, learned, test.images)
        _, distance = residuals.errors_px(self.judge.run.template, bodies, test.observations)
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
    workdir = config_path.parent
    config = configs.with_values(Config(), folder.read(config_path), config_path)
    config.check()
    saved = Checkpoints(workdir / "checkpoints")
    step = saved.latest_step()
    if step is None:
        raise InputError(f"{workdir}: has no checkpoint yet")
    train, test = run_lib.load(config, data_dir or workdir.parent / "data")
    run = Run(config, load_body(config.body or FREE_BODY), dataclasses.replace(train, truth=None))
    state, position = saved.restore(_example(run, folder.saved_objective(saved, step)), step, partial=True)
    if position["round"] == 1 and position["phase"] in ("lift", "deform"):
        raise InputError(f"{workdir}: no one is registered yet, all stand in the T-pose; round 1 is before 'learn'")
    bodies = {"fits": jax.tree.map(functools.partial(_shape, len(train.names)), kinematics.t_pose())}
    fits = Checkpoints(workdir / folder.PEOPLE).restore(bodies, position[folder.PEOPLE], partial=True)[0]["fits"]
    observed = train.observations
    return Registered(
        judge=Judge(run, train.truth, test),
        observations=algorithm.with_lifted_depth(run, state["lifting"], observed),
        fits=jax.device_get(fits),
        objective=state["objective"],
        lifting=state["lifting"],
        step=step,
    )


def _example(run: Run, objective: Objective) -> dict[str, Any]:
    """Return the wanted leaves of a `algorithm.LoopState` as shapes, by the names they are saved under.

    A dict, because Orbax takes a field that is None for an empty one, not for one left out.
    """
    draw = functools.partial(training.initial_state, run.config.lifting)
    return {
        "lifting": jax.eval_shape(draw, jax.random.key(0)),
        "objective": objective,
    }


def _shape(people: int, leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((people, *leaf.shape), leaf.dtype)
