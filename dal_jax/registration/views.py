"""People before several calibrated cameras: moments as observations, one shape over a person's moments, and back.

A moment's frame has the axes of the first camera that sees it, its origin about where the body is, and half a crop's
side there as its unit: residuals and steps are then sized as those of one image are.

One shape. Moments of one person meet in their proportions, girth and size alone, which are solved last: as those of
`tracks`, by what each moment's images leave of them once pose and place are eliminated. Moments are fitted by
themselves, then again from where they were with the shape of all held, which is solved anew after each round.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from dal_jax.body import cameras as camera_lib, kinematics, skinning
from dal_jax.body.kinematics import BodyParameters, fix_gauge
from dal_jax.body.template import Template
from dal_jax.observations import moments as moments_lib
from dal_jax.observations.cameras_file import Camera
from dal_jax.observations.moments import Agreement, Moments
from dal_jax.observations.observation import Expected, Observation
from dal_jax.observations.observations import Observations
from dal_jax.registration import register, single_views, tracks
from dal_jax.registration.energy import Objective
from dal_jax.registration.register import Fit, RegistrationConfig

ROUNDS, STEPS = 8, 6
"""At most so many rounds with one shape, and steps of `lm` in one, from where the last one ended."""
_GAIN = 0.01  # of the energy of all: a round that brings less is the last

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
    moment, camera = moments.of_rows(len(people))
    extrinsics = np.array([one.extrinsics for one in cameras])[camera]
    to_fit, world = observe(single_views.complete(people.stacked), moments, extrinsics)
    person = moments.person if one_shape else None
    found = fit(template, to_fit, world, person, config, objective, progress)
    bodies = in_world(template, moments, found.parameters, world)
    return Together(
        people=people,
        moments=moments,
        agreement=moments_lib.agreement(people, moments, cameras),
        observed=to_fit,
        found=found,
        bodies=bodies,
        seen=of_rows(found, moment, in_views(bodies, moment, extrinsics, people.stacked)),
    )


def observe(
    people: Observation, moments: Moments, extrinsics: Float[np.ndarray, "people 3 4"]
) -> tuple[Observation, World]:
    """Return the moments that people before pinholes make, and where their frames are.

    A camera that does not see a moment has the pictures of another one, at confidence 0.

    Args:
      people: as lenses without distortion see them (`moments.straight`).
      moments: who is seen when.
      extrinsics: [R | t] of each of the people's cameras, metres.
    """
    seen = moments.rows >= 0
    first = np.argmax(seen, axis=1)
    rows = filled(moments.rows)
    gathered = jax.tree.map(
        lambda leaf: np.asarray(leaf)[rows], dataclasses.replace(people, pinhole=None, depth_turns=None)
    )
    gathered = fewer_points(gathered, seen)
    rotation, translation = extrinsics[rows][..., :3], extrinsics[rows][..., 3]
    assert people.pinhole is not None
    focal, centre = np.asarray(people.pinhole.focal)[rows], np.asarray(people.pinhole.centre)[rows]
    depth = np.einsum("mvj,mj->mv", rotation[:, :, 2], moments.place) + translation[..., 2]
    scale = np.where(seen, np.log(np.maximum(depth, 1e-3) / focal), 0.0)
    unit = np.exp(scale.sum(axis=1) / seen.sum(axis=1))
    axes = rotation[np.arange(len(first)), first]
    origin = (np.einsum("mvij,mj->mvi", rotation, moments.place) + translation) / unit[:, None, None]
    views = camera_lib.Views(
        rotation=np.einsum("mvij,mkj->mvik", rotation, axes).astype(np.float32),
        origin=np.where(seen[..., None], origin, [0.0, 0.0, 10.0]).astype(np.float32),
        focal=focal.astype(np.float32),
        centre=centre.astype(np.float32),
    )
    return dataclasses.replace(gathered, views=views), World(moments.place, axes, unit)


def filled(rows: Int[np.ndarray, "moments cameras"]) -> Int[np.ndarray, "moments cameras"]:
    """Return the rows of moments with the first one seen in the place of what is not."""
    first = np.argmax(rows >= 0, axis=1)
    return np.where(rows >= 0, rows, np.take_along_axis(rows, first[:, None], axis=1))


def fewer_points(gathered: Observation, seen: np.ndarray) -> Observation:
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

    progress: called with how many fits are done, of moments x (1 + at most `ROUNDS` with one shape).
    """
    config = dataclasses.replace(config, information=person is not None)
    found, done = register.register(template, observations, config, objective, progress=progress), len(world.unit)
    if person is None:
        return found
    config = dataclasses.replace(config, starts="given", steps=STEPS, schedule="constant")
    best, energy = found, np.full(len(world.unit), np.inf)
    for _ in range(ROUNDS):
        told = _one_shape(template, best, world, person)
        expected, at = dataclasses.replace(observations, expected=told), done

        def report(count: int, at=at) -> None:
            if progress is not None:
                progress(at + count)

        start = _with_shape(template, best.parameters, told)
        again = register.register(template, expected, config, objective, [start], report)
        shaped = _with_shape(template, again.parameters, told)
        score = register.score(template, observations, shaped, objective)
        again = dataclasses.replace(
            again, parameters=shaped, energy=score, start=found.start, start_energy=found.start_energy
        )
        total = np.bincount(person, score)[person]
        better = total < energy  # of all moments of a person, or of none
        best = jax.tree.map(lambda new, old, rows=better: _take(rows, new, old), again, best)
        before, energy, done = energy.sum(), np.where(better, total, energy), done + len(world.unit)
        if energy.sum() > (1.0 - _GAIN) * before:
            break
    return best


def _take(rows: np.ndarray, new: np.ndarray, old: np.ndarray) -> np.ndarray:
    return np.where(rows.reshape(-1, *(1,) * (np.ndim(new) - 1)), new, old)


def _one_shape(template: Template, found: Fit, world: World, person: Int[np.ndarray, "moments"]) -> Expected:
    """Return the shape of each moment's person, in metres, as what is expected of it in its own unit."""
    assert found.information is not None
    slope, matrix = (np.asarray(each, np.float64) for each in (found.information.shape_slope, found.information.shape))
    shape, size = tracks.shape_of(template, found.parameters), np.log(world.unit)
    shape[:, 0] += size
    shape = tracks.one_shape(person, shape, slope, matrix)
    told = dataclasses.replace(
        tracks.given_shape(shape[:, 1:]),
        place=np.column_stack([np.zeros((len(size), 2)), shape[:, 0] - size]),
        place_weight=np.tile([0.0, 0.0, tracks.HOLD], (len(size), 1)),
    )
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), told)


def _with_shape(template: Template, bodies: BodyParameters, told: Expected) -> BodyParameters:
    """Return bodies with the shape and the size that are expected."""
    size = np.exp(np.asarray(told.place)[:, 2])
    return tracks.with_shape(template, dataclasses.replace(bodies, camera_scale=size), told)


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


def of_rows(found: Fit, moment: Int[np.ndarray, "people"], seen: BodyParameters) -> Fit:
    """Return the fits of moments as those of each of the people, as their own camera sees them."""
    each = jax.tree.map(lambda leaf: np.asarray(leaf)[moment], dataclasses.replace(found, information=None))
    return dataclasses.replace(each, parameters=seen)


def in_views(
    bodies: Bodies,
    moment: Int[np.ndarray, "people"],
    extrinsics: Float[np.ndarray, "people 3 4"],
    people: Observation,
) -> BodyParameters:
    """Return each of the people as their own camera sees their moment's body, in its crop and before its pinhole."""
    rotation = extrinsics[..., :3]
    pelvis = np.einsum("nij,nj->ni", rotation, bodies.position[moment]) + extrinsics[..., 3]
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


def from_views(
    people: Observation,
    parameters: BodyParameters,
    moment: Int[np.ndarray, "people"],
    extrinsics: Float[np.ndarray, "people 3 4"],
    world: World,
) -> BodyParameters:
    """Return bodies as single cameras see them in their moments' frames; a body is as far away as its moment's place.

    The inverse of `in_views` but for distance and size, of which one camera tells the ratio alone.
    """
    assert people.pinhole is not None
    focal, centre = (np.asarray(each, np.float64) for each in (people.pinhole.focal, people.pinhole.centre))
    rotation, axes, unit = extrinsics[..., :3], world.axes[moment], world.unit[moment]
    depth = np.einsum("nj,nj->n", rotation[:, 2], world.origin[moment]) + extrinsics[:, 2, 3]
    across = (np.asarray(parameters.translation) - centre) / focal[:, None]
    pelvis = depth[:, None] * np.concatenate([across, np.ones_like(across[:, :1])], axis=1) - extrinsics[..., 3]
    offset = np.einsum("nji,nj->ni", rotation, pelvis) - world.origin[moment]
    turn = axes @ np.swapaxes(rotation, -1, -2)
    seen = dataclasses.replace(
        jax.tree.map(np.asarray, parameters),
        rotation=turn @ np.asarray(parameters.rotation),
        camera_scale=np.asarray(parameters.camera_scale) * depth / focal / unit,
        translation=np.einsum("nij,nj->ni", axes, offset) / unit[:, None],
    )
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), seen)
