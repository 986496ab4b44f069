"""A report on every fit: its errors, how plausible it is, what else it could be, and how certain it is."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, SupportsFloat

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from dal_jax.body import skeleton
from dal_jax.body.template import Template
from dal_jax.observations import residuals
from dal_jax.observations.observation import Observation, hold_out, px_from_crop
from dal_jax.registration import register
from dal_jax.registration.energy import Objective
from dal_jax.registration.register import Fit, RegistrationConfig
from dal_jax.runtime import programs, struct
from dal_jax.uncertainty import modes, noise as noise_lib, verdict
from dal_jax.uncertainty.noise import NoiseLevels
from dal_jax.uncertainty.posterior import Posterior, SizePrior, certainty, expected_error_mm, laplace_posterior
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
_USUAL_PERCENT = 1.0  # of the crop: root mean square misfit of key points of synthetic training people, in the median
_SEEN_POINTS = 2  # with which a part counts as seen


@struct.dataclass
class Quality:
    """Reports on fits (leading axis: people); NaN where nothing was observed.

    dense_px, keypoint_px: root mean square distance in the photograph; *_percent: of the crop's side.
    keypoint_scale, keypoint_rest_px: of key points against the body (`verdict.rescaled`).
    part_px: of dense points, by PARTS. points, keypoints: how many there are.
    far_points: how many lie on the side that the camera cannot see. coverage: share of the surface in parts that were
      seen, by dense points or by both key points at the ends of a limb.
    inliers: points within 3 noise levels, or within the robust loss' scale, where the fit used one.
    determinant: of the fit's rotation. limit_excess_deg: largest of a joint's components beyond anatomical limits.
    posterior: standard deviations of joints, and how likely the modes of `modes.NAMES` are.
    expected_error_mm: root mean square over joints of the posterior's deviations, times sqrt((1 + m^2) / 2) of people
      with key points, which are missed by m times what is usual: what contradicts its observation is less sure.
    mode_rotation_deg: angle between the pelvis of a mode and that of the fit.
    views: how many images saw the person at that moment.
    weight: in [0, 1], for training: share of inliers x `certainty` of the expected error x (1 - p) x
      1 / (1 + (a / 20 deg)^2); p the largest probability of a mode, a the largest excess of an angle. Without dense
      points the inlier factor is 1. 0 where nothing was observed or the fit is not finite.
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
    far_points: Int[np.ndarray, "*people"]
    coverage: Float[np.ndarray, "*people"]
    inliers: Int[np.ndarray, "*people"]
    inlier_share: Float[np.ndarray, "*people"]
    determinant: Float[np.ndarray, "*people"]
    segment_scale: Float[np.ndarray, "*people 24"]
    limit_excess_deg: Float[np.ndarray, "*people 23"]
    posterior: Posterior
    expected_error_mm: Float[np.ndarray, "*people"]
    mode_rotation_deg: Float[np.ndarray, "*people modes"]
    converged: Bool[np.ndarray, "*people"]
    weight: Float[np.ndarray, "*people"]
    views: Int[np.ndarray, "*people"]


def assess(
    template: Template, observations: Observation, fit: Fit, objective: Objective, noise: NoiseLevels | None = None
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
    turned = _angle_deg(np.asarray(fit.parameters.rotation)[:, None], np.asarray(bodies.rotation))
    return _quality(fit, errors, posterior, turned, np.ones_like(errors["points"]))


def assess_moments(
    template: Template,
    people: tuple[Observation, Fit],
    moments: tuple[Observation, Fit],
    moment: Int[np.ndarray, "people"],
    objective: Objective,
) -> Quality:
    """Report on people whom several cameras saw, a report each: misfits of their image, the posterior of their moment.

    Its deviations are along the axes that the views of a moment share, those of the first camera that sees it. Other
    modes are not looked for: they are other readings of one image.

    Args:
      template: the body.
      people: what each image says, and the body as its camera sees it.
      moments: observations with `views`, and their fits.
      moment: of each of the people.
      objective: of the fits.
    """
    seen, found = moments
    used = Precisions.of_objective(objective)
    noise = noise_lib.estimate(template, seen, found.parameters, used, noise_lib.initial())
    size = SizePrior(spread=0.0, camera_distance_mm=np.inf)
    posterior = laplace_posterior(template, seen, found.parameters, noise, used, size=size)
    posterior = jax.tree.map(lambda leaf: leaf[moment], posterior)
    alone = {name: np.repeat(getattr(posterior, name), len(modes.NAMES), axis=1) for name in _OF_MODES}
    errors = _errors(template, *people, noise, objective.weights.outlier)
    shown = np.zeros(len(seen.point_face))
    np.maximum.at(shown, moment, errors["coverage"])
    turned = np.zeros((len(moment), len(modes.NAMES)))
    errors, posterior = errors | {"coverage": shown[moment]}, dataclasses.replace(posterior, **alone)
    return _quality(people[1], errors, posterior, turned, np.bincount(moment)[moment])


_OF_MODES = ("mode_gap", "mode_probability", "mode_distance_mm")


def _quality(
    fit: Fit, errors: dict[str, np.ndarray], posterior: Posterior, turned: np.ndarray, views: np.ndarray
) -> Quality:
    expected = expected_error_mm(posterior) * _misfit(errors["keypoint_percent"])
    excess = np.degrees(np.max(np.abs(np.asarray(_excess(np.asarray(fit.parameters.pose)))), axis=-1))
    observed = errors["points"] + errors["keypoints"] > 0
    return Quality(
        **errors,
        determinant=np.linalg.det(np.asarray(fit.parameters.rotation, np.float64)),
        segment_scale=np.asarray(fit.parameters.segment_scale),
        limit_excess_deg=excess,
        posterior=posterior,
        expected_error_mm=expected,
        mode_rotation_deg=turned,
        converged=np.asarray(fit.converged),
        views=views,
        weight=np.where(observed, np.nan_to_num(_factors(errors["inlier_share"], expected, posterior, excess)), 0.0),
    )


def describe(quality: Quality, row: int) -> dict[str, Any]:
    """Return one person's report, fit for JSON: a verdict, `flags` in plain words, numbers (None: there is none)."""
    one: Quality = jax.tree.map(lambda leaf: np.asarray(leaf[row]), quality)
    parts = {name: value for name, value in zip(PARTS, one.part_px, strict=True) if np.isfinite(value)}
    excess = zip(skeleton.SMPL_JOINT_NAMES[1:], one.limit_excess_deg, strict=True)
    gap = np.asarray(one.posterior.mode_gap)
    mode = int(np.argmin(gap))
    return {
        "verdict": verdict.verdict(one),
        "flags": verdict.flags(one),
        **{name: _number(getattr(one, name)) for name in _PLAIN},
        "points": int(one.points),
        "keypoints": int(one.keypoints),
        "inliers": int(one.inliers),
        "far_points": int(one.far_points),
        "dense_error_by_part_px": {name: _number(value) for name, value in parts.items()},
        "smallest_segment_scale": _extreme(one.segment_scale, np.argmin),
        "largest_segment_scale": _extreme(one.segment_scale, np.argmax),
        "beyond_limits_deg": {name: _number(value) for name, value in excess if value > 0},
        "mode": {
            "kind": verdict.ambiguity(modes.NAMES[mode], float(one.mode_rotation_deg[mode])),
            "energy_gap": _number(gap[mode]),
            "distance_mm": _number(one.posterior.mode_distance_mm[mode]),
            "probability": _number(one.posterior.mode_probability[mode]),
        } if np.isfinite(gap[mode]) else None,
        "joint_sd_mm": {
            name: [_number(value) for value in axes]
            for name, axes in zip(skeleton.H36M_JOINT_NAMES, one.posterior.h36m_sd_mm, strict=True)
        },
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
    found = []
    for rows in modes.blocks(len(observations.point_face)):
        block = jax.tree.map(lambda leaf, rows=rows: np.asarray(leaf)[rows], observations)
        kept, left_out = map(np.concatenate, zip(*(hold_out(block, fold, folds) for fold in range(folds)), strict=True))
        every = jax.tree.map(lambda leaf: np.concatenate([leaf] * folds), block)
        report = (lambda done, before=folds * rows.start: progress(before + done)) if progress else None
        fit = register.register(
            template, dataclasses.replace(every, point_confidence=kept), config, objective, progress=report
        )
        dense, _ = residuals.errors_px(template, fit.parameters, every)
        distance = np.where(left_out > 0, dense, 0.0).reshape(folds, *block.point_confidence.shape).sum(axis=0)
        found.append(residuals.root_mean_square(distance, block.point_confidence))
    return np.concatenate(found)


_PLAIN = (
    "weight", "expected_error_mm", "coverage", "dense_px", "dense_percent", "keypoint_px", "keypoint_percent",
    "inlier_share", "determinant",
)  # fmt: skip


_excess = programs.kept(skeleton.limit_excess)


def _errors(template, observations, fit: Fit, noise: NoiseLevels, outlier: float | None) -> dict[str, np.ndarray]:
    dense, keypoint = (np.asarray(each) for each in residuals.offsets_px(template, fit.parameters, observations))
    annotated = np.asarray(px_from_crop(observations.keypoint_position, observations.box_px))
    scale, rest_px = verdict.rescaled(annotated + keypoint, annotated, observations.keypoint_confidence)
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
        "far_points": residuals.far_points(template, fit.parameters, observations),
        "coverage": _coverage(template, observations, part),
        "inliers": inliers,
        "inlier_share": np.where(points > 0, inliers / np.maximum(points, 1), np.nan),
    }


_SHOWN_BY = {
    "torso": ("shoulder", "hip"), "hand": ("wrist",), "foot": ("ankle",), "upper_leg": ("hip", "knee"),
    "lower_leg": ("knee", "ankle"), "upper_arm": ("shoulder", "elbow"), "lower_arm": ("elbow", "wrist"),
    "head": ("nose",),
}  # fmt: skip
"""Key points that show a part; of the torso, of either side. Human3.6M's ankles are called feet, its nose neck_nose."""
_H36M_NAMES = {"ankle": "foot", "nose": "neck_nose"}


def _coverage(template, observations: Observation, part: Int[np.ndarray, "people points"]) -> np.ndarray:
    """Return the share of the template's surface in the parts that were seen.

    Of the torso, dense points show chest, midriff and waist apart: shoulders below a helmet are no trunk.
    """
    corners = np.asarray(template.vertices, np.float64)[np.asarray(template.faces)]
    of_face = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1)
    area = np.array([of_face[np.isin(np.asarray(template.part), numbers)].sum() for numbers in PARTS.values()])
    used = np.asarray(observations.point_confidence) > 0
    points = np.stack([np.sum(used & np.isin(part, numbers), axis=1) for numbers in PARTS.values()], axis=1)
    names = skeleton.KEYPOINT_SETS[observations.keypoint_set]
    marked = np.asarray(observations.keypoint_confidence) > 0

    def known(joint: str, side: str) -> np.ndarray:
        joint = _H36M_NAMES.get(joint, joint) if observations.keypoint_set == "h36m" else joint
        rows = [row for row, name in enumerate(names) if name.endswith(joint) and name.startswith(side)]
        return np.asarray(marked[:, rows].any(axis=1))

    shown = []
    for name in PARTS:
        side, _, limb = name.partition("_") if "_" in name else ("", "", name)
        shown.append(np.all([known(joint, side) for joint in _SHOWN_BY[limb]], axis=0))
    shares = ((points >= _SEEN_POINTS) | np.stack(shown, axis=1)).astype(float)
    segment = np.asarray(template.skin_weight)[np.asarray(template.faces)].sum(axis=1).argmax(axis=1)
    height = np.select([np.isin(segment, _WAIST), segment == _MIDRIFF], [0, 1], 2)
    of_point, torso = height[np.asarray(observations.point_face)], np.isin(np.asarray(template.part), PARTS["torso"])
    in_torso = used & np.isin(part, PARTS["torso"])
    seen = np.stack([np.sum(in_torso & (of_point == level), axis=1) for level in range(3)], axis=1) >= _SEEN_POINTS
    of_height = np.array([of_face[torso & (height == level)].sum() for level in range(3)])
    row = list(PARTS).index("torso")
    shares[:, row] = np.where(shown[row], 1.0, seen @ of_height / np.maximum(of_height.sum(), 1e-12))
    return shares @ area / area.sum()


_WAIST = [skeleton.SMPL_JOINT_NAMES.index(name) for name in ("pelvis", "left_hip", "right_hip", "spine1")]
_MIDRIFF = skeleton.SMPL_JOINT_NAMES.index("spine2")


def _misfit(keypoint_percent: np.ndarray) -> np.ndarray:
    """Return by how much joints are less certain of people whose key points are missed by so many % of the crop."""
    usual = keypoint_percent / _USUAL_PERCENT
    return np.where(np.isnan(usual), 1.0, np.sqrt((1.0 + usual**2) / 2.0))


def _factors(
    inlier_share: np.ndarray, expected_mm: np.ndarray, posterior: Posterior, excess_deg: np.ndarray
) -> np.ndarray:
    """Return the product behind `Quality.weight`."""
    plausible = 1.0 / (1.0 + (np.max(excess_deg, axis=-1) / _FULL_ANGLE_DEG) ** 2)
    unique = 1.0 - np.max(posterior.mode_probability, axis=-1)
    return np.where(np.isnan(inlier_share), 1.0, inlier_share) * certainty(expected_mm) * plausible * unique


def _angle_deg(one: Float[np.ndarray, "*#k 3 3"], other: Float[np.ndarray, "*#k 3 3"]) -> Float[np.ndarray, "*k"]:
    trace = np.sum(one * other, axis=(-2, -1))
    return np.degrees(np.arccos(np.clip((trace - 1.0) / 2.0, -1.0, 1.0)))


def _number(value: SupportsFloat) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None


def _extreme(scale: np.ndarray, which) -> dict:
    joint = int(which(scale))
    return {"segment": skeleton.SMPL_JOINT_NAMES[joint], "scale": _number(scale[joint])}
