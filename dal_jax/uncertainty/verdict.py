"""What a report says first: a verdict on the fit, and warnings in plain words, the gravest first.

    good        joints are expected within 65 mm, and nothing is in doubt
    usable      within 140 mm, or a doubt that is not grave
    doubtful    something grave, or farther
    fragment    less than a third of the body was seen: the rest is the priors' guess, and no mesh of it is exported

Expected errors are the posterior's deviations (`posterior`), root mean square over joints.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Array, Float

from dal_jax.body import skeleton
from dal_jax.uncertainty import modes

if TYPE_CHECKING:
    from dal_jax.uncertainty.quality import Quality

Verdict = Literal["good", "usable", "doubtful", "fragment"]
Severity = Literal["grave", "doubt", "note"]
SEVERITIES: tuple[Severity, ...] = ("grave", "doubt", "note")

FRAGMENT_COVERAGE = 1 / 3
"""Share of the body's surface, part by part, that must have been seen."""
GOOD_MM, USABLE_MM = 65.0, 140.0
"""Note: our choice, by the true errors of synthetic training people, see docs/uncertainty.md."""

_FEW_POINTS, _FEW_INLIERS, _FAR_SHARE, _LARGE_PERCENT = 20, 0.8, 0.2, 4.0
_FAR_PERCENT = 10.0  # of the crop. Note: ours; two real people's key points, marked well, are missed by 3.4 and 6.6
_MANY_DEGREES, _ODD_SCALE, _IMPOSSIBLE_SCALE = 10.0, 1.25, 1.4
_LIKELY, _AS_LIKELY, _OTHER_WAY_DEG, _VAGUE_MM = 0.1, 0.3, 90.0, 150.0
_BONES = {"hip": "thigh", "knee": "lower leg", "shoulder": "upper arm", "elbow": "forearm"}
_SEGMENTS = {
    "hip": "thigh", "knee": "lower leg", "ankle": "foot", "foot": "toes", "shoulder": "upper arm", "elbow": "forearm",
    "wrist": "hand", "hand": "fingers", "collar": "shoulder blade", "spine1": "waist", "spine2": "midriff",
    "spine3": "chest",
}  # fmt: skip


def verdict(one: "Quality") -> Verdict:
    """Return the verdict on one person's (row of a) report."""
    if one.coverage < FRAGMENT_COVERAGE:
        return "fragment"
    severities = {severity for severity, _ in warnings(one)}
    expected = float(one.expected_error_mm)
    if "grave" in severities or not expected <= USABLE_MM:
        return "doubtful"
    return "usable" if "doubt" in severities or expected > GOOD_MM else "good"


def flags(one: "Quality") -> list[str]:
    """Return warnings in plain words on one person's report, the gravest first."""
    return [text for _, text in sorted(warnings(one), key=lambda each: SEVERITIES.index(each[0]))]


def ambiguity(name: str, rotation_deg: float) -> str:
    """Return in words what an alternative mode, a name of `modes.NAMES`, differs in."""
    if rotation_deg > _OTHER_WAY_DEG:
        return "may face the other way"
    if name in ("half_turn", "whole_body"):
        return "another pose fits too"
    side, joint = name.split("_")
    return f"{side} {_BONES[joint]} may point the other way in depth"


def warnings(one: "Quality") -> Iterator[tuple[Severity, str]]:
    """Yield what is wrong with one person's fit, and how grave it is."""
    yield from _observation(one)
    yield from _body(one)
    for name, probability, angle in zip(
        modes.NAMES, one.posterior.mode_probability, one.mode_rotation_deg, strict=True
    ):
        if probability > _LIKELY:
            severity = "doubt" if probability > _AS_LIKELY else "note"
            yield severity, f"{ambiguity(name, float(angle))} ({100 * probability:.0f}% likely)"
    deviation = np.sqrt(np.sum(np.asarray(one.posterior.h36m_sd_mm) ** 2, axis=-1))
    for name, sd in zip(skeleton.H36M_JOINT_NAMES, deviation, strict=True):
        if sd > _VAGUE_MM:
            yield "note", f"{name.replace('_', ' ')} is known to {sd:.0f} mm only"


def _observation(one: "Quality") -> Iterator[tuple[Severity, str]]:
    """Yield what is wrong between the fit and what was observed."""
    if one.coverage < FRAGMENT_COVERAGE:
        yield "grave", f"is a fragment: {100 * one.coverage:.0f}% of the body was seen, the rest is a guess"
    if one.far_points > _FAR_SHARE * one.points:
        yield (
            "grave",
            f"{one.far_points} of {one.points} points lie on the side that the camera cannot see: is the annotation of "
            "another chart (--chart), or mirrored, or does the person face the other way?",
        )
    if one.inlier_share < _FEW_INLIERS:
        yield "grave", f"{one.points - one.inliers} of {one.points} points lie too far from the body"
    if one.dense_percent > _LARGE_PERCENT:
        yield "grave", f"points are missed by {one.dense_percent:.1f}% of the crop: another chart, or two people?"
    contradicted = []
    if one.points and one.keypoint_percent > 100.0 * _OFF:
        contradicted = contradictions(float(one.keypoint_px), one.keypoint_scale, float(one.keypoint_rest_px))
        for text in contradicted:
            yield "grave", text
    if not contradicted and one.keypoint_percent > _FAR_PERCENT:
        yield (
            "grave",
            f"key points are missed by {one.keypoint_percent:.0f}% of the crop: wrong ones, or another person's?",
        )
    if not one.points and one.keypoints:
        depth = ", depth theirs or a lifter's" if one.views == 1 else ""
        yield "note", f"has key points alone: shape is the priors' guess{depth}"
    elif one.points < _FEW_POINTS:
        yield "doubt", f"leans on {one.points} points and {one.keypoints} key points"
    if not one.converged:
        yield "note", "had not converged when its steps were used up"


def _body(one: "Quality") -> Iterator[tuple[Severity, str]]:
    """Yield what no body is like."""
    if abs(one.determinant - 1.0) > 0.01:
        yield "grave", f"rotation is not proper (determinant {one.determinant:.2f})"
    for name, degrees in zip(skeleton.SMPL_JOINT_NAMES[1:], one.limit_excess_deg, strict=True):
        if degrees > _MANY_DEGREES:
            yield "doubt", f"{name.replace('_', ' ')} {degrees:.0f} deg beyond its limit"
    for name, scale in zip(skeleton.SMPL_JOINT_NAMES, one.segment_scale, strict=True):
        odd = math.exp(abs(math.log(scale))) if scale > 0 else math.inf
        if odd > _ODD_SCALE:
            side, _, joint = name.rpartition("_")
            text = f"{side} {_SEGMENTS.get(joint, joint)}".strip()
            yield "grave" if odd > _IMPOSSIBLE_SCALE else "doubt", f"{text} is {scale:.2f} times its usual size"


# --- Whether key points contradict the dense points ---


def rescaled(
    body: Float[np.ndarray, "people k 2"],
    annotated: Float[np.ndarray, "people k 2"],
    confidence: Float[Array | np.ndarray, "people k"],
) -> tuple[Float[np.ndarray, "people 2"], Float[np.ndarray, "people"]]:
    """Return the scales along x and y that, with a shift, take a body's key points nearest to the annotated ones.

    Returns:
      The scales, and the root mean square distance that is left, in the unit of the places; NaN where fewer than
      six key points are known.
    """
    known = np.asarray(confidence)[..., None] > 0
    count = np.sum(known, axis=1)
    body, annotated = (
        np.where(known, each - np.sum(each * known, axis=1, keepdims=True) / np.maximum(count, 1)[:, None], 0.0)
        for each in (body, annotated)
    )
    scale = np.sum(body * annotated, axis=1) / np.maximum(np.sum(body**2, axis=1), 1e-12)
    left = np.sum((annotated - scale[:, None] * body) ** 2, axis=(1, 2)) / np.maximum(count[:, 0], 1)
    few = count < _FEWEST_RESCALED
    return np.where(few, np.nan, scale), np.where(few[:, 0], np.nan, np.sqrt(left))


_FEWEST_RESCALED = 6  # key points below which two scales and a shift would explain most of any difference
_OFF = 0.025  # distance of key points from the body, over the crop's side, below which nothing is said of it
_EXPLAINED = 0.4  # what may be left of it. Note: ours; two real people's 0.034 and 0.066 leave 0.9 and 0.7 of it


def contradictions(off_px: float, scale: Float[np.ndarray, "2"], rest_px: float) -> list[str]:
    """Return in words that key points contradict the body of a person's dense points, if another scale would mend it.

    Args:
      off_px: root mean square distance of the key points from the body, px.
      scale, rest_px: see `rescaled`.
    """
    if not rest_px < _EXPLAINED * off_px:
        return []
    off, (across, down) = f"{off_px:.1f} px off, {rest_px:.1f} px otherwise", scale
    if across < 0:
        return [f"key points are the mirror image of the dense points: left and right may be swapped ({off})"]
    what = f"key points are {across:.2f} x {down:.2f} as large, or shifted ({off})"
    return [f"dense points, key points and box disagree in scale or place: {what}"]
