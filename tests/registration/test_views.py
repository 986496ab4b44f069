"""People before several cameras: where they stand in the world, and what each camera then sees of them."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dal_jax.body import kinematics, skinning
from dal_jax.observations import residuals
from dal_jax.observations.observations import Observations
from dal_jax.registration import views
from dal_jax.registration.energy import EnergyWeights, Objective
from dal_jax.registration.register import RegistrationConfig
from tests.observations.test_cameras_file import rig
from tests.registration import small_problem

MOMENTS = 4
EXPLAINED_PX = 1.0  # root mean square, of people 240 px tall: each moment by itself has 0.8
ROUNDING = 1e-4


@pytest.mark.slow  # two programs are compiled
def test_one_body_of_one_shape_explains_what_all_cameras_see():
    template, quarters = small_problem.small_template(), Rotation.from_euler("y", [[0.0], [1.5], [3.5]]).as_matrix()
    cameras = [dataclasses.replace(one, rotation=turn) for one, turn in zip(rig(), quarters, strict=True)]
    people = small_problem.random_people(MOMENTS, seed=3, pose_sd=0.2)
    people = dataclasses.replace(people, segment_scale=np.tile(people.segment_scale[:1], (MOMENTS, 1)))
    joints = np.asarray(_joints(template, people))
    pixels = np.stack([camera.project(np.float64(joints)) for camera in cameras])
    seen = Observations.from_points(keypoints_px=pixels.reshape(-1, 17, 2))
    seen = seen.with_views([one.name for one in cameras for _ in range(MOMENTS)], np.tile(np.arange(MOMENTS), 3))
    objective = Objective(EnergyWeights(keypoint=100.0, scale=0.01, joint=1e-3), small_problem.pose_prior())
    config = RegistrationConfig(steps=30, starts="closed_form", batch=MOMENTS, devices=1)
    found = views.fit_people(template, seen, cameras, config, objective, one_shape=True)

    assert found.moments.rows.tolist() == np.arange(3 * MOMENTS).reshape(3, -1).T.tolist()
    _, off = residuals.errors_px(template, found.seen.parameters, found.people.stacked)
    assert np.sqrt(np.mean(off**2)) < EXPLAINED_PX
    np.testing.assert_allclose(np.ptp(found.bodies.size), 0.0, atol=ROUNDING)
    np.testing.assert_allclose(np.ptp(found.bodies.parameters.segment_scale, axis=0), 0.0, atol=ROUNDING)

    posed = dataclasses.replace(found.bodies.parameters, rotation=found.bodies.rotation)
    world = np.asarray(_joints(template, jax.tree.map(np.float32, posed)))
    world = found.bodies.position[:, None] + found.bodies.size[:, None, None] * world
    assert np.linalg.norm(world - joints, axis=-1).mean() < 0.02, "metres: what priors take"


@jax.jit
def _joints(template, people):
    return jax.vmap(lambda one: skinning.h36m_joints(template, kinematics.pose_segments(template, one)))(people)
