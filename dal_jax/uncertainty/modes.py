"""Alternative modes: other poses that one image may show, with a limb or the whole body flipped in depth.

Seen from far away, a limb that points towards the camera looks like one that points away. A fit that went one way says
nothing about the other, so each of these flips is fitted too; where it ends as low, the image does not decide.
"""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.body import kinematics, rotations, skeleton
from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.template import Template
from dal_jax.observations import residuals
from dal_jax.observations.observation import Observation
from dal_jax.registration import register, single_views
from dal_jax.registration.energy import Objective
from dal_jax.registration.register import Fit, RegistrationConfig
from dal_jax.runtime import programs

NAMES = (
    "half_turn", "whole_body", "left_hip", "right_hip", "left_knee", "right_knee", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow",
)  # fmt: skip
"""half_turn: front against back. whole_body: the depth of every bone. All others: of the bone below that joint."""

_BONES = tuple(
    (skeleton.SMPL_JOINT_NAMES.index(name), skeleton.SMPL_PARENTS.index(skeleton.SMPL_JOINT_NAMES.index(name)))
    for name in NAMES[2:]
)
_STEPS, _BATCH, _ROUNDS = 12, 64, 2
_BLOCK = 4096
_AWAY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, -1.0))  # z to -z
_HALF_TURN = ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, -1.0))  # about the body's vertical


def find(
    template: Template, observations: Observation, parameters: BodyParameters, objective: Objective
) -> BodyParameters:
    """Fit every flip of every fit; a millisecond or two a person.

    Args:
      template: the body.
      observations: those of the fits (leading axis: people).
      parameters: the fits.
      objective: that of the fits.

    Returns:
      Bodies with axes (people, modes, ...), modes in the order of NAMES.
    """
    optimizer = "dense_lm" if objective.terms else "lm"  # lm is made for the terms of eq. 2
    config = RegistrationConfig(optimizer, _STEPS, starts="given", batch=_BATCH)
    found = []
    for rows in blocks(len(observations.point_face)):
        seen, bodies = jax.tree.map(lambda leaf, rows=rows: np.asarray(leaf)[rows], (observations, parameters))
        starts = jax.tree.map(np.asarray, _starts(template, bodies))
        people, count = starts.pose.shape[:2]
        seen = jax.tree.map(lambda leaf, count=count: np.repeat(leaf, count, axis=0), seen)
        starts = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), starts)
        fit = register.register(template, seen, config, objective, [starts])
        found.append(
            jax.tree.map(lambda leaf, shape=(people, count): leaf.reshape(*shape, *leaf.shape[1:]), fit.parameters)
        )
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)


def settle(template: Template, observations: Observation, fit: Fit, objective: Objective) -> Fit:
    """Return fits that no flip makes better, to dense points that pull as hard as they are exact.

    An image has many minima, most of which differ in the depth of a limb; headings as starts do not look for these.
    Note: our choice, by `benchmarks/distances.json`. Under a robust loss points pull as they did.

    Args:
      template: the body.
      observations: those of the fits (leading axis: people).
      fit: the fits.
      objective: that of the fits.

    Returns:
      The fits, with their energies to the observations as they were given.
    """
    given, config = observations, RegistrationConfig("lm", _STEPS, starts="given", batch=_BATCH)
    for _ in range(_ROUNDS):
        if objective.weights.outlier is None:
            missed, _ = residuals.errors_px(template, fit.parameters, observations)
            half_side = np.asarray(observations.box_px)[:, 2:3] / 2.0
            observations = single_views.sharpened(observations, missed / half_side)
        lowest = _lowest(template, observations, fit.parameters, objective)
        fit = register.register(template, observations, config, objective, [lowest])
    return dataclasses.replace(fit, energy=register.score(template, given, fit.parameters, objective))


def _lowest(
    template: Template, observations: Observation, parameters: BodyParameters, objective: Objective
) -> BodyParameters:
    """Return of every person the fit, or the fitted flip of it, that has the lowest energy."""
    flipped = find(template, observations, parameters, objective)
    every = jax.tree.map(
        lambda one, others: np.concatenate([np.asarray(one)[:, None], others], axis=1), parameters, flipped
    )
    energies = [
        register.score(template, observations, jax.tree.map(lambda leaf, k=k: leaf[:, k], every), objective)
        for k in range(1 + len(NAMES))
    ]
    best = np.argmin(np.nan_to_num(np.stack(energies), nan=np.inf), axis=0)
    return jax.tree.map(lambda leaf: leaf[np.arange(len(best)), best], every)


def blocks(people: int) -> Iterator[slice]:
    """Yield some people at a time: few enough to hold each of them several times over."""
    for first in range(0, people, _BLOCK):
        yield slice(first, min(first + _BLOCK, people))


def flip(template: Template, parameters: BodyParameters) -> BodyParameters:
    """Return one person's flipped poses, in the order of NAMES (a new leading axis)."""
    segments = kinematics.pose_segments(template, parameters)
    world = segments.rotation
    away = jnp.array(_AWAY)
    rotated = jnp.matmul(world[0] @ jnp.array(_HALF_TURN) @ world[0].T, world)  # the whole body, as it stands
    flipped = [rotated, away @ world @ away]
    for joint, child in _BONES:
        bone = world[joint] @ (template.joints[child] - template.joints[joint])
        flipped.append(world.at[joint].set(_rotation_between(bone, bone * jnp.array([1.0, 1.0, -1.0])) @ world[joint]))
    poses = jax.vmap(lambda one: _relative(template, one))(jnp.stack(flipped))
    repeated = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(NAMES), *leaf.shape)), parameters)
    return dataclasses.replace(repeated, pose=poses, rotation=jnp.stack(flipped)[:, 0])


_starts = programs.kept(jax.vmap(flip, in_axes=(None, 0)))


def _relative(template: Template, world: Float[Array, "24 3 3"]) -> Float[Array, "23 3"]:
    parents = np.array(template.parents[1:])
    return rotations.matrix_to_axis_angle(jnp.swapaxes(world[parents], -1, -2) @ world[1:])


def _rotation_between(before: Float[Array, "3"], after: Float[Array, "3"]) -> Float[Array, "3 3"]:
    """Return the rotation by the smallest angle that takes one direction onto another of the same length."""
    cross = jnp.cross(before, after)
    squared = jnp.sum(before**2)
    # I + [c] + [c]^2 / (1 + cos) with c = cross / squared; opposite directions would divide by 0, and stay put
    sum_of_cosines = squared + jnp.sum(before * after)
    opposite = sum_of_cosines < 1e-6 * squared
    skew = rotations.skew(cross / squared)
    rotation = jnp.eye(3) + skew + skew @ skew * squared / jnp.where(opposite, 1.0, sum_of_cosines)
    return jnp.where(opposite, jnp.eye(3), rotation)
