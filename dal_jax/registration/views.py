"""People before several calibrated cameras: moments as observations, one shape over a person's moments, and back.

A moment's frame has the axes of the first camera that sees it, its origin about where the body is, and half a crop's
side there as its unit: residuals and steps are then sized as those of one image are.

One shape. Moments of one person meet in their proportions, girth and size alone. So they are fitted by themselves, the
means of these are taken, each weighed by how well its own images tell it (`elimination.information`), and all are
fitted again from where they were with these held; twice. In the end they are the same.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from dal_jax.body import cameras as camera_lib, kinematics, skinning
from dal_jax.body.parameters import BodyParameters, fix_gauge
from dal_jax.body.template import Template
from dal_jax.observations import moments as moments_lib
from dal_jax.observations.cameras_file import Camera
from dal_jax.observations.moments import Agreement, Moments
from dal_jax.observations.observation import Expected, Observation
from dal_jax.observations.observations import Observations
from dal_jax.registration import register, single_views
from dal_jax.registration.energy import Objective
from dal_jax.registration.register import Fit, RegistrationConfig
from dal_jax.registration.tracks import told_apart

ROUNDS = 2
STEPS = 6
"""Of `lm` in a round with one shape, from where the last one ended."""

_HOLD = 1e4  # energy a squared logarithm, of what is one shape
_MULTIPLE, _LEAST = 25, 4  # points a view: few compiled shapes


@dataclasses.dataclass(frozen=True)
class World:
    """Where the frame of each moment is in the calibration's world: W = origin + unit axes' X; metres.

    axes: rotations, world to the moment's frame.
    """

    origin: Float[np.ndarray, "moments 3"]
    axes: Float[np.ndarray, "moments 3 3"]
    unit: Float[np.ndarray, "moments"]


@dataclasses.dataclass(frozen=True)
class Bodies:
    """Bodies in the calibration's world, one a moment.

    frame, person: of the moment, see `Moments`. joints_m: SMPL's, metres. rotation: body to world. position: of the
    pelvis, metres. size: times the template's, at segment scales of mean log 0. parameters: pose, scales and girth; its
    camera is the moment's own.
    """

    template: Template
    frame: Int[np.ndarray, "moments"]
    person: Int[np.ndarray, "moments"]
    joints_m: Float[np.ndarray, "moments 24 3"]
    rotation: Float[np.ndarray, "moments 3 3"]
    position: Float[np.ndarray, "moments 3"]
    size: Float[np.ndarray, "moments"]
    parameters: BodyParameters

    def __len__(self) -> int:
        """Return the number of moments."""
        return len(self.frame)

    def vertices(self, moment: int) -> Float[np.ndarray, "v 3"]:
        """Return a moment's posed mesh, metres; its faces are `template.faces`."""
        one = dataclasses.replace(self.parameters, rotation=self.rotation)
        posed = np.asarray(_vertices(self.template, jax.tree.map(lambda leaf: np.float32(leaf[moment]), one)))
        return self.position[moment] + self.size[moment] * posed


@dataclasses.dataclass(frozen=True)
class Together:
    """People who were fitted moment by moment.

    people: as their cameras would see them without distortion. moments, agreement: who they are, and how cameras agree.
    observed, found: the moments as observations, and their fits. bodies: these in the world. seen: as each of the
    people's own camera sees them, with the energies of their moments.
    """

    people: Observations
    moments: Moments
    agreement: list[Agreement]
    observed: Observation
    found: Fit
    bodies: Bodies
    seen: Fit


def fit_people(
    template: Template,
    people: Observations,
    cameras: Sequence[Camera],
    config: RegistrationConfig,
    objective: Objective,
    one_shape: bool,
    progress: Callable[[int], object] | None = None,
) -> Together:
    """Fit what several cameras see of each moment, with one shape a person if that is asked for.

    Raises:
      errors.InputError: a photograph's name does not tell its camera.
    """
    people = moments_lib.straight(people, cameras)
    moments = moments_lib.find(people, cameras)
    to_fit, world = observe(single_views.complete(people.stacked), moments, cameras)
    person = moments.person if one_shape else None
    found = fit(template, to_fit, world, person, config, objective, progress)
    bodies, (moment, _) = in_world(template, moments, found.parameters, world), moments.of_rows(len(people))
    return Together(
        people=people,
        moments=moments,
        agreement=moments_lib.agreement(people, moments, cameras),
        observed=to_fit,
        found=found,
        bodies=bodies,
        seen=dataclasses.replace(
            jax.tree.map(lambda leaf: np.asarray(leaf)[moment], dataclasses.replace(found, information=None)),
            parameters=in_views(bodies, moments, cameras, people.stacked),
        ),
    )


def observe(people: Observation, moments: Moments, cameras: Sequence[Camera]) -> tuple[Observation, World]:
    """Return the moments that people who were straightened (`moments.straight`) make, and where their frames are.

    A camera that does not see a moment has the pictures of another one, at confidence 0.
    """
    seen = moments.rows >= 0
    first = np.argmax(seen, axis=1)
    rows = np.where(seen, moments.rows, np.take_along_axis(moments.rows, first[:, None], axis=1))
    gathered = jax.tree.map(lambda leaf: np.asarray(leaf)[rows], dataclasses.replace(people, pinhole=None))
    gathered = _fewer_points(gathered, seen)
    rotation = np.array([camera.rotation for camera in cameras])
    translation = np.array([camera.translation for camera in cameras])
    assert people.pinhole is not None
    focal, centre = np.asarray(people.pinhole.focal)[rows], np.asarray(people.pinhole.centre)[rows]
    depth = np.einsum("vj,mj->mv", rotation[:, 2], moments.place) + translation[:, 2]
    scale = np.where(seen, np.log(np.maximum(depth, 1e-3) / focal), 0.0)
    unit = np.exp(scale.sum(axis=1) / seen.sum(axis=1))
    axes = rotation[first]
    origin = (np.einsum("vij,mj->mvi", rotation, moments.place) + translation) / unit[:, None, None]
    views = camera_lib.Views(
        rotation=np.einsum("vij,mkj->mvik", rotation, axes).astype(np.float32),
        origin=np.where(seen[..., None], origin, [0.0, 0.0, 10.0]).astype(np.float32),
        focal=focal.astype(np.float32),
        centre=centre.astype(np.float32),
    )
    return dataclasses.replace(gathered, views=views), World(moments.place, axes, unit)


def _fewer_points(gathered: Observation, seen: np.ndarray) -> Observation:
    """Return moments without what cameras do not see, nor most of the empty places for points."""
    confidence = np.asarray(gathered.point_confidence) * seen[..., None]
    most = int((confidence > 0).sum(axis=-1).max(initial=0))
    most = min(max(-(-most // _MULTIPLE) * _MULTIPLE, _LEAST), confidence.shape[-1])
    order = np.argsort(confidence <= 0, axis=-1, kind="stable")[..., :most]

    def take(leaf: np.ndarray) -> np.ndarray:
        return np.take_along_axis(leaf, order.reshape(*order.shape, *(1,) * (leaf.ndim - 3)), axis=2)

    names = ("point_position", "point_face", "point_barycentric")
    return dataclasses.replace(
        gathered,
        **{name: take(np.asarray(getattr(gathered, name))) for name in names},
        point_confidence=take(confidence),
        keypoint_confidence=np.asarray(gathered.keypoint_confidence) * seen[..., None],
        depth_confidence=np.zeros_like(gathered.depth_confidence),
    )


def fit(
    template: Template,
    observations: Observation,
    world: World,
    person: Int[np.ndarray, "moments"] | None,
    config: RegistrationConfig,
    objective: Objective,
    progress: Callable[[int], object] | None = None,
) -> Fit:
    """Fit moments by themselves or, where `person` says whose they are, with one shape for each.

    progress: called with how many fits are done, of moments x (1 + `ROUNDS` with one shape).
    """
    config = dataclasses.replace(config, information=person is not None)
    found, done = register.register(template, observations, config, objective, progress=progress), len(world.unit)
    if person is None:
        return found
    config = dataclasses.replace(config, starts="given", steps=STEPS, schedule="constant")
    for _ in range(ROUNDS):
        told = _one_shape(template, found, world, person)
        expected, at = dataclasses.replace(observations, expected=told), done

        def report(count: int, at=at) -> None:
            if progress is not None:
                progress(at + count)

        again = register.register(template, expected, config, objective, [found.parameters], report)
        found = dataclasses.replace(again, start=found.start, start_energy=found.start_energy)
        done += len(world.unit)
    shaped = _with_shape(template, found.parameters, _one_shape(template, found, world, person))
    return dataclasses.replace(
        found, parameters=shaped, energy=register.score(template, observations, shaped, objective)
    )


def _one_shape(template: Template, found: Fit, world: World, person: Int[np.ndarray, "moments"]) -> Expected:
    """Return the shape of each moment's person, as what is expected of it."""
    assert found.information is not None
    parents = np.maximum(template.parents, 0)
    log_scale = np.log(np.float64(found.parameters.segment_scale))
    log_scale = log_scale + np.log(np.float64(found.parameters.camera_scale) * world.unit)[:, None]
    _, known = told_apart(np.asarray(found.information.segments, np.float64))
    stretch = _mean(person, (log_scale - log_scale[:, parents])[:, 1:], known[:, 1:])
    # size: of all segments alike, once proportions are those
    relative = np.zeros_like(log_scale)
    for node in range(1, len(parents)):
        relative[:, node] = relative[:, parents[node]] + stretch[:, node - 1]
    size = np.sum(known * (log_scale - relative), axis=1) / np.sum(known, axis=1)
    size = _mean(person, size[:, None], known.sum(axis=1, keepdims=True))[:, 0]
    girth = found.parameters.girth
    girth = np.zeros_like(size) if girth is None else _mean(person, np.log(np.float64(girth))[:, None])[:, 0]
    count = len(size)
    told = Expected(
        rotation=np.tile(np.eye(3), (count, 24, 1, 1)),
        rotation_root=np.zeros((count, 24, 3, 3)),
        stretch=stretch,
        stretch_weight=np.full_like(stretch, _HOLD),
        log_girth=girth,
        girth_weight=np.full(count, _HOLD),
        place=np.column_stack([np.zeros((count, 2)), size - np.log(world.unit)]),
        place_weight=np.tile([0.0, 0.0, _HOLD], (count, 1)),
    )
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), told)


def _with_shape(template: Template, bodies: BodyParameters, told: Expected) -> BodyParameters:
    """Return bodies with the shape that is expected."""
    parents, log_scale = np.maximum(template.parents, 0), np.zeros_like(np.asarray(bodies.segment_scale))
    for node in range(1, len(parents)):
        log_scale[:, node] = log_scale[:, parents[node]] + np.asarray(told.stretch)[:, node - 1]
    shaped = dataclasses.replace(
        bodies,
        segment_scale=np.exp(log_scale),
        camera_scale=np.exp(np.asarray(told.place)[:, 2]),
        girth=None if bodies.girth is None else np.exp(np.asarray(told.log_girth)),
    )
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), fix_gauge(shaped))


def _mean(person: np.ndarray, values: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Return the weighted mean over its person's moments for each moment."""
    weight = np.ones_like(values) if weight is None else weight
    totals = np.zeros((2, person.max() + 1, values.shape[1]))
    np.add.at(totals[0], person, weight * values)
    np.add.at(totals[1], person, weight)
    return (totals[0] / totals[1])[person]


def in_world(template: Template, moments: Moments, parameters: BodyParameters, world: World) -> Bodies:
    """Return where the bodies of moments are."""
    parameters = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), fix_gauge(parameters))
    rotation = np.swapaxes(world.axes, -1, -2) @ parameters.rotation
    position = world.origin + world.unit[:, None] * np.einsum("mji,mj->mi", world.axes, parameters.translation)
    size = np.asarray(parameters.camera_scale) * world.unit
    turned = jax.tree.map(np.float32, dataclasses.replace(parameters, rotation=rotation))
    joints = position[:, None] + size[:, None, None] * np.asarray(_joints(template, turned), np.float64)
    return Bodies(template, moments.frame, moments.person, joints, rotation, position, size, parameters)


@jax.jit
@functools.partial(jax.vmap, in_axes=(None, 0))
def _joints(template: Template, parameters: BodyParameters) -> Float[Array, "24 3"]:
    return kinematics.pose_segments(template, parameters).position


@jax.jit
def _vertices(template: Template, parameters: BodyParameters) -> Float[Array, "v 3"]:
    return skinning.skin_vertices(template, kinematics.pose_segments(template, parameters))


def in_views(bodies: Bodies, moments: Moments, cameras: Sequence[Camera], people: Observation) -> BodyParameters:
    """Return each of the people as their own camera sees their moment's body, in its crop and before its pinhole."""
    moment, camera = moments.of_rows(len(people.box_px))
    rotation = np.array([one.rotation for one in cameras])[camera]
    pelvis = np.einsum("nij,nj->ni", rotation, bodies.position[moment])
    pelvis = pelvis + np.array([one.translation for one in cameras])[camera]
    assert people.pinhole is not None
    focal, centre = (np.asarray(each, np.float64) for each in (people.pinhole.focal, people.pinhole.centre))
    scale = focal / pelvis[:, 2]
    seen = dataclasses.replace(
        jax.tree.map(lambda leaf: leaf[moment], bodies.parameters),
        rotation=rotation @ bodies.rotation[moment],
        camera_scale=bodies.size[moment] * scale,
        translation=centre + scale[:, None] * pelvis[:, :2],
    )
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), seen)
