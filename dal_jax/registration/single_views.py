"""What one view leaves open, and people's statistics close: observations as the weights `pose_prior` are made for.

Depth. Without lifted depths nothing in eq. 2 tells a body that leans towards the camera from an upright one: tilt then
takes up whatever the proportions get wrong. But people turn any side to cameras, so a joint is as far from the body's
middle along the axis as it is across, and how far that is 2D poses tell. So depths that were not lifted are observed
to be those of the body's middle, with that spread. A camera that looks down by a known angle sees an upright body
tilted by it: the middle is then a line. Of lifted depths, whose error is mostly one turn of the whole body, three
quarters of the lean out of that line are taken back then, and the bends stay.

Key points. Beside dense points they pull weakly, because their places differ more from person to person than those of
the skin. Alone they are all there is.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from dal_jax.body import skeleton
from dal_jax.observations import residuals
from dal_jax.observations.observation import Observation, with_depth

_SPREAD = {
    "hip": 0.098, "knee": 0.189, "foot": 0.238, "spine": 0.067, "thorax": 0.071, "neck": 0.108, "head": 0.161,
    "shoulder": 0.187, "elbow": 0.264, "wrist": 0.279,
}  # fmt: skip
"""Two thirds of people's joints lie this near to the middle of their joints, across, in half sides of their crop.

Of 19,919 poses of MPII (2D alone), left and right together.
"""
_SAME = {"ankle": "foot", "upper_neck": "neck", "neck_nose": "neck", "head_top": "head"}

_WEIGHT, _WEIGHT_ALONE = 1e-2, 1e-3
"""Of squared deviations of such depths against key points', with dense points and without. Note: our choice. Of 128
synthetic training people with dense points the joint error is 55.0, 55.6 and 65.3 mm with 1e-3, 1e-2 and 3e-2, of key
points alone 81 and 99 with the first two (scale-matched). Three people of a photograph, whom clothes make lean, lean by
16, 17 and 21 degrees with 1e-3, by 15, 14 and 11 with 1e-2, at a lower error of points that were left out."""

_LEAN = 0.75
"""How much of the lean of lifted depths is taken back where the pitch is known. Note: our choice, by 256 synthetic
training people whom cameras look down at by 5 to 25 degrees: with depths drawn to the line joint by joint the error was
52.0 mm scale-matched, so it is 46.8 (shipped lifter; 46 to 50 with 0.5 to 1); with one of MPII's 65.9 became 53.5."""

_POINT_NOISE = 0.01  # crop units, x or y: what w_joint 0.1 against w_dense 1000 takes points to be off by
_UNKNOWNS = 100
_SHARPEST = 30.0
"""How much harder exact points may pull. Note: our choice, see docs/results.md."""

_FLAT = 1e-6  # key points on one line tell no slope across it

_ALONE = np.float32(10.0 / 3.0)
"""Note: our choice, on the same people with simulated depths, whose weight it leaves alone: 77 mm become 67."""


def complete(observations: Observation, pitch_deg: float | Float[np.ndarray, "people"] | None = None) -> Observation:
    """Return stacked observations with depths of the body's middle where none were lifted, and key points trusted.

    A person for whom depths were lifted keeps these, unless the pitch is known. Key points of people without dense
    points pull harder, their depths do not.

    Args:
      observations: of people.
      pitch_deg: how far the camera looks down, degrees, one or one a person; None: not known, and taken for 0.
    """
    lifted = np.any(np.asarray(observations.depth_confidence) > 0, axis=-1, keepdims=True)
    spread = np.array([_spread_of(name) for name in skeleton.KEYPOINT_SETS[observations.keypoint_set]], np.float32)
    alone = ~np.any(np.asarray(observations.point_confidence) > 0, axis=-1, keepdims=True)
    weight = np.where(alone, _WEIGHT_ALONE, _WEIGHT) / spread**2
    keypoint = np.asarray(observations.keypoint_confidence)
    depth, confidence = np.asarray(observations.depth), np.asarray(observations.depth_confidence)
    if pitch_deg is None:
        depth, confidence = np.where(lifted, depth, 0.0), np.where(lifted, confidence, weight)
    else:
        upright = _upright(observations, np.broadcast_to(np.asarray(pitch_deg, np.float32), len(depth)))
        depth = np.where(lifted, _less_lean(observations, upright), upright)
        confidence = np.where(lifted, confidence, weight)
    observations = dataclasses.replace(observations, keypoint_confidence=np.where(alone, _ALONE * keypoint, keypoint))
    return with_depth(observations, depth, confidence)


def sharpened(observations: Observation, missed: Float[np.ndarray, "people points"]) -> Observation:
    """Return stacked observations whose dense points pull as hard as they are exact.

    The weights are made for points that are off by about a hundredth of the half crop, as annotators' are. Points that
    a fit misses by less say more: their noise is what is left of them after it, against which the priors pull less.
    Those that it misses by more pull as before: that is the body's fault as well as theirs.

    Args:
      observations: of people, whose dense points have confidences of 0 or any one other a person.
      missed: how far a fit's points lie from them, crop units.
    """
    confidence = np.asarray(observations.point_confidence)
    seen = confidence > 0
    free = np.maximum(2 * seen.sum(axis=1) - _UNKNOWNS, 0)  # of points as few as the unknowns nothing is left
    left = np.sum(np.where(seen, missed, 0.0) ** 2, axis=1)
    gain = np.clip(free * _POINT_NOISE**2 / np.maximum(left, 1e-12), 1.0, _SHARPEST)
    return dataclasses.replace(observations, point_confidence=np.where(seen, gain[:, None], 0.0).astype(np.float32))


def _upright(observations: Observation, pitch_deg: Float[np.ndarray, "people"]) -> Float[np.ndarray, "people k"]:
    """Return the depths of an upright body's key points, y tan(pitch), y from the middle of the crop, crop units.

    A key point that was not seen counts as at the height of the middle.
    """
    seen = np.asarray(observations.keypoint_confidence) > 0
    return (
        np.where(seen, np.asarray(observations.keypoint_position)[..., 1], 0.0) * np.tan(np.radians(pitch_deg))[:, None]
    )


def _less_lean(observations: Observation, upright: Float[np.ndarray, "people k"]) -> Float[np.ndarray, "people k"]:
    """Return lifted depths less most of their slope along y against upright ones, by least squares over x and y."""
    depth = np.asarray(observations.depth)
    mass = np.asarray(observations.depth_confidence, np.float64)
    mass = np.where(np.asarray(observations.keypoint_confidence) > 0, mass, 0.0)
    places = [*np.moveaxis(np.asarray(observations.keypoint_position, np.float64), -1, 0), depth - upright]
    x, y, apart = (np.asarray(residuals.relative_depth(each.T, mass.T)).T for each in places)
    root = np.sqrt(mass)
    inverse = np.linalg.pinv(root[..., None] * np.stack([x, y], axis=-1), rcond=_FLAT)
    slope = np.einsum("pk,pk->p", inverse[:, 1], root * apart)
    return depth - _LEAN * slope[:, None] * y


def _spread_of(name: str) -> float:
    """Return the spread of a key point; infinite for eyes, ears, toes and heels, about which nothing is said."""
    plain = name.removeprefix("left_").removeprefix("right_")
    return _SPREAD.get(_SAME.get(plain, plain), np.inf)
