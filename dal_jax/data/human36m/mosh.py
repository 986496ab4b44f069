"""Dense correspondences from SMPL's parameters (paper, 6.1: MoSh): bodies posed, and looked at along rays."""

import dataclasses
import functools
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from dal_jax.body import skinning, triangles
from dal_jax.body.formats import carry_over, load
from dal_jax.body.template import Template
from dal_jax.data.human36m.release import FRAMES_PER_SECOND, CameraSequence, Dense
from dal_jax.data.motions import smpl_motion
from dal_jax.observations import human36m_cameras as cameras, person
from dal_jax.observations.human36m_cameras import Lens
from dal_jax.observations.person import Rejected
from dal_jax.runtime.errors import InputError
from dal_jax.viewing.raycast import Hits, Points, Scene, exact_points, pixel_grid_px

WORST_FIT_MM = 150.0
"""Root mean square of the 17 joints, body against positions; beyond it the parameters are another moment's or person's.

A body that has not the person's shape is tens of millimetres off in every frame.
"""

_BLOCK = 32  # bodies posed at once
_GRID = 96  # rays along the crop's side, from whose hits the points are chosen
_RATES = (10.0, 50.0, 100.0, 120.0, 200.0, 240.0)
"""Frames a second of motions that do not tell theirs; MoSh's of Human3.6M have 200, those per camera 10."""
_SLACK = 0.03  # share by which a motion may be longer or shorter than the positions
_AGREEING = 1.5  # times the median error of a sequence's frames; those beyond have no say in where the body stands


@dataclasses.dataclass(frozen=True)
class SubjectBodies:
    """The body that points are on, and the model of SMPL, if there is one, that is posed in its place.

    body, smpl: files; '' for the free body, and for none.
    """

    body: str = ""
    smpl: str = ""

    def of(self, betas: tuple[float, ...]) -> tuple[Template, bool]:
        """Return what is posed, and whether it has the shape that betas tell, which only a model of SMPL can take.

        Raises:
          errors.InputError: a file is no body, or points of SMPL cannot be carried over to the body.
        """
        posed = self.smpl or self.body
        template, shaped = _shaped(posed, betas)
        target = _load(self.body)
        if not _same_faces(template, target) and not _same_faces(target, load.load_body()):
            raise InputError(f"--smpl={self.smpl}: is known on the free body alone, not on {self.body}")
        return template, shaped

    def carry(
        self, posed: Template, face: Int[np.ndarray, "p"], barycentric: Float[np.ndarray, "p 3"]
    ) -> tuple[Int[np.ndarray, "p"], Float[np.ndarray, "p 3"]]:
        """Return where surface points of what was posed are on the body."""
        target = _load(self.body)
        if _same_faces(posed, target) or not len(face):
            return face, barycentric
        rest = np.einsum("pc,pcx->px", barycentric, _smpl_on_free_body()[np.asarray(posed.faces)[face]])
        return triangles.nearest(rest, np.asarray(target.vertices, np.float64)[np.asarray(target.faces)])


@functools.lru_cache(2)
def _shaped(body: str, betas: tuple[float, ...]) -> tuple[Template, bool]:
    if betas and body and load.is_smpl(body):
        return load.load_smpl_shape(body, betas), True
    return _load(body), False


def _load(body: str) -> Template:
    return load.load_body(body or load.FREE_BODY)


def _same_faces(one: Template, other: Template) -> bool:
    return np.array_equal(one.faces, other.faces)


@functools.cache
def _smpl_on_free_body() -> Float[np.ndarray, "6890 3"]:
    return carry_over.smpl_placement().position


def find(folder: pathlib.Path, sequence: CameraSequence) -> pathlib.Path:
    """Return a sequence's file of parameters: `S1/Directions 1.npz`, `_poses.npz`, `.pkl` or `_cam0_aligned.pkl`.

    Raises:
      errors.InputError: there is none.
    """
    number = cameras.NAMES.index(sequence.camera)
    endings = (".npz", "_poses.npz", ".pkl", f"_cam{number}_aligned.pkl")
    for ending in endings:
        if (path := folder / sequence.subject / f"{sequence.stem}{ending}").is_file():
            return path
    raise InputError(f"{folder / sequence.subject}: no {sequence.stem}{{{','.join(endings)}}}")


def annotate(
    path: pathlib.Path,
    sequence: CameraSequence,
    bodies: SubjectBodies,
    lens: Lens,
    truth_mm: Float[np.ndarray, "frames 17 3"],
    wanted: Int[np.ndarray, "k"],
) -> Iterator[Dense | Rejected | str]:
    """Yield for each wanted frame 100 to 150 surface points that the camera sees, each at its exact projection.

    truth_mm: the sequence's joints in the camera's frame. They say where the parameters' world is (and how large a
    person is whose shape is not known): the paper's MoSh route begins at markers, too. What is yielded of it is 2D.

    Raises:
      errors.InputError: the file cannot be read, or is not as long as the sequence.
    """
    motion = smpl_motion.read(path)
    template, shaped = bodies.of(tuple(motion.betas.tolist()))
    rows = motion_frames(path, len(motion.root), motion.rate, len(truth_mm), wanted)
    kept = rows[rows >= 0]
    joints = smpl_motion.h36m_joints(template, motion.root[kept], motion.pose[kept])
    truth = truth_mm[wanted[rows >= 0]] / 1000
    trans = None if motion.trans is None else motion.trans[kept]
    places = place(joints, truth, trans, scaled=not shaped)
    posed = zip(places, joints, truth, _bodies(template, motion.root[kept], motion.pose[kept]), strict=True)
    for frame, row in zip(wanted.tolist(), rows, strict=True):
        if row < 0:
            yield "frame without parameters"
            continue
        similarity, own, true, vertices = next(posed)
        error_mm = 1000 * float(np.sqrt(np.mean(np.sum((similarity(own) - true) ** 2, axis=-1))))
        if error_mm > WORST_FIT_MM:
            message = f"{path}: frame {frame} of {sequence.name}: joints are {error_mm:.0f} mm from D3_Positions"
            yield Rejected(sequence.name, frame, sequence.video.name, "parameters do not fit", message)
        else:
            random = np.random.default_rng((zlib.crc32(sequence.name.encode()), frame))
            box_px, seen = look(similarity(vertices), template, lens, random)
            yield box_px, Points(seen.px, *bodies.carry(template, seen.face, seen.barycentric))


def look(
    vertices: Float[np.ndarray, "n 3"],
    template: Template,
    lens: Lens,
    random: np.random.Generator,
) -> Dense:
    """Return what a camera sees of a body in its frame, metres: the crop around it, points spread over the parts."""
    outline_px = lens.project(vertices)
    low, high = outline_px.min(axis=0), outline_px.max(axis=0)
    side = person.CROP_MARGIN * (high - low).max()
    box_px = np.array([*((low + high - side) / 2), side, side])
    cast = _caster(vertices, np.asarray(template.faces), lens)
    grid_px = pixel_grid_px(box_px, _GRID)
    face = cast(grid_px).face
    part = np.where(face >= 0, np.asarray(template.part)[face], 0)
    return box_px, exact_points(cast, len(template.faces), part, grid_px, random)


def _caster(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"], lens: Lens
) -> Callable[[Float[np.ndarray, "*b 2"]], Hits]:
    """Return the function that looks along a camera's pixels at a body in its frame, metres."""
    scene = Scene(vertices.astype(np.float32), faces)

    def cast(points_px: Float[np.ndarray, "*b 2"]) -> Hits:
        directions = lens.rays(points_px)
        return scene.cast(np.zeros_like(directions), directions)

    return cast


def _bodies(
    template: Template, root: Float[np.ndarray, "k 3"], angles: Float[np.ndarray, "k 23 3"]
) -> Iterator[Float[np.ndarray, "n 3"]]:
    """Yield the vertices of each body, the pelvis at the origin; posed in blocks of one size, the last filled up."""
    for start in range(0, len(root), _BLOCK):
        rows = np.arange(start, start + _BLOCK) % len(root)
        block = np.asarray(_vertices(template, root[rows], angles[rows]), np.float64)
        yield from block[: len(root) - start]


@jax.jit
def _vertices(template: Template, root: Float[Array, "k 3"], angles: Float[Array, "k 23 3"]) -> Float[Array, "k n 3"]:
    def one(rotation, pose):
        return skinning.skin_vertices(template, smpl_motion.segments_of(template, rotation, pose))

    return jax.vmap(one)(root, angles)


# --- Which frame of a motion a video frame shows, and where the body stands there ---


class Similarity(NamedTuple):
    """target = scale * rotation @ source + shift."""

    scale: float
    rotation: Float[np.ndarray, "3 3"]
    shift: Float[np.ndarray, "3"]

    def __call__(self, points: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 3"]:
        """Carry points over."""
        return self.scale * points @ self.rotation.T + self.shift


def align(source: Float[np.ndarray, "n 3"], target: Float[np.ndarray, "n 3"], scaled: bool) -> Similarity:
    """Return the similarity, without reflection, that brings points nearest to others (Umeyama 1991).

    scaled: choose the scale, too, which is 1 otherwise.
    """
    middle, goal = source.mean(axis=0), target.mean(axis=0)
    centred = source - middle
    u, stretch, vt = np.linalg.svd((target - goal).T @ centred)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    scale = float(np.sum(stretch * sign) / max(np.sum(centred**2), 1e-12)) if scaled else 1.0
    return Similarity(scale, rotation, goal - scale * rotation @ middle)


def place(
    body: Float[np.ndarray, "frames 17 3"],
    truth: Float[np.ndarray, "frames 17 3"],
    trans: Float[np.ndarray, "frames 3"] | None,
    scaled: bool,
) -> list[Similarity]:
    """Return for each frame what brings the body, posed with its pelvis at the origin, before the camera.

    With `trans` one similarity holds for the whole sequence, whatever world the motion was recorded in; without it
    each frame has its own, for the file does not say where the person is. `scaled`: one scale for the sequence makes
    the body as large as the person, whose shape it has not.
    """
    if trans is not None:
        whole = _align_most(body + trans[:, None], truth, scaled)
        return [whole._replace(shift=whole(own)) for own in trans]
    each = [align(one, goal, scaled) for one, goal in zip(body, truth, strict=True)]
    scale = float(np.median([one.scale for one in each]))
    return [
        Similarity(scale, one.rotation, goal.mean(axis=0) - scale * one.rotation @ points.mean(axis=0))
        for one, points, goal in zip(each, body, truth, strict=True)
    ]


def _align_most(
    body: Float[np.ndarray, "frames 17 3"], truth: Float[np.ndarray, "frames 17 3"], scaled: bool
) -> Similarity:
    """Return the similarity of the frames that agree: those whose error is near the median's, once all are aligned."""
    first = align(body.reshape(-1, 3), truth.reshape(-1, 3), scaled)
    error = np.sqrt(np.mean((first(body) - truth) ** 2, axis=(1, 2)))
    kept = error <= _AGREEING * np.median(error)
    return align(body[kept].reshape(-1, 3), truth[kept].reshape(-1, 3), scaled)


def motion_frames(
    path: pathlib.Path, recorded: int, rate: float | None, count: int, wanted: Int[np.ndarray, "k"]
) -> Int[np.ndarray, "k"]:
    """Return which of a motion's `recorded` frames shows each wanted one of `count` positions; -1 where there is none.

    Raises:
      errors.InputError: the motion is longer or shorter than the sequence at any rate known.
    """
    seconds = count / FRAMES_PER_SECOND
    rates = (rate,) if rate else _RATES
    fitting = [one for one in rates if abs(recorded - seconds * one) <= _SLACK * seconds * one + one / 10]
    if not fitting:
        at = f"at {rate:g} a second" if rate else "at any rate known"
        raise InputError(f"{path}: {recorded} frames {at} are not the sequence's {seconds:.1f} s")
    best = min(fitting, key=lambda one: abs(recorded - seconds * one))
    exact = wanted * best / FRAMES_PER_SECOND
    nearest = np.round(exact).astype(np.int64)
    there = (np.abs(exact - nearest) < 0.5 * min(1.0, best / FRAMES_PER_SECOND) + 1e-6) & (nearest < recorded)
    return np.where(there, nearest, -1)
