"""Sample weights: how much each fit counts in training, in [0, 1], from the annotation alone.

    residual    1 / (1 + (z / 2)^2) for dense points, and once more for key points; z how many robust standard
                deviations the logarithm of a fit's root mean square error lies above the median over people (0 below)
    posterior   that times `posterior.certainty`, 1 / (1 + (d / 100 mm)^2), d the root mean square over joints of their
                standard deviations in a Laplace posterior, whose noise levels come from all people's residuals

Errors are compared as shares of the crop and between people, so that no scale has to be known beforehand.
"""

import jax
import numpy as np
from jaxtyping import Float

from dal_jax.body.parameters import BodyParameters
from dal_jax.body.template import Template
from dal_jax.observations import residuals
from dal_jax.observations.observation import Observation
from dal_jax.registration.energy import Objective
from dal_jax.uncertainty import posterior
from dal_jax.uncertainty.noise import estimate, initial, robust_weights
from dal_jax.uncertainty.sandwich import Precisions

NAMES = ("none", "residual", "posterior")
"""none: all people count alike, as in the paper."""

_HALVED_AT = 2.0  # robust standard deviations above the median
_MAD_TO_SD = 1.4826  # of a median absolute deviation, for a normal distribution
_GOOD = 0.5
_LEAST_SPREAD = 0.1  # of log errors: rounding does not tell people apart who are fitted equally well
_CHUNK = 1024


def weigh(
    name: str,
    template: Template,
    observations: Observation,
    parameters: BodyParameters,
    objective: Objective,
) -> Float[np.ndarray, "people"]:
    """Return each person's weight in training; 0 where nothing was observed or the fit is not finite.

    Args:
      name: of NAMES; on two cores `residual` takes 0.01 ms a person, `posterior` 3 ms.
      template: the body.
      observations: as annotated and lifted; leading axis: people, host arrays.
      parameters: the fits.
      objective: of the fits.

    Raises:
      ValueError: another name.
    """
    if name not in NAMES:
        raise ValueError(f"sample_weight '{name}' is not one of {', '.join(NAMES)}")
    if name == "none":
        return np.ones(len(observations.point_face), np.float32)
    usable = _usable(observations, parameters)
    weight = _by_residual(template, observations, parameters)
    if name == "posterior":
        good = np.flatnonzero(usable & (weight >= _GOOD))
        weight = weight * _by_posterior(template, observations, parameters, objective, good)
    return np.where(usable, np.nan_to_num(weight), 0.0).astype(np.float32)


def relative(error: Float[np.ndarray, "people"]) -> Float[np.ndarray, "people"]:
    """Return 1 / (1 + (z / 2)^2) of errors against those of all people; 1 where an error is NaN (nothing observed)."""
    known = np.isfinite(error) & (error > 0)
    if not known.any():
        return np.ones_like(error)
    log_error = np.log(np.where(known, error, 1.0))
    median = np.median(log_error[known])
    spread = max(_MAD_TO_SD * np.median(np.abs(log_error[known] - median)), _LEAST_SPREAD)
    above = np.where(known, np.maximum(log_error - median, 0.0) / spread, 0.0)
    return 1.0 / (1.0 + (above / _HALVED_AT) ** 2)


def _by_residual(template, observations, parameters) -> np.ndarray:
    people = len(observations.point_face)
    size = min(_CHUNK, people)
    parts = []
    for first in range(0, people, size):
        rows = np.minimum(np.arange(first, first + size), people - 1)  # filled up: one program serves all chunks
        bodies, observed = jax.tree.map(lambda leaf, rows=rows: np.asarray(leaf)[rows], (parameters, observations))
        dense, keypoint = residuals.errors_px(template, bodies, observed)
        side = np.asarray(observed.box_px)[:, 2] / 2.0
        parts.append((
            residuals.root_mean_square(dense, observed.point_confidence) / side,
            residuals.root_mean_square(keypoint, observed.keypoint_confidence) / side,
        ))  # fmt: skip
    dense, keypoint = (np.concatenate(each)[:people] for each in zip(*parts, strict=True))
    return relative(dense) * relative(keypoint)


def _by_posterior(template, observations, parameters, objective: Objective, good: np.ndarray) -> np.ndarray:
    """Note: noise levels come from good fits alone; one lost person in 24 made everyone's deviations metres."""
    used = Precisions.of_objective(objective)
    robust = robust_weights(template, observations, parameters, objective.weights.outlier)
    noise = initial()
    if len(good):
        few, bodies = jax.tree.map(lambda leaf: np.asarray(leaf)[good], (robust, parameters))
        noise = estimate(template, few, bodies, used, noise)
    joints = posterior.laplace_posterior(template, robust, parameters, noise, used)
    return posterior.certainty(posterior.expected_error_mm(joints))


def _usable(observations, parameters) -> np.ndarray:
    people = len(observations.point_face)
    observed = np.any(np.asarray(observations.point_confidence) > 0, axis=1)
    observed = observed | np.any(np.asarray(observations.keypoint_confidence) > 0, axis=1)
    finite = [np.all(np.isfinite(np.reshape(leaf, (people, -1))), axis=1) for leaf in jax.tree.leaves(parameters)]
    return observed & np.all(finite, axis=0)
