"""The teacher with several views: what the cameras of a moment see is registered as one body, which teaches each view.

The regressor sees single pictures as ever; its predictions start the next round.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Float, Int

from dal_jax.body.parameters import BodyParameters
from dal_jax.body.template import Template
from dal_jax.data.people import Rig
from dal_jax.observations import moments as moments_lib
from dal_jax.observations.moments import Moments
from dal_jax.observations.observation import Observation
from dal_jax.registration import register, views
from dal_jax.registration.energy import Objective
from dal_jax.registration.register import Fit, RegistrationConfig


def register_moments(
    template: Template,
    people: Observation,
    rig: Rig,
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
