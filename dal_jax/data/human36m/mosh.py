"""Dense correspondences from SMPL's parameters (paper, 6.1: MoSh): bodies posed, and looked at along rays."""

import pathlib
import zlib
from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from dal_jax.body import skinning, template as template_lib
from dal_jax.correspondences import person as person_lib
from dal_jax.data.human36m import bodies as bodies_lib, cameras, dense, placement, sequences
from dal_jax.data.poses import smpl_motion
from dal_jax.data.recording import source as source_lib
from dal_jax.data.synthetic import annotator, cameras as crops
from dal_jax.runtime import errors
from dal_jax.viewing import raycast

WORST_FIT_MM = 150.0
"""Root mean square of the 17 joints, body against positions; beyond it the parameters are another moment's or person's.

A body that has not the person's shape is tens of millimetres off in every frame.
"""

_BLOCK = 32  # bodies posed at once
_GRID = 96  # rays along the crop's side, from whose hits the points are chosen


def find(folder: pathlib.Path, sequence: sequences.Sequence) -> pathlib.Path:
    """Return a sequence's file of parameters: `S1/Directions 1.npz`, `_poses.npz`, `.pkl` or `_cam0_aligned.pkl`.

    Raises:
      errors.InputError: there is none.
    """
    number = cameras.NAMES.index(sequence.camera)
    endings = (".npz", "_poses.npz", ".pkl", f"_cam{number}_aligned.pkl")
    for ending in endings:
        if (path := folder / sequence.subject / f"{sequence.stem}{ending}").is_file():
            return path
    raise errors.InputError(f"{folder / sequence.subject}: no {sequence.stem}{{{','.join(endings)}}}")


def annotate(
    path: pathlib.Path,
    sequence: sequences.Sequence,
    bodies: bodies_lib.Bodies,
    lens: cameras.Lens,
    truth_mm: Float[np.ndarray, "frames 17 3"],
    wanted: Int[np.ndarray, "k"],
) -> Iterator[dense.Dense | person_lib.Rejected | source_lib.Noted]:
    """Yield for each wanted frame 100 to 150 surface points that the camera sees, each at its exact projection.

    truth_mm: the sequence's joints in the camera's frame. They say where the parameters' world is (and how large a
    person is whose shape is not known): the paper's MoSh route begins at markers, too. What is yielded of it is 2D.

    Raises:
      errors.InputError: the file cannot be read, or is not as long as the sequence.
    """
    motion = smpl_motion.read(path)
    template, shaped = bodies.of(tuple(motion.betas.tolist()))
    rows = placement.motion_frames(path, len(motion.root), motion.rate, len(truth_mm), wanted)
    kept = rows[rows >= 0]
    joints = smpl_motion.h36m_joints(template, motion.root[kept], motion.pose[kept])
    truth = truth_mm[wanted[rows >= 0]] / 1000
    trans = None if motion.trans is None else motion.trans[kept]
    places = placement.place(joints, truth, trans, scaled=not shaped)
    told = zip(places, joints, truth, _bodies(template, motion.root[kept], motion.pose[kept]), strict=True)
    for frame, row in zip(wanted.tolist(), rows, strict=True):
        if row < 0:
            yield source_lib.Noted("frame without parameters")
            continue
        place, own, true, vertices = next(told)
        error_mm = 1000 * float(np.sqrt(np.mean(np.sum((place(own) - true) ** 2, axis=-1))))
        if error_mm > WORST_FIT_MM:
            message = f"{path}: frame {frame} of {sequence.name}: joints are {error_mm:.0f} mm from D3_Positions"
            yield person_lib.Rejected(sequence.name, frame, sequence.video.name, "parameters do not fit", message)
        else:
            random = np.random.default_rng((zlib.crc32(sequence.name.encode()), frame))
            seen = look(place(vertices), template, lens, random)
            face, barycentric = bodies.carry(template, seen.face, seen.barycentric)
            yield seen._replace(face=face, barycentric=barycentric)


def look(
    vertices: Float[np.ndarray, "n 3"],
    template: template_lib.Template,
    lens: cameras.Lens,
    random: np.random.Generator,
) -> dense.Dense:
    """Return what a camera sees of a body in its frame, metres: the crop around it, points spread over the parts."""
    outline_px = lens.project(vertices)
    low, high = outline_px.min(axis=0), outline_px.max(axis=0)
    side = person_lib.CROP_MARGIN * (high - low).max()
    box_px = np.array([*((low + high - side) / 2), side, side])
    view = LensView(vertices, np.asarray(template.faces), lens)
    grid_px = crops.pixel_grid_px(box_px, _GRID)
    face = view.cast(grid_px).face
    part = np.where(face >= 0, np.asarray(template.part)[face], 0)
    points = annotator.exact_points(view, part, grid_px, random)
    return dense.Dense(box_px, points.px, points.face, points.barycentric)


class LensView:
    """A body before one of the cameras, for looking at it along pixels (`annotator.exact_points`)."""

    def __init__(self, vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"], lens: cameras.Lens):
        self.body_faces = len(faces)
        self._scene = raycast.Scene(vertices.astype(np.float32), faces)
        self._lens = lens

    def cast(self, points_px: Float[np.ndarray, "*b 2"]) -> raycast.Hits:
        """Look along photograph pixels; `distance` is the depth z, metres."""
        directions = self._lens.rays(points_px).reshape(-1, 3)
        hits = self._scene.cast(np.zeros_like(directions), directions)
        shape = points_px.shape[:-1]
        return raycast.Hits(hits.face.reshape(shape), hits.barycentric.reshape(*shape, 3), hits.distance.reshape(shape))


def _bodies(
    template: template_lib.Template, root: Float[np.ndarray, "k 3"], angles: Float[np.ndarray, "k 23 3"]
) -> Iterator[Float[np.ndarray, "n 3"]]:
    """Yield the vertices of each body, the pelvis at the origin; posed in blocks of one size, the last filled up."""
    for start in range(0, len(root), _BLOCK):
        rows = np.arange(start, start + _BLOCK) % len(root)
        block = np.asarray(_vertices(template, root[rows], angles[rows]), np.float64)
        yield from block[: len(root) - start]


@jax.jit
def _vertices(
    template: template_lib.Template, root: Float[Array, "k 3"], angles: Float[Array, "k 23 3"]
) -> Float[Array, "k n 3"]:
    def one(turn, pose):
        return skinning.skin_vertices(template, smpl_motion.segments_of(template, turn, pose))

    return jax.vmap(one)(root, angles)
