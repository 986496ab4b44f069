"""Deform-and-learn, the algorithm (paper, section 3): lift -> [deform -> learn] x rounds.

    lift    the lifter learns depth from the training people's 2D key points alone (once, in the first round)
    deform  every training person is registered: dense points, key points, lifted depths (section 4)
    learn   the regressor learns the registered bodies from the pixels (section 5); its predictions start the next round

With `online_fitting`, `deform` ends with round 1 and `learn` registers every batch before it teaches.

Every phase takes the state and returns a new one. `run_rounds` saves the state after every phase, the long ones save it
inside too, so a run killed at any point goes on from its last checkpoint and ends with the same history. No phase sees
3D truth: scores are made by a `Judge` that only `run_rounds` calls, between phases.
"""

import dataclasses
import reprlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from dal_jax.body import kinematics
from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.template import Template
from dal_jax.config import Config, Round
from dal_jax.data.people import People
from dal_jax.lifting import training as lifting_training
from dal_jax.lifting.lift import intrinsics_of, look_at_hip, with_lifted_depth as attach_depth
from dal_jax.lifting.poses import to_h36m
from dal_jax.lifting.training import LiftingState
from dal_jax.observations.observation import Observation, with_turns
from dal_jax.registration import register
from dal_jax.registration.energy import Objective
from dal_jax.registration.priors import PosePrior
from dal_jax.regressor import held_out, model, training as regressor_training
from dal_jax.regressor.training import TrainingSet, TrainState
from dal_jax.runtime import machine, mesh, progress, struct
from dal_jax.runtime.errors import DivergedError
from dal_jax.teachers import OnlineFitter, register_moments
from dal_jax.uncertainty import noise, posterior
from dal_jax.uncertainty.sandwich import Precisions

PHASES = ("lift", "deform", "learn", "judge")


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run is about and does not change: configuration, body, training people."""

    config: Config
    template: Template
    people: People


@struct.dataclass
class LoopState:
    """All that is learned (leading axis of fits and predictions: training people; host arrays).

    lifting: the lifter.
    fits: the registered bodies.
    objective: that `energy` belongs to; the fits were made with it.
    energy: of each fit; inf where it must be scored again, because the objective has changed.
    sample_weight: how much each fit teaches the regressor.
    regressor: the regressor.
    predictions: its bodies of the training people, the next registration's start.
    """

    lifting: LiftingState
    fits: BodyParameters
    objective: Objective
    energy: Float[Array | np.ndarray, "people"]
    sample_weight: Float[Array | np.ndarray, "people"]
    regressor: TrainState
    predictions: BodyParameters


@dataclasses.dataclass(frozen=True)
class RunState:
    """Where a run stands: JSON beside the state. `phase` of `round` comes next.

    history: one entry a judged round.
    epoch: training epochs so far, as if no round had been stopped early.
    seconds: of the present round, over all interruptions.
    """

    round: int = 1
    phase: str = "lift"
    history: tuple[dict[str, Any], ...] = ()
    epoch: int = 0
    seconds: float = 0.0


Judge = Callable[[int, LoopState], dict[str, float | None]]
"""Scores a round against 3D truth that no phase sees: (number of the round, state) -> history's fields."""

Save = Callable[[LoopState, RunState], None]
"""Keeps a state; the run goes on from the last one (`loop.folder.RunFolder.save`)."""

Log = Callable[[RunState, dict[str, Any]], None]
"""Keeps numbers by name, and where the run stands; they belong to the next state that is saved."""


def run_rounds(
    run: Run, state: LoopState, position: RunState, keep: Save, log: Log, judge: Judge
) -> tuple[LoopState, RunState]:
    """Run from wherever `position` stands to the last round; its history then has one entry a round."""
    phases = {"lift": lift, "deform": deform, "learn": learn}
    began = time.monotonic() - position.seconds  # the present round, as if nothing had interrupted it

    def seconds() -> float:
        return round(time.monotonic() - began, 1)

    def save(state: LoopState, position: RunState) -> None:
        keep(state, dataclasses.replace(position, seconds=seconds()))
        machine.stop_if_requested()

    while position.round <= run.config.rounds:
        try:
            if position.phase == "judge":
                scores = judge(position.round, state)
                struct.refuse_not_finite("scores", {name: one for name, one in scores.items() if one is not None}, {})
                entry = {"round": position.round} | scores | {"seconds": seconds()}
                position = dataclasses.replace(position, history=(*position.history, entry))
                began = time.monotonic()
            else:
                state, position = phases[position.phase](run, state, position, save, log)
        except DivergedError as error:
            raise DivergedError(f"round {position.round}, {position.phase}: {error}") from None
        position = _after_phase(position)
        save(state, position)
    return state, position


def _after_phase(position: RunState) -> RunState:
    """Return the place before the next phase; a round ends with `judge`."""
    if position.phase == PHASES[-1]:
        return dataclasses.replace(position, round=position.round + 1, phase="deform", seconds=0.0)
    return dataclasses.replace(position, phase=PHASES[PHASES.index(position.phase) + 1])


def initial_state(run: Run) -> LoopState:
    """Return the state before the first phase: networks as drawn, every person in the T-pose (paper, section 3)."""
    lifting_key, regressor_key = jax.random.split(_key(run, "initial"))
    count = len(run.people.names)
    scales = run.config.regressor.scales
    one = Objective(scales=scales).start_from(kinematics.t_pose())
    t_pose = jax.tree.map(lambda leaf: np.broadcast_to(np.asarray(leaf), (count, *leaf.shape)).copy(), one)
    lifting = lifting_training.initial_state(run.config.lifting, lifting_key)
    regressor = regressor_training.initial_state(run.config.regressor, regressor_key)
    lifting, regressor = mesh.everywhere((lifting, regressor), mesh.of_networks())
    return LoopState(
        lifting=lifting,
        fits=t_pose,
        objective=run.config.first.objective(scales=scales),
        energy=np.full(count, np.inf, np.float32),
        sample_weight=np.ones(count, np.float32),
        regressor=regressor,
        predictions=t_pose,
    )


def lift(run: Run, state: LoopState, position: RunState, save: Save, log: Log) -> tuple[LoopState, RunState]:
    """Train the lifter (the paper's cGAN, Kudo et al. 2018) on the training people's 2D key points.

    Note: the paper calls this the first step of an iteration. Ours is trained once, in the first round. People with
    fewer than five key points teach it nothing and are left out.
    """
    if run.config.lifted_depth == "none":
        return state, position
    config = run.config.lifting
    observed = run.people.observations
    keypoints, confidence = map(np.asarray, to_h36m(observed))
    visible = confidence > 0
    if (intrinsics := intrinsics_of(observed)) is not None:
        keypoints = np.asarray(look_at_hip(keypoints, visible, intrinsics)[0])
    usable = np.sum(visible, axis=1) >= _LIFTABLE_JOINTS
    if not usable.any():  # IUV pictures come without key points; then eq. 4 has no term to guide either
        return state, position
    with progress.bar(f"round {position.round}: lift", total=config.steps, unit="step") as bar:
        bar.update(int(state.lifting.step))

        def stop(lifting: LiftingState, figures: dict[str, float]) -> None:
            step = int(lifting.step)
            bar.update(step - bar.n)
            log(position, {"lifting_step": step} | figures)
            if step % run.config.lifting_checkpoint_steps == 0 or machine.stop_requested():
                save(dataclasses.replace(state, lifting=lifting), position)

        lifting = lifting_training.train(
            state.lifting, keypoints[usable], visible[usable], config, _key(run, "lift"), stop
        )
    return dataclasses.replace(state, lifting=lifting), position


_LIFTABLE_JOINTS = 5


def deform(run: Run, state: LoopState, position: RunState, save: Save, log: Log) -> tuple[LoopState, RunState]:
    """Register every training person (eq. 2-4), in later rounds from the regressor's predictions.

    Note: with `keep_better` the old fit is refined too and the one of lower energy stays; both are scored with this
    round's objective. The paper takes the new one; a weakly trained regressor then ruins good fits. With
    `online_fitting` only round 1 registers here; its sample weights stay.
    """
    config, first = run.config, position.round == 1
    if not first and (config.online_fitting or not config.refit):
        return state, position
    plan = config.first if first else config.later
    observed = with_lifted_depth(run, state.lifting, run.people.observations)
    objective = objective_of(run, state, plan, observed)
    given = [] if first else [state.predictions, *([state.fits] if config.keep_better else [])]
    with progress.bar(f"round {position.round}: deform", total=len(run.people.names), unit="person") as bar:

        def report(done: int) -> None:
            bar.update(done - bar.n)
            machine.stop_if_requested()  # the phase begins again; the checkpoint before it is whole

        if config.several_views:
            assert run.people.rig is not None  # `loop.run` refuses people without
            fit = register_moments(run.template, observed, run.people.rig, plan.registration, objective, given, report)
        else:
            fit = register.register(run.template, observed, plan.registration, objective, given, report)
    _refuse_diverged(run, "registration", (fit.parameters, fit.energy))
    weight = posterior.sample_weights(config.sample_weight, run.template, observed, fit.parameters, objective)
    log(position, {
        "registration_energy_median": float(np.median(fit.energy)),
        "registration_converged_share": float(np.mean(fit.converged)),
        "registration_start_share": "/".join(f"{count / len(fit.start):.2f}" for count in np.bincount(fit.start)),
        "sample_weight_mean": float(np.mean(weight)),
    })  # fmt: skip
    made = {"fits": fit.parameters, "objective": objective, "energy": fit.energy, "sample_weight": weight}
    return dataclasses.replace(state, **made), position


def _refuse_diverged(run: Run, what: str, bodies: Any) -> None:
    finite = np.ones(len(run.people.names), bool)
    for leaf in jax.tree.leaves(bodies):
        finite &= np.isfinite(leaf).reshape(len(leaf), -1).all(axis=1)
    if not finite.all():
        names = reprlib.repr([str(run.people.names[row]) for row in np.flatnonzero(~finite).tolist()])
        raise DivergedError(f"{what} of {names}: {np.sum(~finite)} of {len(finite)} bodies are not finite")


def learn(run: Run, state: LoopState, position: RunState, save: Save, log: Log) -> tuple[LoopState, RunState]:
    """Train the regressor on the registered bodies (eq. 5-6) and predict the training people.

    Note: its weights and optimiser go on from round to round, and one fall of the learning rate spans all rounds. Where
    people are held out, the weights of the round's best epoch go on. With `online_fitting` every batch is registered
    before it teaches, with the sample weights of round 1's fits; people of weight 0 keep their fit.
    """
    config, before = run.config.regressor, (position.round - 1) * run.config.regressor.epochs
    in_all = run.config.rounds * config.epochs
    observed = with_lifted_depth(run, state.lifting, run.people.observations)
    unseen = held_out_people(run)
    weight = np.where(unseen, 0.0, np.asarray(state.sample_weight))
    people = TrainingSet(run.template, run.people.images, observed, state.fits, weight)
    if position.epoch == before and int(state.regressor.epoch_step) == 0:
        state = dataclasses.replace(
            state, regressor=regressor_training.start_round(config, state.regressor, state.fits)
        )
        if run.config.online_fitting:
            state = _rescored(state, objective_of(run, state, run.config.later, observed))
    online = None
    if run.config.online_fitting:
        online = OnlineFitter(run.config, run.template, state.objective, (state.fits, state.energy))
    regressor = state.regressor
    while position.epoch < before + config.epochs:
        title = f"round {position.round}: learn, epoch {position.epoch + 1}"
        with progress.bar(title, total=int(np.count_nonzero(weight)), unit="image") as bar:
            bar.update(int(regressor.epoch_step) * config.batch)
            regressor, metrics = regressor_training.train_epoch(
                config, regressor, people, _key(run, "learn"), span=(position.epoch, in_all),
                steps=run.config.learning_checkpoint_steps, fit_batch=online, progress=bar.update,
            )  # fmt: skip
        if online is not None:
            fits, energy = online.best()
            state = dataclasses.replace(state, fits=fits, energy=energy)
        if int(regressor.epoch_step) == 0:
            position = dataclasses.replace(position, epoch=position.epoch + 1)
            regressor, judged = held_out.judge_epoch(config, regressor, people, unseen)
            struct.refuse_not_finite(f"regressor, epoch {position.epoch}", judged, {})
            metrics |= judged
        log(position, metrics)
        if held_out.is_over(regressor.best, config.patience):
            position = dataclasses.replace(position, epoch=before + config.epochs)
        save(dataclasses.replace(state, regressor=regressor), position)
    regressor = regressor_training.finish_round(regressor)
    predictions = model.predict(config, regressor.learned, run.people.images)
    _refuse_diverged(run, "prediction", predictions)
    return dataclasses.replace(state, regressor=regressor, predictions=predictions), position


def held_out_people(run: Run) -> Bool[np.ndarray, "people"]:
    """Return the people that are registered and predicted like all others, but never shown: the same in every round.

    Raises:
      errors.InputError: no one would be left to learn from.
    """
    return held_out.draw(run.config.regressor, _key(run, "hold out"), len(run.people.names))


def with_lifted_depth(run: Run, lifting: LiftingState, observed: Observation) -> Observation:
    """Attach z^GAN of eq. 4 to stacked observations, with the lifter's confidence in it where it has one.

    With `lifted_depth=turns` they may turn in common (`observation.with_turns`), as lifters err on photographs; with
    `none` observations are returned as they are, with depths of confidence 0.
    """
    if run.config.lifted_depth == "none":
        return observed
    given = attach_depth(run.config.lifting, lifting.lifter, observed)
    return with_turns(given) if run.config.lifted_depth == "turns" else given


def objective_of(run: Run, state: LoopState, plan: Round, observed: Observation) -> Objective:
    """Return what a round minimises; a learned prior comes from the fits so far."""
    if plan.prior != "learned":
        return plan.objective(scales=run.config.regressor.scales)
    learned = learn_prior(run.template, observed, state.fits, state.objective)
    return plan.objective(learned, run.config.regressor.scales)


def learn_prior(template: Template, observed: Observation, fits: BodyParameters, objective: Objective) -> PosePrior:
    """Return how people hold their joints in fits that were made with `objective`. No 3D truth is read."""
    weighted = noise.robust_weights(template, observed, fits, objective.weights.outlier)
    levels = noise.initial()
    for _ in range(_ESTIMATES):
        levels = noise.estimate(template, weighted, fits, Precisions.of_objective(objective), levels)
    return levels.pose_prior


_ESTIMATES = 2  # the spread of poses needs the levels of noise, and they need it


def _rescored(state: LoopState, objective: Objective) -> LoopState:
    """Return the state with an objective; energies under another one are of no use."""
    same = jax.tree.structure(objective) == jax.tree.structure(state.objective) and jax.tree.all(
        jax.tree.map(np.array_equal, objective, state.objective)
    )
    energy = state.energy if same else np.full_like(state.energy, np.inf)
    return dataclasses.replace(state, objective=objective, energy=energy)


def _key(run: Run, purpose: str) -> jax.Array:
    """Return a key for one purpose: the seed folded with a fixed number, so phases never share random numbers."""
    return jax.random.fold_in(jax.random.key(run.config.seed), _PURPOSES.index(purpose))


_PURPOSES = ("initial", "lift", "learn", "hold out")
