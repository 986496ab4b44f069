"""People over the frames of a video: one shape a track, and smooth paths of all segments (not in the paper).

One frame's unknowns meet its neighbours' in two places alone: the shape is the same, and orientations G_t, place and
size move smoothly. So with y_t for where a smooth motion has the body of frame t, and s for the shape of its track,

    min  sum_t E_t(x_t, s) + |x_t - y_t|^2_M  +  w sum_t sum_k |a_k,t / sd_k|^2                                   (T)

a being second differences in time of y: log(G_t+1 G_t') - log(G_t G_t-1') of a segment. Given y and s, frames are
apart: `lm` fits them on the kinematic tree, all at once, with one more quadratic pull (`Expected`). Given x, y is a
linear problem with 3 x 3 blocks on five diagonals for each segment. The two alternate.

The shape s is solved last: at the fits x, whose shape was s_t, all else of a frame is eliminated (`Information.shape`),
which leaves a quadratic of slope g_t and matrix H_t, and of all frames sum_t H_t s = sum_t H_t s_t - g_t. With it the
frames are fitted again, which is Gauss and Newton's step for the shape that explains all of them best.

M is how well the frame's own image tells each segment's orientation (`tree.lm.information`): a hidden limb pulls
nothing and follows its neighbours in time. Where E_t is the quadratic of that information, (T) has the y of
min sum_t E_t(y_t) + 2 w sum |a / sd|^2: half of each spring is x's. Orientations are those in camera axes, not of
joints relative to their parents: images show these, and motions of little acceleration have little of it there.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from concurrent import futures

import jax
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float, Int

from dal_jax.body import kinematics, rotations
from dal_jax.body.kinematics import BodyParameters, fix_gauge
from dal_jax.body.template import Template
from dal_jax.observations.following import Frames
from dal_jax.observations.observation import Expected, Observation, crop_from_px, px_from_crop
from dal_jax.registration import register
from dal_jax.registration.energy import Objective
from dal_jax.registration.register import Fit, RegistrationConfig
from dal_jax.runtime import machine

ROUNDS = 2
STEPS = 4
"""Of `lm` in a round, from where the last one ended."""
KEYS_A_SECOND = 10.0
"""Frames that are fitted from all starts; the others start between them, with ten times less to go.

Note: our choice, on synthetic training subjects, whose joints are 0.3 to 0.9 mm better than with 15, and 0.7 worse with
7.5; of 3, 4 and 6 steps they are alike, within 0.1 mm.
"""

WEIGHT = 0.005
"""w of (T). Note: our choice, on synthetic training subjects. From 0.0025 to 0.02 joints are alike, within 0.3 mm, and
0.1 is worse where people walk; the recordings of real people may be livelier, so the lower half of these."""

_FPS = 30.0
_ACCELERATION = np.array([
    0.005, 0.006, 0.006, 0.005, 0.015, 0.015, 0.005, 0.021, 0.021, 0.005, 0.034, 0.034,
    0.005, 0.005, 0.005, 0.005, 0.007, 0.007, 0.013, 0.013, 0.02, 0.02, 0.02, 0.02,
])  # fmt: skip
"""Root mean squares of the components of a segment's acceleration, radians a frame squared at 30 frames a second.

Of synthetic training subjects who walk (Walking, WalkDog and WalkTogether of `synthetic.actors`), left and right
together; their trunks and heads only drift, so that none is below 0.005. Other actions have a third or less.
"""
_PLACE = np.array([0.003, 0.003, 0.001])
"""The same of the pelvis, metres, and of the log scale; Note: our choice, a step's rise and fall at four metres."""

_FLIPPED = 0.5  # radians from the smooth path, at which a fit counts by a quarter: it may be another minimum
_LONGEST_GAP = 30  # frames; what a person does in a longer one is not told by where they were before
_SECOND_DIFFERENCE = ((-1, 1.0), (0, -2.0), (1, 1.0))  # which frame, and its share
_STILL = 1e-6  # energy a squared step: what neither a frame nor two neighbours tell stays as it is
HOLD = 1e6  # energy a squared logarithm, at which a shape is given
_RIDGE = 1e-6  # of the mean stiffness of a shape: what no frame tells of it stays as it is


def fit(
    template: Template,
    observations: Observation,
    frames: Frames,
    config: RegistrationConfig,
    objective: Objective,
    given: Sequence[BodyParameters] = (),
    progress: Callable[[int], object] | None = None,
) -> tuple[Fit, Observation]:
    """Fit key frames by themselves as `register.register` does, then the tracks by `ROUNDS` rounds of (T).

    Returns:
      the fits, whose bodies are y and s and whose energies are eq. 2 there, and the observations with what the tracks
      expect of each frame. Which start was best is told of key frames, and of others by the nearest before.
    """
    config = dataclasses.replace(config, information=True)
    paths, done = Paths(template, np.asarray(observations.box_px), frames), 0
    report = None if progress is None else lambda count: progress(done + count)
    keys, nearest = paths.key_frames()
    first = jax.tree.map(lambda leaf: np.asarray(leaf)[keys], (observations, list(given)))
    found = register.register(template, first[0], config, objective, first[1], report)
    bodies, told = paths.update(found, keys)
    found = dataclasses.replace(found, start=found.start[nearest], start_energy=found.start_energy[nearest])
    config, done = dataclasses.replace(config, starts="given", steps=STEPS, schedule="constant"), len(nearest)
    for left in reversed(range(ROUNDS)):
        expected = dataclasses.replace(observations, expected=told)
        again = register.register(template, expected, config, objective, [bodies], report)
        found = dataclasses.replace(again, start=found.start, start_energy=found.start_energy)
        bodies, told = paths.update(found, slice(None), None if left else told)
        done += len(nearest)
    expected = dataclasses.replace(observations, expected=told)
    energy = register.score(template, observations, bodies, objective)
    return dataclasses.replace(found, parameters=bodies, energy=energy, information=None), expected


class Paths:
    """The smooth paths y and shapes s of (T), on the host in float64: a row for each frame of a track, seen or not."""

    def __init__(self, template: Template, box_px: Float[np.ndarray, "n 4"], frames: Frames):
        """Lay out the rows: track after track, frame after frame; frames in between that nobody saw have rows too."""
        self._parents, self._template, self._box = np.maximum(template.parents, 0), template, box_px.astype(np.float64)
        order = np.lexsort((frames.frame, frames.track))
        _, self._track = np.unique(frames.track, return_inverse=True)
        track, frame = frames.track[order], frames.frame[order].astype(np.int64)
        same = np.diff(track) == 0
        stride = max(int(np.gcd.reduce(np.diff(frame)[same], initial=0)), 1)
        apart = np.diff(frame) // stride
        together = same & (apart <= _LONGEST_GAP)
        row = np.concatenate([[0], np.cumsum(np.where(together, apart, 1))])
        self._row = np.empty(len(order), np.int64)
        self._row[order] = row
        last = np.searchsorted(row, np.arange(row[-1] + 1), side="right") - 1
        path = np.concatenate([[0], np.cumsum(~together)])[last]
        self._inner = np.flatnonzero(path[2:] == path[:-2]) + 1
        self._seen_row, self._path, self._key_every = order, path, max(round(frames.fps / stride / KEYS_A_SECOND), 1)
        usual = np.concatenate([np.repeat(_ACCELERATION[:, None], 3, axis=1), _PLACE[None]])
        self._stiffness = WEIGHT / (usual * (_FPS * stride / frames.fps) ** 2) ** 2
        self._springs = np.zeros((9, len(path), 1))  # the lower bands of D'D, three places a row
        for offset, share in _SECOND_DIFFERENCE:
            for other, shared in _SECOND_DIFFERENCE[offset + 1 :]:
                self._springs[3 * (other - offset), self._inner + offset] += share * shared
        self._rotation = self._place = np.zeros(0)  # of the segments first

    def key_frames(self) -> tuple[Int[np.ndarray, "keys"], Int[np.ndarray, "n"]]:
        """Return which people are fitted from all starts, and for each person which of these comes before."""
        keys: list[int] = []
        nearest = np.zeros(len(self._row), np.int64)
        for person in self._seen_row:
            row = self._row[person]
            last = self._row[keys[-1]] if keys else -1
            if not keys or self._path[row] != self._path[last] or row - last >= self._key_every:
                keys.append(int(person))
            nearest[person] = len(keys) - 1
        return np.array(keys), nearest

    def update(
        self, found: Fit, people: Int[np.ndarray, "m"] | slice, told: Expected | None = None
    ) -> tuple[BodyParameters, Expected]:
        """Return the bodies of y and s of everybody after fits x of some, and how `lm` is to be pulled to them.

        people: who was fitted, somebody of every path at least; of the others nothing is known.
        told: what the fits were pulled to, whose shape they keep; None: the shape is solved.
        """
        wide, information = functools.partial(np.asarray, dtype=np.float64), found.information
        assert information is not None
        rotation, log_scale = map(wide, _segments(self._template, found.parameters))
        box, track = self._box[people], self._track[people]
        scale_px = log_scale[:, 0] + np.log(box[:, 2] / 2.0)
        typical = np.exp(np.bincount(track, scale_px) / np.bincount(track))[self._track, None]  # px a metre
        middle_px = np.asarray(px_from_crop(wide(found.parameters.translation)[:, None], box))[:, 0]
        place = np.column_stack([middle_px / typical[people], scale_px])
        unit = 2.0 * typical[people] / box[:, 2:3]  # crop units a metre
        known = wide(information.place) * np.concatenate([unit**2, unit**2, np.ones_like(unit)], axis=1)
        counted = self._smooth(people, rotation, place, of_orientations(wide(information.segments)), known)
        if told is None:
            shape = shape_of(self._template, found.parameters)
            slope, matrix = without_size(wide(information.shape_slope), wide(information.shape))
            _, one = np.unique(track, return_index=True)
            told = given_shape(one_shape(track, shape[:, 1:], slope, matrix)[one][self._track])
        place, turns = self._place[self._row], np.zeros((len(self._row), 24, 3, 3))
        place_weight = np.zeros_like(place)
        turns[people], place_weight[people] = counted, information.place
        middle_crop = crop_from_px((place[:, :2] * typical)[:, None], self._box)[:, 0]
        expected = dataclasses.replace(
            told,
            rotation=self._rotation[:, self._row].swapaxes(0, 1),
            rotation_root=np.swapaxes(np.linalg.cholesky(turns + 1e-6 * np.eye(3)), -1, -2),
            place=np.column_stack([middle_crop, place[:, 2] - np.log(self._box[:, 2] / 2.0)]),
            place_weight=place_weight,
        )
        expected = jax.tree.map(np.float32, expected)
        return self._bodies(expected, found.parameters), expected

    def _smooth(self, people, rotation, place, turns, known_place) -> Float[np.ndarray, "m 24 3 3"]:
        """Move the paths by Gauss-Newton steps; return how much the fits' orientations count in the end."""
        row, first, counted = self._row[people], not self._rotation.size, np.empty_like(turns)
        if first:
            order = np.argsort(row)
            last = order[np.searchsorted(row[order], np.arange(self._springs.shape[1]), side="right") - 1]
            self._rotation, self._place = rotation[last].swapaxes(0, 1).copy(), place[last]

        def smooth(segment: int) -> None:
            path, found = self._rotation[segment], np.ascontiguousarray(rotation[:, segment])
            for _ in range(3 if first else 1):
                apart = _log(found @ path[row].swapaxes(-1, -2))
                share = 1.0 / (1.0 + np.sum(apart**2, axis=-1) / _FLIPPED**2) ** 2
                counted[:, segment] = known = turns[:, segment] * share[:, None, None]
                motion = _log(path[1:] @ path[:-1].swapaxes(-1, -2))
                path = _exp(self._step(segment, row, motion, apart, known)) @ path
            self._rotation[segment] = path

        with futures.ThreadPoolExecutor(machine.cores()) as pool:
            list(pool.map(smooth, range(24)))
        known = known_place[:, :, None] * np.eye(3)
        self._place += self._step(24, row, np.diff(self._place, axis=0), place - self._place[row], known)
        return counted

    def _step(
        self,
        segment: int,
        row: Int[np.ndarray, "m"],
        motion: Float[np.ndarray, "rows-1 3"],
        apart: Float[np.ndarray, "m 3"],
        known: Float[np.ndarray, "m 3 3"],
    ) -> Float[np.ndarray, "rows 3"]:
        """Return the steps e of a segment (24: of the place) that minimise sum |apart - e|^2_known + |a + D e|^2.

        One banded system, row after row, three components each, so that neighbours in time are three places apart.
        """
        bands, right = self._springs * self._stiffness[segment], np.zeros((self._springs.shape[1], 3))
        bands[0] += _STILL
        force = -self._stiffness[segment] * (motion[self._inner] - motion[self._inner - 1])
        for offset, share in _SECOND_DIFFERENCE:
            right[self._inner + offset] += share * force  # an index occurs once among the inner ones
        right[row] += np.einsum("nij,nj->ni", known, apart)
        for i, j in zip(*np.triu_indices(3), strict=True):
            bands[j - i][row, i] += known[:, i, j]
        return scipy.linalg.solveh_banded(bands.reshape(9, -1), right.ravel(), lower=True).reshape(-1, 3)

    def _bodies(self, expected: Expected, like: BodyParameters) -> BodyParameters:
        """Return the bodies that are expected, whose scales are of the kind of others."""
        world = np.asarray(expected.rotation)
        relative = np.swapaxes(world[:, self._parents[1:]], -1, -2) @ world[:, 1:]
        moved = BodyParameters(
            pose=_axis_angle(relative),
            segment_scale=np.ones((len(world), 24)),
            rotation=world[:, 0],
            camera_scale=np.exp(expected.place[:, 2]),
            translation=expected.place[:, :2],
            girth=like.girth,
            segment_girth=like.segment_girth,
        )
        return with_shape(self._template, moved, expected)


# --- one shape ---


def shape_of(template: Template, bodies: BodyParameters) -> Float[np.ndarray, "n m"]:
    """Return the shapes of bodies as `Information.shape` has them: log scale of the root, stretches, log girths."""
    scale = np.log(np.float64(bodies.segment_scale)) + np.log(np.float64(bodies.camera_scale))[:, None]
    stretch = scale[:, 1:] - scale[:, np.array(template.parents[1:])]
    girths = bodies.girth if bodies.segment_girth is None else bodies.segment_girth
    girths = np.ones((len(scale), 0)) if girths is None else np.float64(girths).reshape(len(scale), -1)
    return np.concatenate([scale[:, :1], stretch, np.log(girths)], axis=1)


def without_size(slope: Float[np.ndarray, "n m"], matrix: Float[np.ndarray, "n m m"]) -> tuple[np.ndarray, np.ndarray]:
    """Return the slopes and matrices of shapes whose size, the first unknown, is each frame's own."""
    share = matrix[:, 1:, 0] / np.maximum(matrix[:, :1, 0], 1e-12)
    return slope[:, 1:] - share * slope[:, :1], matrix[:, 1:, 1:] - share[:, :, None] * matrix[:, :1, 1:]


def one_shape(
    person: Int[np.ndarray, "n"],
    shape: Float[np.ndarray, "n m"],
    slope: Float[np.ndarray, "n m"],
    matrix: Float[np.ndarray, "n m m"],
) -> Float[np.ndarray, "n m"]:
    """Return for each frame the shape of its person: sum H s = sum H s_t - g_t over that person's frames."""
    size = shape.shape[1]
    stiffness = matrix + _RIDGE * np.trace(matrix, axis1=1, axis2=2)[:, None, None] / size * np.eye(size)
    right, order = np.einsum("nij,nj->ni", stiffness, shape) - slope, np.argsort(person, kind="stable")
    _, first, which = np.unique(person[order], return_index=True, return_inverse=True)
    left, right = (np.add.reduceat(each[order], first) for each in (stiffness, right))
    return np.linalg.solve(left, right[..., None])[which, :, 0][np.argsort(order)]


def given_shape(shape: Float[np.ndarray, "n m"]) -> Expected:
    """Return stretches and girths (23 and 0, 1 or 48 numbers) as what is expected, and of all else nothing."""
    count, log_girth = len(shape), shape[:, 23:]
    log_girth = log_girth.reshape(count, 24, 2) if log_girth.shape[1] > 1 else np.pad(log_girth, ((0, 0), (0, 1)))[:, 0]
    return Expected(
        rotation=np.tile(np.eye(3), (count, 24, 1, 1)),
        rotation_root=np.zeros((count, 24, 3, 3)),
        stretch=shape[:, :23],
        stretch_weight=np.full((count, 23), HOLD),
        log_girth=log_girth,
        girth_weight=np.full_like(log_girth, HOLD),
        place=np.zeros((count, 3)),
        place_weight=np.zeros((count, 3)),
    )


def with_shape(template: Template, bodies: BodyParameters, told: Expected) -> BodyParameters:
    """Return bodies with the stretches and girths that are expected; their camera's scale is that of the root."""
    log_scale, girths = np.zeros((len(told.stretch), 24)), np.exp(np.float64(told.log_girth))
    for node in range(1, 24):
        log_scale[:, node] = log_scale[:, template.parents[node]] + told.stretch[:, node - 1]
    shaped = dataclasses.replace(
        bodies,
        segment_scale=np.exp(log_scale),
        girth=None if bodies.girth is None else girths,
        segment_girth=None if bodies.segment_girth is None else girths,
    )
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), fix_gauge(shaped))


def of_orientations(information: Float[np.ndarray, "n 24 4 4"]) -> Float[np.ndarray, "n 24 3 3"]:
    """Return what is known of orientations where scales are not."""
    mixed, known = information[..., :3, 3], np.maximum(information[..., 3, 3], 1e-9)[..., None, None]
    return information[..., :3, :3] - mixed[..., :, None] * mixed[..., None, :] / known


_axis_angle = jax.jit(rotations.matrix_to_axis_angle)


@jax.jit
def _segments(template: Template, bodies: BodyParameters) -> tuple[Array, Array]:
    """Return the orientations of the segments, and their log scales, crop units a metre."""
    world = jax.vmap(lambda one: kinematics.pose_segments(template, one).rotation)(bodies)
    return world, jax.numpy.log(bodies.segment_scale) + jax.numpy.log(bodies.camera_scale)[:, None]


def _log(rotation: Float[np.ndarray, "*b 3 3"]) -> Float[np.ndarray, "*b 3"]:
    """Return rotation vectors, in float64; of half turns any direction."""
    sine = 0.5 * np.stack([rotation[..., j, i] - rotation[..., i, j] for i, j in ((1, 2), (2, 0), (0, 1))], axis=-1)
    length = np.sqrt(np.sum(sine**2, axis=-1))
    cosine = 0.5 * (rotation[..., 0, 0] + rotation[..., 1, 1] + rotation[..., 2, 2] - 1.0)
    angle = np.arctan2(length, cosine)
    return np.where(length > 1e-9, angle / np.maximum(length, 1e-9), 1.0)[..., None] * sine


def _exp(vector: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 3 3"]:
    """Return the rotations by vectors, Rodrigues' formula."""
    square = np.sum(vector**2, axis=-1)
    angle = np.sqrt(square)
    sine, half = np.sinc(angle / np.pi), 0.5 * np.sinc(angle / (2.0 * np.pi)) ** 2
    x, y, z = np.moveaxis(vector, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*vector.shape, 3)
    outer = vector[..., :, None] * vector[..., None, :]
    straight = (np.cos(angle))[..., None, None] * np.eye(3)
    return straight + sine[..., None, None] * cross + half[..., None, None] * outer
