"""A report on every fit: its errors, how plausible it is, what else it could be, and how certain it is."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, SupportsFloat

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from dal_jax.body import joint_limits, skeleton
from dal_jax.body.template import Template
from dal_jax.observations import agreement, residuals
from dal_jax.observations.observation import Observation, hold_out, px_from_crop
from dal_jax.registration import register
from dal_jax.registration.energy import Objective
from dal_jax.registration.register import Fit, RegistrationConfig
from dal_jax.runtime import struct
from dal_jax.uncertainty import modes, noise as noise_lib
from dal_jax.uncertainty.noise import NoiseLevels
from dal_jax.uncertainty.posterior import Posterior, certainty, laplace_posterior
from dal_jax.uncertainty.sandwich import Precisions

PARTS = {
    "torso": (1, 2), "right_hand": (3,), "left_hand": (4,), "left_foot": (5,), "right_foot": (6,),
    "right_upper_leg": (7, 9), "left_upper_leg": (8, 10), "right_lower_leg": (11, 13), "left_lower_leg": (12, 14),
    "left_upper_arm": (15, 17), "right_upper_arm": (16, 18), "left_lower_arm": (19, 21), "right_lower_arm": (20, 22),
    "head": (23, 24),
}  # fmt: skip
"""DensePose's 24 parts, front and back together."""

_INLIER_SDS = 3.0  # of one coordinate: 1% of good points lie farther (Rayleigh)
_FULL_ANGLE_DEG = 20.0


@struct.dataclass
class Quality:
    """Reports on fits (leading axis: people); NaN where nothing was observed.

    dense_px, keypoint_px: root mean square distance in the photograph; *_percent: of the crop's side.
    keypoint_scale, keypoint_rest_px: of key points against the body (`agreement.rescaled`).
    part_px: of dense points, by PARTS. points, keypoints: how many there are.
    inliers: points within 3 noise levels, or within the robust loss' scale, where the fit used one.
    determinant: of the fit's rotation. limit_excess_deg: largest of a joint's components beyond anatomical limits.
    posterior: standard deviations of joints, and how likely the modes of `modes.NAMES` are.
    mode_rotation_deg: angle between the pelvis of a mode and that of the fit.
    weight: in [0, 1], for training: share of inliers x `posterior.certainty` x (1 - p) x 1 / (1 + (a / 20 deg)^2);
      p the largest probability of a mode, a the largest excess of an angle. Without dense points the inlier factor is
      1. 0 where nothing was observed or the fit is not finite.
    """

    dense_px: Float[np.ndarray, "*people"]
    dense_percent: Float[np.ndarray, "*people"]
    keypoint_px: Float[np.ndarray, "*people"]
    keypoint_percent: Float[np.ndarray, "*people"]
    keypoint_scale: Float[np.ndarray, "*people 2"]
    keypoint_rest_px: Float[np.ndarray, "*people"]
    part_px: Float[np.ndarray, "*people 14"]
    points: Int[np.ndarray, "*people"]
    keypoints: Int[np.ndarray, "*people"]
    inliers: Int[np.ndarray, "*people"]
    inlier_share: Float[np.ndarray, "*people"]
    determinant: Float[np.ndarray, "*people"]
    segment_scale: Float[np.ndarray, "*people 24"]
    limit_excess_deg: Float[np.ndarray, "*people 23"]
    posterior: Posterior
    mode_rotation_deg: Float[np.ndarray, "*people modes"]
    converged: Bool[np.ndarray, "*people"]
    weight: Float[np.ndarray, "*people"]


def assess(
    template: Template,
    observations: Observation,
    fit: Fit,
    objective: Objective,
    noise: NoiseLevels | None = None,
) -> Quality:
    """Report on fits; about 5 ms a person, most of it for posteriors and alternative modes.

    Args:
      template: the body.
      observations: as annotated and lifted, not `noise.reweighted`.
      fit: of all people.
      objective: of the fit (the last stage's).
      noise: levels that the objective was made from (`noise.objective`); the fit is then one to `noise.reweighted`
        observations. Left out: the levels that the residuals of all fits speak for.
    """
    robust = noise_lib.robust_weights(template, observations, fit.parameters, objective.weights.outlier)
    if noise is None:
        used, fitted_to = Precisions.of_objective(objective), observations
        noise = noise_lib.estimate(template, robust, fit.parameters, used, noise_lib.initial())
    else:
        used, fitted_to = noise_lib.precisions(noise), noise_lib.reweighted(observations, noise)
    bodies = modes.find(template, fitted_to, fit.parameters, objective)
    posterior = laplace_posterior(template, robust, fit.parameters, noise, used, bodies)
    errors = _errors(template, observations, fit, noise, objective.weights.outlier)
    excess = np.degrees(np.max(np.abs(np.asarray(joint_limits.excess(np.asarray(fit.parameters.pose)))), axis=-1))
    observed = errors["points"] + errors["keypoints"] > 0
    return Quality(
        **errors,
        determinant=np.linalg.det(np.asarray(fit.parameters.rotation, np.float64)),
        segment_scale=np.asarray(fit.parameters.segment_scale),
        limit_excess_deg=excess,
        posterior=posterior,
        mode_rotation_deg=_angle_deg(np.asarray(fit.parameters.rotation)[:, None], np.asarray(bodies.rotation)),
        converged=np.asarray(fit.converged),
        weight=np.where(observed, np.nan_to_num(_factors(errors["inlier_share"], posterior, excess)), 0.0),
    )


def describe(quality: Quality, row: int) -> dict[str, Any]:
    """Return one person's report, fit for JSON: numbers, None where there is none, and `flags` in plain words."""
    one: Quality = jax.tree.map(lambda leaf: np.asarray(leaf[row]), quality)
    parts = {name: value for name, value in zip(PARTS, one.part_px, strict=True) if np.isfinite(value)}
    excess = zip(skeleton.SMPL_JOINT_NAMES[1:], one.limit_excess_deg, strict=True)
    gap = np.asarray(one.posterior.mode_gap)
    mode = int(np.argmin(gap))
    return {
        **{name: _number(getattr(one, name)) for name in _PLAIN},
        "points": int(one.points),
        "keypoints": int(one.keypoints),
        "inliers": int(one.inliers),
        "dense_error_by_part_px": {name: _number(value) for name, value in parts.items()},
        "smallest_segment_scale": _extreme(one.segment_scale, np.argmin),
        "largest_segment_scale": _extreme(one.segment_scale, np.argmax),
        "beyond_limits_deg": {name: _number(value) for name, value in excess if value > 0},
        "mode": {
            "kind": _ambiguity(modes.NAMES[mode], float(one.mode_rotation_deg[mode])),
            "energy_gap": _number(gap[mode]),
            "distance_mm": _number(one.posterior.mode_distance_mm[mode]),
            "probability": _number(one.posterior.mode_probability[mode]),
        } if np.isfinite(gap[mode]) else None,
        "joint_sd_mm": {
            name: [_number(value) for value in axes]
            for name, axes in zip(skeleton.H36M_JOINT_NAMES, one.posterior.h36m_sd_mm, strict=True)
        },
        "flags": _flags(one),
    }  # fmt: skip


def held_out_error_px(
    template: Template,
    observations: Observation,
    config: RegistrationConfig,
    objective: Objective,
    folds: int,
    progress: Callable[[int], object] | None = None,
) -> Float[np.ndarray, "people"]:
    """Return the root mean square error, px, at points that the fit has not seen: cross-validation over points.

    `folds` fits are made, each without another 1/folds of the points. Key points stay in. A `given` start would have
    seen the points that are left out, so none is taken.

    Args:
      template: the body.
      observations: what the fits are made to (leading axis: people).
      config: of the fits.
      objective: of the fits.
      folds: at least 2.
      progress: called with the number of person-fits done so far, of people * folds.
    """
    people = len(observations.point_face)
    distance = np.zeros(observations.point_confidence.shape, np.float32)
    for fold in range(folds):
        kept, left_out = hold_out(observations, fold, folds)
        report = (lambda done, before=fold * people: progress(before + done)) if progress else None
        fit = register.register(
            template, dataclasses.replace(observations, point_confidence=kept), config, objective, progress=report
        )
        dense, _ = residuals.errors_px(template, fit.parameters, observations)
        distance = np.where(left_out > 0, dense, distance)
    return residuals.root_mean_square(distance, np.asarray(observations.point_confidence))


_PLAIN = (
    "weight", "dense_px", "dense_percent", "keypoint_px", "keypoint_percent", "inlier_share", "determinant",
)  # fmt: skip
_FEW_POINTS, _FEW_INLIERS, _MANY_DEGREES, _ODD_SCALE = 20, 0.8, 10.0, 1.4
_LIKELY, _OTHER_WAY_DEG, _VAGUE_MM = 0.1, 90.0, 150.0
_BONES = {"hip": "thigh", "knee": "lower leg", "shoulder": "upper arm", "elbow": "forearm"}


def _flags(one: Quality) -> list[str]:
    """Return warnings in plain words on one person's (row of a) report."""
    flags = []
    if not one.converged:
        flags.append("had not converged when its steps were used up")
    if abs(one.determinant - 1.0) > 0.01:
        flags.append(f"rotation is not proper (determinant {one.determinant:.2f})")
    if not one.points and one.keypoints:
        flags.append("has key points alone: shape and depth are the priors' guess")
    elif one.points < _FEW_POINTS:
        flags.append(f"leans on {one.points} points and {one.keypoints} key points")
    if one.points and one.keypoint_percent > 100.0 * agreement.OFF:
        flags += agreement.flags(float(one.keypoint_px), one.keypoint_scale, float(one.keypoint_rest_px))
    if one.inlier_share < _FEW_INLIERS:
        flags.append(f"{one.points - one.inliers} of {one.points} points lie too far from the body")
    for name, degrees in zip(skeleton.SMPL_JOINT_NAMES[1:], one.limit_excess_deg, strict=True):
        if degrees > _MANY_DEGREES:
            flags.append(f"{name.replace('_', ' ')} {degrees:.0f} deg beyond its limit")
    for name, scale in zip(skeleton.SMPL_JOINT_NAMES, one.segment_scale, strict=True):
        if not 1.0 / _ODD_SCALE < scale < _ODD_SCALE:
            flags.append(f"segment {name.replace('_', ' ')} is {scale:.2f} times its usual size")
    for name, probability, angle in zip(
        modes.NAMES, one.posterior.mode_probability, one.mode_rotation_deg, strict=True
    ):
        if probability > _LIKELY:
            flags.append(f"{_ambiguity(name, float(angle))} ({100 * probability:.0f}% likely)")
    deviation = np.sqrt(np.sum(np.asarray(one.posterior.h36m_sd_mm) ** 2, axis=-1))
    for name, sd in zip(skeleton.H36M_JOINT_NAMES, deviation, strict=True):
        if sd > _VAGUE_MM:
            flags.append(f"{name.replace('_', ' ')} is known to {sd:.0f} mm only")
    return flags


def _ambiguity(name: str, rotation_deg: float) -> str:
    """Return in words what an alternative mode differs in."""
    if rotation_deg > _OTHER_WAY_DEG:
        return "may face the other way"
    if name in ("half_turn", "whole_body"):
        return "another pose fits too"
    side, joint = name.split("_")
    return f"{side} {_BONES[joint]} may point the other way in depth"


def _errors(template, observations, fit: Fit, noise: NoiseLevels, outlier: float | None) -> dict[str, np.ndarray]:
    dense, keypoint = (np.asarray(each) for each in residuals.offsets_px(template, fit.parameters, observations))
    annotated = np.asarray(px_from_crop(observations.keypoint_position, observations.box_px))
    scale, rest_px = agreement.rescaled(annotated + keypoint, annotated, observations.keypoint_confidence)
    dense, keypoint = np.linalg.norm(dense, axis=-1), np.linalg.norm(keypoint, axis=-1)
    confidence = np.asarray(observations.point_confidence)
    side = np.asarray(observations.box_px)[:, 2]
    limit = _INLIER_SDS * np.sqrt(noise.point**2 + noise.shape**2) if outlier is None else outlier
    counted, inside = confidence > 0, dense <= limit * side[:, None] / 2.0
    part = np.asarray(template.part)[np.asarray(observations.point_face)]
    by_part = [residuals.root_mean_square(dense, confidence * np.isin(part, numbers)) for numbers in PARTS.values()]
    dense_px = residuals.root_mean_square(dense, confidence)
    keypoint_px = residuals.root_mean_square(keypoint, observations.keypoint_confidence)
    points, inliers = np.sum(counted, axis=1), np.sum(counted & inside, axis=1)
    return {
        "dense_px": dense_px,
        "dense_percent": 100.0 * dense_px / side,
        "keypoint_px": keypoint_px,
        "keypoint_percent": 100.0 * keypoint_px / side,
        "keypoint_scale": scale,
        "keypoint_rest_px": rest_px,
        "part_px": np.stack(by_part, axis=1),
        "points": points,
        "keypoints": np.sum(np.asarray(observations.keypoint_confidence) > 0, axis=1),
        "inliers": inliers,
        "inlier_share": np.where(points > 0, inliers / np.maximum(points, 1), np.nan),
    }


def _factors(inlier_share: np.ndarray, posterior: Posterior, excess_deg: np.ndarray) -> np.ndarray:
    """Return the product behind `Quality.weight`."""
    plausible = 1.0 / (1.0 + (np.max(excess_deg, axis=-1) / _FULL_ANGLE_DEG) ** 2)
    unique = 1.0 - np.max(posterior.mode_probability, axis=-1)
    return np.where(np.isnan(inlier_share), 1.0, inlier_share) * certainty(posterior) * plausible * unique


def _angle_deg(one: Float[np.ndarray, "*#k 3 3"], other: Float[np.ndarray, "*#k 3 3"]) -> Float[np.ndarray, "*k"]:
    trace = np.sum(one * other, axis=(-2, -1))
    return np.degrees(np.arccos(np.clip((trace - 1.0) / 2.0, -1.0, 1.0)))


def _number(value: SupportsFloat) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None


def _extreme(scale: np.ndarray, which) -> dict:
    joint = int(which(scale))
    return {"segment": skeleton.SMPL_JOINT_NAMES[joint], "scale": _number(scale[joint])}
