"""Human3.6M's joint positions: .cdf files of 32 joints a frame, of which 17 move."""

import pathlib

import cdflib
import numpy as np
from jaxtyping import Float

from dal_jax.runtime import errors

JOINTS = 32
MOVING = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
"""Which of the 32 are the 17 of `skeleton.H36M_JOINT_NAMES`, in their order; the others repeat or do not move."""

FRAMES_PER_SECOND = 50
"""Of videos and positions alike."""

_FARTHEST = 1e5  # mm or px; the laboratory is some metres wide


def read(path: pathlib.Path, axes: int) -> Float[np.ndarray, "frames 17 axes"]:
    """Read the moving joints of a file: 2 axes in px (D2_Positions), 3 in mm (D3_Positions and its kin).

    The variable `Pose` has the shape (1, frames, 32 axes).

    Raises:
      errors.InputError: missing, no CDF, another shape, or a number that is none; one line that names file and entry.
    """
    if not path.is_file():
        raise errors.InputError(f"{path}: no such file")
    try:
        pose = np.asarray(cdflib.CDF(path).varget("Pose"))
    except Exception as error:  # cdflib raises a dozen types on files that are no CDF
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise errors.InputError(f"{path}: 'Pose' cannot be read from this .cdf: {text}") from error
    if pose.ndim != 3 or pose.shape[0] != 1 or pose.shape[2] != JOINTS * axes or pose.dtype.kind != "f":
        raise errors.InputError(
            f"{path}: 'Pose' is {pose.dtype} of shape {pose.shape}, not numbers of shape (1, frames, {JOINTS * axes})"
        )
    joints = pose[0].reshape(-1, JOINTS, axes)[:, MOVING].astype(np.float64)
    wrong = ~(np.abs(joints) <= _FARTHEST).all(axis=-1)
    if wrong.any():
        frame, joint = np.argwhere(wrong)[0]
        raise errors.InputError(f"{path}: frame {frame}: joint {MOVING[joint]} is {joints[frame, joint].tolist()}")
    return joints
