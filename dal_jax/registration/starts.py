"""Where a registration starts: the T-pose, a closed-form scaled-orthographic pose, or several azimuths of it."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.body import kinematics, rotations
from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.template import Template
from dal_jax.observations import residuals
from dal_jax.observations.observation import Observation
from dal_jax.observations.residuals import Target
from dal_jax.registration import energy
from dal_jax.registration.energy import Objective
from dal_jax.runtime import programs, struct

STARTS = ("tpose", "closed_form", "headings4", "headings8", "headings32", "given")
_PRIOR_MASS = 0.5  # points' worth of pull to "upright, facing the camera": decides only what the points leave open
_PRIOR_SPREAD_M2 = 0.05


def starts(
    template: Template,
    target: Target,
    name: str,
    given: Sequence[BodyParameters],
    objective: Objective | None = None,
) -> BodyParameters:
    """Return all starts of a batch of people, axes (start, person, ...): those of the name, then the given.

    tpose: the paper's. closed_form: `closed_form`. headingsN: N azimuths of that. given: the given ones alone.
    All have the unknowns of the `objective`; left out: the paper's.
    """
    batch = target.observation.point_confidence.shape[0]
    every = []
    several = target.observation.views is not None
    if name == "tpose":
        tpose = kinematics.t_pose()
        tpose = dataclasses.replace(tpose, translation=jnp.zeros(3)) if several else tpose
        every.append(jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (1, batch, *leaf.shape)), tpose))
    elif name != "given":
        alone = closed_form_of_views if several else closed_form
        closed = jax.vmap(lambda one: alone(template, one))(target)
        count = int(name.removeprefix("headings")) if name.startswith("headings") else 1
        every.append(jax.vmap(lambda one: azimuths(one, count), out_axes=1)(closed))
    every.extend(jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], start) for start in given)
    every = [(objective or Objective()).start_from(start) for start in every]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *every)


def of_crowd(
    template: Template,
    observations: Observation,
    name: str,
    given: Sequence[BodyParameters],
    objective: Objective,
) -> BodyParameters:
    """Return the same of stacked observations, on the host."""
    people = struct.filled_up((observations, list(given)))
    found = _of_crowd(name)(template, *people, energy.as_arrays(objective))
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:, : len(observations.point_face)], found)


@functools.cache
def _of_crowd(name: str) -> Callable[..., BodyParameters]:
    def every_start(template, observations, given, objective) -> BodyParameters:
        return starts(template, residuals.make_target(template, observations), name, given, objective)

    return programs.kept(every_start, (name,))


def closed_form(template: Template, target: Target) -> BodyParameters:
    """Fit a scaled-orthographic camera to the rigid T-pose: x ~ s R_12 v + t by weighted least squares.

    The 2 x 3 affine solution is made a scaled rotation by its polar decomposition. Dense points and key points count
    alike. A weak prior (half a point) keeps people with few or coplanar points upright and facing the camera.
    """
    seen = target.observation
    keypoints = jnp.asarray(template.regressor(seen.keypoint_set) @ template.vertices)
    rest = jnp.concatenate([target.points.rest, keypoints])
    image = jnp.concatenate([seen.point_position, seen.keypoint_position])
    mass = jnp.concatenate([seen.point_confidence, seen.keypoint_confidence])
    total = jnp.sum(mass)
    safe_total = jnp.where(total > 0, total, 1.0)
    rest_mean = jnp.sum(mass[:, None] * rest, axis=0) / safe_total
    image_mean = jnp.sum(mass[:, None] * image, axis=0) / safe_total
    centred = rest - rest_mean[None]
    start = kinematics.t_pose()
    spread = jnp.einsum("pi,pj,p->ij", centred, centred, mass)
    cross = jnp.einsum("pi,pj,p->ij", image - image_mean[None], centred, mass)
    prior = _PRIOR_MASS * _PRIOR_SPREAD_M2
    affine = _right_divide(cross + prior * start.rotation[:2], spread + prior * jnp.eye(3))
    rows, scale = _polar(affine)
    rotation = jnp.concatenate([rows, jnp.cross(rows[0], rows[1])[None]])
    translation = image_mean - scale * (rows @ rest_mean)
    return dataclasses.replace(start, rotation=rotation, camera_scale=scale, translation=translation)


def closed_form_of_views(template: Template, target: Target) -> BodyParameters:
    """Place the rigid T-pose before the cameras of several views, by linear least squares made a similarity.

    A view that sees a place Y in the direction (a, 1) says Y_xy - a Y_z = 0, which is linear in the affine map of the
    rest points to the shared frame. All views count by how near they are; the prior of `closed_form` acts on the map.
    """
    seen, views = target.observation, target.observation.views
    assert views is not None
    rotation, origin, focal = (jnp.asarray(each) for each in (views.rotation, views.origin, views.focal))
    keypoints = jnp.asarray(template.regressor(seen.keypoint_set) @ template.vertices)
    keypoints = jnp.broadcast_to(keypoints[None], (len(focal), *keypoints.shape))
    rest = jnp.concatenate([jnp.asarray(target.points.rest), keypoints], axis=1)
    image = jnp.concatenate([seen.point_position, seen.keypoint_position], axis=1)
    mass = jnp.concatenate([seen.point_confidence, seen.keypoint_confidence], axis=1)
    mass = mass * (focal / origin[:, 2])[:, None] ** 2
    across = (image - jnp.asarray(views.centre)[:, None]) / focal[:, None, None]
    rows = rotation[:, None, :2] - across[..., None] * rotation[:, None, 2:]  # (views, points, 2, 3)
    offset = origin[:, None, :2] - across * origin[:, None, 2:]
    rest = jnp.concatenate([rest, jnp.ones_like(rest[..., :1])], axis=-1)
    slopes = rows[..., None, :] * rest[..., None, :, None]  # (views, points, 2, 4, 3)
    slopes = slopes.reshape(-1, 12)
    weighted = slopes * jnp.repeat(mass.ravel(), 2)[:, None]
    prior = _PRIOR_MASS * jnp.array([_PRIOR_SPREAD_M2] * 9 + [_PRIOR_MASS] * 3)
    start = kinematics.t_pose()
    upright = jnp.concatenate([start.rotation.T.ravel(), jnp.zeros(3)])
    solved = _solve(weighted.T @ slopes + jnp.diag(prior), prior * upright - weighted.T @ offset.ravel()).reshape(4, 3)
    affine = solved[:3].T
    upward = rotations.from_two_columns(jnp.concatenate([affine[:, 1], affine[:, 0]]))  # the vertical is known best
    turned = jnp.stack([upward[:, 1], upward[:, 0], -upward[:, 2]], axis=1)
    scale = jnp.maximum(jnp.sum(turned * affine) / 3.0, _SMALLEST)
    return dataclasses.replace(start, rotation=turned, camera_scale=scale, translation=solved[3])


_SMALLEST = 0.1  # crop units a metre


def _solve(matrix: Float[Array, "n n"], right: Float[Array, "n"]) -> Float[Array, "n"]:
    """Solve a positive definite system by Gauss-Jordan sweeps (a batched LU is 20 times slower)."""
    place = jnp.arange(len(right))[:, None]

    def sweep(k, system):  # a loop: XLA on CPU takes ages to fuse the unrolled chain
        row = system[k] / system[k, k]
        return jnp.where(place == k, row[None], system - system[:, k, None] * row[None])

    return jax.lax.fori_loop(0, len(right), sweep, jnp.concatenate([matrix, right[:, None]], axis=1))[:, -1]


def azimuths(start: BodyParameters, count: int) -> BodyParameters:
    """Return `count` copies of a start (a new leading axis), rotated about the body's vertical in equal steps."""
    angle = jnp.arange(count) * (2.0 * jnp.pi / count)
    about = rotations.axis_angle_to_matrix(angle[:, None] * jnp.array([[0.0, 1.0, 0.0]]))

    def repeat(leaf: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
        return jnp.broadcast_to(leaf, (count, *leaf.shape))

    return BodyParameters(
        pose=repeat(start.pose),
        segment_scale=repeat(start.segment_scale),
        rotation=start.rotation @ about,
        camera_scale=repeat(start.camera_scale),
        translation=repeat(start.translation),
    )


def _polar(affine: Float[Array, "2 3"]) -> tuple[Float[Array, "2 3"], Float[Array, ""]]:
    """Return orthonormal rows and the mean singular value of a 2 x 3 matrix, in closed form (2 x 2 square root)."""
    gram = affine @ affine.T
    root_det = jnp.sqrt(jnp.maximum(gram[0, 0] * gram[1, 1] - gram[0, 1] ** 2, 1e-12))
    trace_of_root = jnp.sqrt(gram[0, 0] + gram[1, 1] + 2.0 * root_det)
    root = (gram + root_det * jnp.eye(2)) / trace_of_root
    adjugate = jnp.array([[root[1, 1], -root[0, 1]], [-root[1, 0], root[0, 0]]])
    determinant = root[0, 0] * root[1, 1] - root[0, 1] * root[1, 0]
    return (adjugate @ affine) / determinant, trace_of_root / 2.0


def _right_divide(rows: Float[Array, "2 3"], matrix: Float[Array, "3 3"]) -> Float[Array, "2 3"]:
    """Return rows times the inverse of a symmetric 3 x 3 matrix, by its adjugate (a batched LU is 20 times slower)."""
    a, b, c = matrix
    adjugate = jnp.stack([jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)])
    return (rows @ adjugate) / jnp.dot(a, adjugate[0])
