"""Where a registration starts: the T-pose, a closed-form scaled-orthographic pose, or several azimuths of it."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.body import parameters, rotations
from dal_jax.body.parameters import BodyParameters
from dal_jax.body.template import Template
from dal_jax.observations.residuals import Target
from dal_jax.registration.energy import Objective

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
    if name == "tpose":
        every.append(jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (1, batch, *leaf.shape)), parameters.t_pose()))
    elif name != "given":
        closed = jax.vmap(lambda one: closed_form(template, one))(target)
        count = int(name.removeprefix("headings")) if name.startswith("headings") else 1
        every.append(jax.vmap(lambda one: azimuths(one, count), out_axes=1)(closed))
    every.extend(jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], start) for start in given)
    every = [(objective or Objective()).start_from(start) for start in every]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *every)


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
    start = parameters.t_pose()
    spread = jnp.einsum("pi,pj,p->ij", centred, centred, mass)
    cross = jnp.einsum("pi,pj,p->ij", image - image_mean[None], centred, mass)
    prior = _PRIOR_MASS * _PRIOR_SPREAD_M2
    affine = _right_divide(cross + prior * start.rotation[:2], spread + prior * jnp.eye(3))
    rows, scale = _polar(affine)
    rotation = jnp.concatenate([rows, jnp.cross(rows[0], rows[1])[None]])
    translation = image_mean - scale * (rows @ rest_mean)
    return dataclasses.replace(start, rotation=rotation, camera_scale=scale, translation=translation)


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
