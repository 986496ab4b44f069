"""The actors: who they are, and how they stand at a moment.

A `Subject` has its own rest shape, posed by linear blend skinning in NumPy. The shapes share the free body's faces and
weights, but no choice of segment scales turns one into the other, so that fitting the free body to them is never a test
of a model against itself.

A `Posture` is a moment of the fifteen actions of Human3.6M, or of recorded motions. Recordings are SMPL's parameters
(AMASS, MoSh), because a posture is a rotation a joint of SMPL's skeleton, measured from the T-pose. A .bvh or an .amc
rotates bones of its own from a rest pose of its own; where its joints are is read (`data.motions`), but SMPL's
rotations would have to be fitted to them, which is registration's business.
"""

import functools
import hashlib
import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dal_jax.body import skeleton
from dal_jax.body.formats import load
from dal_jax.body.template import Template
from dal_jax.data.motions import collection, smpl_motion
from dal_jax.data.motions.smpl_motion import SmplMotion
from dal_jax.runtime import door
from dal_jax.runtime.errors import InputError
from dal_jax.synthetic import actions
from dal_jax.synthetic.figure import Figure, Take, rotate, rotation_matrix

SUBJECT_SHAPES = load.ASSETS / "synthetic_people.npz"
TORSO, HEAD = (1, 2), (23, 24)


class Subject(NamedTuple):
    """One actor in the T-pose; skinning_matrix is W (x) [v, 1]; landmarks are rest points and lengths for posing."""

    name: str
    joints: Float[np.ndarray, "24 3"]
    vertices: Float[np.ndarray, "n 3"]
    skinning_matrix: Float[np.ndarray, "n 96"]
    landmarks: dict[str, np.ndarray]


def surface() -> Template:
    """Return the free body, whose faces, parts, chart, skinning weights and regressor all subjects share."""
    return load.load_body()


@functools.cache
def corners() -> Float[np.ndarray, "m 3 3"]:
    """Return the rest positions of the corners of the free body's faces, metres."""
    return np.asarray(surface().vertices)[surface().faces]


@functools.cache
def subject(name: str) -> Subject:
    """Return a subject, by Human3.6M's name.

    Raises:
      errors.InputError: the file of shapes does not have it, or does not fit the free body.
    """
    fields = door.read_npz(SUBJECT_SHAPES)
    names = [str(one) for one in fields["subject_names"]]
    if name not in names:
        raise InputError(f"{SUBJECT_SHAPES}: no subject {name!r}; it has {', '.join(names)}")
    row = names.index(name)
    vertices, joints = fields["vertices"][row].astype(np.float64), fields["joints"][row].astype(np.float64)
    if vertices.shape != surface().vertices.shape:
        raise InputError(f"{SUBJECT_SHAPES}: {vertices.shape} vertices do not fit the free body")
    vertices, joints = vertices - joints[0], joints - joints[0]
    homogeneous = np.concatenate([vertices, np.ones_like(vertices[:, :1])], axis=1)
    matrix = (np.asarray(surface().skin_weight)[:, :, None] * homogeneous[:, None, :]).reshape(len(vertices), -1)
    return Subject(name, joints, vertices, matrix.astype(np.float32), _landmarks(vertices, joints))


def pose(
    actor: Subject, root: Float[np.ndarray, "3 3"], rotation_vectors: Float[np.ndarray, "23 3"]
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "24 3"]]:
    """Return (vertices, joints) of a posed subject, pelvis at the origin, metres."""
    rotations, positions = np.empty((24, 3, 3)), np.zeros((24, 3))
    rotations[0] = root
    for joint, parent in enumerate(skeleton.SMPL_PARENTS):
        if joint:
            positions[joint] = positions[parent] + rotations[parent] @ (actor.joints[joint] - actor.joints[parent])
            rotations[joint] = rotations[parent] @ rotation_matrix(rotation_vectors[joint - 1])
    shift = positions - np.einsum("jab,jb->ja", rotations, actor.joints)
    transforms = np.concatenate([rotations.transpose(0, 2, 1), shift[:, None]], axis=1).reshape(96, 3)
    return actor.skinning_matrix @ transforms.astype(np.float32), positions


@functools.cache
def template_landmarks() -> dict[str, np.ndarray]:
    """Return the landmarks of the free body itself."""
    return _landmarks(np.asarray(surface().vertices), np.asarray(surface().joints))


def _landmarks(vertices: np.ndarray, joints: np.ndarray) -> dict[str, np.ndarray]:
    """Measure the face and the trunk: points to lead hands to, and widths to keep them outside of."""
    regressor = np.asarray(surface().h36m_regressor)
    nose, head_top = regressor[9] @ vertices, regressor[10] @ vertices
    head = vertices[np.unique(surface().faces[np.isin(surface().part, HEAD)])]
    trunk = vertices[np.unique(surface().faces[np.isin(surface().part, (*TORSO, 7, 8, 9, 10))])]
    spine3 = joints[skeleton.SMPL_JOINT_NAMES.index("spine3")]
    cheek = head[np.abs(head[:, 1] - nose[1] - 0.01) < 0.02]
    ear_z = np.mean([cheek[:, 2].min(), nose[2]])
    return {
        "nose": nose,
        "head_top": head_top,
        "ear": np.array([np.abs(cheek[np.abs(cheek[:, 2] - ear_z) < 0.03, 0]).max(), nose[1] + 0.005, ear_z]),
        "mouth": nose + [0.0, -0.045, -0.015],
        "eyes": nose + [0.0, 0.035, -0.02],
        "chest": np.array([0.0, spine3[1], _level(trunk, float(spine3[1]))[:, 2].max()]),
        "belly": _level(trunk, 0.0)[:, 2].max(),
        "waist_width": np.abs(_level(trunk, 0.10)[:, 0]).max(),
        "hip_width": np.abs(_level(trunk, -0.03)[:, 0]).max(),
    }


def _level(points: np.ndarray, height: float) -> np.ndarray:
    return points[np.abs(points[:, 1] - height) < 0.03]


# --- Postures ---

ACTIONS = {
    "Directions": actions.directions,
    "Discussion": actions.discussion,
    "Eating": actions.eating,
    "Greeting": actions.greeting,
    "Phoning": actions.phoning,
    "Photo": actions.photo,
    "Posing": actions.posing,
    "Purchases": actions.purchases,
    "Sitting": actions.sitting,
    "SittingDown": actions.sitting_down,
    "Smoking": actions.smoking,
    "Waiting": actions.waiting,
    "WalkDog": actions.walk_dog,
    "Walking": actions.walking,
    "WalkTogether": actions.walk_together,
}
"""Human3.6M's names -> the function that poses a figure."""

LENGTH_S = 20.0
"""How long a take lasts, seconds."""


_TEST_EVERY = 10  # of the recordings, in order of their names, one in so many is for the test people alone


class Posture(NamedTuple):
    """One moment: the pelvis' rotation in the figure's frame (y up, facing +z) and the joints' rotation vectors.

    on_chair: whether a chair belongs under it.
    """

    root: Float[np.ndarray, "3 3"]
    pose: Float[np.ndarray, "23 3"]
    on_chair: bool


def perform(
    action: str,
    joints: Float[np.ndarray, "24 3"],
    landmarks: dict[str, np.ndarray],
    seed: tuple[int, ...],
    time: float,
) -> Posture:
    """Return how the actor with these rest joints stands at `time` seconds into the take that `seed` names."""
    figure = Figure(joints, landmarks)
    ACTIONS[action](figure, Take(seed, time))
    return Posture(*figure.pose(), figure.sits_on_chair)


def recorded_posture(folder: str, split: str, random: np.random.Generator) -> Posture:
    """Return any moment of any recording of a split: without a chair, facing +z as in the actions.

    Raises:
      errors.InputError: the folder has too few recordings, or one cannot be read.
    """
    files = recordings(folder, split)
    motion, y_up = _read(files[int(random.integers(len(files)))])
    frame = int(random.integers(len(motion.root)))
    root = y_up @ rotation_matrix(motion.root[frame])
    forward = root[:, 2]
    azimuth = np.arctan2(forward[0], forward[2])
    return Posture(rotate("Y", -azimuth) @ root, motion.pose[frame], on_chair=False)


@functools.cache
def recordings(folder: str, split: str) -> tuple[pathlib.Path, ...]:
    """Return the files of a split, in order.

    Raises:
      errors.InputError: there are fewer than ten, so that none would be left for the test people.
    """
    found = [path for path in collection.find(pathlib.Path(folder)) if path.suffix in (".npz", ".pkl")]
    if len(found) < _TEST_EVERY:
        raise InputError(f"{folder}: {len(found)} recordings (.npz, .pkl); {_TEST_EVERY} are needed")
    tests = found[_TEST_EVERY - 1 :: _TEST_EVERY]
    return tuple(tests if split == "test" else sorted(set(found) - set(tests)))


def recordings_digest(folder: str) -> str:
    """Return a short name of all recordings' names and sizes."""
    content = hashlib.sha256()
    for split in ("train", "test"):
        for path in recordings(folder, split):
            content.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode())
    return content.hexdigest()[:12]


@functools.lru_cache(64)
def _read(path: pathlib.Path) -> tuple[SmplMotion, Float[np.ndarray, "3 3"]]:
    """Return a recording, and the rotation from its world to one whose y is up."""
    motion = smpl_motion.read(path)
    return motion, smpl_motion.y_up(path, motion)[0]
