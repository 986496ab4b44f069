"""The energy of eq. 2 over the tree's state: its value, exact gradient, and the blocks of its majoriser."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.observations.observation import Expected
from dal_jax.observations.residuals import Target
from dal_jax.registration.energy import EnergyWeights, Objective
from dal_jax.registration.solvers.tree import points, pulls, state as state_lib, views as views_lib
from dal_jax.registration.solvers.tree.points import DenseTerm
from dal_jax.registration.solvers.tree.pulls import ShapeTerm
from dal_jax.registration.solvers.tree.state import TreeModel, TreeState
from dal_jax.runtime import struct


@struct.dataclass
class ExpectedTerm:
    """What tracks expect (`Expected`), batch axes last, one start for all: about G, stretches, girth and place.

    curvature: of the half quadratic over (dp_k, u_k) of every segment. Stretches are zero at the root.
    """

    axes: Float[Array, "24 3 3 starts people"]
    precision: Float[Array, "24 3 3 starts people"]
    curvature: Float[Array, "24 7 7 starts people"]
    stretch: Float[Array, "24 starts people"]
    stretch_weight: Float[Array, "24 starts people"]
    girth: tuple[Float[Array, "*girths starts people"], Float[Array, "*girths starts people"]]
    place: Float[Array, "3 starts people"]
    place_weight: Float[Array, "3 starts people"]


@struct.dataclass
class TreeProblem:
    """What stays fixed while people are fitted (batch axes last: starts, people).

    planar_moments, depth_moments: sums of v v' a segment over what pulls on x and y, or on z.
    goal, mass: of the key points; mass is their weight times confidence, by axis.
    prior_mean, prior_precision: Abar of every joint (the root: 1), and its P (the root: 0); None without a prior.
    shape: the prior on proportions; None without one.
    expected: None where people are no frames of tracks.
    turns: of lifted depths (`Observation.depth_turns`); None: depths do not turn.
    view_moments: before known cameras (`views`), in place of `dense` and the other moments; goal and mass are those of
      depths alone then, and None where several views tell these.
    """

    dense: DenseTerm | None
    planar_moments: Float[Array, "24 4 4 starts people"] | None
    depth_moments: Float[Array, "24 4 4 starts people"] | None
    goal: Float[Array, "k 3 starts people"] | None
    mass: Float[Array, "k 3 starts people"] | None
    joint_weight: Float[Array, ""]
    scale_weight: Float[Array, ""]
    limit_weight: float | Float[Array, ""] | None
    prior_mean: Float[Array, "24 3 3"] | None
    prior_precision: Float[Array, "24 3 3"] | None
    shape: ShapeTerm | None
    expected: ExpectedTerm | None
    view_moments: Float[Array, "6 24 4 4 starts people"] | None = None
    turns: Float[Array, "2 k starts people"] | None = None


@struct.dataclass
class Value:
    """What is known of the energy at a state.

    energy: eq. 2; gradient: half of it by the affine maps of the segments; pull: by the controls r (rotation, stretch);
    curvature: of the pulls, a diagonal; prior_curvature: of the pull to a pose prior, by the rotations.
    expected: half gradient of what tracks expect, by (dp, u) of the segments.
    girth_pull: half gradient of the pulls by the segment girths c; None where scales are isotropic.
    """

    energy: Float[Array, "starts people"]
    gradient: Float[Array, "24 4 3 starts people"]
    pull: Float[Array, "24 4 starts people"]
    curvature: Float[Array, "24 4 ..."]
    prior_curvature: Float[Array, "24 3 3 ..."] | None
    expected: Float[Array, "24 7 starts people"] | None
    girth_pull: Float[Array, "24 2 starts people"] | None


def make_problem(
    model: TreeModel,
    target: Target,
    objective: Objective,
    reference: TreeState,
) -> TreeProblem:
    """Sum up targets (batch axis first) about a reference state."""
    weights = objective.weights
    maps = state_lib.affine_maps(model, reference)
    prior_mean, prior_precision = (None, None) if objective.prior is None else pulls.by_segment(objective.prior)
    return TreeProblem(
        **_data_terms(model, target, weights, maps),
        joint_weight=jnp.asarray(weights.joint),
        scale_weight=jnp.asarray(weights.scale),
        limit_weight=weights.limit,
        prior_mean=prior_mean,
        prior_precision=prior_precision,
        shape=pulls.shape_term(objective),
        expected=_expected_term(target.observation.expected),
        turns=_turns(target),
    )


def _turns(target: Target) -> Float[Array, "2 k starts people"] | None:
    turns = target.observation.depth_turns
    return None if turns is None else jnp.moveaxis(jnp.asarray(turns), 0, -1)[:, :, None]


def _data_terms(model: TreeModel, target: Target, weights: EnergyWeights, maps) -> dict[str, Any]:
    """Return the fields of a problem that the data terms have."""
    if target.observation.views is not None:
        of_one_image = dict.fromkeys(("dense", "planar_moments", "depth_moments", "goal", "mass"))
        return of_one_image | {"view_moments": views_lib.moments(model, target, weights, maps)}
    goal, mass = points.keypoint_goal(target, weights)
    if target.observation.pinhole is not None:
        moments = views_lib.moments(model, target, weights, maps)
        mass = mass * jnp.array([0.0, 0.0, 1.0])[None, :, None, None]  # x and y are the view's
        moments = moments.at[-1].add(points.keypoint_moments(model, mass[:, 2]))
        of_weak = dict.fromkeys(("dense", "planar_moments", "depth_moments"))
        return of_weak | {"view_moments": moments, "goal": goal, "mass": mass}
    dense, planar = None, points.keypoint_moments(model, mass[:, 0])
    if target.points.rest.shape[-2]:
        dense = points.dense_term(model, target, weights, maps)
        planar = dense.moments + planar
    return {
        "dense": dense,
        "planar_moments": planar,
        "depth_moments": points.keypoint_moments(model, mass[:, 2]),
        "goal": goal,
        "mass": mass,
    }


def _expected_term(expected: Expected | None) -> ExpectedTerm | None:
    """Return what tracks expect, batch axes last."""
    if expected is None:
        return None
    given = jax.tree.map(lambda leaf: jnp.moveaxis(jnp.asarray(leaf), 0, -1)[..., None, :], expected)
    precision = state_lib.sum_of(given.rotation_root[:, i, :, None] * given.rotation_root[:, i, None] for i in range(3))
    corner = jnp.eye(3)[:, :, None, None] * given.place_weight[:, None]
    order = np.array([0, 1, 3, 4, 5, 6, 2])  # (x, y, log scale) are dp_x, dp_y and q of the root
    corner = jnp.pad(corner, [(0, 4), (0, 4), (0, 0), (0, 0)])[order][:, order]
    curvature = jnp.pad(precision, [(0, 0), (3, 1), (3, 1), (0, 0), (0, 0)])
    return ExpectedTerm(
        axes=jnp.swapaxes(given.rotation, 1, 2),
        precision=precision,
        curvature=curvature.at[0].add(corner),
        stretch=jnp.pad(given.stretch, [(1, 0), (0, 0), (0, 0)]),
        stretch_weight=jnp.pad(given.stretch_weight, [(1, 0), (0, 0), (0, 0)]),
        girth=(given.log_girth, given.girth_weight),
        place=given.place,
        place_weight=given.place_weight,
    )


def recentre(
    model: TreeModel,
    problem: TreeProblem,
    target: Target,
    weights: EnergyWeights,
    reference: TreeState,
) -> TreeProblem:
    """Return the problem about another state; a robust loss and known cameras weigh the points anew."""
    maps = state_lib.affine_maps(model, reference)
    if problem.view_moments is None and problem.dense is None:
        return problem
    if problem.dense is not None and points.alike_for_starts(target, weights):
        return dataclasses.replace(problem, dense=points.recentre(problem.dense, target, weights, maps))
    terms = _data_terms(model, target, weights, maps) | {"depth_moments": problem.depth_moments}
    return dataclasses.replace(problem, **terms)


def evaluate(
    model: TreeModel,
    problem: TreeProblem,
    state: TreeState,
    target: Target | None = None,
    weights: EnergyWeights | None = None,
) -> Value:
    """Return the energy at a state and what its exact gradient needs: the target, too, before known cameras."""
    maps = state_lib.affine_maps(model, state)
    data_energy, gradient = 0.0, jnp.zeros_like(maps)
    if problem.view_moments is not None:
        assert target is not None and weights is not None
        data_energy, gradient = views_lib.evaluate(model, target, weights, maps)
    if problem.dense is not None:
        data_energy, dense_gradient = points.evaluate(model, problem.dense, maps)
        gradient = _with_depth_row(dense_gradient)
    if problem.goal is not None and problem.mass is not None:
        keypoint_energy, keypoint_gradient = points.evaluate_keypoints(
            model, problem.goal, problem.mass, problem.turns, maps
        )
        data_energy, gradient = data_energy + keypoint_energy, gradient + keypoint_gradient
    pull_energy, pull, curvature, prior_curvature, girth_pull = _pull_terms(model, problem, state)
    expected_energy, expected = _evaluate_expected(problem.expected, state)
    energy = data_energy + pull_energy + expected_energy
    return Value(energy, gradient, pull, curvature, prior_curvature, expected, girth_pull)


def exact_energy(
    model: TreeModel,
    problem: TreeProblem,
    target: Target,
    weights: EnergyWeights,
    state: TreeState,
) -> Float[Array, "starts people"]:
    """Return eq. 2 from the points themselves, free of the rounding of (L)."""
    if problem.dense is None or problem.goal is None or problem.mass is None:
        return evaluate(model, problem, state, target, weights).energy
    maps = state_lib.affine_maps(model, state)
    dense = points.exact_energy(target, weights, maps)
    keypoints, _ = points.evaluate_keypoints(model, problem.goal, problem.mass, problem.turns, maps)
    return dense + keypoints + _pull_terms(model, problem, state)[0] + _evaluate_expected(problem.expected, state)[0]


def _evaluate_expected(expected: ExpectedTerm | None, state: TreeState) -> tuple[Array | float, Array | None]:
    """Return |R log(G Gbar')|^2 and what place deviates, and their half gradient by (dp, u); stretches are pulls."""
    if expected is None:
        return 0.0, None
    apart, angle = state_lib.rotation_vector(expected.axes, state.axes)
    force = state_lib.sum_of(expected.precision[:, :, j] * apart[:, None, j] for j in range(3))
    place = jnp.concatenate([state.translation[:2], state.log_scale[:1]]) - expected.place
    pull = expected.place_weight * place
    energy = jnp.sum(force * apart, axis=(0, 1)) + jnp.sum(pull * place, axis=0)
    torque = state_lib.by_rotation(apart, angle, force)
    at_root = jnp.pad(pull[None], [(0, len(torque) - 1)] + [(0, 0)] * (torque.ndim - 1))
    return energy, jnp.concatenate([at_root[:, :2], jnp.zeros_like(at_root[:, :1]), torque, at_root[:, 2:]], axis=1)


def _with_depth_row(planar: Float[Array, "24 4 2 ..."]) -> Float[Array, "24 4 3 ..."]:
    return jnp.pad(planar, [(0, 0), (0, 0), (0, 1)] + [(0, 0)] * (planar.ndim - 3))


def _pull_terms(
    model: TreeModel, problem: TreeProblem, state: TreeState
) -> tuple[Array, Array, Array, Array | None, Array | None]:
    """Return the terms that act on the controls r alone: energy, half gradient, curvatures as in `Value`.

    And their half gradient by the segment girths, `Value.girth_pull`.

    |log A_j|^2 has the gradient G_p log A_j; (log s_j - log s_p)^2 is quadratic. A prior on proportions has its energy
    and gradient where its factors are at their minimum, and its curvature where they are held.
    """
    parent = state_lib.over_segments(model.parent_of, state.axes)
    stretch = state.log_scale - state_lib.over_segments(model.parent_of, state.log_scale)
    total = jnp.sum(problem.scale_weight * stretch**2, axis=0)
    pull, stiffness, prior_curvature = jnp.zeros_like(parent[:, 0]), jnp.zeros_like(stretch), None
    if problem.prior_mean is None or problem.limit_weight is not None:
        world, angle = state_lib.rotation_vector(parent, state.axes)
    if problem.prior_mean is None:
        total = total + jnp.sum(problem.joint_weight * angle**2, axis=0)
        pull, stiffness = problem.joint_weight * world, jnp.full_like(angle, problem.joint_weight)
    else:
        assert problem.prior_precision is not None
        prior = problem.joint_weight, problem.prior_mean, problem.prior_precision
        prior_energy, pull, prior_curvature = pulls.pose_prior(*prior, parent, state.axes)
        total = total + prior_energy
    if problem.limit_weight is not None:
        excess_energy, excess_pull, beyond = pulls.limits(parent, world, angle)
        total = total + problem.limit_weight * excess_energy
        pull = pull + problem.limit_weight * excess_pull
        stiffness = stiffness + problem.limit_weight * beyond
    scale_stiffness = jnp.full_like(stretch, problem.scale_weight)[:, None]
    girths, girth_pull = state.log_segment_girth, None
    sizes = stretch
    if girths is not None:
        total = total + jnp.sum(problem.scale_weight * girths**2, axis=(0, 1))
        girth_pull = problem.scale_weight * girths
        sizes = jnp.concatenate([stretch, girths.reshape(-1, *girths.shape[2:])])
    if problem.shape is not None:
        shape_energy, shape_pull, shape_stiffness = pulls.proportions(problem.shape, sizes)
        total = total + shape_energy
        if girth_pull is not None:
            girth_pull = girth_pull + shape_pull[24:].reshape(girth_pull.shape)
            shape_pull, shape_stiffness = shape_pull[:24], shape_stiffness[:24]
        if problem.shape.girth is not None and state.log_girth is not None:
            mean, precision = problem.shape.girth
            total = total + problem.shape.weight * precision * (state.log_girth - mean) ** 2
        scale_stiffness = scale_stiffness + shape_stiffness[:, None]
    curvature = jnp.concatenate([jnp.repeat(stiffness[:, None], 3, axis=1), scale_stiffness], axis=1)
    scale_pull = problem.scale_weight * stretch[:, None]
    if problem.shape is not None:
        scale_pull = scale_pull + shape_pull[:, None]
    pull = jnp.concatenate([pull, scale_pull], axis=1)
    if problem.expected is not None:
        apart, weight = stretch - problem.expected.stretch, problem.expected.stretch_weight
        total = total + jnp.sum(weight * apart**2, axis=0)
        pull = pull.at[:, 3].add(weight * apart)
        curvature = curvature + jnp.pad(weight[:, None], [(0, 0), (3, 0), (0, 0), (0, 0)])
        if state.log_girth is not None:
            mean, weight = problem.expected.girth
            total = total + weight * (state.log_girth - mean) ** 2
        elif girths is not None and girth_pull is not None:
            mean, weight = problem.expected.girth
            total = total + jnp.sum(weight * (girths - mean) ** 2, axis=(0, 1))
            girth_pull = girth_pull + weight * (girths - mean)
    return total, pull, curvature, prior_curvature, girth_pull
