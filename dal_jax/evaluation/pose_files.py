"""Files of 3D poses, and the comparison of two of them."""

import dataclasses
import os
import pathlib
import zipfile

import numpy as np

from dal_jax.evaluation import protocols
from dal_jax.runtime import errors

UNITS = ("mm", "px")


@dataclasses.dataclass(frozen=True)
class Poses:
    """The content of one file: joints (n, 17, 3), Human3.6M order, in `unit`; action (n,) strings, or None."""

    joints: np.ndarray
    unit: str
    action: np.ndarray | None = None


def read(path: str | os.PathLike[str]) -> Poses:
    """Read and check an .npz with `joints`, `unit` and, if it likes, `action`.

    Raises:
      errors.InputError: it is missing, no .npz, or a field is missing, misshaped or not finite; names file and field.
    """
    try:
        # Opened here: given a path, NumPy leaves the file of a broken archive open.
        with pathlib.Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            fields = {name: archive[name] for name in ("joints", "unit", "action") if name in archive}
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise errors.InputError(f"{path}: no readable .npz ({type(error).__name__})") from error
    for name in ("joints", "unit"):
        if name not in fields:
            raise errors.InputError(f"{path}: no field '{name}'")
    joints, unit = fields["joints"], " ".join(fields["unit"].astype(str).ravel().tolist())
    if unit not in UNITS:
        raise errors.InputError(f"{path}: unit is '{unit}', not one of {', '.join(UNITS)}")
    if joints.ndim != 3 or joints.shape[1:] != (17, 3) or not len(joints):
        raise errors.InputError(f"{path}: joints has shape {joints.shape}, not (n, 17, 3)")
    if not np.issubdtype(joints.dtype, np.number) or np.iscomplexobj(joints):
        raise errors.InputError(f"{path}: joints has type {joints.dtype}, not a real number")
    if not np.isfinite(joints).all():
        pose, joint, _ = np.argwhere(~np.isfinite(joints))[0]
        raise errors.InputError(f"{path}: joints[{pose}, {joint}] is {joints[pose, joint].tolist()}")
    action = fields.get("action")
    if action is not None and action.shape != (len(joints),):
        raise errors.InputError(f"{path}: action has shape {action.shape}, not ({len(joints)},)")
    return Poses(joints.astype(np.float32), unit, None if action is None else action.astype(str))


def score(poses: Poses, truth: Poses, canonical_bone_sum: float) -> dict[str, np.ndarray]:
    """Return every metric per example, (n,), in the truth's unit; `mpjpe`, the raw one, only where both are in mm.

    Raises:
      errors.InputError: the files hold different numbers of poses.
    """
    if len(poses.joints) != len(truth.joints):
        raise errors.InputError(f"{len(poses.joints)} poses, but {len(truth.joints)} true ones")
    protocol = protocols.human36m_protocol_1
    scaled = protocol.score(poses.joints, truth.joints, canonical_bone_sum)
    scores = {
        "mpjpe_scale_matched": scaled["mpjpe_scale_matched_mm"],
        "mpjpe_bone_sum": scaled["mpjpe_mm"],
        "pa_mpjpe": scaled["pa_mpjpe_mm"],
    }
    if poses.unit == truth.unit == "mm":
        raw = dataclasses.replace(protocol, scaling="none")
        scores = {"mpjpe": raw.score(poses.joints, truth.joints, canonical_bone_sum)["mpjpe_mm"]} | scores
    return scores
