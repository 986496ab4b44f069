"""Scores of a round against 3D truth: the fields of history.json. No phase of the loop sees this truth."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dal_jax.algorithm import LoopState, Run
from dal_jax.body import cameras, kinematics, skinning
from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.template import Template
from dal_jax.data.people import People, Truth
from dal_jax.evaluation import metrics
from dal_jax.lifting import lift
from dal_jax.lifting.poses import to_h36m
from dal_jax.regressor import model
from dal_jax.runtime import mesh as mesh_lib

FIELDS = (
    "registration_train_mpjpe_mm", "regressor_train_mpjpe_mm", "regressor_test_mpjpe_mm",
    "regressor_test_pa_mpjpe_mm", "lifting_train_mpjpe_mm", "lifting_test_mpjpe_mm",
    "registration_train_turned_mpjpe_mm", "regressor_train_turned_mpjpe_mm", "regressor_test_turned_mpjpe_mm",
)  # fmt: skip
"""Of history.json. `turned`: the joints are first rotated into the camera's frame by the ray of the crop's centre.

With `config.camera=perspective` all fields are, where the cameras are known.
"""


@dataclasses.dataclass(frozen=True)
class Judge:
    """Scores a round by Human3.6M's protocol 1; every field is None where there is no truth (or, turned, no camera).

    Truth stands in the camera's frame, bodies in that of their crop.

    train_truth: what is true of the run's people, who are stripped of it; or None.
    test: the test people, whose bodies the regressor predicts from their images, with their truth.
    """

    run: Run
    train_truth: Truth | None
    test: People

    def __call__(self, round_number: int, state: LoopState) -> dict[str, float | None]:
        """Return the mean scores of a round."""
        if self.train_truth is None or self.test.truth is None:
            return dict.fromkeys(FIELDS)
        train, test = self.train_truth.joints_h36m_mm, self.test.truth.joints_h36m_mm
        people, predicted = self.run.people, self.predict_test(state)
        regressor_test = self.test_scores(predicted)
        return {
            "registration_train_mpjpe_mm": self._mean(self._joints(state.fits, people), train),
            "regressor_train_mpjpe_mm": self._mean(self._joints(state.predictions, people), train),
            "regressor_test_mpjpe_mm": regressor_test["mpjpe_mm"],
            "regressor_test_pa_mpjpe_mm": regressor_test["pa_mpjpe_mm"],
            "lifting_train_mpjpe_mm": self._lifted_mean(state, people, train),
            "lifting_test_mpjpe_mm": self._lifted_mean(state, self.test, test),
            "registration_train_turned_mpjpe_mm": self._turned_mean(state.fits, people, train),
            "regressor_train_turned_mpjpe_mm": self._turned_mean(state.predictions, people, train),
            "regressor_test_turned_mpjpe_mm": self._turned_mean(predicted, self.test, test),
        }

    def predict_test(self, state: LoopState) -> BodyParameters:
        """Return the regressor's bodies of the test people."""
        return model.predict(self.run.config.regressor, state.regressor.learned, self.test.images)

    def test_scores(self, bodies: BodyParameters) -> dict[str, float | None]:
        """Return the mean `mpjpe_mm` and `pa_mpjpe_mm` of bodies of the test people."""
        names = ("mpjpe_mm", "pa_mpjpe_mm")
        if self.train_truth is None or self.test.truth is None:
            return dict.fromkeys(names)
        scores = self._scores(self._joints(bodies, self.test), self.test.truth.joints_h36m_mm)
        return {name: float(np.mean(scores[name])) for name in names}

    def errors_mm(self, bodies: BodyParameters, people: People, truth: Truth | None) -> Float[np.ndarray, "n"] | None:
        """Return each person's MPJPE (n,), or None where there is no truth."""
        return None if truth is None else self._scores(self._joints(bodies, people), truth.joints_h36m_mm)["mpjpe_mm"]

    def joint_errors_mm(self, bodies: BodyParameters) -> Float[np.ndarray, "n 17"]:
        """Return each joint's distance in bodies of the test people, bone-sum scaled: a row's mean is its MPJPE.

        Raises:
          ValueError: there is no truth.
        """
        if self.train_truth is None or self.test.truth is None:
            raise ValueError("a score needs the truth of the training and the test people")
        canonical = metrics.canonical_bone_sum_mm(self.train_truth.joints_h36m_mm)
        joints, true = (
            each - each[:, :1] for each in (self._joints(bodies, self.test), self.test.truth.joints_h36m_mm)
        )
        scale = np.asarray(jax.vmap(metrics.bone_sum_scale, (0, None))(joints, canonical))
        return np.linalg.norm(scale[:, None, None] * joints - true, axis=-1)

    def mean_pose_test_mpjpe_mm(self) -> float | None:
        """Return the score of answering every test image with the mean training pose: what learning must beat."""
        if self.train_truth is None or self.test.truth is None:
            return None
        train = self.train_truth.joints_h36m_mm
        mean = np.mean(train - train[:, :1], axis=0, keepdims=True)
        return self._mean(np.repeat(mean, len(self.test.truth.joints_h36m_mm), axis=0), self.test.truth.joints_h36m_mm)

    def vertex_error_test_mm(self, state: LoopState) -> float | None:
        """Return the regressor's mean vertex distance on the test people, scaled as the joints are."""
        if self.train_truth is None or self.test.truth is None or self.test.truth.vertices_mm is None:
            return None
        canonical = metrics.canonical_bone_sum_mm(self.train_truth.joints_h36m_mm)
        bodies = jax.tree.map(jnp.asarray, self._reported(self.predict_test(state), self.test))
        truth = (self.test.truth.vertices_mm, self.test.truth.joints_h36m_mm)
        return float(np.mean(_vertex_errors(self.run.template, bodies, truth, canonical)))

    def _joints(self, bodies: BodyParameters, people: People) -> Float[np.ndarray, "n 17 3"]:
        return self._posed(self._reported(bodies, people))

    def _posed(self, bodies: BodyParameters) -> Float[np.ndarray, "n 17 3"]:
        mesh = mesh_lib.of_networks()
        template = mesh_lib.everywhere(self.run.template, mesh)
        return mesh_lib.in_chunks(functools.partial(_joints_h36m, template), bodies, mesh)

    def _reported(self, bodies: BodyParameters, people: People) -> BodyParameters:
        """Return bodies in the frame that a run reports: the camera's, where it knows the cameras, or the crop's."""
        return _turned(bodies, people) if self._in_camera(people) else bodies

    def _in_camera(self, people: People) -> bool:
        return self.run.config.camera == "perspective" and _cameras_known(people)

    def _lifted(self, state: LoopState, people: People) -> Float[np.ndarray, "n 17 3"]:
        """Return the lifter's joints: annotated x and y, lifted depth; missing joints are its guess."""
        mesh = mesh_lib.of_networks()
        lifter = mesh_lib.everywhere(state.lifting.lifter, mesh)
        keypoints, confidence = map(np.asarray, to_h36m(people.observations))
        intrinsics = lift.intrinsics_of(people.observations)

        def joints_of(seen):
            lifting = lift.lift if intrinsics is None else lift.lift_before
            return lifting(self.run.config.lifting, lifter, *seen).joints

        seen = (keypoints, confidence > 0, *(() if intrinsics is None else (np.asarray(intrinsics),)))
        joints = mesh_lib.in_chunks(joints_of, seen, mesh)
        if not self._in_camera(people):
            return joints
        return cameras.rotate_from_crop(joints, np.asarray(people.observations.box_px), people.intrinsics_px)

    def _scores(self, joints, truth) -> dict[str, np.ndarray]:
        if self.train_truth is None:
            raise ValueError("a score needs the truth of the training people")
        canonical = metrics.canonical_bone_sum_mm(self.train_truth.joints_h36m_mm)
        return metrics.human36m_protocol_1(joints, truth, canonical)

    def _turned_mean(self, bodies: BodyParameters, people: People, truth: Float[np.ndarray, "n 17 3"]) -> float | None:
        """Return the mean score in the camera's frame, or None where the cameras are not known."""
        if not _cameras_known(people):
            return None
        return self._mean(self._posed(_turned(bodies, people)), truth)

    def _lifted_mean(self, state: LoopState, people: People, truth: Float[np.ndarray, "n 17 3"]) -> float | None:
        """Return the lifter's mean score, or None of a run without one."""
        return self._mean(self._lifted(state, people), truth) if self.run.config.lifted_depth != "none" else None

    def _mean(self, joints, truth) -> float:
        return float(np.mean(self._scores(joints, truth)["mpjpe_mm"]))


def _cameras_known(people: People) -> bool:
    return bool(np.isfinite(people.intrinsics_px).all())


def _turned(bodies: BodyParameters, people: People) -> BodyParameters:
    """Return bodies rotated from their crops' frames into their cameras'."""
    turn = cameras.crop_rotations(people.observations.box_px, people.intrinsics_px)
    return dataclasses.replace(bodies, rotation=turn @ np.asarray(bodies.rotation))


@jax.jit
def _joints_h36m(template: Template, bodies: BodyParameters) -> Float[jax.Array, "n 17 3"]:
    """Return Human3.6M's joints of stacked bodies, camera axes, metres."""

    def one(body: BodyParameters) -> jax.Array:
        segments = kinematics.pose_segments(template, body)
        return skinning.h36m_joints(template, segments)

    return jax.vmap(one)(bodies)


@jax.jit
def _vertex_errors(
    template: Template, bodies: BodyParameters, truth, canonical_bone_sum_mm: float
) -> Float[jax.Array, "n"]:
    """Return each person's vertex error; whole meshes, so a few people at a time."""

    def one(person) -> jax.Array:
        body, (vertices_mm, joints_mm) = person
        segments = kinematics.pose_segments(template, body)
        joints = skinning.h36m_joints(template, segments)
        scale = metrics.bone_sum_scale(joints, canonical_bone_sum_mm)
        return metrics.vertex_error_mm(
            skinning.skin_vertices(template, segments), vertices_mm, joints, joints_mm, scale
        )

    return jax.lax.map(one, (bodies, truth), batch_size=16)
