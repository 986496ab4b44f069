"""What a fit is worth: how well it explains the annotation, how natural it is, what else it could be, how sure."""

import flax.struct
import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dal_jax.body import joint_limits, skeleton
from dal_jax.body.template import Template
from dal_jax.observations import residuals
from dal_jax.observations.observation import Observation
from dal_jax.registration.energy import Objective
from dal_jax.registration.register import Fit
from dal_jax.uncertainty import modes, noise as noise_lib, posterior
from dal_jax.uncertainty.noise import NoiseLevels
from dal_jax.uncertainty.posterior import Posterior
from dal_jax.uncertainty.sandwich import Precisions

PARTS = {
    "torso": (1, 2), "right_hand": (3,), "left_hand": (4,), "left_foot": (5,), "right_foot": (6,),
    "right_upper_leg": (7, 9), "left_upper_leg": (8, 10), "right_lower_leg": (11, 13), "left_lower_leg": (12, 14),
    "left_upper_arm": (15, 17), "right_upper_arm": (16, 18), "left_lower_arm": (19, 21), "right_lower_arm": (20, 22),
    "head": (23, 24),
}  # fmt: skip
"""DensePose's 24 parts, front and back together."""

_INLIER_SDS = 3.0  # of one coordinate: 1% of good points lie farther (Rayleigh)
_FULL_CERTAINTY_MM, _FULL_ANGLE_DEG = 100.0, 20.0


@flax.struct.dataclass
class Quality:
    """Reports on fits (leading axis: people); NaN where nothing was observed.

    dense_px, keypoint_px: root mean square distance in the photograph; *_percent: of the crop's side.
    part_px: of dense points, by PARTS. points, keypoints: how many there are.
    inlier: points within 3 noise levels, or within the robust loss' scale, where the fit used one.
    determinant: of the fit's rotation. limit_excess_deg: largest of a joint's components beyond anatomical limits.
    rival_gap: energy of `rivals.NAMES` above the fit, in noise units (twice the log odds); inf where a rival is
      no other pose. rival_distance_mm: root mean square over joints. rival_probability: against the fit alone.
    rival_turn_deg: how far the pelvis is turned there.
    h36m_sd_mm, smpl_sd_mm: posterior standard deviation along x, y, z, relative to the pelvis.
    weight: in [0, 1], for training: share of inliers x 1 / (1 + (d / 100 mm)^2) x (1 - p) x 1 / (1 + (a / 20 deg)^2);
      d root mean square over joints of their 3D deviations, p the largest probability of a rival, a the largest excess
      of an angle. 0 where nothing was observed or the fit is not finite.
    """

    dense_px: Float[Array, "people"]
    dense_percent: Float[Array, "people"]
    keypoint_px: Float[Array, "people"]
    keypoint_percent: Float[Array, "people"]
    part_px: Float[Array, "people 14"]
    points: Int[Array, "people"]
    keypoints: Int[Array, "people"]
    inliers: Int[Array, "people"]
    inlier_share: Float[Array, "people"]
    determinant: Float[Array, "people"]
    segment_scale: Float[Array, "people 24"]
    limit_excess_deg: Float[Array, "people 23"]
    rival_gap: Float[Array, "people rivals"]
    rival_distance_mm: Float[Array, "people rivals"]
    rival_probability: Float[Array, "people rivals"]
    rival_turn_deg: Float[Array, "people rivals"]
    h36m_sd_mm: Float[Array, "people 17 3"]
    smpl_sd_mm: Float[Array, "people 24 3"]
    converged: Bool[Array, "people"]
    weight: Float[Array, "people"]


def assess(
    template: Template,
    observations: Observation,
    fit: Fit,
    noise: NoiseLevels,
    objective: Objective | None = None,
) -> Quality:
    """Report on fits; about 5 ms a person, most of it for posteriors and rivals.

    Args:
      observations: as annotated and lifted, not as `noise.trusted`.
      objective: of the fit (the last stage's). Left out: `noise.objective` on what `noise.trusted` returns.
    """
    fitted_to = noise_lib.reweighted(observations, noise) if objective is None else observations
    used = noise_lib.precisions(noise) if objective is None else Precisions.of_objective(objective)
    eq2 = noise_lib.objective(noise) if objective is None else objective
    seen = noise_lib.robust_weights(template, observations, fit.parameters, eq2.weights.outlier)
    others = modes.find(template, fitted_to, fit.parameters, eq2)
    sure = posterior.laplace_posterior(template, seen, fit.parameters, noise, used, others)
    numbers = _errors(template, observations, fit, noise, eq2.weights.outlier)
    excess = np.degrees(np.max(np.abs(np.asarray(joint_limits.excess(np.asarray(fit.parameters.pose)))), axis=-1))
    factors = _factors(numbers["inlier_share"], sure, excess)
    return Quality(
        **numbers,
        determinant=np.linalg.det(np.asarray(fit.parameters.rotation, np.float64)),
        segment_scale=np.asarray(fit.parameters.segment_scale),
        limit_excess_deg=excess,
        rival_gap=sure.rival_gap,
        rival_distance_mm=sure.rival_distance_mm,
        rival_probability=sure.rival_probability,
        rival_turn_deg=_turn_deg(np.asarray(fit.parameters.rotation)[:, None], others.parameters.rotation),
        h36m_sd_mm=sure.h36m_sd_mm,
        smpl_sd_mm=sure.smpl_sd_mm,
        converged=np.asarray(fit.converged),
        weight=np.where(numbers["points"] + numbers["keypoints"] > 0, np.nan_to_num(factors), 0.0),
    )


def describe(quality: Quality, row: int) -> dict:
    """Return one person's report, fit for JSON: numbers, None where there is none, and `flags` in plain words."""
    one = jax.tree.map(lambda leaf: np.asarray(leaf)[row], quality)
    parts = {name: value for name, value in zip(PARTS, one.part_px, strict=True) if np.isfinite(value)}
    excess = zip(skeleton.SMPL_JOINT_NAMES[1:], one.limit_excess_deg, strict=True)
    rival = int(np.argmin(one.rival_gap))
    found = np.isfinite(one.rival_gap[rival])
    return {
        **{name: _number(getattr(one, name)) for name in _PLAIN},
        "points": int(one.points),
        "keypoints": int(one.keypoints),
        "inliers": int(one.inliers),
        "dense_error_by_part_px": {name: _number(value) for name, value in parts.items()},
        "smallest_segment_scale": _extreme(one.segment_scale, np.argmin),
        "largest_segment_scale": _extreme(one.segment_scale, np.argmax),
        "beyond_limits_deg": {name: _number(value) for name, value in excess if value > 0},
        "rival": {
            "kind": _ambiguity(modes.NAMES[rival], one.rival_turn_deg[rival]),
            "energy_gap": _number(one.rival_gap[rival]),
            "distance_mm": _number(one.rival_distance_mm[rival]),
            "probability": _number(one.rival_probability[rival]),
        } if found else None,
        "joint_sd_mm": {
            name: [_number(value) for value in axes]
            for name, axes in zip(skeleton.H36M_JOINT_NAMES, one.h36m_sd_mm, strict=True)
        },
        "flags": _flags(one),
    }  # fmt: skip


_PLAIN = (
    "weight", "dense_px", "dense_percent", "keypoint_px", "keypoint_percent", "inlier_share", "determinant",
)  # fmt: skip
_FEW_POINTS, _FEW_INLIERS, _MANY_DEGREES, _ODD_SCALE = 20, 0.8, 10.0, 1.4
_LIKELY_RIVAL, _OTHER_WAY_DEG, _VAGUE_MM = 0.1, 90.0, 150.0
_BONES = {"hip": "thigh", "knee": "lower leg", "shoulder": "upper arm", "elbow": "forearm"}


def _flags(one: Quality) -> list[str]:
    """Return warnings in plain words, of one person's (row of a) report."""
    found = []
    if not one.converged:
        found.append("had not converged when its steps were used up")
    if abs(one.determinant - 1.0) > 0.01:
        found.append(f"rotation is not proper (determinant {one.determinant:.2f})")
    if one.points < _FEW_POINTS:
        found.append(f"leans on {one.points} points and {one.keypoints} key points")
    if one.inlier_share < _FEW_INLIERS:
        found.append(f"{one.points - one.inliers} of {one.points} points lie too far from the body")
    for name, degrees in zip(skeleton.SMPL_JOINT_NAMES[1:], one.limit_excess_deg, strict=True):
        if degrees > _MANY_DEGREES:
            found.append(f"{name.replace('_', ' ')} {degrees:.0f} deg beyond its limit")
    for name, scale in zip(skeleton.SMPL_JOINT_NAMES, one.segment_scale, strict=True):
        if not 1.0 / _ODD_SCALE < scale < _ODD_SCALE:
            found.append(f"segment {name.replace('_', ' ')} is {scale:.2f} times its usual size")
    for name, probability, turn in zip(modes.NAMES, one.rival_probability, one.rival_turn_deg, strict=True):
        if probability > _LIKELY_RIVAL:
            found.append(f"{_ambiguity(name, turn)} ({100 * probability:.0f}% likely)")
    deviation = np.sqrt(np.sum(one.h36m_sd_mm**2, axis=-1))
    for name, sd in zip(skeleton.H36M_JOINT_NAMES, deviation, strict=True):
        if sd > _VAGUE_MM:
            found.append(f"{name.replace('_', ' ')} is known to {sd:.0f} mm only")
    return found


def _ambiguity(name: str, turn_deg: float) -> str:
    """Say what the pose is that a flipped start led to."""
    if turn_deg > _OTHER_WAY_DEG:
        return "may face the other way"
    if name in ("half_turn", "whole_body"):
        return "another pose fits too"
    side, joint = name.split("_")
    return f"{side} {_BONES[joint]} may point the other way in depth"


def _errors(template, observations, fit: Fit, noise, outlier: float | None) -> dict[str, np.ndarray]:
    dense, keypoint = residuals.errors_px(template, fit.parameters, observations)
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
        "part_px": np.stack(by_part, axis=1),
        "points": points,
        "keypoints": np.sum(np.asarray(observations.keypoint_confidence) > 0, axis=1),
        "inliers": inliers,
        "inlier_share": np.where(points > 0, inliers / np.maximum(points, 1), np.nan),
    }


def _factors(inlier_share: np.ndarray, sure: Posterior, excess_deg: np.ndarray) -> np.ndarray:
    """Return the product behind `Quality.weight`; who has key points alone loses nothing for inliers."""
    deviation = np.sqrt(np.mean(np.sum(sure.h36m_sd_mm**2, axis=-1), axis=-1))
    certain = 1.0 / (1.0 + (deviation / _FULL_CERTAINTY_MM) ** 2)
    natural = 1.0 / (1.0 + (np.max(excess_deg, axis=-1) / _FULL_ANGLE_DEG) ** 2)
    sole = 1.0 - np.max(sure.rival_probability, axis=-1)
    return np.where(np.isnan(inlier_share), 1.0, inlier_share) * certain * natural * sole


def _turn_deg(one: Float[np.ndarray, "*k 3 3"], other: Float[np.ndarray, "*k 3 3"]) -> Float[np.ndarray, "*k"]:
    trace = np.sum(one * np.asarray(other), axis=(-2, -1))
    return np.degrees(np.arccos(np.clip((trace - 1.0) / 2.0, -1.0, 1.0)))


def _number(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _extreme(scale: np.ndarray, which) -> dict:
    joint = int(which(scale))
    return {"segment": skeleton.SMPL_JOINT_NAMES[joint], "scale": _number(scale[joint])}
