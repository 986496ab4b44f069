"""The registration energy, eq. 2: one residual function a term, weights applied in one place.

    L = w_dense L_dense + w_KP L_KP + w_scale L_scale + w_joint L_joint + w_det L_det,   each L = sum of squares

Residual vectors rather than losses, so that first-order optimisers (sum of squares) and Gauss-Newton (Jacobian) share
them. A confidence c enters a residual as sqrt(c).
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.body import cameras, joint_limits, kinematics, rotations, skinning
from dal_jax.body.parameters import BodyParameters, fix_gauge
from dal_jax.body.template import Template
from dal_jax.observations.residuals import Target, dense_residual, keypoint_residual
from dal_jax.registration import priors
from dal_jax.registration.priors import RestPose

TERMS = ("dense", "keypoint", "scale", "joint", "det", "limit")
_DET_MARGIN = 1.0


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class EnergyWeights:
    """Weights of eq. 2 in the crop's [-1, 1] units; the defaults are the paper's for every round but the first.

    A pytree, so that another set of weights needs no new compilation. What is None is off, a static choice.
    limit: of the squared excess of joint angles beyond their anatomical limits, radians.
    outlier: distance in crop units at which a dense correspondence counts as wrong, the scale of Geman and McClure's
      robust loss r^2 / (1 + r^2 / outlier^2). None: the paper's squared loss.
    rest: what L_joint pulls to. None: the T-pose, as in the paper.
    """

    dense: float = 1000.0
    keypoint: float = 1.0
    scale: float = 10.0
    joint: float = 0.001
    det: float = 1.0
    limit: float | None = None
    outlier: float | None = None
    rest: RestPose | None = None


def stiff_weights() -> EnergyWeights:
    """Return the paper's weights of the first round: w_scale 100 and w_joint 1 "make the body model stiff"."""
    return EnergyWeights(scale=100.0, joint=1.0)


def as_arrays(weights: EnergyWeights) -> EnergyWeights:
    """Return weights as arrays of floats: a whole number among them would be compiled anew."""
    return jax.tree.map(lambda weight: np.asarray(weight, float), weights)


@flax.struct.dataclass
class Unknowns:
    """theta = [a, S, R, s, t] as free numbers.

    pose: axis-angle; raw_rotation: nine numbers, orthonormalised inside.
    Note: scales are optimised as logarithms, so that none can become negative (the paper does not say).
    """

    pose: Float[Array, "23 3"]
    log_segment_scale: Float[Array, "24"]
    raw_rotation: Float[Array, "3 3"]
    log_camera_scale: Float[Array, ""]
    translation: Float[Array, "2"]


def from_parameters(parameters: BodyParameters) -> Unknowns:
    """Return the unknowns at given parameters."""
    return Unknowns(
        pose=parameters.pose,
        log_segment_scale=jnp.log(parameters.segment_scale),
        raw_rotation=parameters.rotation,
        log_camera_scale=jnp.log(parameters.camera_scale),
        translation=parameters.translation,
    )


def scale_residual(template: Template, log_segment_scale: Float[Array, "24"]) -> Float[Array, "23"]:
    """Return log s_child - log s_parent over the skeleton's edges.

    Note: L_scale is in a supplement that is not at hand. In logarithms it does not depend on the gauge of s.
    """
    return log_segment_scale[1:] - log_segment_scale[jnp.array(template.parents[1:])]


def joint_residual(pose: Float[Array, "23 3"], rest: RestPose | None = None) -> Float[Array, "23 3"]:
    """Return the axis-angle vectors: a quadratic pull to the rest pose, or to one that was learned.

    Note: the paper raises w_joint to make the body stiff, so we read L_joint as sum |a_j|^2.
    """
    return pose if rest is None else priors.residual(pose, rest)


def limit_residual(pose: Float[Array, "23 3"]) -> Float[Array, "23 3"]:
    """Return the joint angles' signed excess beyond anatomical limits, radians (not in the paper)."""
    return joint_limits.excess(pose)


def det_residual(raw_rotation: Float[Array, "3 3"]) -> Float[Array, "1"]:
    """Return max(0, 1 - det) of the nine raw numbers, which keeps Gram-Schmidt from returning a reflection.

    Note: the form of L_det is in the supplement; a hinge at 1 is zero at every proper rotation.
    """
    return jnp.maximum(0.0, _DET_MARGIN - jnp.linalg.det(raw_rotation))[None]


def residuals(
    template: Template, target: Target, unknowns: Unknowns, weights: EnergyWeights
) -> dict[str, Float[Array, "..."]]:
    """Return every term of eq. 2 as an unweighted residual array, by the name of its weight.

    Args:
      weights: read for the forms of the terms (`outlier`, `rest`) alone.
    """
    rotation = rotations.gram_schmidt(unknowns.raw_rotation)
    segments = kinematics.pose_skeleton(template, rotation, unknowns.pose, jnp.exp(unknowns.log_segment_scale))
    scale = jnp.exp(unknowns.log_camera_scale)
    points = skinning.skin_points(template, segments, target.points)
    joints = skinning.h36m_joints(template, segments)
    keypoints = jnp.concatenate([cameras.project(joints, scale, unknowns.translation), scale * joints[:, 2:]], axis=1)
    return {
        "dense": dense_residual(cameras.project(points, scale, unknowns.translation), target, weights.outlier),
        "keypoint": keypoint_residual(keypoints, target),
        "scale": scale_residual(template, unknowns.log_segment_scale),
        "joint": joint_residual(unknowns.pose, weights.rest),
        "det": det_residual(unknowns.raw_rotation),
        "limit": limit_residual(unknowns.pose),
    }


def weighted_residuals(terms: dict[str, Float[Array, "..."]], weights: EnergyWeights) -> Float[Array, "residuals"]:
    """Return one flat vector whose sum of squares is eq. 2: the only place where weights are applied."""
    if set(terms) != set(TERMS):
        raise ValueError(f"terms {sorted(terms)} are not {sorted(TERMS)}")
    used = {name: getattr(weights, name) for name in TERMS if getattr(weights, name) is not None}
    return jnp.concatenate([jnp.sqrt(jnp.asarray(weight)) * terms[name].ravel() for name, weight in used.items()])


def energy(template: Template, target: Target, unknowns: Unknowns, weights: EnergyWeights) -> Float[Array, ""]:
    """Return L_regist of eq. 2."""
    return jnp.sum(weighted_residuals(residuals(template, target, unknowns, weights), weights) ** 2)


def to_parameters(unknowns: Unknowns) -> BodyParameters:
    """Return finished parameters: a proper rotation, mean log s = 0."""
    return fix_gauge(
        BodyParameters(
            pose=unknowns.pose,
            segment_scale=jnp.exp(unknowns.log_segment_scale),
            rotation=rotations.nearest_rotation(rotations.gram_schmidt(unknowns.raw_rotation)),
            camera_scale=jnp.exp(unknowns.log_camera_scale),
            translation=unknowns.translation,
        )
    )


def parameter_energy(
    template: Template,
    target: Target,
    parameters: BodyParameters,
    weights: EnergyWeights,
) -> Float[Array, ""]:
    """Return L_regist of eq. 2 at given parameters: how fits from anywhere are compared."""
    return energy(template, target, from_parameters(parameters), weights)
