"""Motions as SMPL's parameters: AMASS's .npz, MoSh's .pkl; and Human3.6M's joints of them, through a body."""

import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.spatial.transform import Rotation

from dal_jax.body import kinematics, rotations, skeleton, skinning
from dal_jax.body.formats import array_pickle
from dal_jax.body.kinematics import Segments
from dal_jax.body.template import Template
from dal_jax.data.motions import tracks
from dal_jax.runtime import door
from dal_jax.runtime.errors import InputError

_WIDTHS = {72: "SMPL", 156: "SMPL+H", 165: "SMPL-X"}
_BODY = 21  # joints below the pelvis that all three share; SMPL's last two, the hands, have fingers in the others
_RATES = ("mocap_framerate", "mocap_frame_rate")
_LARGEST = 1e4
_UP = {"poses": "z", "new_poses": "-y"}  # of AMASS's world, of a camera's frame
_TRUNK_M = 0.5
_BATCH = 256  # poses at once: one shape for the compiler, whatever a file's length


class SmplMotion(NamedTuple):
    """One recording; metres and radians.

    root: rotation vector of the pelvis, to the recording's world; pose: of the other joints in their parents' frames.
    trans: what the file adds to the body's points, None where it tells no place; betas: the person's shape.
    rate: frames a second, None where the file does not say. up: the axis that is usually up in such a file.
    """

    root: Float[np.ndarray, "frames 3"]
    pose: Float[np.ndarray, "frames 23 3"]
    trans: Float[np.ndarray, "frames 3"] | None
    betas: Float[np.ndarray, "k"]
    rate: float | None
    up: str


def read(path: pathlib.Path) -> SmplMotion:
    """Read `poses` (frames, 72, 156 or 165), `trans`, `betas` and `mocap_framerate` of an .npz or a .pkl.

    MoSh's files that were rotated into a camera's frame call the poses `new_poses` and have no `trans`. A pickle that
    names anything but arrays is refused (`body.formats.pickles`).

    Raises:
      errors.InputError: one line that names file, entry and value.
    """
    fields = (array_pickle.read_fields if path.suffix.lower() == ".pkl" else door.read_npz)(path, _ENTRIES)
    name = "poses" if "poses" in fields else "new_poses"
    if name not in fields:
        raise InputError(f"{path}: no 'poses'; it has {', '.join(fields) or 'none of the entries known'}")
    poses = _checked(path, name, fields[name], 2)
    if poses.shape[1] not in _WIDTHS or not len(poses):
        raise InputError(f"{path}: {name} has shape {poses.shape}, not (frames, 72, 156 or 165)")
    trans = _checked(path, "trans", fields["trans"], 2) if "trans" in fields else None
    if trans is not None and trans.shape != (len(poses), 3):
        raise InputError(f"{path}: trans has shape {trans.shape}, not {(len(poses), 3)}")
    pose = np.zeros((len(poses), 23, 3))
    count = 23 if poses.shape[1] == 72 else _BODY
    pose[:, :count] = poses[:, 3 : 3 + 3 * count].reshape(-1, count, 3)
    betas = _checked(path, "betas", fields["betas"], None).ravel() if "betas" in fields else np.zeros(0)
    return SmplMotion(poses[:, :3], pose, trans, betas, _rate(path, fields), _UP[name])


def h36m_joints(
    template: Template, root: Float[np.ndarray, "n 3"], pose: Float[np.ndarray, "n 23 3"]
) -> Float[np.ndarray, "n 17 3"]:
    """Return Human3.6M's joints of bodies in the recording's world, the pelvis at the origin, metres."""
    rows = [np.arange(start, start + _BATCH) % len(root) for start in range(0, len(root), _BATCH)]  # wraps, to fill up
    return np.concatenate([_joints(template, root[row], pose[row]) for row in rows])[: len(root)].astype(np.float64)


def y_up(path: pathlib.Path, motion: SmplMotion) -> tuple[Float[np.ndarray, "3 3"], str]:
    """Return the rotation from the recording's world to one whose y is up, and a note (`tracks.find_up`)."""
    pelvis = Rotation.from_rotvec(motion.root)
    chest = pelvis
    for joint in ("spine1", "spine2", "spine3"):
        chest = chest * Rotation.from_rotvec(motion.pose[:, skeleton.SMPL_JOINT_NAMES.index(joint) - 1])
    trunk = _TRUNK_M / 2 * (pelvis.as_matrix() + chest.as_matrix())[:, :, 1]
    return tracks.find_up(path, trunk, motion.up, motion.trans)


def segments_of(template: Template, root: Float[Array, "3"], pose: Float[Array, "23 3"]) -> Segments:
    """Return a body posed by its angles, every segment as long as the template's."""
    return kinematics.pose_skeleton(template, rotations.axis_angle_to_matrix(root), pose, jnp.ones(24))


@jax.jit
def _joints(template: Template, root: Float[Array, "n 3"], pose: Float[Array, "n 23 3"]) -> Float[Array, "n 17 3"]:
    return jax.vmap(lambda one, angles: skinning.h36m_joints(template, segments_of(template, one, angles)))(root, pose)


def _rate(path: pathlib.Path, fields: dict[str, np.ndarray]) -> float | None:
    for name in _RATES:
        if name in fields:
            rate = _checked(path, name, fields[name], None)
            if rate.size != 1 or rate.item() <= 0:
                raise InputError(f"{path}: {name} is {rate.tolist()}, not a number of frames a second")
            return float(rate.item())
    return None


_ENTRIES = ("poses", "new_poses", "trans", "betas", *_RATES)


def _checked(path: pathlib.Path, name: str, values: np.ndarray, dimensions: int | None) -> np.ndarray:
    if values.dtype.kind not in "iuf" or dimensions not in (None, values.ndim):
        raise InputError(f"{path}: {name} is {values.dtype} of shape {values.shape}, not numbers as expected")
    wrong = ~(np.abs(values.astype(np.float64)) <= _LARGEST)
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise InputError(f"{path}: {name}{list(place)} is {values[place]}")
    return values.astype(np.float64)
