"""Teachers of the regressor, beside bodies of single pictures that are registered once a round.

    register_moments  what several cameras see of a moment is registered as one body, which teaches each view
    OnlineFitter      every batch is registered just before it teaches, instead of all people in long phases

The regressor sees single pictures as ever. Both start from its predictions, of the round before or of this very step.
"""

import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.template import Template
from dal_jax.config import Config
from dal_jax.data.people import CameraRig
from dal_jax.observations import moments as moments_lib
from dal_jax.observations.moments import Moments
from dal_jax.observations.observation import Observation
from dal_jax.registration import register, views
from dal_jax.registration.energy import Objective
from dal_jax.registration.register import Fit, RegistrationConfig
from dal_jax.regressor import model
from dal_jax.regressor.model import Learned
from dal_jax.runtime import mesh as mesh_lib


def register_moments(
    template: Template,
    people: Observation,
    rig: CameraRig,
    config: RegistrationConfig,
    objective: Objective,
    given: Sequence[BodyParameters] = (),
    progress: Callable[[int], object] | None = None,
) -> Fit:
    """Register the moments of a rig; return each of the people as their own camera sees their moment's body.

    Args:
      template: the body.
      people: stacked, before their pinholes, in the frames of `rig.extrinsics_m`. Their depths are not read.
      rig: who is seen when, from where.
      config: how.
      objective: what is minimised, of a moment.
      given: bodies of the people as their cameras see them; of a moment's that which explains all its views best is one
        more start.
      progress: called with the number of people done so far.
    """
    moments = _moments(people, rig.moment, rig.extrinsics_m)
    to_fit, world = views.observe(people, moments, rig.extrinsics_m)
    moment, _ = moments.of_rows(len(rig.moment))
    starts = []
    for bodies in given:
        placed = views.from_views(people, bodies, moment, rig.extrinsics_m, world)
        starts.append(_best(template, to_fit, moments, placed, objective))
    share = len(moment) / len(moments.rows)

    def report(done: int) -> None:
        if progress is not None:
            progress(round(done * share))

    found = register.register(template, to_fit, config, objective, starts, report)
    bodies = views.in_world(template, moments, found.parameters, world)
    return views.of_rows(found, moment, views.in_views(bodies, moment, rig.extrinsics_m, people))


def _moments(people: Observation, moment: Int[np.ndarray, "n"], extrinsics: Float[np.ndarray, "n 3 4"]) -> Moments:
    """Return who is seen when where that is known; of people before their pinholes."""
    assert people.pinhole is not None
    focal, centre = (np.asarray(each, np.float64) for each in (people.pinhole.focal, people.pinhole.centre))
    position, known = moments_lib.marks(people)
    ahead = np.concatenate(
        [(position - centre[:, None]) / focal[:, None, None], np.ones_like(known)[..., None]], axis=-1
    )
    rays = np.einsum("nki,nij->nkj", ahead / np.linalg.norm(ahead, axis=-1, keepdims=True), extrinsics[..., :3])
    standing = -np.einsum("nij,ni->nj", extrinsics[..., :3], extrinsics[..., 3])
    distance = focal * _HEIGHT_M / _CROPS
    of, number = np.unique(moment, return_inverse=True)
    rows = np.full((len(of), np.bincount(number).max()), -1)
    order = np.argsort(number, kind="stable")
    rows[number[order], np.arange(len(order)) - np.searchsorted(number[order], number[order])] = order
    place = np.stack(
        [moments_lib.place_of(*(each[row[row >= 0]] for each in (rays, known, standing, distance))) for row in rows]
    )
    return Moments(rows, place, np.zeros(len(of), np.int64), np.arange(len(of)))


_HEIGHT_M, _CROPS = 1.7, 1.7  # of a person whom one camera alone sees: metres, and crop units as people are framed


def _best(
    template: Template, to_fit: Observation, moments: Moments, placed: BodyParameters, objective: Objective
) -> BodyParameters:
    """Return of each moment's bodies the one of least energy in all views."""
    rows = views.filled(moments.rows)
    candidates = [jax.tree.map(lambda leaf, of=of: leaf[of], objective.start_from(placed)) for of in rows.T]
    energy = [np.nan_to_num(register.score(template, to_fit, one, objective), nan=np.inf) for one in candidates]
    chosen = np.argmin(energy, axis=0)
    return jax.tree.map(lambda *leaves: np.stack(leaves)[chosen, np.arange(len(chosen))], *candidates)


T = TypeVar("T")

BestFits = tuple[BodyParameters, Float[Array | np.ndarray, "people"]]
"""The best fits so far, stacked over people, and their energy; inf where there is none yet."""


class OnlineFitter:
    """A `regressor.training.FitBatch` that keeps the best fits of all training people on the devices, split by people.

    A person is fitted each time it is shown: from the regressor's present prediction, from its best fit so far, and
    from the starts that `config.later.registration.starts` names beside them (azimuths; `given`: none). The fit of
    least energy stays and teaches. All of it runs on the devices that train, whatever
    `config.later.registration.devices` says, in the regressor's batches, whatever `.batch` says. Nothing is fetched
    before an epoch is over.

    Note: at the demo's size, with 20 steps of `lm` from two starts, a training step takes a third more CPU time
    (measured on a busy machine): the prediction 15%, the fits 20%. Predictions are those of the weights right before
    the step, of the picture as it is (the step augments it later). Predicting the next batch while a step runs would
    gain nothing on one device, and its answer would depend on where a killed run was stopped.
    """

    def __init__(self, config: Config, template: Template, objective: Objective, bodies: BestFits):
        """Send the bodies to the devices.

        Raises:
          ValueError: as `register.fitter`.
        """
        self._mesh = mesh_lib.of_networks()
        self._fit = register.fitter(template, config.later.registration, objective, self._mesh)
        self._predict = model.predictor(config.regressor)
        self._count = len(bodies[1])
        self._bodies = jax.tree.map(jnp.copy, mesh_lib.split(_filled_up(bodies, self._mesh), self._mesh))

    def __call__(
        self,
        learned: Learned,
        rows: Int[np.ndarray, "batch"],
        image: Array,
        observation: Observation,
    ) -> tuple[BodyParameters, dict[str, Array]]:
        """Register the batch of `rows` (each person at most once); return its best fits, and where they came from."""
        starts = [self._predict(learned, image), _take(self._mesh, self._bodies[0], rows)]
        if len(rows) % self._mesh.size:
            observation, starts = _filled_up_on_devices(self._mesh, (observation, starts))
        self._bodies, fits, metrics = _keep_better(self._mesh, self._bodies, rows, self._fit(observation, starts))
        return fits, metrics

    def best(self) -> BestFits:
        """Wait for the batches so far and return the best fit of every person (host arrays)."""
        # copies: the devices' will be updated in place
        return jax.tree.map(lambda leaf: np.array(leaf[: self._count]), mesh_lib.fetch(self._bodies))


def _filled_up(people: T, mesh: Mesh) -> T:
    """Return stacked arrays with the last person repeated, up to a multiple of the devices."""

    def fill(leaf):
        return leaf[np.minimum(np.arange(-(-len(leaf) // mesh.size) * mesh.size), len(leaf) - 1)]

    return jax.tree.map(fill, people)


@functools.partial(jax.jit, static_argnums=0)
def _filled_up_on_devices(mesh: Mesh, people: T) -> T:
    return mesh_lib.constrained(_filled_up(people, mesh), mesh)


@functools.partial(jax.jit, static_argnums=0)
def _take(mesh: Mesh, fits: BodyParameters, rows: Int[Array, "batch"]) -> BodyParameters:
    return mesh_lib.constrained(jax.tree.map(lambda leaf: leaf[rows], fits), mesh)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _keep_better(
    mesh: Mesh, bodies: BestFits, rows: Int[Array, "batch"], fit: Fit
) -> tuple[BestFits, BodyParameters, dict[str, Array]]:
    """Put the fits in the rows' places where they have less energy: no energy ever rises, not even by a rounding."""
    fit = jax.tree.map(lambda leaf: leaf[: len(rows)], fit)
    better = fit.energy < bodies[1][rows]  # false where it is not a number

    def choose(new: Array, old: Array) -> Array:
        return jnp.where(better.reshape(-1, *(1,) * (new.ndim - 1)), new, old[rows])

    kept = jax.tree.map(choose, (fit.parameters, fit.energy), bodies)
    bodies = jax.tree.map(lambda old, new: old.at[rows].set(new, unique_indices=True), bodies, kept)
    prediction, best = fit.start_energy.shape[1] + np.array([-2, -1])  # the given starts come last
    metrics = {
        "registration_energy_mean": jnp.mean(kept[1]),
        "registration_from_prediction_share": jnp.mean(better & (fit.start == prediction)),
        "registration_from_best_share": jnp.mean(~better | (fit.start == best)),
        "registration_from_configured_share": jnp.mean(better & (fit.start < prediction)),
    }
    return *mesh_lib.constrained((bodies, kept[0]), mesh), metrics
