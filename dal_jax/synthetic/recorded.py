"""Recorded motions as postures of the synthetic people: moments of SMPL's parameters (AMASS, MoSh).

Only these fit: a posture is a rotation a joint of SMPL's skeleton, measured from the T-pose. A .bvh or an .amc turns
its own bones from a rest pose of its own; where those bones are is read (`data.poses`), but how they would turn SMPL's
is a fit, which is registration's business.
"""

import functools
import hashlib
import pathlib

import numpy as np

from dal_jax.data.motions import collection, smpl_motion
from dal_jax.data.motions.smpl_motion import SmplMotion
from dal_jax.runtime.errors import InputError
from dal_jax.synthetic import turns
from dal_jax.synthetic.motions import Posture

_TEST_EVERY = 10  # of the recordings, in order of their names, one in so many is for the test people alone
_Y_UP = turns.about("x", -np.pi / 2)  # recordings have z up


def posture(folder: str, split: str, random: np.random.Generator) -> Posture:
    """Return any moment of any recording of a split: no chair, and heading for +z as the actions do.

    Raises:
      errors.InputError: the folder has too few recordings, or one cannot be read.
    """
    files = recordings(folder, split)
    motion = _read(files[int(random.integers(len(files)))])
    frame = int(random.integers(len(motion.root)))
    root = _Y_UP @ turns.matrix(motion.root[frame])
    forward = root[:, 2]
    heading = np.arctan2(forward[0], forward[2])
    return Posture(turns.about("y", -heading) @ root, motion.pose[frame], on_chair=False)


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


def digest(folder: str) -> str:
    """Return a short name of all recordings' names and sizes."""
    content = hashlib.sha256()
    for split in ("train", "test"):
        for path in recordings(folder, split):
            content.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode())
    return content.hexdigest()[:12]


@functools.lru_cache(64)
def _read(path: pathlib.Path) -> SmplMotion:
    return smpl_motion.read(path)
