"""How errors of an annotation move a fit: the sandwich covariance of weighted least squares (Huber 1967, White 1980).

A fit that minimises sum_g w_g |r_g|^2 solves H d = -J'W r near its minimum, so errors e of covariance R move it by

    d = -H^-1 J'W e,        H = J'W J,        Cov d = H^-1 M H^-1,        M = J'W R W J.

H^-1 (`inverse_hessian`) is the bread, M (`score_covariance`) the meat. The weights W need not be the inverse of R: the
paper's are not. J are the Jacobians of eq. 2's residuals by 98 tangent unknowns: rotations of the 23 joints (69), log
segment scales (24), rotation of the body (3), translation (2); and the log girth, or 48 log segment girths, if any. The
camera's scale is held: it is redundant with a common one of segments; poses are compared with their size normalised.

R has seven kinds of error, each with a variance of its own:

    point      of every annotated point, independent
    shape      of the template's surface: another person's lies beside it, and neighbouring points share that. Its
               covariance is K_ij = (w_i . w_j) exp(-|v_i - v_j|^2 / 2 l^2), v rest positions, w skinning weights
               (points on different segments move apart), alike in x and y
    keypoint, depth, scale    of their terms, independent; scales, where a prior on proportions weights them, in the
               coordinates that it weights alike
    limb       of lifted depths, growing along the limbs: a bone whose tilt is misjudged takes all that hangs on it
               along. Its covariance is the length of the path from the hip that two joints have in common, in metres
    turn       of lifted depths, in common: the whole body as if it leaned more, or less, to the camera, or had another
               heading. Its covariance is y_i y_j + 9 x_i x_j, joints' places in the image about their mean: lifters
               turn bodies about the vertical three times as much

The priors add what they pull to: the spread of human poses, and of girths, about the prior's mean.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dal_jax.body import kinematics, skeleton, skinning
from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.template import Template
from dal_jax.observations import residuals
from dal_jax.observations.observation import HEADING
from dal_jax.observations.residuals import Target
from dal_jax.registration import energy, priors
from dal_jax.registration.energy import Objective, Unknowns
from dal_jax.registration.solvers import descent
from dal_jax.runtime import struct

KINDS = ("point", "shape", "keypoint", "depth", "limb", "turn", "scale")
_SHARED = ("shape", "limb", "turn")  # kinds that H knows nothing of
SHARED_LENGTH_M = 0.15
"""l of the shape's covariance. Note: our choice; 0.06 to 0.25 m do alike on synthetic training people."""

GIRTH = descent.TANGENT_SIZE - 1  # the place of the log girth, and how many unknowns a fit without one has

_CAMERA_SCALE = 96  # its place among the unknowns of `descent.move`
_LEAST_JOINT_PRECISION = 0.3  # rad^-2: no joint spreads more; a lower precision leaves H singular in float32
_PLACE = slice(93, 98)  # of the body's rotation and translation
_PLACE_PRECISION = 1.0  # both are known beforehand to a radian and a crop unit
_JITTER = 1e-6

Scalar = float | np.floating | Float[Array | np.ndarray, ""]


@struct.dataclass
class Precisions:
    """What a fit weighted its terms with: eq. 2's weights, depth apart from the key points' x and y.

    dense, keypoint, depth: of squared crop units; scale: of squared logarithms.
    joint: of deviations from `mean_pose` (`priors.pose_deviation`), rad^-2; mean_pose: axis-angle, radians.
    scale_mean, scale_root: where a prior on proportions weights the log scales r of segments against their parents',
      m and R of the coordinates R (r - m) that the fit weights alike; None: it weights r alike. The inverse of R has
      the mean square 1, so that a level of noise is still one of log scales.
    girth: of the log girth, where a prior on girths weights it, and the variance that the prior has people differ by.
    """

    dense: Scalar
    keypoint: Scalar
    depth: Scalar
    scale: Scalar
    joint: Float[Array | np.ndarray, "23 3 3"]
    mean_pose: Float[Array | np.ndarray, "23 3"]
    scale_mean: Float[Array | np.ndarray, "r"] | None = None
    scale_root: Float[Array | np.ndarray, "r r"] | None = None
    girth: Float[Array | np.ndarray, "2"] | None = None

    @classmethod
    def of_objective(cls, objective: Objective) -> "Precisions":
        """Return the precisions of a fit that weighted key points and their depths alike, as eq. 2 does."""
        joint, mean_pose = np.eye(3, dtype=np.float32)[None].repeat(23, axis=0), np.zeros((23, 3), np.float32)
        weights = objective.weights
        if objective.prior is not None:
            mean_pose, root = objective.prior.mean, np.asarray(objective.prior.root)
            joint = np.swapaxes(root, 1, 2) @ root
        joint = np.float32(weights.joint) * joint
        used = cls(weights.dense, weights.keypoint, weights.keypoint, weights.scale, joint, mean_pose)
        shape = objective.active_shape()
        return used if shape is None else used._with_proportions(weights.shape, shape)

    def _with_proportions(self, weight, prior: priors.ShapePrior) -> "Precisions":
        """Return the precisions under w_scale L_scale + w_shape L_shape, scales alike in its coordinates (float64)."""
        root = np.asarray(prior.root, np.float64)
        of_prior = float(weight) * root.T @ root
        precision = of_prior + float(self.scale) * np.eye(len(root))
        covariance = np.linalg.inv(precision)
        mean = covariance @ of_prior @ np.asarray(prior.mean, np.float64)
        typical = len(root) / np.trace(covariance)
        whole = np.linalg.cholesky(precision / typical).T
        girth = None
        if prior.girth is not None:
            variance = np.asarray(prior.girth)[1] ** 2
            girth = np.array([float(weight) / variance, variance], np.float32)
        scale_mean, scale_root = mean.astype(np.float32), whole.astype(np.float32)
        return dataclasses.replace(self, scale=typical, scale_mean=scale_mean, scale_root=scale_root, girth=girth)

    def by_kind(self) -> Float[Array, "7"]:
        """Return the weight with which each kind of error of `KINDS` acts."""
        each = (self.dense, self.dense, self.keypoint, self.depth, self.depth, self.depth, self.scale)
        return jnp.stack([jnp.asarray(weight) for weight in each])


@struct.dataclass
class Linearisation:
    """The least-squares problem near one person's fit; crop units, radians.

    A confidence c enters residuals, Jacobians and covariances as sqrt(c). `dense` and `keypoint` keep image x and y as
    their second axis; `pose` is how the joints deviate from the prior's mean (`priors.pose_deviation`).

    shape, limb, turn: covariances K of errors that points (depths) share, at unit variance.
    gram: J'R_k J of every kind of error at unit variance.
    inverse_hessian: H^-1. weighted_pose_jacobian: joints' precisions times their Jacobian.
    """

    dense: Float[Array, "points 2"]
    keypoint: Float[Array, "k 2"]
    depth: Float[Array, "k"]
    scale: Float[Array, "r"]
    pose: Float[Array, "23 3"]
    dense_jacobian: Float[Array, "points 2 u"]
    keypoint_jacobian: Float[Array, "k 2 u"]
    depth_jacobian: Float[Array, "k u"]
    scale_jacobian: Float[Array, "r u"]
    pose_jacobian: Float[Array, "23 3 u"]
    shape: Float[Array, "points points"]
    limb: Float[Array, "k k"]
    turn: Float[Array, "k k"]
    gram: Float[Array, "7 u u"]
    inverse_hessian: Float[Array, "u u"]
    weighted_pose_jacobian: Float[Array, "23 3 u"]
    precisions: Precisions


def linearise(template: Template, target: Target, parameters: BodyParameters, precisions: Precisions) -> Linearisation:
    """Differentiate eq. 2's residuals at one person's fit (forward mode), assemble H and invert it.

    Args:
      template: the body.
      target: one person's observation.
      parameters: that person's fit.
      precisions: what the fit was weighted with.
    """

    def terms_at(delta):
        moved = move(parameters, delta)
        terms = energy.residuals(template, target, moved, Objective())
        kept = {name: terms[name] for name in ("dense", "keypoint", "scale")}
        mean, root = precisions.scale_mean, precisions.scale_root
        if mean is not None and root is not None:
            kept["scale"] = jnp.asarray(root) @ (kept["scale"] - mean)
        kept["pose"] = priors.pose_deviation(moved.pose, precisions.mean_pose)
        return kept, kept

    zero = jnp.zeros(unknowns(parameters), parameters.pose.dtype)
    jacobian, value = (_of_one_image(each) for each in jax.jacfwd(terms_at, has_aux=True)(zero))
    target = one_image(target)
    shape, limb = shape_covariance(target), limb_covariance(template, target)
    turn = turn_covariance(template, target, parameters)
    if target.observation.depth_turns is not None:  # the residual has less of such errors
        turned = functools.partial(residuals.turned, turns=target.observation.depth_turns[..., None])
        limb, turn = (turned(turned(each).T) for each in (limb, turn))
    keypoint, depth, scale = jacobian["keypoint"], jacobian["depth"], jacobian["scale"]
    gram = jnp.stack([
        both_axes(jacobian["dense"], jacobian["dense"]),
        both_axes(jacobian["dense"], jnp.tensordot(shape, jacobian["dense"], 1)),
        both_axes(keypoint, keypoint),
        depth.T @ depth,
        depth.T @ limb @ depth,
        depth.T @ turn @ depth,
        scale.T @ scale,
    ])  # fmt: skip
    weighted_pose = jnp.einsum("kij,kjl->kil", _bounded(precisions.joint), jacobian["pose"])
    return Linearisation(
        dense=value["dense"],
        keypoint=value["keypoint"],
        depth=value["depth"],
        scale=value["scale"],
        pose=value["pose"],
        dense_jacobian=jacobian["dense"],
        keypoint_jacobian=keypoint,
        depth_jacobian=depth,
        scale_jacobian=scale,
        pose_jacobian=jacobian["pose"],
        shape=shape,
        limb=limb,
        turn=turn,
        gram=gram,
        inverse_hessian=invert(_hessian(gram, jacobian["pose"], weighted_pose, precisions)),
        weighted_pose_jacobian=weighted_pose,
        precisions=precisions,
    )


def _of_one_image(terms: dict[str, Array]) -> dict[str, Array]:
    """Return terms (or their Jacobians) with x and y of key points apart from depths, views after each other."""
    dense, keypoint = terms["dense"], terms["keypoint"]
    if keypoint.shape[1] == 3:  # key points x (x, y, z)
        return terms | {"keypoint": keypoint[:, :2], "depth": keypoint[:, 2]}
    depth = jnp.zeros((keypoint.shape[1], *keypoint.shape[3:]), keypoint.dtype)
    flat = {name: leaf.reshape(-1, *leaf.shape[2:]) for name, leaf in (("dense", dense), ("keypoint", keypoint))}
    return terms | flat | {"depth": depth}


def one_image(target: Target) -> Target:
    """Return the points and key points of several views as if one image had them all, and no depths; else the same."""
    seen = target.observation
    if seen.views is None:
        return target
    flat = dataclasses.replace(
        seen,
        point_confidence=jnp.ravel(jnp.asarray(seen.point_confidence)),
        keypoint_confidence=jnp.ravel(jnp.asarray(seen.keypoint_confidence)),
        depth_confidence=jnp.zeros_like(jnp.asarray(seen.depth_confidence)[0]),
    )
    return Target(jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), target.points), flat)


def _bounded(joint: Float[Array | np.ndarray, "23 3 3"]) -> Float[Array, "23 3 3"]:
    missing = jnp.maximum(0.0, _LEAST_JOINT_PRECISION - jnp.min(jnp.diagonal(joint, axis1=1, axis2=2)))
    return jnp.asarray(joint) + missing * jnp.eye(3)[None]


def _hessian(gram, pose, weighted_pose, precisions: Precisions) -> Float[Array, "u u"]:
    of_data = precisions.by_kind() * jnp.array([kind not in _SHARED for kind in KINDS])
    known = jnp.zeros(len(gram[0])).at[_PLACE].set(_PLACE_PRECISION)
    if precisions.girth is not None and len(known) > GIRTH:
        known = known.at[GIRTH].set(precisions.girth[0])
    return jnp.einsum("k,kij->ij", of_data, gram) + jnp.einsum("kil,kim->lm", pose, weighted_pose) + jnp.diag(known)


def score_covariance(
    linear: Linearisation, variances: Float[Array, "7"], pose_moment: Float[Array, "23 3 3"]
) -> Float[Array, "u u"]:
    """Return M = J'W R W J, the covariance of the score J'W e.

    Args:
      linear: the problem near a fit.
      variances: of the `KINDS` of error.
      pose_moment: mean of d d' over people, d how their joints deviate from the precisions' `mean_pose`
        (`PosePrior.moment_about`).
    """
    data = jnp.einsum("k,kij->ij", linear.precisions.by_kind() ** 2 * variances, linear.gram)
    known = jnp.zeros(len(data)).at[_PLACE].set(_PLACE_PRECISION)
    if linear.precisions.girth is not None and len(known) > GIRTH:
        precision, variance = linear.precisions.girth
        known = known.at[GIRTH].set(precision**2 * variance)
    spread = jnp.einsum("kij,kjl->kil", pose_moment, linear.weighted_pose_jacobian)
    return data + jnp.einsum("kil,kim->lm", linear.weighted_pose_jacobian, spread) + jnp.diag(known)


def unknowns(parameters: BodyParameters) -> int:
    """Return how many tangent unknowns a fit has: the last of 99 is its log girth, of 146 the last 48 are girths."""
    return descent.tangent_size(energy.from_parameters(parameters)) - (parameters.translation.shape[-1] - 1)


def sizes(parameters: BodyParameters) -> Int[np.ndarray, "sizes"]:
    """Return the places of the log segment scales and of the girths."""
    return np.append(np.arange(69, 93), np.arange(GIRTH, unknowns(parameters)))


def move(parameters: BodyParameters, delta: Float[Array, "u"]) -> Unknowns:
    """Return the unknowns at a tangent step from finished parameters, the camera's scale held, and a pelvis' depth."""
    step = jnp.insert(delta, _CAMERA_SCALE, 0.0)
    if parameters.translation.shape[-1] == 3:
        step = jnp.insert(step, descent.TANGENT_SIZE, 0.0)
    return descent.move(energy.from_parameters(parameters), step)


def shape_covariance(target: Target) -> Float[Array, "points points"]:
    """Return sqrt(c_i) K_ij sqrt(c_j) of one person's points."""
    rest, weight = target.points.rest, target.points.weight
    squared = jnp.sum((rest[:, None] - rest[None]) ** 2, axis=-1)
    root = jnp.sqrt(target.observation.point_confidence)
    return root[:, None] * (weight @ weight.T) * jnp.exp(-squared / (2.0 * SHARED_LENGTH_M**2)) * root[None]


def limb_covariance(template: Template, target: Target) -> Float[Array, "k k"]:
    """Return sqrt(c_i) K_ij sqrt(c_j) of one person's lifted depths."""
    keypoint_set = target.observation.keypoint_set
    parents = skeleton.KEYPOINT_PARENTS[keypoint_set]
    joints = jnp.asarray(template.regressor(keypoint_set)) @ jnp.asarray(template.vertices)
    bones = joints - joints[np.maximum(parents, 0)]
    length = jnp.where(np.array(parents) < 0, 0.0, jnp.linalg.norm(bones, axis=1))
    passes = _passes(parents)
    root = jnp.sqrt(target.observation.depth_confidence)
    return root[:, None] * ((passes * length[None]) @ passes.T) * root[None]


def turn_covariance(template: Template, target: Target, parameters: BodyParameters) -> Float[Array, "k k"]:
    """Return sqrt(c_i) K_ij sqrt(c_j) of one person's lifted depths, whose places are those of the fit; crop units."""
    seen = target.observation
    joints = skinning.keypoints(template, kinematics.pose_segments(template, parameters), seen.keypoint_set)
    place = parameters.camera_scale * residuals.relative_depth(joints[:, :2], seen.depth_confidence[:, None])
    weighted = jnp.sqrt(seen.depth_confidence)[:, None] * place * jnp.array([[HEADING, 1.0]])
    return weighted @ weighted.T


def _passes(parents: tuple[int, ...]) -> Float[np.ndarray, "k k"]:
    """Return 1 where the path from the root to a key point (row) ends at or passes another (column)."""
    passes = np.zeros((len(parents), len(parents)), np.float32)
    for row in range(len(parents)):
        at = row
        while at >= 0:
            passes[row, at] = 1.0
            at = parents[at]
    return passes


def both_axes(left: Float[Array, "..."], right: Float[Array, "..."]) -> Float[Array, "u u"]:
    """Return the sum of left' right over points and over image x and y; the unknowns are the innermost axis."""
    return left.reshape(-1, left.shape[-1]).T @ right.reshape(-1, left.shape[-1])


def invert(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Invert a positive definite matrix by Gauss-Jordan sweeps, its diagonal scaled to 1.

    Not LAPACK: programs with two independent solves were seen to hang on two CPU cores (jax 0.10.2).
    No pivoting: a sweep of a positive definite matrix needs none.
    """
    size = len(matrix)
    scale = jax.lax.rsqrt(jnp.diagonal(matrix))
    unit = matrix * scale[:, None] * scale[None] + _JITTER * jnp.eye(size, dtype=matrix.dtype)
    place = jnp.arange(size)

    def sweep(k, swept):
        here = place == k
        row, pivot = swept[k], 1.0 / swept[k, k]
        rest = jnp.where(here[:, None] | here[None], 0.0, swept)
        column = jnp.where(here, -1.0, swept[:, k]) * pivot
        return rest - column[:, None] * jnp.where(here, 1.0, row)[None]

    return jax.lax.fori_loop(0, size, sweep, unit) * scale[:, None] * scale[None]
