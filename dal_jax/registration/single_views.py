"""What one view leaves open, and people's statistics close: observations as the weights `pose_prior` are made for.

Depth. Without lifted depths nothing in eq. 2 tells a body that leans towards the camera from an upright one: tilt then
takes up whatever the proportions get wrong. But people turn any side to cameras, so a joint is as far from the body's
middle along the axis as it is across, and how far that is 2D poses tell. So depths that were not lifted are observed
to be those of the body's middle, with that spread.

Key points. Beside dense points they pull weakly, because their places differ more from person to person than those of
the skin. Alone they are all there is.
"""

import dataclasses

import numpy as np

from dal_jax.body import skeleton
from dal_jax.observations.observation import Observation, with_depth

_SPREAD = {
    "hip": 0.098, "knee": 0.189, "foot": 0.238, "spine": 0.067, "thorax": 0.071, "neck": 0.108, "head": 0.161,
    "shoulder": 0.187, "elbow": 0.264, "wrist": 0.279,
}  # fmt: skip
"""Two thirds of people's joints lie this near to the middle of their joints, across, in half sides of their crop.

Of 19,919 poses of MPII (2D alone), left and right together.
"""
_SAME = {"ankle": "foot", "upper_neck": "neck", "neck_nose": "neck", "head_top": "head"}

_WEIGHT = 1e-3
"""Of squared deviations of such depths against key points'. Note: our choice. With it, and the camera known, the joint
error of 128 synthetic training people falls from 54 to 53 mm, of key points alone from 93 to 81 (scale-matched)."""

_ALONE = np.float32(10.0 / 3.0)
"""Note: our choice, on the same people with simulated depths, whose weight it leaves alone: 77 mm become 67."""


def complete(observations: Observation) -> Observation:
    """Return stacked observations with depths of the body's middle where none were lifted, and key points trusted.

    A person for whom depths were lifted keeps these. Key points of people without dense points pull harder, their
    depths do not.
    """
    lifted = np.any(np.asarray(observations.depth_confidence) > 0, axis=-1, keepdims=True)
    spread = np.array([_spread_of(name) for name in skeleton.KEYPOINT_SETS[observations.keypoint_set]], np.float32)
    confidence = np.where(lifted, np.asarray(observations.depth_confidence), _WEIGHT / spread**2)
    alone = ~np.any(np.asarray(observations.point_confidence) > 0, axis=-1, keepdims=True)
    keypoint = np.asarray(observations.keypoint_confidence)
    observations = dataclasses.replace(observations, keypoint_confidence=np.where(alone, _ALONE * keypoint, keypoint))
    return with_depth(observations, np.where(lifted, np.asarray(observations.depth), 0.0), confidence)


def _spread_of(name: str) -> float:
    """Return the spread of a key point; infinite for eyes, ears, toes and heels, about which nothing is said."""
    plain = name.removeprefix("left_").removeprefix("right_")
    return _SPREAD.get(_SAME.get(plain, plain), np.inf)
