"""Postures of the synthetic people: moments of the fifteen actions of Human3.6M, or of recorded motions.

Recordings are SMPL's parameters (AMASS, MoSh), because a posture is a rotation a joint of SMPL's skeleton, measured
from the T-pose. A .bvh or an .amc rotates bones of its own from a rest pose of its own; where its joints are is read
(`data.motions`), but SMPL's rotations would have to be fitted to them, which is registration's business.
"""

import functools
import hashlib
import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dal_jax.data.motions import collection, smpl_motion
from dal_jax.data.motions.smpl_motion import SmplMotion
from dal_jax.runtime.errors import InputError
from dal_jax.synthetic import actions
from dal_jax.synthetic.figure import Figure, Take, rotate, rotation_matrix

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
