"""Is a fit right where it was not told? Every annotated point is left out of one fit, and measured there."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from dal_jax.body.template import Template
from dal_jax.observations import observation, residuals
from dal_jax.observations.observation import Observation
from dal_jax.registration import register
from dal_jax.registration.energy import Objective
from dal_jax.registration.register import RegistrationConfig


def held_out_error_px(
    template: Template,
    observations: Observation,
    config: RegistrationConfig,
    objective: Objective,
    folds: int,
    progress: Callable[[int], None] | None = None,
) -> Float[np.ndarray, "people"]:
    """Return the root mean square, px, over points each left out of the fit that is measured at it.

    `folds` fits are made, each without another 1/folds of the points. Key points stay in. A `given` start would have
    seen the points that are left out, so none is taken.

    Args:
      progress: called with the number of person-fits done so far, of people * folds.
    """
    people = len(observations.point_face)
    distance = np.zeros(observations.point_confidence.shape, np.float32)
    for fold in range(folds):
        kept, left_out = observation.hold_out(observations, fold, folds)
        report = (lambda done, before=fold * people: progress(before + done)) if progress else None
        fit = register.register(
            template, observations.replace(point_confidence=kept), config, objective, progress=report
        )
        dense, _ = residuals.errors_px(template, fit.parameters, observations)
        distance = np.where(left_out > 0, dense, distance)
    return residuals.root_mean_square(distance, observations.point_confidence)
