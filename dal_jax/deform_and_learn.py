"""Deform-and-learn, the algorithm (paper, section 3): lift -> [deform -> learn] x rounds.

    lift    the cGAN learns depth from the training people's 2D key points alone (once, in the first round)
    deform  every training person is registered: dense points, key points, lifted depths (section 4)
    learn   the ConvNet learns the registered bodies from the pixels (section 5); its predictions start the next round

With `in_loop`, `deform` ends with round 1 and `learn` registers every batch before it teaches (`in_loop.py`).

State goes in and comes out of every phase; nothing else is remembered. `run` saves the state after every phase (and
inside the long ones), so a run killed at any point goes on from its last checkpoint and ends with the same history.
No phase sees 3D truth: scores are made by a `Judge` that only `run` calls, between phases.
"""

import dataclasses
import functools
import time
from typing import Any, Protocol

import flax.struct
import jax
import numpy as np
from jaxtyping import Bool

from dal_jax import config as config_lib
from dal_jax.body import kinematics, parameters as parameters_lib, skinning
from dal_jax.body.parameters import BodyParameters
from dal_jax.body.template import Template
from dal_jax.config import Config
from dal_jax.data.people import People
from dal_jax.lifting import training
from dal_jax.lifting.lift import depth_term
from dal_jax.lifting.training import LiftingState
from dal_jax.observations import observation
from dal_jax.observations.observation import Observation
from dal_jax.online_fitting import BestFits, OnlineFitter
from dal_jax.registration import priors, register
from dal_jax.registration.energy import Objective
from dal_jax.registration.priors import PosePrior
from dal_jax.regressor import held_out, model, training as training_lib
from dal_jax.regressor.training import TrainState
from dal_jax.runtime import progress
from dal_jax.uncertainty import sample_weights

PHASES = ("lift", "deform", "learn", "judge")


@flax.struct.dataclass
class LoopState:
    """All that is learned (leading axis of fits and predictions: training people; host arrays).

    lifting: the cGAN. fits: registered bodies, with their energy under the weights of their round; inf: under those of
    later rounds nobody has looked yet (`in_loop`).
    poses: how the people held their joints, where the present round's L_joint pulls to that.
    trust: how much each fit teaches the ConvNet. regressor: the ConvNet. predictions: its bodies of the training
    people, the next registration's start.
    """

    lifting: LiftingState
    fits: BodyParameters
    energy: Any
    poses: PosePrior
    trust: Any
    regressor: TrainState
    predictions: BodyParameters


@dataclasses.dataclass
class RunState:
    """Where a run stands: JSON beside the state. `phase` of `round` comes next; history has one entry a judged round.

    saves: number of checkpoints so far; epoch: training epochs so far, as if no round had been stopped early;
    seconds: of the present round.
    """

    round: int = 1
    phase: str = "lift"
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    saves: int = 0
    epoch: int = 0
    seconds: float = 0.0


class Judge(Protocol):
    """Scores of one round against 3D truth that no phase sees; nulls where there is no truth."""

    def __call__(self, round_number: int, state: LoopState) -> dict[str, float | None]: ...


class RunStore(Protocol):
    """Where states and logged numbers go."""

    def save(self, number: int, state: LoopState, position: dict[str, Any]) -> None: ...

    def log(self, number: int, values: dict[str, Any]) -> None: ...


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run is about and does not change: configuration, body, training people."""

    config: Config
    template: Template
    people: People


def initial_state(setting: Run) -> LoopState:
    """Return the state before the first phase: networks as drawn, every person in the T-pose (paper, section 3)."""
    lifting_key, regressor_key = jax.random.split(_key(setting, "initial"))
    count = len(setting.people.names)
    t_pose = jax.tree.map(
        lambda leaf: np.broadcast_to(np.asarray(leaf), (count, *leaf.shape)).copy(), parameters_lib.t_pose()
    )
    return LoopState(
        lifting=training.initial_state(setting.config.lifting, lifting_key),
        fits=t_pose,
        energy=np.full(count, np.inf, np.float32),
        poses=priors.population(),
        trust=np.ones(count, np.float32),
        regressor=training_lib.initial_state(setting.config.regressor, regressor_key),
        predictions=t_pose,
    )


def run(setting: Run, state: LoopState, position: RunState, store: RunStore, judge: Judge) -> LoopState:
    """Run from wherever `position` stands to the last round; `position.history` then has one entry a round."""
    phases = {"lift": lift, "deform": deform, "learn": learn}
    while position.round <= setting.config.rounds:
        saver = _Saver(store, position)
        if position.phase == "judge":
            scores = judge(position.round, state)
            position.history.append({"round": position.round} | scores | {"seconds": saver.seconds()})
        else:
            state = phases[position.phase](setting, state, position, saver)
        saver.save_advanced(state)
    return state


def lift(setting: Run, state: LoopState, position: RunState, saver: "_Saver") -> LoopState:
    """Train the cGAN on the training people's 2D key points (Kudo et al. 2018).

    Note: the paper calls this the first step of an iteration. Ours is trained once, in the first round. People with
    fewer than five key points teach it nothing and are left out.
    """
    config = setting.config.lifting
    observed = setting.people.observations
    visible = np.asarray(observed.keypoint_confidence) > 0
    usable = np.sum(visible, axis=1) >= _LIFTABLE_JOINTS
    if not usable.any():  # IUV pictures come without key points; then eq. 4 has no term to guide either
        return state
    with progress.bar(f"round {position.round}: lift", total=config.steps, unit="step") as bar:
        bar.update(int(state.lifting.step))

        def stop(lifting: LiftingState, figures: dict[str, float]) -> None:
            step = int(lifting.step)
            bar.update(step - bar.n)
            saver.log({"lifting_step": step} | figures)
            if step % setting.config.lifting_checkpoint_steps == 0:
                saver.save(state.replace(lifting=lifting))

        keypoints = np.asarray(observed.keypoint_position)[usable]
        lifting = training.train(state.lifting, keypoints, visible[usable], config, _key(setting, "lift"), stop)
    return state.replace(lifting=lifting)


_LIFTABLE_JOINTS = 5


def deform(setting: Run, state: LoopState, position: RunState, saver: "_Saver") -> LoopState:
    """Register every training person (eq. 2-4), in later rounds from the ConvNet's predictions.

    Note: with `keep_better` the old fit is refined too and the one of lower energy stays; both are scored with this
    round's weights. The paper takes the new one; a weakly trained ConvNet then ruins good fits. With `in_loop` only
    round 1 registers here; its energies are forgotten, as `learn` refits with other weights, but its trust stays. How
    people hold their joints is learned from the last round's fits, where L_joint asks for it.
    """
    config = setting.config
    first = position.round == 1
    if not first and not config.refit:
        return state
    observed = with_lifted_depth(setting, state, setting.people.observations)
    if not first:
        used = config_lib.objective(config, position.round == 2 and not config.in_loop, state.poses)
        state = _learn_poses(setting, state, observed, used)
    if not first and config.in_loop:
        return state
    registration = config.first_registration if first else config.registration
    objective = config_lib.objective(config, first, state.poses)
    given = [] if first else [state.predictions, *([state.fits] if config.keep_better else [])]
    with progress.bar(f"round {position.round}: deform", total=len(setting.people.names), unit="person") as bar:
        fit = register.register(
            setting.template, observed, registration, objective, given, lambda done: bar.update(done - bar.n)
        )
    trust = sample_weights.weigh(config.trust, setting.template, observed, fit.parameters, objective)
    saver.log({
        "registration_energy_median": float(np.median(fit.energy)),
        "registration_converged_share": float(np.mean(fit.converged)),
        "registration_start_share": _shares(fit.start),
        "registration_trust_mean": float(np.mean(trust)),
    })  # fmt: skip
    state = state.replace(fits=fit.parameters, energy=fit.energy, trust=trust)
    if config.in_loop:
        state = _learn_poses(setting, state.replace(energy=np.full_like(fit.energy, np.inf)), observed, objective)
    return state


def _learn_poses(setting: Run, state: LoopState, observed: Observation, used: Objective) -> LoopState:
    """Learn what L_joint pulls to, where that is learned, from fits made with the objective `used`: energies change."""
    if setting.config.rest_pose != "learned":
        return state
    poses = config_lib.learn_poses(setting.template, observed, state.fits, used)
    return state.replace(poses=poses, energy=np.full_like(state.energy, np.inf))


def learn(setting: Run, state: LoopState, position: RunState, saver: "_Saver") -> LoopState:
    """Train the ConvNet on the registered bodies (eq. 5-6) and predict the training people.

    Note: its weights go on from round to round; the optimiser starts afresh. Where people are held out, those of the
    round's best epoch go on. With `in_loop` every batch is registered before it teaches, but is trusted as round 1's
    fits were: who is not shown keeps that fit.
    """
    config = setting.config.regressor
    unseen = held_out_people(setting)
    weight = np.where(unseen, 0.0, state.trust)
    observed = with_lifted_depth(setting, state, setting.people.observations)
    regressor = state.regressor
    before = (position.round - 1) * config.epochs
    if position.epoch == before and int(regressor.epoch_step) == 0:
        regressor = training_lib.start_round(config, regressor, state.fits)
    refit = None
    if setting.config.in_loop:
        objective = config_lib.objective(setting.config, False, state.poses)
        refit = OnlineFitter(setting.config, setting.template, objective, BestFits(state.fits, state.energy))
    while position.epoch < before + config.epochs:
        with progress.bar(
            f"round {position.round}: learn, epoch {position.epoch + 1}", total=np.count_nonzero(weight), unit="image"
        ) as bar:
            bar.update(int(regressor.epoch_step) * config.batch)
            regressor, metrics = training_lib.train_epoch(
                regressor, setting.template, setting.people.images, observed, state.fits, config,
                _key(setting, "learn"), sample_weight=weight, steps=setting.config.learning_checkpoint_steps,
                refit=refit, progress=bar.update,
            )  # fmt: skip
        if refit is not None:
            bodies = refit.bodies()
            state = state.replace(fits=bodies.fits, energy=bodies.energy)
        if int(regressor.epoch_step) == 0:
            position.epoch += 1
            regressor, judged = held_out.judge_epoch(
                config, regressor, setting.template, setting.people.images, observed, unseen
            )
            metrics |= judged
        saver.log(metrics)
        if training_lib.is_over(regressor.best, config.patience):
            position.epoch = before + config.epochs
        saver.save(state.replace(regressor=regressor))
    regressor = training_lib.finish_round(regressor)
    predictions = model.predict(config, regressor, setting.people.images)
    return state.replace(regressor=regressor, predictions=predictions)


def held_out_people(setting: Run) -> Bool[np.ndarray, "people"]:
    """Return who is registered and predicted like everyone, but never shown: the same people in every round.

    Raises:
      errors.InputError: nobody would be left to learn from.
    """
    return held_out.draw(setting.config.regressor, _key(setting, "hold out"), len(setting.people.names))


def with_lifted_depth(setting: Run, state: LoopState, observed: Observation) -> Observation:
    """Attach z^GAN of eq. 4 to stacked observations, with the lifter's confidence in it where it has one."""
    term = jax.jit(functools.partial(depth_term, setting.config.lifting))
    depth, trusted = term(state.lifting.lifter, observed.keypoint_position, observed.keypoint_confidence)
    return observation.with_depth(observed, np.asarray(depth), np.asarray(trusted))


@jax.jit
def joints_h36m(template: Template, parameters: BodyParameters) -> jax.Array:
    """Return Human3.6M's joints of stacked bodies, camera axes, metres: what is scored."""

    def one(body: BodyParameters) -> jax.Array:
        segments = kinematics.pose_skeleton(template, body.rotation, body.pose, body.segment_scale)
        return skinning.h36m_joints(template, segments)

    return jax.vmap(one)(parameters)


class _Saver:
    """Saves states with the position they belong to, and keeps the round's clock over all interruptions."""

    def __init__(self, store: RunStore, position: RunState):
        self._store, self._position = store, position
        self._before, self._started = position.seconds, time.monotonic()

    def seconds(self) -> float:
        return round(self._before + time.monotonic() - self._started, 1)

    def save(self, state: LoopState) -> None:
        """Save inside a phase."""
        self._position.seconds = self.seconds()
        self._write(state)

    def save_advanced(self, state: LoopState) -> None:
        """Save at the end of a phase, standing before the next one; the round's last phase ends its clock."""
        position = self._position
        position.seconds = self.seconds()
        following = PHASES.index(position.phase) + 1
        if following < len(PHASES):
            position.phase = PHASES[following]
        else:
            position.round, position.phase, position.seconds = position.round + 1, "deform", 0.0
        self._write(state)

    def log(self, values: dict[str, Any]) -> None:
        """Write a line to the log; it counts as part of the next checkpoint."""
        place = {"round": self._position.round, "phase": self._position.phase, "epoch": self._position.epoch}
        self._store.log(self._position.saves + 1, place | values)

    def _write(self, state: LoopState) -> None:
        self._position.saves += 1
        self._store.save(self._position.saves, state, dataclasses.asdict(self._position))


def _key(setting: Run, purpose: str) -> jax.Array:
    """Return a key for one purpose: the seed folded with a fixed number, so phases never share random numbers."""
    return jax.random.fold_in(jax.random.key(setting.config.seed), _PURPOSES.index(purpose))


_PURPOSES = ("initial", "lift", "learn", "hold out")


def _shares(start: np.ndarray) -> str:
    counts = np.bincount(start)
    return "/".join(f"{count / len(start):.2f}" for count in counts)
