"""The errors of one predicted 3D pose, in the unit of the truth (millimetres throughout this project).

One image cannot tell a tall person far away from a short one near by, so every paper first removes what it cannot know:
the position (always: both pelvises are put at the origin), the size (in one of two ways), or size and rotation
(Procrustes). The truth itself is never rescaled.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dal_jax.body import skeleton

PELVIS = skeleton.H36M_JOINT_NAMES.index("hip")
_EXACT = jax.lax.Precision.HIGHEST  # a GPU's or TPU's default product keeps 3 digits: millimetres of error here
_CHILDREN = tuple(joint for joint, parent in enumerate(skeleton.H36M_PARENTS) if parent >= 0)
_PARENTS = tuple(skeleton.H36M_PARENTS[joint] for joint in _CHILDREN)


def bone_sum(joints: Float[Array, "17 3"]) -> Float[Array, ""]:
    """Return the sum of the lengths of all 16 bones of a Human3.6M skeleton, in the unit of `joints`."""
    bones = joints[jnp.array(_CHILDREN)] - joints[jnp.array(_PARENTS)]
    return jnp.sum(jnp.linalg.norm(bones, axis=-1))


def mpjpe_mm(joints: Float[Array, "j 3"], joints_true_mm: Float[Array, "j 3"]) -> Float[Array, ""]:
    """Return the mean joint distance with the pelvises together: the raw MPJPE, for predictions in mm."""
    return _mean_distance(_from_pelvis(joints), _from_pelvis(joints_true_mm))


def mpjpe_scale_matched_mm(joints: Float[Array, "j 3"], joints_true_mm: Float[Array, "j 3"]) -> Float[Array, ""]:
    """Return the MPJPE after the scale that brings the prediction nearest to the truth in the least-squares sense.

    Note: the scale is at least 0. A negative one would mirror the prediction through its pelvis and forgive a
    reflection; at 0 such a pose scores as if it were a single point.
    """
    joints, joints_true_mm = _from_pelvis(joints), _from_pelvis(joints_true_mm)
    scale = _ratio(jnp.maximum(jnp.sum(joints * joints_true_mm), 0.0), jnp.sum(joints**2))
    return _mean_distance(scale * joints, joints_true_mm)


def mpjpe_bone_sum_mm(
    joints: Float[Array, "17 3"], joints_true_mm: Float[Array, "17 3"], canonical_bone_sum_mm: float | Float[Array, ""]
) -> Float[Array, ""]:
    """Return the paper's MPJPE (section 6.1): the prediction is given the size of an average skeleton.

    The predicted pose is scaled so that its sum of bone lengths is `canonical_bone_sum_mm`; the truth keeps its own
    size, as in Zhou et al. 2017, so a person who is not of average size costs something even with a perfect pose.
    """
    scale = bone_sum_scale(joints, canonical_bone_sum_mm)
    return _mean_distance(scale * _from_pelvis(joints), _from_pelvis(joints_true_mm))


def bone_sum_scale(joints: Float[Array, "17 3"], canonical_bone_sum_mm: float | Float[Array, ""]) -> Float[Array, ""]:
    """Return the factor that gives a pose the bone-length sum of the canonical skeleton (and its unit, mm)."""
    return _ratio(canonical_bone_sum_mm, bone_sum(joints))


def pa_mpjpe_mm(joints: Float[Array, "j 3"], joints_true_mm: Float[Array, "j 3"]) -> Float[Array, ""]:
    """Return the mean joint distance after the best similarity transform (Procrustes; rotation, never a reflection).

    With P and T about their centroids and P^T T = U D V^T, the best rotation of row vectors is U S V^T with
    S = diag(1, 1, det(U V^T)), and the best scale tr(D S) / |P|^2 (Umeyama 1991).
    """
    joints = joints - jnp.mean(joints, axis=0, keepdims=True)
    joints_true_mm = joints_true_mm - jnp.mean(joints_true_mm, axis=0, keepdims=True)
    u, singular_values, vt = jnp.linalg.svd(jnp.matmul(joints.T, joints_true_mm, precision=_EXACT))
    sign = jnp.ones(3, joints.dtype).at[2].set(jnp.sign(jnp.linalg.det(jnp.matmul(u, vt, precision=_EXACT))))
    scale = _ratio(jnp.sum(singular_values * sign), jnp.sum(joints**2))
    rotation = jnp.matmul(u * sign[None], vt, precision=_EXACT)
    return _mean_distance(scale * jnp.matmul(joints, rotation, precision=_EXACT), joints_true_mm)


def vertex_error_mm(
    vertices: Float[Array, "n 3"],
    vertices_true_mm: Float[Array, "n 3"],
    joints: Float[Array, "j 3"],
    joints_true_mm: Float[Array, "j 3"],
    scale: float | Float[Array, ""],
) -> Float[Array, ""]:
    """Return the mean vertex distance of two meshes of one topology, with the pelvises of their skeletons together.

    Args:
      vertices: predicted, in the frame and unit of `joints`.
      vertices_true_mm: in the frame of `joints_true_mm`.
      joints, joints_true_mm: the two skeletons; only the pelvis, the first joint, is read.
      scale: applied to the prediction, usually `bone_sum_scale` of its skeleton, so that a mesh is scaled as its pose.
    """
    return _mean_distance(scale * (vertices - joints[PELVIS][None]), vertices_true_mm - joints_true_mm[PELVIS][None])


def masked_mean(values: Float[Array, " n"], mask: Bool[Array, " n"] | None = None) -> float | None:
    """Return the mean of per-example values where `mask` is true; None (JSON's null) where no example counts.

    A value that is not finite and not masked makes the mean so: a broken prediction is not to be averaged away.
    """
    mask = jnp.ones(values.shape, bool) if mask is None else jnp.asarray(mask, bool)
    if not mask.any():
        return None
    return float(jnp.mean(values, where=mask))


def _from_pelvis(joints: Float[Array, "j 3"]) -> Float[Array, "j 3"]:
    return joints - joints[PELVIS][None]


def _mean_distance(points: Float[Array, "n 3"], points_true: Float[Array, "n 3"]) -> Float[Array, ""]:
    return jnp.mean(jnp.linalg.norm(points - points_true, axis=-1))


def _ratio(numerator, denominator) -> Float[Array, ""]:
    """Divide; a pose collapsed into one point has no size to match, and scores as that point whatever the scale."""
    return jnp.where(denominator > 0, numerator / jnp.where(denominator > 0, denominator, 1.0), 1.0)


# --- Whether predicted standard deviations can be believed: how often the truth lies within one and two of them ---

AXES = ("x", "y", "z")


def coverage(
    error_mm: Float[np.ndarray, "n j 3"], deviation_mm: Float[np.ndarray, "n j 3"]
) -> dict[str, dict[str, float]]:
    """Compare errors with the standard deviations predicted for them, axis by axis.

    Of normal errors 68% lie within one and 95% within two. Joints at the origin of both (the pelvis) must be left out.

    Returns:
      By axis: `within_1_sd` and `within_2_sd` (shares), `mean_sd_mm` and `rms_error_mm`.
    """
    ratio = np.abs(error_mm) / deviation_mm
    return {
        name: {
            "within_1_sd": float(np.mean(ratio[..., axis] < 1)),
            "within_2_sd": float(np.mean(ratio[..., axis] < 2)),
            "mean_sd_mm": float(np.mean(deviation_mm[..., axis])),
            "rms_error_mm": float(np.sqrt(np.mean(error_mm[..., axis] ** 2))),
        }
        for axis, name in enumerate(AXES)
    }
