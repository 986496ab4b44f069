"""In-loop registration: every batch is registered just before it teaches, instead of everybody in long phases.

A person is fitted each time it is shown: from what the ConvNet says of its picture now, from its best fit so far, and
from whatever `config.registration.starts` names beside them (headings; `given`: nothing). The fit of least energy stays
and teaches. All of it runs on the device, between two training steps; nothing is fetched before an epoch is over.

Note: at the demo's size, with 20 steps of `lm` from two starts, a training step takes a third more CPU time (measured
on a busy machine): the prediction 15%, the fits 20%. Predictions are those of the weights right before the step, of the
picture as it is (the step augments it later). Predicting the next batch while a step runs would gain nothing on one
device, and what it answers would depend on where a killed run was stopped.
"""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dal_jax.body.parameters import BodyParameters
from dal_jax.body.template import Template
from dal_jax.config import Config
from dal_jax.observations.observation import Observation
from dal_jax.registration.energy import Objective
from dal_jax.registration.register import Fit, Fitter
from dal_jax.regressor import model
from dal_jax.regressor.model import Learned


@flax.struct.dataclass
class BestFits:
    """The best fits so far, stacked over people; energy: eq. 2 with later rounds' weights, inf where there is none."""

    fits: BodyParameters
    energy: Float[Array, "people"]


class OnlineFitter:
    """A `regressor.training.Refit` that keeps the bodies of all training people on the device.

    Note: it runs on the one device that trains, whatever `config.registration.devices` says: a batch is too small to
    spread. `config.registration.batch` counts for nothing either, batches are the ConvNet's.
    """

    def __init__(self, config: Config, template: Template, objective: Objective, bodies: BestFits):
        """Send the bodies to the device.

        Raises:
          ValueError: as `register.Fitter`.
        """
        registration = dataclasses.replace(config.registration, devices=1)
        self._fit = Fitter(template, registration, objective)
        self._predict = model.predictor(config.regressor)
        self._device = jax.devices()[0]
        self._bodies = jax.tree.map(jnp.copy, jax.device_put(bodies, self._device))  # for us to update in place

    def __call__(
        self,
        learned: Learned,
        rows: Int[np.ndarray, "batch"],
        image: Array,
        observation: Observation,
    ) -> tuple[BodyParameters, dict[str, Array]]:
        """Register the batch of `rows` (nobody twice); return its best fits, and how they came about."""
        rows = jax.device_put(rows, self._device)
        starts = [self._predict(learned, image), _take(self._bodies.fits, rows)]
        # placed as the step's state is: arrays of another sharding would have the step compiled anew
        found = jax.device_put(self._fit(observation, starts), self._device)
        self._bodies, fits, metrics = _keep_better(self._bodies, rows, found)
        return fits, metrics

    def bodies(self) -> BestFits:
        """Wait for the batches so far and return everybody's best fit (host arrays)."""
        return jax.tree.map(np.array, self._bodies)  # copies: the device's will be updated in place


@jax.jit
def _take(fits: BodyParameters, rows: Int[Array, "batch"]) -> BodyParameters:
    return jax.tree.map(lambda leaf: leaf[rows], fits)


@functools.partial(jax.jit, donate_argnums=0)
def _keep_better(
    bodies: BestFits, rows: Int[Array, "batch"], found: Fit
) -> tuple[BestFits, BodyParameters, dict[str, Array]]:
    """Put what was found in the rows' places where it has less energy: so nobody's ever rises, not by a rounding."""
    better = found.energy < bodies.energy[rows]  # false where it is not a number

    def choose(new: Array, everybody: Array) -> Array:
        return jnp.where(better.reshape(-1, *(1,) * (new.ndim - 1)), new, everybody[rows])

    kept = jax.tree.map(choose, BestFits(found.parameters, found.energy), bodies)
    bodies = jax.tree.map(lambda everybody, new: everybody.at[rows].set(new, unique_indices=True), bodies, kept)
    prediction, best = found.start_energy.shape[1] + np.array([-2, -1])  # the given starts come last
    metrics = {
        "registration_energy_mean": jnp.mean(kept.energy),
        "registration_from_prediction_share": jnp.mean(better & (found.start == prediction)),
        "registration_from_best_share": jnp.mean(~better | (found.start == best)),
        "registration_from_configured_share": jnp.mean(better & (found.start < prediction)),
    }
    return bodies, kept.fits, metrics
