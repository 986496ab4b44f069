"""Register people: starts -> optimiser -> the start of lowest energy; streamed in chunks of one fixed shape."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dal_jax.body import parameters as parameters_lib, template as template_lib
from dal_jax.correspondences import observations as observations_lib
from dal_jax.registration import energy, initialise, optimizers, tree_evaluation

STARTS = ("tpose", "closed_form", "headings4", "given")
_CONVERGED_DECREASE = 1e-2


@dataclasses.dataclass
class RegistrationConfig:
    """How one round of registration is run.

    optimizer: a name of `optimizers.SOLVERS`; the paper's is `adam`.
    steps: iterations from every start; learning_rate: of first-order optimisers (paper: 0.1).
    starts: of `STARTS`; `tpose` is the paper's first round; `given` uses nothing but what the caller hands over.
    batch: people a compiled chunk (paper: 10).
    """

    optimizer: str = "lm"
    steps: int = 20
    learning_rate: float = 0.1
    starts: str = "headings4"
    batch: int = 64


@flax.struct.dataclass
class Fit:
    """A registered person (leading axis: people), host arrays.

    parameters: theta; energy: eq. 2 with the weights of the call; start: index of the start that won (the configured
    ones first, then the given ones in order); converged: the last accepted step gained less than 1%.
    """

    parameters: parameters_lib.BodyParameters
    energy: Float[Array, "people"]
    start: Int[Array, "people"]
    converged: Array


def register(
    template: template_lib.Template,
    observations: observations_lib.Observation,
    config: RegistrationConfig,
    weights: energy.EnergyWeights,
    given: Sequence[parameters_lib.BodyParameters] = (),
    progress: Callable[[int], None] | None = None,
) -> Fit:
    """Fit every person from the configured starts and the `given` ones; keep the fit of lowest energy.

    Args:
      observations, given: stacked over people (host or device arrays); each entry of `given` is one more start.
      progress: called with the number of people done so far.

    Raises:
      ValueError: an unknown optimiser or start, no start at all, or sizes that differ; names the value.
    """
    people = len(observations.point_face)
    _validate(config, people, given)
    points = observations.point_face.shape[1]
    chex.assert_shape(observations.point_position, (people, points, 2))
    chex.assert_shape(observations.point_barycentric, (people, points, 3))
    chex.assert_shape(
        [observations.keypoint_confidence, observations.depth, observations.depth_confidence], (people, 17)
    )
    joint_moments = tree_evaluation.keypoint_moments(template)
    fit_chunk = _compiled(config.optimizer, config.starts, config.steps)
    chunks = []
    for first in range(0, people, config.batch):
        rows = np.minimum(np.arange(first, first + config.batch), people - 1)  # the last chunk repeats its last person
        take = functools.partial(jax.tree.map, lambda leaf, rows=rows: np.asarray(leaf)[rows])
        fit = fit_chunk(
            template, take(observations), [take(start) for start in given], weights, joint_moments, config.learning_rate
        )
        count = min(config.batch, people - first)
        chunks.append(jax.tree.map(lambda leaf, count=count: np.asarray(leaf)[:count], fit))
        if progress is not None:
            progress(first + count)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *chunks)


def score(
    template: template_lib.Template,
    observations: observations_lib.Observation,
    parameters: parameters_lib.BodyParameters,
    weights: energy.EnergyWeights,
) -> Float[Array, "people"]:
    """Return eq. 2 of every person at given parameters."""
    return np.asarray(_score(template, observations, parameters, weights))


@jax.jit
def _score(template, observations, parameters, weights):
    target = energy.make_target(template, observations)
    return jax.lax.map(
        lambda pair: energy.parameter_energy(template, pair[0], pair[1], weights), (target, parameters), batch_size=64
    )


@functools.cache
def _compiled(optimizer: str, starts: str, steps: int):
    """Return the jitted fit of one chunk; one compilation a (optimiser, starts, steps, shape)."""

    def fit_chunk(template, observations, given, weights, joint_moments, learning_rate) -> Fit:
        with jax.default_matmul_precision("highest"):  # TF32 and bfloat16 products would cost millimetres
            return fit_all_starts(template, observations, given, weights, joint_moments, learning_rate)

    def fit_all_starts(template, observations, given, weights, joint_moments, learning_rate) -> Fit:
        target = energy.make_target(template, observations)
        start = _gather_starts(template, target, starts, given)
        count, batch = start.camera_scale.shape
        flat = jax.tree.map(lambda leaf: leaf.reshape(count * batch, *leaf.shape[2:]), start)
        tiled = jax.tree.map(lambda leaf: jnp.tile(leaf, (count,) + (1,) * (leaf.ndim - 1)), target)
        solved = optimizers.solve(
            optimizer, template, tiled, flat, weights, joint_moments, steps=steps, learning_rate=learning_rate
        )
        return _best(solved, count, batch)

    return jax.jit(fit_chunk)


def _gather_starts(template, target: energy.Target, starts: str, given) -> parameters_lib.BodyParameters:
    """Return all starts, axes (start, person, ...)."""
    batch = target.point_confidence.shape[0]
    found = []
    if starts == "tpose":
        found.append(
            jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (1, batch, *leaf.shape)), parameters_lib.t_pose())
        )
    elif starts in ("closed_form", "headings4"):
        closed = jax.vmap(lambda one: initialise.closed_form(template, one))(target)
        turns = 4 if starts == "headings4" else 1
        found.append(jax.vmap(lambda one: initialise.headings(one, turns), out_axes=1)(closed))
    found.extend(jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], start) for start in given)
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *found)


def _best(solved: optimizers.Solved, count: int, batch: int) -> Fit:
    energies = jnp.nan_to_num(solved.energy.reshape(count, batch), nan=jnp.inf)
    winner = jnp.argmin(energies, axis=0)
    rows = winner * batch + jnp.arange(batch)
    return Fit(
        parameters=jax.tree.map(lambda leaf: leaf[rows], solved.parameters),
        energy=solved.energy[rows],
        start=winner,
        converged=solved.relative_decrease[rows] < _CONVERGED_DECREASE,
    )


def _validate(config: RegistrationConfig, people: int, given) -> None:
    if config.optimizer not in optimizers.SOLVERS:
        raise ValueError(f"optimizer '{config.optimizer}' is not one of {', '.join(sorted(optimizers.SOLVERS))}")
    if config.starts not in STARTS:
        raise ValueError(f"starts '{config.starts}' is not one of {', '.join(STARTS)}")
    if people == 0:
        raise ValueError("there is nobody to register")
    if config.starts == "given" and not given:
        raise ValueError("starts 'given' needs at least one given start")
    for start in given:
        if len(start.camera_scale) != people:
            raise ValueError(f"a given start has {len(start.camera_scale)} people, the observations {people}")
