"""Errors of predicted 3D poses, and the protocol by which papers compare them.

One image cannot tell a tall person far away from a short one near by, so every paper first removes what it cannot know.
P are the predicted joints, T the true ones, joint 0 is the pelvis (`hip`), B(P) is the sum of the 16 bone lengths:

    MPJPE            mean_j |(P_j - P_0) - (T_j - T_0)|                            position removed
    scale-matched    mean_j |c (P_j - P_0) - (T_j - T_0)|, c the least-squares     and size, by the truth (N-MPJPE of
                     scale <P, T> / <P, P>, at least 0                             Rhodin et al. 2018)
    bone-sum scaled  mean_j |b (P_j - P_0) - (T_j - T_0)|, b = mean B(T_train)     and size, by an average skeleton
                     / B(P)                                                        (Zhou et al. 2017, and our paper)
    norm-matched     mean_j |n (P_j - P_0) - (T_j - T_0)|, n = |T| / |P|           and size, by the truth (N-MPJPE of
                                                                                   ElePose and LInKs)
    PA-MPJPE         mean_j |c R P_j + t - T_j|, the best similarity transform     and size and rotation (Procrustes;
                     (c, R, t), R a rotation                                       "protocol 2" of many papers)
    PA, reflected    the same, R a rotation or a reflection                        and handedness (ElePose and LInKs)

MPJPE is the mean per joint position error (Ionescu et al. 2014). All are in the unit of the truth, millimetres
throughout this project; the truth is never rescaled. Functions take one pose; `jax.vmap` makes them take many. At the
end: tables of scores.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.body import skeleton
from dal_jax.runtime.errors import InputError

PELVIS = skeleton.H36M_JOINT_NAMES.index("hip")
_EXACT = jax.lax.Precision.HIGHEST  # a GPU's or TPU's default product keeps 3 digits: millimetres of error here
_CHILDREN = tuple(joint for joint, parent in enumerate(skeleton.H36M_PARENTS) if parent >= 0)
_PARENTS = tuple(skeleton.H36M_PARENTS[joint] for joint in _CHILDREN)


def human36m_protocol_1(
    joints: Float[Array | np.ndarray, "..."],
    joints_true_mm: Float[Array | np.ndarray, "..."],
    canonical_bone_sum_mm: float,
) -> dict[str, Float[np.ndarray, " n"]]:
    """Score poses by Human3.6M's protocol 1, as section 6.1 of the paper does.

    All 17 joints count, the pelvises are put at the origin, and the headline is bone-sum scaled. Subjects S1, S5, S6,
    S7 and S8 are for training, S9 and S11 for testing. Means are for the caller, last.

    Args:
      joints: predictions (n, 17, 3), in any unit, camera axes.
      joints_true_mm: the truth (n, 17, 3), in the same axes.
      canonical_bone_sum_mm: size of the average training skeleton (`canonical_bone_sum_mm`).

    Returns:
      Per-example errors: `mpjpe_mm` (the headline, bone-sum scaled), `mpjpe_scale_matched_mm` and `pa_mpjpe_mm`.

    Raises:
      errors.InputError: a shape is not (n, 17, 3), or the canonical size is not positive.
    """
    expected = (len(joints_true_mm), len(skeleton.H36M_JOINT_NAMES), 3)
    for name, array in (("predicted", joints), ("true", joints_true_mm)):
        if np.shape(array) != expected:
            raise InputError(f"human36m_protocol_1: {name} joints have shape {np.shape(array)}, not {expected}")
    if not canonical_bone_sum_mm > 0:
        raise InputError(f"human36m_protocol_1: canonical bone-length sum is {canonical_bone_sum_mm} mm")
    both = (np.asarray(array, np.float32) for array in (joints, joints_true_mm))
    scores = _protocol_1(*(array - array[:, PELVIS, None] for array in both), jnp.float32(canonical_bone_sum_mm))
    return {name: np.asarray(values) for name, values in scores.items()}


def canonical_bone_sum_mm(joints_train_mm: Float[Array | np.ndarray, "n 17 3"]) -> float:
    """Return the bone-length sum of the canonical average skeleton, mm: the mean over the training examples.

    Note: the paper does not say whose average the "canonical average skeleton" is. Ours: the mean over the training
    examples of the truth, so a subject counts by the number of its images. It is a size, used in scoring alone.
    """
    return float(np.mean(_bone_sums(np.asarray(joints_train_mm, np.float32))))


@jax.jit
def _protocol_1(joints, joints_true_mm, canonical_bone_sum_mm) -> dict[str, jax.Array]:
    def score(joints, joints_true_mm):
        return {
            "mpjpe_mm": mpjpe_bone_sum_mm(joints, joints_true_mm, canonical_bone_sum_mm),
            "mpjpe_scale_matched_mm": mpjpe_scale_matched_mm(joints, joints_true_mm),
            "pa_mpjpe_mm": pa_mpjpe_mm(joints, joints_true_mm),
        }

    return jax.vmap(score)(joints, joints_true_mm)


def mpjpe_mm(
    joints: Float[Array | np.ndarray, "j 3"], joints_true_mm: Float[Array | np.ndarray, "j 3"]
) -> Float[Array, ""]:
    """Return the mean joint distance with the pelvises together: the raw MPJPE, for predictions in mm."""
    return _mean_distance(_from_pelvis(joints), _from_pelvis(joints_true_mm))


def mpjpe_scale_matched_mm(
    joints: Float[Array | np.ndarray, "j 3"], joints_true_mm: Float[Array | np.ndarray, "j 3"]
) -> Float[Array, ""]:
    """Return the MPJPE after the scale that brings the prediction nearest to the truth in the least-squares sense.

    Note: the scale is at least 0. A negative one would mirror the prediction through its pelvis and forgive a
    reflection; at 0 such a pose scores as if it were a single point.
    """
    joints, joints_true_mm = _from_pelvis(joints), _from_pelvis(joints_true_mm)
    scale = _ratio(jnp.maximum(jnp.sum(joints * joints_true_mm), 0.0), jnp.sum(joints**2))
    return _mean_distance(scale * joints, joints_true_mm)


def mpjpe_norm_matched_mm(
    joints: Float[Array | np.ndarray, "j 3"], joints_true_mm: Float[Array | np.ndarray, "j 3"]
) -> Float[Array, ""]:
    """Return the MPJPE after the scale that makes both poses, relative to their pelvises, of one norm.

    The N-MPJPE of ElePose (Wandt et al. 2022) and of what is compared with it: never below the scale-matched one's sum
    of squares, because a pose that is wrong is not shrunk.
    """
    joints, joints_true_mm = _from_pelvis(joints), _from_pelvis(joints_true_mm)
    return _mean_distance(jnp.sqrt(_ratio(jnp.sum(joints_true_mm**2), jnp.sum(joints**2))) * joints, joints_true_mm)


def depth_reversed(
    joints: Float[Array | np.ndarray, "j 3"], joints_true_mm: Float[Array | np.ndarray, "j 3"]
) -> Float[Array, ""]:
    """Return 1 where depths, about their mean, go against the true ones, 0 where with them.

    NaN where the truth is nearly flat: its depths spread by less than a tenth of what its joints do in all directions.
    """
    apart, apart_true = (
        jnp.asarray(each) - jnp.mean(jnp.asarray(each), axis=0, keepdims=True) for each in (joints, joints_true_mm)
    )
    deep = jnp.sum(apart_true[:, 2] ** 2) > _FLAT**2 * jnp.sum(apart_true**2)
    return jnp.where(deep, (jnp.sum(apart[:, 2] * apart_true[:, 2]) < 0).astype(jnp.float32), jnp.nan)


_FLAT = 0.1


def acceleration_error_mm(
    joints: Float[Array | np.ndarray, "frames j 3"], joints_true_mm: Float[Array | np.ndarray, "frames j 3"]
) -> Float[Array, ""]:
    """Return the mean distance between second differences in time, mm a frame squared: how much a motion jitters.

    Both relative to a place of the body. One scale for all frames brings the prediction nearest to the truth, so that
    a size that changes from frame to frame counts. Joints whose truth is not known (NaN) are left out.
    """
    joints, joints_true_mm = jnp.asarray(joints), jnp.asarray(joints_true_mm)
    squared = jnp.where(jnp.isfinite(joints_true_mm), joints**2, 0.0)
    scale = _ratio(jnp.maximum(jnp.nansum(joints * joints_true_mm), 0.0), jnp.sum(squared))
    apart = jnp.diff(scale * joints - joints_true_mm, n=2, axis=0)
    return jnp.nanmean(jnp.sqrt(jnp.sum(apart**2, axis=-1)))


def mpjpe_bone_sum_mm(
    joints: Float[Array | np.ndarray, "17 3"],
    joints_true_mm: Float[Array | np.ndarray, "17 3"],
    canonical_bone_sum_mm: float | Float[Array, ""],
) -> Float[Array, ""]:
    """Return the paper's MPJPE (section 6.1): the prediction is given the size of an average skeleton.

    The truth keeps its own size, as in Zhou et al. 2017, so a person whose size is not average costs something even
    with a perfect pose.
    """
    scale = bone_sum_scale(joints, canonical_bone_sum_mm)
    return _mean_distance(scale * _from_pelvis(joints), _from_pelvis(joints_true_mm))


def bone_sum_scale(
    joints: Float[Array | np.ndarray, "17 3"], canonical_bone_sum_mm: float | Float[Array, ""]
) -> Float[Array, ""]:
    """Return the factor that gives a pose the bone-length sum of the canonical skeleton (and its unit, mm)."""
    return _ratio(canonical_bone_sum_mm, bone_sum(joints))


def bone_sum(joints: Float[Array | np.ndarray, "17 3"]) -> Float[Array, ""]:
    """Return the sum of the lengths of all 16 bones of a Human3.6M skeleton, in the unit of `joints`."""
    bones = joints[jnp.array(_CHILDREN)] - joints[jnp.array(_PARENTS)]
    return jnp.sum(jnp.linalg.norm(bones, axis=-1))


_bone_sums = jax.jit(jax.vmap(bone_sum))


def pa_mpjpe_mm(
    joints: Float[Array | np.ndarray, "j 3"],
    joints_true_mm: Float[Array | np.ndarray, "j 3"],
    reflections: bool = False,
) -> Float[Array, ""]:
    """Return the mean joint distance after the best similarity transform (Procrustes).

    With P and T about their centroids and P^T T = U D V^T, the best rotation of row vectors is U S V^T with
    S = diag(1, 1, det(U V^T)), and the best scale tr(D S) / |P|^2 (Umeyama 1991). With S = 1 it may be a reflection.

    Args:
      joints: the prediction, in any unit.
      joints_true_mm: the truth.
      reflections: allow them, as ElePose and LInKs do; this project's scores do not.
    """
    joints = joints - jnp.mean(joints, axis=0, keepdims=True)
    joints_true_mm = joints_true_mm - jnp.mean(joints_true_mm, axis=0, keepdims=True)
    u, singular_values, vt = jnp.linalg.svd(jnp.matmul(joints.T, joints_true_mm, precision=_EXACT))
    sign = jnp.ones(3, joints.dtype)
    if not reflections:
        sign = sign.at[2].set(jnp.sign(jnp.linalg.det(jnp.matmul(u, vt, precision=_EXACT))))
    scale = _ratio(jnp.sum(singular_values * sign), jnp.sum(joints**2))
    rotation = jnp.matmul(u * sign[None], vt, precision=_EXACT)
    return _mean_distance(scale * jnp.matmul(joints, rotation, precision=_EXACT), joints_true_mm)


def vertex_error_mm(
    vertices: Float[Array | np.ndarray, "n 3"],
    vertices_true_mm: Float[Array | np.ndarray, "n 3"],
    joints: Float[Array | np.ndarray, "j 3"],
    joints_true_mm: Float[Array | np.ndarray, "j 3"],
    scale: float | Float[Array, ""],
) -> Float[Array, ""]:
    """Return the mean vertex distance of two meshes of one topology, with the pelvises of their skeletons together.

    Args:
      vertices: predicted, in the frame and unit of `joints`.
      vertices_true_mm: in the frame of `joints_true_mm`.
      joints: the predicted skeleton; of both skeletons only the pelvis, the first joint, is read.
      joints_true_mm: the true skeleton.
      scale: applied to the prediction, usually `bone_sum_scale` of its skeleton, so that a mesh is scaled as its pose.
    """
    return _mean_distance(scale * (vertices - joints[PELVIS][None]), vertices_true_mm - joints_true_mm[PELVIS][None])


AXES = ("x", "y", "z")


def coverage(
    error_mm: Float[np.ndarray, "n j 3"], deviation_mm: Float[np.ndarray, "n j 3"]
) -> dict[str, dict[str, float]]:
    """Compare errors with the standard deviations predicted for them, axis by axis: is an uncertainty calibrated?

    Of normal errors 68% lie within one standard deviation and 95% within two. Joints at the origin of both poses (the
    pelvis) must be left out.

    Returns:
      By axis of `AXES`: `within_1_sd` and `within_2_sd` (shares), `mean_sd_mm` and `rms_error_mm`.
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


def _from_pelvis(joints: Float[Array | np.ndarray, "j 3"]) -> Float[Array | np.ndarray, "j 3"]:
    return joints - joints[PELVIS][None]


def _mean_distance(
    points: Float[Array | np.ndarray, "n 3"], points_true: Float[Array | np.ndarray, "n 3"]
) -> Float[Array, ""]:
    return jnp.mean(jnp.linalg.norm(points - points_true, axis=-1))


def _ratio(numerator: float | Float[Array, ""], denominator: Float[Array, ""]) -> Float[Array, ""]:
    """Divide; a pose collapsed into one point has no size to match, and scores as that point at every scale."""
    return jnp.where(denominator > 0, numerator / jnp.where(denominator > 0, denominator, 1.0), 1.0)


# --- Scores as aligned text, for a terminal or a log ---

Cell = str | int | float | None

HISTORY_COLUMNS = {
    "round": "round",
    "registration_train_mpjpe_mm": "registration train",
    "regressor_train_mpjpe_mm": "regressor train",
    "regressor_test_mpjpe_mm": "regressor test",
    "regressor_test_pa_mpjpe_mm": "regressor test PA",
    "lifting_train_mpjpe_mm": "lifting train",
    "lifting_test_mpjpe_mm": "lifting test",
    "seconds": "seconds",
}
"""Fields of a round's entry in history.json that are shown, and their headings."""


def cell_text(cell: Cell) -> str:
    """Return a value as shown in every table: floats with one decimal, None as a dash."""
    if cell is None:
        return "-"
    return f"{cell:.1f}" if isinstance(cell, float | np.floating) else str(cell)


def text_table(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Return rows as aligned columns: numbers to the right with one decimal, text to the left, None as a dash."""
    cells = [[cell_text(cell) for cell in row] for row in rows]
    columns = list(zip(*([list(header)] + cells), strict=True))
    widths = [max(map(len, column)) for column in columns]
    numeric = [all(not isinstance(row[index], str) for row in rows) for index in range(len(header))]
    lines = [list(header), ["-" * width for width in widths], *cells]
    return "\n".join(
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )


def history_table(history: Sequence[Mapping[str, Cell]]) -> str:
    """Return the rounds of history.json as text, MPJPE in mm; a field that an entry lacks shows as a dash."""
    rows = [[entry.get(field) for field in HISTORY_COLUMNS] for entry in history]
    return "MPJPE in mm (17 joints, pelvis aligned, bone-sum scaled; PA: Procrustes)\n" + text_table(
        list(HISTORY_COLUMNS.values()), rows
    )


def mean(values: Float[np.ndarray, " n"]) -> float | None:
    """Return the mean of what is known of a score (the rest is NaN), or None where nothing is."""
    known = values[~np.isnan(values)]
    return float(np.mean(known)) if len(known) else None


def per_action_table(scores: Mapping[str, Float[np.ndarray, " n"]], actions: Sequence[str]) -> str:
    """Return the mean of every score by action, in alphabetical order, with the mean over all examples last.

    Args:
      scores: per-example values by name, as `human36m_protocol_1` returns them.
      actions: what each example does.
    """
    label = np.asarray(actions, str)
    groups = [(action, label == action) for action in sorted(set(actions))] + [("all", np.ones(len(label), bool))]
    rows = [
        [action, int(chosen.sum()), *(mean(values[chosen]) for values in scores.values())] for action, chosen in groups
    ]
    return text_table(["action", "images", *scores], rows)
