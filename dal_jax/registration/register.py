"""Register people: starts -> optimiser -> the start of lowest energy; streamed in chunks of one fixed shape.

Written for one person and vmapped; chunks are spread over devices by shard_map. People are independent, so no device
waits for another.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from dal_jax.body import skeleton
from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.template import Template, keypoint_rows
from dal_jax.observations import residuals
from dal_jax.observations.observation import Observation
from dal_jax.registration import schedules, starts as starts_lib
from dal_jax.registration.energy import Objective, as_arrays, parameter_energy
from dal_jax.registration.solvers import solve
from dal_jax.registration.solvers.descent import Solution, SolverOptions
from dal_jax.registration.solvers.solve import Batch, Information
from dal_jax.registration.solvers.tree.state import TreeModel, build_model
from dal_jax.runtime import machine, mesh as mesh_lib, programs, struct

_CONVERGED_DECREASE = 1e-2
_CHUNKS_AHEAD = 2  # on their way while the host prepares the next: bounds memory, hides the host


@dataclasses.dataclass
class RegistrationConfig:
    """How one round of registration is run.

    optimizer: by name, see `solvers.solve`; the paper's is `adam`.
    steps: iterations from every start, in every leg (`schedules.legs`).
    learning_rate: of first-order optimisers (paper: 0.1).
    starts: one of `starts.STARTS`; `tpose` is the paper's first round, `given` uses the caller's starts alone.
    batch: people in a compiled chunk, a device (paper: 10).
    tolerance: a fit is finished when a step lowers its energy by less than this (relative); 0: all steps are taken.
    schedule: one of `schedules.SCHEDULES`.
    devices: how many to use; 0: all that JAX sees, of all processes (one where `batch` people are no more), or
      `jax.default_device` alone where the caller has set one.
    information: whether a `Fit` comes with its `Information`; not of bodies with pose blendshapes.
    """

    optimizer: str = "lm"
    steps: int = 20
    learning_rate: float = 0.1
    starts: str = "headings4"
    batch: int = 64
    tolerance: float = 0.0
    schedule: str = "constant"
    devices: int = 0
    information: bool = False


@struct.dataclass
class Fit:
    """Registered people (leading axis: people); host arrays where `register` or `stream` returns it.

    parameters: theta.
    energy: eq. 2 with the objective of the last stage.
    start: index of the start whose fit has the lowest energy: the configured ones first, then the given ones in order.
    converged: the last accepted step lowered the energy by less than 1%.
    steps: taken in the last leg.
    start_energy: of the fit from every start.
    information: how well the image tells the body; None where the configuration does not ask for it.
    """

    parameters: BodyParameters
    energy: Float[Array | np.ndarray, "people"]
    start: Int[Array | np.ndarray, "people"]
    converged: Bool[Array | np.ndarray, "people"]
    steps: Int[Array | np.ndarray, "people"]
    start_energy: Float[Array | np.ndarray, "people starts"]
    information: Information | None = None


def register(
    template: Template,
    observations: Observation,
    config: RegistrationConfig,
    objective: Objective,
    given: Sequence[BodyParameters] = (),
    progress: Callable[[int], object] | None = None,
) -> Fit:
    """Fit every person from the configured starts and the `given` ones; keep the fit of lowest energy.

    Args:
      template: the body.
      observations: stacked over people (host or device arrays).
      config: how.
      objective: what is minimised.
      given: one more start each, stacked over people.
      progress: called with the number of people done so far.

    Raises:
      ValueError: an unknown optimiser, start or schedule, no start at all, or sizes that differ; names the value.
    """
    people = len(observations.point_face)
    if people == 0:
        raise ValueError("there are no people to register")
    if machine.few_people() and config.optimizer == "lm" and config.starts != "given":
        return _register_few(template, observations, config, objective, given, progress)

    def fits() -> Iterator[Fit]:
        done = 0
        for fit in stream(template, [(observations, tuple(given))], _filled(config, people), objective):
            yield fit
            done += len(fit.energy)
            if progress is not None:
                progress(done)

    return mesh_lib.end_to_end(fits(), people)


def _register_few(template: Template, observations: Observation, config, objective, given, progress) -> Fit:
    """Register people from every start, and along every leg, as if it were another person's given one.

    All that is then compiled is the program of given starts, which reports on fits (`uncertainty.modes`) run anyway.
    """
    _check_config(config)
    _check_shapes(config, observations, given)
    start = starts_lib.of_crowd(template, observations, config.starts, given, objective)
    count, people = start.camera_scale.shape
    every = jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf), count, axis=0), observations)
    bodies = jax.tree.map(lambda leaf: np.array(np.moveaxis(leaf, 0, 1)).reshape(-1, *leaf.shape[2:]), start)
    legs = schedules.legs(schedules.stages(config.schedule, objective), observations.pinhole, count, len(given))
    config = dataclasses.replace(config, starts="given", schedule="constant")
    for left, (stage, distance, moves) in zip(reversed(range(len(legs))), legs, strict=True):
        report = None if progress is None or left else lambda done: progress(done // count)
        found = register(template, _before(distance, every), config, stage, [bodies], report)
        ends = np.flatnonzero(np.tile(moves, people))
        for leaf, end in zip(jax.tree.leaves(bodies), jax.tree.leaves(found.parameters), strict=True):
            leaf[ends] = end[ends]
    energy = found.energy.reshape(people, count)
    winner = np.argmin(np.nan_to_num(energy, nan=np.inf), axis=1)
    best = jax.tree.map(lambda leaf: leaf[np.arange(people) * count + winner], found)
    return dataclasses.replace(best, start=winner, start_energy=energy)


def _filled(config: RegistrationConfig, people: int) -> RegistrationConfig:
    """Keep few people on one device: others would repeat the last of them. No number between, which would compile."""
    alone = not config.devices and people <= config.batch and jax.process_count() == 1 and mesh_lib.of().size > 1
    return dataclasses.replace(config, devices=1) if alone else config


def stream(
    template: Template,
    pieces: Iterable[Observation | tuple[Observation, tuple]],
    config: RegistrationConfig,
    objective: Objective,
) -> Iterator[Fit]:
    """Fit people piece by piece, yielding them in order, chunk by chunk; memory does not depend on their number.

    Args:
      template: the body.
      pieces: observations stacked over any number of people, of the same number of points; or pairs of such and a
        tuple of given starts.
      config: how.
      objective: what is minimised.

    Raises:
      ValueError: as `register`.
    """
    mesh = mesh_lib.of(config.devices)
    fit = fitter(template, config, objective, mesh)
    on_the_way: collections.deque[tuple[Fit, int]] = collections.deque()
    for piece in pieces:
        observations, given = piece if isinstance(piece, tuple) else (piece, ())
        _check_shapes(config, observations, given)
        for rows, count in mesh_lib.chunks(len(observations.point_face), config.batch * mesh.size):
            take = functools.partial(jax.tree.map, lambda leaf, rows=rows: np.asarray(leaf)[rows])  # a slice: no copy
            on_the_way.append((fit(take(observations), [take(start) for start in given]), count))
            if len(on_the_way) > _CHUNKS_AHEAD:
                yield _arrived(*on_the_way.popleft())
    while on_the_way:
        yield _arrived(*on_the_way.popleft())


FitPeople = Callable[[Observation, Sequence[BodyParameters]], Fit]
"""Fits people as `register` does, all at once: (observations, given starts) -> fits, which stay on the devices.

It does not wait for them. The observations are stacked over people, a multiple of the devices; they and the starts are
host arrays, or on the devices already. It raises ValueError for no start at all, sizes that differ, or key points that
the body does not have.
"""


def fitter(template: Template, config: RegistrationConfig, objective: Objective, mesh: Mesh | None = None) -> FitPeople:
    """Make registration ready: its constants are on the devices, its program is compiled once a number of people.

    Args:
      template, config, objective: as of `register`.
      mesh: the devices; left out: as `config.devices` says.

    Raises:
      ValueError: an unknown optimiser, start or schedule, more devices than there are; names the value.
    """
    _check_config(config)
    devices = mesh_lib.of(config.devices) if mesh is None else mesh
    program = _compiled(config.optimizer, config.starts, config.schedule, devices, config.information)
    options = SolverOptions(int(config.steps), float(config.learning_rate), float(config.tolerance))
    constants = mesh_lib.everywhere((template, as_arrays(objective), options), devices)

    @functools.cache
    def tree(keypoint_set: str) -> TreeModel:
        if np.isnan(np.asarray(template.keypoint_matrix)[keypoint_rows(keypoint_set)]).any():
            raise ValueError(f"the body has no key points of the set '{keypoint_set}'")
        return mesh_lib.everywhere(build_model(template, keypoint_set), devices)

    def fit(observations: Observation, given: Sequence[BodyParameters]) -> Fit:
        _check_shapes(config, observations, given)
        people = mesh_lib.split((observations, list(given)), devices)
        return program(tree(observations.keypoint_set), *constants, *people)

    return fit


def score(
    template: Template,
    observations: Observation,
    parameters: BodyParameters,
    objective: Objective,
) -> Float[np.ndarray, "people"]:
    """Return eq. 2 of every person at given parameters."""
    people = struct.filled_up((observations, parameters))
    return np.asarray(_score(template, *people, as_arrays(objective)))[: len(observations.point_face)]


@programs.kept
def _score(template, observations, parameters, objective):
    target = residuals.make_target(template, observations)
    return jax.lax.map(
        lambda pair: parameter_energy(template, pair[0], pair[1], objective), (target, parameters), batch_size=64
    )


def _arrived(fit: Fit, count: int) -> Fit:
    """Fetch a chunk from the devices, without the repeated people."""
    return jax.tree.map(lambda leaf: leaf[:count], mesh_lib.fetch(fit))


@functools.cache
def _compiled(optimizer: str, starts: str, schedule: str, mesh: Mesh, information: bool):
    """Return the jitted fit of one chunk; one compilation for each of these and each shape."""

    def fit_shard(tree, template, objective, options, observations, given) -> Fit:
        with jax.default_matmul_precision("highest"):  # TF32 and bfloat16 products would cost millimetres
            target = residuals.make_target(template, observations)
            start = starts_lib.starts(template, target, starts, given, objective)
            stages = schedules.stages(schedule, objective)
            legs = schedules.legs(stages, target.observation.pinhole, len(start.camera_scale), len(given))

            def run_leg(start, leg: schedules.Leg):
                stage, distance, moves = leg
                seen = dataclasses.replace(target, observation=_before(distance, target.observation))
                solution = solve.solve(optimizer, Batch(template, tree, seen, stage, start), options)
                return jax.tree.map(functools.partial(_where, moves), solution.state, start), solution

            solution = _through(run_leg, legs, stages[0].start_from(start))
            best = _best(solution)
            if information:
                batch = Batch(template, tree, target, stages[-1], best.parameters)
                best = dataclasses.replace(best, information=solve.information(batch))
            return best

    everywhere, split = mesh_lib.WHOLE, mesh_lib.SPLIT
    sharded = jax.shard_map(
        fit_shard,
        mesh=mesh,
        in_specs=(everywhere,) * 4 + (split, split),
        out_specs=split,
        check_vma=False,  # optax's line search mixes constants into its carries
    )
    if ":" in optimizer:  # a solver of the caller's own, whose source is not the package's
        return jax.jit(sharded)
    return programs.kept(sharded, (optimizer, starts, schedule, mesh.size, information))


def _before(distance: Float[Array | np.ndarray, ""] | float, seen: Observation) -> Observation:
    """Return observations before a camera that is so many times as far away, if their camera is known."""
    if seen.pinhole is None:
        return seen
    return dataclasses.replace(seen, pinhole=dataclasses.replace(seen.pinhole, focal=distance * seen.pinhole.focal))


def _where(moves: Bool[Array | np.ndarray, "starts"], end: Array, start: Array) -> Array:
    return jnp.where(moves.reshape(-1, *(1,) * (end.ndim - 1)), end, start)


def _through(run_leg: Callable, legs: tuple[schedules.Leg, ...], start: BodyParameters) -> Solution:
    """Run legs after each other; return what the last one found. They share one program: a scan."""
    if len(legs) == 1:
        return run_leg(start, legs[0])[1]
    stacked = jax.tree.map(lambda *numbers: jnp.stack([jnp.asarray(number) for number in numbers]), *legs)
    _, solutions = jax.lax.scan(run_leg, start, stacked)
    return jax.tree.map(lambda leaf: leaf[-1], solutions)


def _best(solution: Solution) -> Fit:
    """Return each person's start of lowest energy; one that is not a number loses."""
    winner = jnp.argmin(jnp.nan_to_num(solution.energy, nan=jnp.inf), axis=0)
    people = jnp.arange(len(winner))
    best = jax.tree.map(lambda leaf: leaf[winner, people], solution)
    return Fit(
        parameters=best.state,
        energy=best.energy,
        start=winner,
        converged=best.relative_decrease < _CONVERGED_DECREASE,
        steps=best.steps,
        start_energy=solution.energy.T,
    )


def _check_shapes(config: RegistrationConfig, observations: Observation, given) -> None:
    people, *views, points = observations.point_face.shape  # an axis of views, where several see a moment
    chex.assert_rank(observations.point_face, 2 if observations.views is None else 3)
    chex.assert_shape(observations.point_position, (people, *views, points, 2))
    chex.assert_shape(observations.point_barycentric, (people, *views, points, 3))
    keypoints = len(skeleton.KEYPOINT_SETS[observations.keypoint_set])
    chex.assert_shape(
        [observations.keypoint_confidence, observations.depth, observations.depth_confidence],
        (people, *views, keypoints),
    )
    if config.starts == "given" and not given:
        raise ValueError("starts 'given' needs at least one given start")
    for start in given:
        if len(start.camera_scale) != people:
            raise ValueError(f"a given start has {len(start.camera_scale)} people, the observations {people}")


def _check_config(config: RegistrationConfig) -> None:
    solve.check(config.optimizer)
    schedules.check_choice("starts", config.starts, starts_lib.STARTS)
    schedules.check_choice("schedule", config.schedule, schedules.SCHEDULES)
