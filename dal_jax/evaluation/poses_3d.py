"""Files of 3D poses (.npz), and the comparison of two of them."""

import dataclasses
import os

import jax
import numpy as np

from dal_jax.body import cameras
from dal_jax.evaluation import metrics
from dal_jax.runtime import door
from dal_jax.runtime.errors import InputError

UNITS = ("mm", "px")


@dataclasses.dataclass(frozen=True)
class Poses3D:
    """The content of one file; all but `joints` and `unit` may be missing (None).

    joints: (n, 17, 3), Human3.6M order, in `unit`. action: (n,) strings. box_px: (n, 4), x, y, width, height of the
    crop each pose was seen in. intrinsics_px: (n, 4), fx, fy, cx, cy of each photograph's camera.
    """

    joints: np.ndarray
    unit: str
    action: np.ndarray | None = None
    box_px: np.ndarray | None = None
    intrinsics_px: np.ndarray | None = None


def read(path: str | os.PathLike[str]) -> Poses3D:
    """Read and check an .npz with `joints` and `unit`, and optionally `action`, `box_px` and `intrinsics_px`.

    `box_px` and `intrinsics_px` are (n, 4), or (4,) where they are the same for all.

    Raises:
      errors.InputError: the file is missing or no .npz, or a field is missing, misshaped or not finite; the line names
        file and field.
    """
    fields = door.read_npz(path, _FIELDS)
    for name in ("joints", "unit"):
        if name not in fields:
            raise InputError(f"{path}: no field '{name}'")
    joints, unit = fields["joints"], " ".join(_text(fields["unit"]).ravel().tolist())
    if unit not in UNITS:
        raise InputError(f"{path}: unit is '{unit}', not one of {', '.join(UNITS)}")
    if joints.ndim != 3 or joints.shape[1:] != (17, 3) or not len(joints):
        raise InputError(f"{path}: joints has shape {joints.shape}, not (n, 17, 3)")
    if not np.issubdtype(joints.dtype, np.number) or np.iscomplexobj(joints):
        raise InputError(f"{path}: joints has type {joints.dtype}, not a real number")
    if not np.isfinite(joints).all():
        pose, joint, _ = np.argwhere(~np.isfinite(joints))[0]
        raise InputError(f"{path}: joints[{pose}, {joint}] is {joints[pose, joint].tolist()}")
    action = fields.get("action")
    if action is not None and action.shape != (len(joints),):
        raise InputError(f"{path}: action has shape {action.shape}, not ({len(joints)},)")
    return Poses3D(
        joints.astype(np.float32),
        unit,
        None if action is None else _text(action),
        _four_numbers(path, "box_px", fields.get("box_px"), len(joints), positive=slice(2, 4)),
        _four_numbers(path, "intrinsics_px", fields.get("intrinsics_px"), len(joints), positive=slice(0, 2)),
    )


_FIELDS = ("joints", "unit", "action", "box_px", "intrinsics_px")


def _text(values: np.ndarray) -> np.ndarray:
    """Return words, also where they are bytes; NumPy alone takes those for ASCII, and raises."""
    return np.char.decode(values, "utf-8", "replace") if values.dtype.kind == "S" else values.astype(str)


def _four_numbers(path, name: str, values: np.ndarray | None, count: int, positive: slice) -> np.ndarray | None:
    """Return a field as (count, 4), or None where it is missing; the entries of `positive` must be above zero."""
    if values is None:
        return None
    if values.shape not in ((4,), (count, 4)) or values.dtype.kind not in "fiu":
        raise InputError(f"{path}: {name} has shape {values.shape} of {values.dtype}, not ({count}, 4) numbers")
    values = np.broadcast_to(values.astype(np.float32), (count, 4))
    wrong = ~(np.isfinite(values).all(axis=1) & (values[:, positive] > 0).all(axis=1))
    if wrong.any():
        raise InputError(f"{path}: {name}[{np.argmax(wrong)}] is {values[np.argmax(wrong)].tolist()}")
    return values


def score(poses: Poses3D, truth: Poses3D, canonical_bone_sum: float) -> dict[str, np.ndarray]:
    """Return every metric of `metrics` per example, (n,), in the truth's unit.

    Names: `mpjpe` (raw; only where both files are in mm), `mpjpe_scale_matched`, `mpjpe_norm_matched`, `mpjpe_bone_sum`
    (protocol 1), `pa_mpjpe`, `pa_mpjpe_reflected` and `depth_reversed_percent` (0 or 100, NaN for a flat truth). Where
    the truth has intrinsics and either file has boxes, all but PA, which is the same under any rotation, come a second
    time as `turned_*`: of the poses rotated from their crops' frames into the cameras' first.

    Args:
      canonical_bone_sum: size of the average skeleton, in the truth's unit (`metrics.canonical_bone_sum_mm`).

    Raises:
      errors.InputError: the files hold different numbers of poses.
    """
    if len(poses.joints) != len(truth.joints):
        raise InputError(f"{len(poses.joints)} poses, but {len(truth.joints)} true ones")
    scores = _scores(poses.joints, poses.unit, truth, canonical_bone_sum)
    box_px = truth.box_px if poses.box_px is None else poses.box_px
    if truth.intrinsics_px is None or box_px is None:
        return scores
    joints = cameras.rotate_from_crop(poses.joints, box_px, truth.intrinsics_px)
    turned = _scores(joints, poses.unit, truth, canonical_bone_sum)
    return scores | {f"turned_{name}": values for name, values in turned.items() if not name.startswith("pa_mpjpe")}


def _scores(joints: np.ndarray, unit: str, truth: Poses3D, canonical_bone_sum: float) -> dict[str, np.ndarray]:
    scaled = metrics.human36m_protocol_1(joints, truth.joints, canonical_bone_sum)
    raw, norm_matched, reflected, depth_reversed = map(np.asarray, _more(*_centred(joints, truth.joints)))
    return ({"mpjpe": raw} if unit == truth.unit == "mm" else {}) | {
        "mpjpe_scale_matched": scaled["mpjpe_scale_matched_mm"],
        "mpjpe_norm_matched": norm_matched,
        "mpjpe_bone_sum": scaled["mpjpe_mm"],
        "pa_mpjpe": scaled["pa_mpjpe_mm"],
        "pa_mpjpe_reflected": reflected,
        "depth_reversed_percent": 100 * depth_reversed,
    }


def _centred(*poses: np.ndarray) -> list[np.ndarray]:
    """Return poses with their pelvises at the origin, in single precision, which far from it has no digits to spare."""
    return [(each - each[:, metrics.PELVIS, None]).astype(np.float32) for each in poses]


@jax.jit
@jax.vmap
def _more(joints, joints_true):
    """Return what protocol 1 does not have."""
    return (
        metrics.mpjpe_mm(joints, joints_true),
        metrics.mpjpe_norm_matched_mm(joints, joints_true),
        metrics.pa_mpjpe_mm(joints, joints_true, reflections=True),
        metrics.depth_reversed(joints, joints_true),
    )


PROTOCOLS = {"elepose": {"mpjpe_norm_matched": "N-MPJPE", "pa_mpjpe_reflected": "PA-MPJPE"}}
"""Scores by which others publish, under their names. elepose: Wandt et al. 2022 and LInKs (Hardy and Kim 2023): poses
of one norm about the hip, and Procrustes that may reflect; means over all 17 joints, the hip too, and all poses."""
