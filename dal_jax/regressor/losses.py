"""Eq. 5: L_conv = alpha L_regress + beta L_dense + gamma L_KP, one named term for one person at a time.

Terms are sums over a person's parameters, points and key points, as eq. 3, 4 and 6 are printed. Means over the batch
are taken last, weighted by the people's weights.

To add a loss: a term in `terms` and its weight in `LossWeights`, of the same name.
"""

import dataclasses
from typing import Literal

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from dal_jax.body import cameras, kinematics, skinning
from dal_jax.body.template import Template
from dal_jax.observations.residuals import dense_loss, keypoint_loss
from dal_jax.regressor.batches import Sample
from dal_jax.regressor.theta import ThetaCodec

RegressLoss = Literal["smooth_l1", "l2"]
"""Of eq. 6; the paper found smooth L1 better than L2, because registrations fail."""


@dataclasses.dataclass
class LossWeights:
    """Weights of eq. 5 in the crop's [-1, 1] units; the defaults are the paper's."""

    regress: float = 1.0  # alpha, of eq. 6
    dense: float = 10.0  # beta, of eq. 3
    keypoint: float = 1.0  # gamma, of eq. 4
    joint: float = 0.0  # of the 3D joints of the registered body, metres; not in the paper


def terms(
    template: Template,
    codec: ThetaCodec,
    predicted: Float[Array, "theta"],
    sample: Sample,
    unit: Float[Array, "theta"],
    regress_loss: RegressLoss = "smooth_l1",
) -> dict[str, Float[Array, ""]]:
    """Return every term of eq. 5, unweighted, for one person.

    Gram-Schmidt stands between a rotation's raw numbers and every projected point; eq. 6 compares the raw numbers.

    Args:
      template: the body.
      codec: of theta.
      predicted: theta from the network, its rotations as raw numbers.
      sample: one example; its annotation, its registered body.
      unit: what counts as an error of 1 in each dimension of theta (paper: 1 everywhere).
      regress_loss: of eq. 6.
    """
    (body, joint_rotation), pinhole = codec.decode(predicted), sample.target.observation.pinhole
    segments = kinematics.turn_skeleton(template, body.rotation, joint_rotation, body.segment_scale)
    segments = dataclasses.replace(segments, segment_girth=body.segment_girth)
    points = skinning.skin_points(template, segments, sample.target.points)
    joints = skinning.keypoints(template, segments, sample.target.observation.keypoint_set)
    fit = sample.fit
    fitted = kinematics.pose_segments(template, fit)
    projected = cameras.project(points, body.camera_scale, body.translation, pinhole)
    planar = cameras.project(joints, body.camera_scale, body.translation, pinhole)
    keypoints = jnp.concatenate([planar, body.camera_scale * joints[:, 2:]], axis=1)
    return {
        "regress": regress(predicted / unit, codec.encode(fit) / unit, regress_loss),
        "dense": dense_loss(projected, sample.target),
        "keypoint": keypoint_loss(keypoints, sample.target),
        "joint": joint(segments.position, fitted.position),
    }


def weighted(terms: dict[str, Float[Array, "*batch"]], weights: LossWeights) -> Float[Array, "*batch"]:
    """Return eq. 5: the only place where alpha, beta and gamma are applied."""
    named = dataclasses.asdict(weights)
    if named.keys() != terms.keys():
        raise ValueError(f"weights {sorted(named)} do not match terms {sorted(terms)}")
    return sum((named[name] * terms[name] for name in named), start=jnp.zeros(()))


def regress(predicted: Float[Array, "theta"], annotated: Float[Array, "theta"], kind: RegressLoss) -> Float[Array, ""]:
    """Return eq. 6: smooth L1 over theta, e^2 / 2 up to |e| = 1, |e| - 1/2 beyond: robust to failed registrations.

    l2: e^2 / 2 everywhere.
    """
    if kind == "l2":
        return jnp.sum(optax.losses.l2_loss(predicted, annotated))
    return jnp.sum(optax.losses.huber_loss(predicted, annotated, delta=1.0))


def joint(predicted: Float[Array, "24 3"], fitted: Float[Array, "24 3"]) -> Float[Array, ""]:
    """Return the summed distances (metres) between the predicted and the registered body's joints, pelvis at 0.

    Note: not in the paper. Angles add up along a limb, so equal errors in theta are not equal errors of the body.
    Distances rather than squares: a failed registration pulls no harder than a good one.
    """
    squared = jnp.sum((predicted - fitted) ** 2, axis=-1)
    apart = squared > 1e-10  # the root of zero has no slope: the pelvis is always there, others may be
    return jnp.sum(jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0))


def batch_mean(values: Float[Array, "batch"], weight: Float[Array, "batch"]) -> Float[Array, ""]:
    """Return the weighted mean over people; 0 where all weights are 0."""
    total = jnp.sum(weight)
    return jnp.sum(values * weight) / jnp.where(total > 0, total, 1.0)
