"""Cameras of which nothing is known: each by itself against its truth, and bodies against what all cameras see."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dal_jax.body import kinematics, skinning
from dal_jax.evaluation import metrics
from dal_jax.observations import cameras_file
from dal_jax.observations.observations import Observations
from dal_jax.registration import register, single_views, uncalibrated
from dal_jax.registration.energy import EnergyWeights, Objective
from dal_jax.registration.register import RegistrationConfig
from tests.registration import small_problem

MOMENTS, VIEWS = 4, 3
EXACT = 1e-6
LESS = 0.5  # of the error of fits to each image alone


def _cameras(random):
    turn = Rotation.random(MOMENTS * VIEWS, rng=random).as_matrix().reshape(MOMENTS, VIEWS, 3, 3)
    scale, place = random.uniform(0.5, 2.0, (MOMENTS, VIEWS)), random.normal(size=(MOMENTS, VIEWS, 2))
    return uncalibrated._Cameras(turn, scale, place)


def test_a_camera_is_found_from_half_a_radian_away():
    random = np.random.default_rng(0)
    true, places = _cameras(random), random.normal(size=(MOMENTS, VIEWS, 30, 3))
    mass = (random.random((MOMENTS, VIEWS, 30)) < 0.8).astype(float)
    goal = np.einsum("mvij,mvpj->mvpi", true.rotation[:, :, :2], places) * true.scale[..., None, None]
    goal = np.where(mass[..., None] > 0, goal + true.translation[:, :, None], 99.0)
    off = Rotation.from_rotvec(random.normal(0.0, 0.3, (MOMENTS * VIEWS, 3))).as_matrix().reshape(true.rotation.shape)
    found = uncalibrated._cameras(
        places, goal, mass, dataclasses.replace(true, rotation=off @ true.rotation, scale=1.3 * true.scale)
    )
    for name in ("rotation", "scale", "translation"):
        np.testing.assert_allclose(getattr(found, name), getattr(true, name), atol=EXACT)


@pytest.mark.slow  # two programs are compiled
def test_bodies_are_what_weak_cameras_of_unknown_places_see():
    template, random = small_problem.small_template(), np.random.default_rng(1)
    people = small_problem.random_people(MOMENTS, seed=3, pose_sd=0.2)
    joints = np.asarray(_joints(template, people))
    turns = Rotation.from_euler("y", [[0.0], [1.2], [-1.9]]).as_matrix()
    scale = 100.0 * random.uniform(0.8, 1.2, (VIEWS, MOMENTS, 1, 1))
    pixels = scale * np.einsum("vij,mkj->vmki", turns[:, :2], joints) + 300.0
    names = ["front", "left", "right"]
    seen = Observations.from_points(keypoints_px=pixels.reshape(-1, 17, 2))
    seen = seen.with_views([name for name in names for _ in range(MOMENTS)], np.tile(np.arange(MOMENTS), VIEWS))
    objective = Objective(EnergyWeights(keypoint=100.0, scale=0.01, joint=1e-3), small_problem.pose_prior())
    config = RegistrationConfig(steps=30, batch=MOMENTS, devices=1)
    cameras = cameras_file.read(",".join(names))
    found = uncalibrated.fit_people(template, seen, cameras, config, objective, one_shape=False)

    alone = register.register(template, single_views.complete(seen.stacked), config, objective).parameters
    missed = [
        np.mean(
            [
                metrics.pa_mpjpe_mm(np.float32(1000 * one), np.float32(1000 * true))
                for one, true in zip(*pair, strict=True)
            ]
        )
        for pair in (
            (_joints(template, found.bodies.parameters), joints),
            (_joints(template, alone), np.tile(joints, (3, 1, 1))),
        )
    ]
    assert missed[0] < LESS * missed[1], missed
    np.testing.assert_allclose(found.bodies.position, 0.0, atol=EXACT)
    np.testing.assert_allclose(found.bodies.size, 1.0, atol=EXACT)


@jax.jit
def _joints(template, people):
    return jax.vmap(lambda one: skinning.h36m_joints(template, kinematics.pose_segments(template, one)))(people)
