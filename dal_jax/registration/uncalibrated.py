"""People before several cameras of which nothing is known: in every moment a weak-perspective camera of its own each.

    x = s_v Pi(R_v X) + t_v,   X the body in axes that the views share

Given the cameras, `lm` fits the body, on the tree as before calibrated ones (weak perspective is a camera far away).
Given the body, a camera is a least-squares problem of its own, six numbers of which t_v is linear. The two alternate,
each from where it was, so that no half of a round raises the energy. Held cameras have a larger Hessian in the body
than cameras at their best, so these steps are a majoriser's.

The start: people are fitted in each image alone; of the bodies of a moment the one that all its other images agree with
best, each before the camera that suits it best, begins, and its camera's axes are the shared ones.

Of the world nothing is known either. Its axes are those of the first camera that sees the moment, its origin is the
pelvis, and bodies are of the template's size.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.spatial.transform import Rotation

from dal_jax.body import kinematics, skinning
from dal_jax.body.cameras import Views
from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.template import Template
from dal_jax.observations import moments as moments_lib
from dal_jax.observations.cameras_file import Camera
from dal_jax.observations.moments import Agreement, Moments
from dal_jax.observations.observation import Observation
from dal_jax.observations.observations import Observations
from dal_jax.registration import register, single_views, tracks, views
from dal_jax.registration.energy import Objective
from dal_jax.registration.register import Fit, RegistrationConfig
from dal_jax.registration.views import Together, World
from dal_jax.runtime import struct

ROUNDS, STEPS = 12, 6
_GAIN = 0.01  # of the energy of all: a round that brings less is the last
_FAR = 1e4  # crop units: perspective changes nothing there
_REFINEMENTS = 12  # Gauss-Newton steps of a camera


@struct.dataclass
class _Cameras:
    """Weak-perspective cameras of moments: R_v, s_v and t_v of above, crop units."""

    rotation: Float[np.ndarray, "moments views 3 3"]
    scale: Float[np.ndarray, "moments views"]
    translation: Float[np.ndarray, "moments views 2"]

    def views(self) -> Views:
        """Return them as cameras of full perspective that are far away."""
        origin = np.zeros((*self.scale.shape, 3))
        origin[..., 2] = _FAR
        leaves = (self.rotation, origin, _FAR * self.scale, self.translation)
        return Views(*(np.asarray(leaf, np.float32) for leaf in leaves))


def fit_people(
    template: Template,
    people: Observations,
    cameras: Sequence[Camera],
    config: RegistrationConfig,
    objective: Objective,
    one_shape: bool,
    progress: Callable[[int], object] | None = None,
) -> Together:
    """Fit what cameras without calibration see of each moment, as `views.fit_people` does with calibration.

    Raises:
      errors.InputError: as `moments.by_names`.
    """
    moments = moments_lib.by_names(people, cameras)
    images = single_views.complete(people.stacked)
    alone = register.register(template, images, dataclasses.replace(config, starts="headings4"), objective)
    seen = moments.rows >= 0
    first = np.argmax(seen, axis=1)
    rows = views.filled(moments.rows)
    gathered = views.fewer_points(jax.tree.map(lambda leaf: np.asarray(leaf)[rows], images), seen)
    body, found = _start(template, gathered, alone.parameters, moments, objective)
    person = moments.person if one_shape else None
    fit, found = _alternate(template, gathered, (body, found), person, config, objective, progress)
    ahead = found.rotation[np.arange(len(rows)), first]  # the first camera's axes are the world's
    bodies = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), fit.parameters)
    unit = 1.0 / bodies.camera_scale
    place = unit[:, None] * np.einsum("mij,mj->mi", ahead, bodies.translation)
    world = World(origin=-place, axes=np.swapaxes(ahead, -1, -2), unit=unit)
    moment, camera = moments.of_rows(len(people))
    return Together(
        people=people,
        moments=moments,
        agreement=[Agreement(one.name, np.nan, np.nan, np.nan, False) for one in cameras],
        observed=dataclasses.replace(gathered, views=found.views()),
        found=fit,
        bodies=views.in_world(template, moments, fit.parameters, world),
        seen=views.of_rows(fit, moment, _in_views(bodies, found, moment, camera)),
    )


def _alternate(
    template: Template,
    gathered: Observation,
    start: tuple[BodyParameters, _Cameras],
    person: Int[np.ndarray, "moments"] | None,
    config: RegistrationConfig,
    objective: Objective,
    progress: Callable[[int], object] | None,
) -> tuple[Fit, _Cameras]:
    """Fit bodies and cameras in turns, with one shape a person where `person` says who they are."""
    config = dataclasses.replace(config, starts="given", steps=STEPS, schedule="constant", information=True)
    (body, found), expected, energy, fit = start, None, np.inf, None
    for turn in range(ROUNDS):
        observed = dataclasses.replace(gathered, views=found.views(), expected=expected)
        fit = register.register(template, observed, config, objective, [body])
        found, body = _cameras(*_seen(template, gathered, fit.parameters, objective), found), fit.parameters
        if progress is not None:
            progress((turn + 1) * len(found.scale))
        before, energy = energy, float(np.sum(fit.energy))
        if energy > (1.0 - _GAIN) * before and (expected is not None or person is None):
            break
        if person is not None and fit.information is not None:
            shape = tracks.shape_of(template, body)
            known = (np.asarray(each, np.float64) for each in (fit.information.shape_slope, fit.information.shape))
            expected = tracks.given_shape(tracks.one_shape(person, shape[:, 1:], *tracks.without_size(*known)))
            expected = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), expected)
            size = np.exp(shape[:, 0]).astype(np.float32)
            body = tracks.with_shape(template, dataclasses.replace(body, camera_scale=size), expected)
    assert fit is not None
    observed = dataclasses.replace(gathered, views=found.views())
    score = register.score(template, observed, fit.parameters, objective)
    return dataclasses.replace(fit, energy=score), found


def _start(
    template: Template,
    gathered: Observation,
    alone: BodyParameters,
    moments: Moments,
    objective: Objective,
) -> tuple[BodyParameters, _Cameras]:
    """Return the body of each moment that its images agree with best, and their cameras."""
    each, wrong = [], []
    rows, seen = np.maximum(moments.rows, 0), moments.rows >= 0
    turn = np.asarray(alone.rotation, np.float64)[rows]
    for view in range(rows.shape[1]):
        body = jax.tree.map(lambda leaf, view=view: np.asarray(leaf)[rows[:, view]], alone)
        depth = np.zeros((len(rows), 1), np.float32)
        body = dataclasses.replace(body, translation=np.concatenate([body.translation, depth], axis=1))
        rotation = turn @ np.swapaxes(turn[:, view, None], -1, -2)  # by the pelvises
        size = np.asarray(alone.camera_scale)[rows]
        guess = _Cameras(rotation, size / size[:, view, None], np.zeros((*rows.shape, 2)))
        places, goal, mass = _seen(template, gathered, body, objective)
        found = _cameras(places, goal, mass, guess)
        each.append((body, found))
        total = np.einsum("mvp,mvp->m", mass, _missed(places, goal, found))
        wrong.append(np.where(seen[:, view], total, np.inf))
    best = np.argmin(wrong, axis=0)
    return jax.tree.map(lambda *leaves: np.stack(leaves)[best, np.arange(len(best))], *each)


def _seen(
    template: Template, gathered: Observation, body: BodyParameters, objective: Objective
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the places that each view's points and key points show on a body, where they are seen, and their mass.

    (moments, views, points, 3) in the shared frame, (..., 2) in the crops, and confidence times weight.
    """
    places = np.asarray(_places(template, gathered, body), np.float64)
    goal = np.concatenate([gathered.point_position, gathered.keypoint_position], axis=2)
    weights = objective.weights
    mass = [weights.dense * gathered.point_confidence, weights.keypoint * gathered.keypoint_confidence]
    mass = np.concatenate([np.asarray(each) for each in mass], axis=2)
    return places, np.asarray(goal, np.float64), np.asarray(mass, np.float64)


@jax.jit
@functools.partial(jax.vmap, in_axes=(None, 0, 0))
def _places(template: Template, seen: Observation, body: BodyParameters) -> Float[Array, "views points 3"]:
    segments = kinematics.pose_segments(template, body)
    joints = skinning.keypoints(template, segments, seen.keypoint_set)

    def of_view(face, barycentric):
        points = skinning.skin_points(template, segments, skinning.surface_points(template, face, barycentric))
        return jnp.multiply(body.camera_scale, jnp.concatenate([points, joints])) + body.translation[None]

    return jax.vmap(of_view)(seen.point_face, seen.point_barycentric)


def _cameras(places: np.ndarray, goal: np.ndarray, mass: np.ndarray, near: _Cameras) -> _Cameras:
    """Return the cameras that bring places nearest to where they are seen, from near ones, by damped Gauss-Newton."""
    total = np.maximum(mass.sum(axis=-1, keepdims=True), 1e-9)
    middle, middle_seen = (np.einsum("mvp,mvpi->mvi", mass / total, each) for each in (places, goal))
    places, goal = places - middle[:, :, None], goal - middle_seen[:, :, None]
    rotation, scale = near.rotation, near.scale
    damping, best, trial = np.full(scale.shape, 1e-3), np.full(scale.shape, np.inf), (rotation, scale)
    for _ in range(_REFINEMENTS):
        turned = np.einsum("mvij,mvpj->mvpi", trial[0], places) * trial[1][..., None, None]
        energy = np.einsum("mvp,mvpi->mv", mass, (turned[..., :2] - goal) ** 2)
        better = energy < best
        best = np.where(better, energy, best)
        rotation = np.where(better[..., None, None], trial[0], rotation)
        scale = np.where(better, trial[1], scale)
        damping = np.where(better, damping / 3.0, damping * 8.0)
        turned = np.einsum("mvij,mvpj->mvpi", rotation, places) * scale[..., None, None]
        x, y, z = np.moveaxis(turned, -1, 0)
        zero = np.zeros_like(x)
        slopes = np.stack([np.stack([zero, z, -y, x], axis=-1), np.stack([-z, zero, x, y], axis=-1)], axis=-2)
        off = turned[..., :2] - goal
        matrix = np.einsum("mvp,mvpia,mvpib->mvab", mass, slopes, slopes)
        force = np.einsum("mvp,mvpia,mvpi->mva", mass, slopes, off)
        ridge = damping[..., None] * np.einsum("mvaa->mv", matrix)[..., None] / 4.0 + 1e-9
        step = -np.linalg.solve(matrix + ridge[..., None] * np.eye(4), force[..., None])[..., 0]
        turn = Rotation.from_rotvec(step[..., :3].reshape(-1, 3)).as_matrix().reshape(rotation.shape)
        trial = turn @ rotation, scale * np.exp(np.clip(step[..., 3], -0.5, 0.5))
    across = np.einsum("mvij,mvj->mvi", rotation[..., :2, :], middle)
    return _Cameras(rotation, scale, middle_seen - scale[..., None] * across)


def _missed(places: np.ndarray, goal: np.ndarray, found: _Cameras) -> Float[np.ndarray, "moments views points"]:
    across = np.einsum("mvij,mvpj->mvpi", found.rotation[..., :2, :], places)
    return np.sum((found.scale[..., None, None] * across + found.translation[:, :, None] - goal) ** 2, axis=-1)


def _in_views(
    bodies: BodyParameters, found: _Cameras, moment: Int[np.ndarray, "n"], camera: Int[np.ndarray, "n"]
) -> BodyParameters:
    """Return each of the people as their own camera sees their moment's body, in its crop."""
    rotation, scale = found.rotation[moment, camera], found.scale[moment, camera]
    place = np.einsum("nij,nj->ni", rotation[:, :2], bodies.translation[moment])
    seen = dataclasses.replace(
        jax.tree.map(lambda leaf: leaf[moment], bodies),
        rotation=rotation @ bodies.rotation[moment],
        camera_scale=scale * bodies.camera_scale[moment],
        translation=found.translation[moment, camera] + scale[:, None] * place,
    )
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), seen)
