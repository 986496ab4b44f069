"""Evaluation protocols: which joints, which people, what is aligned and what is scaled, under one name.

A millimetre is comparable between papers only inside one protocol, so a score is computed through one of these.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dal_jax.body import skeleton
from dal_jax.evaluation import metrics
from dal_jax.runtime.errors import InputError


@dataclasses.dataclass(frozen=True)
class Protocol:
    """One way of scoring 3D joints.

    joint_names: in the order of the arrays that are scored.
    train_subjects, test_subjects: the people on either side of the split.
    alignment: the joint that is put at the origin in prediction and truth alike.
    scaling: of the prediction, behind the headline number: a key of `SCALINGS`.
    """

    name: str
    joint_names: tuple[str, ...]
    train_subjects: tuple[str, ...]
    test_subjects: tuple[str, ...]
    alignment: str
    scaling: str

    def score(
        self,
        joints: Float[np.ndarray, "n 17 3"],
        joints_true_mm: Float[np.ndarray, "n 17 3"],
        canonical_bone_sum_mm: float,
    ) -> dict[str, Float[np.ndarray, " n"]]:
        """Score every example; means are for the caller, last (`metrics.masked_mean`).

        Args:
          joints: predictions, in any unit, camera axes.
          joints_true_mm: the truth, in the same axes.
          canonical_bone_sum_mm: size of the average training skeleton (`canonical_bone_sum_mm`).

        Returns:
          Per-example errors: `mpjpe_mm` (the headline: this protocol's scaling), `mpjpe_scale_matched_mm` and
          `pa_mpjpe_mm`.

        Raises:
          errors.InputError: shapes differ from (n, joints, 3), or the canonical size is not positive.
        """
        expected = (len(joints_true_mm), len(self.joint_names), 3)
        for name, array in (("predicted", joints), ("true", joints_true_mm)):
            if np.shape(array) != expected:
                raise InputError(f"{self.name}: {name} joints have shape {np.shape(array)}, not {expected}")
        if not canonical_bone_sum_mm > 0:
            raise InputError(f"{self.name}: canonical bone-length sum is {canonical_bone_sum_mm} mm")
        joints, joints_true_mm = np.asarray(joints, np.float32), np.asarray(joints_true_mm, np.float32)
        pelvis = self.joint_names.index(self.alignment)
        joints, joints_true_mm = (array - array[:, pelvis, None] for array in (joints, joints_true_mm))
        scores = _score_all(joints, joints_true_mm, jnp.float32(canonical_bone_sum_mm), self.scaling)
        return {name: np.asarray(values) for name, values in scores.items()}

    def is_test(self, subjects: Sequence[str]) -> np.ndarray:
        """Return which examples belong to the test split, (n,) bool.

        Raises:
          errors.InputError: a subject is in neither split.
        """
        for subject in subjects:
            if subject not in self.train_subjects + self.test_subjects:
                raise InputError(f"{self.name}: subject '{subject}' is in neither split")
        return np.isin(np.asarray(subjects, str), self.test_subjects)


def canonical_bone_sum_mm(joints_train_mm: Float[np.ndarray, "n 17 3"]) -> float:
    """Return the bone-length sum of the mean training skeleton, mm: the mean over the training examples.

    Note: the paper does not say whose average the "canonical average skeleton" is. Ours: the mean over the training
    examples of the truth, so a subject counts by the number of its images. It is a size, used in scoring alone.
    """
    return float(np.mean(jax.vmap(metrics.bone_sum)(jnp.asarray(joints_train_mm, jnp.float32))))


Scaling = Callable[..., jax.Array]
SCALINGS: dict[str, Scaling] = {
    "none": lambda joints, joints_true_mm, canonical: metrics.mpjpe_mm(joints, joints_true_mm),
    "least_squares": lambda joints, joints_true_mm, canonical: metrics.mpjpe_scale_matched_mm(joints, joints_true_mm),
    "bone_sum": metrics.mpjpe_bone_sum_mm,
}


@functools.partial(jax.jit, static_argnames="scaling")
def _score_all(joints, joints_true_mm, canonical, scaling: str) -> dict[str, jax.Array]:
    def score(joints, joints_true_mm):
        return {
            "mpjpe_mm": SCALINGS[scaling](joints, joints_true_mm, canonical),
            "mpjpe_scale_matched_mm": metrics.mpjpe_scale_matched_mm(joints, joints_true_mm),
            "pa_mpjpe_mm": metrics.pa_mpjpe_mm(joints, joints_true_mm),
        }

    return jax.vmap(score)(joints, joints_true_mm)


human36m_protocol_1 = Protocol(
    name="human36m_protocol_1",
    joint_names=skeleton.H36M_JOINT_NAMES,
    train_subjects=("S1", "S5", "S6", "S7", "S8"),
    test_subjects=("S9", "S11"),
    alignment="hip",
    scaling="bone_sum",
)
"""The paper's (section 6.1): 17 joints, five subjects against two, pelvis at the origin, bone-sum scaled."""
