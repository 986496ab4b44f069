"""Is a fit right where it was not told? Every annotated point is left out of one fit, and measured there."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from dal_jax.body import template as template_lib
from dal_jax.correspondences import observations as observations_lib, observe
from dal_jax.registration import energy, register, reprojection


def held_out_error_px(
    template: template_lib.Template,
    observations: observations_lib.Observation,
    config: register.RegistrationConfig,
    weights: energy.EnergyWeights,
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
        kept, left_out = observe.hold_out(observations, fold, folds)
        report = (lambda done, before=fold * people: progress(before + done)) if progress else None
        fit = register.register(template, observations.replace(point_confidence=kept), config, weights, progress=report)
        dense, _ = reprojection.errors_px(template, fit.parameters, observations)
        distance = np.where(left_out > 0, dense, distance)
    return reprojection.root_mean_square(distance, observations.point_confidence)
