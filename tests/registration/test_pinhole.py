"""Full perspective: what is projected, what `lm` minimises, and bodies near a camera."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.body import cameras, kinematics, skinning
from dal_jax.body.cameras import Pinhole
from dal_jax.observations import observation
from dal_jax.registration import register
from dal_jax.registration.energy import EnergyWeights, Objective
from dal_jax.registration.register import RegistrationConfig
from dal_jax.runtime import machine
from tests.registration import small_problem

PEOPLE = 8
OBJECTIVE = Objective(EnergyWeights(scale=0.1, joint=1e-4))
CONFIG = RegistrationConfig("lm", 6, starts="headings4", batch=PEOPLE, devices=1)


@functools.cache
def _near_people(focal=4.0):
    """Return people before a camera of `focal` half sides, and exact annotation of theirs."""
    template, people = small_problem.small_template(), small_problem.random_people(PEOPLE, 1, turn=1.0)
    seen = small_problem.observe(people, 2)
    pinhole = Pinhole(np.full(PEOPLE, focal, np.float32), np.tile(np.float32([0.3, -0.5]), (PEOPLE, 1)))

    @jax.jit
    @jax.vmap
    def place(one, face, barycentric, pinhole):
        segments = kinematics.pose_skeleton(template, one.rotation, one.pose, one.segment_scale)
        points = skinning.skin_points(template, segments, skinning.surface_points(template, face, barycentric))
        project = functools.partial(
            cameras.project, camera_scale=one.camera_scale, translation=one.translation, pinhole=pinhole
        )
        return project(points), project(skinning.h36m_joints(template, segments))

    points, keypoints = place(people, seen.point_face, seen.point_barycentric, pinhole)
    return people, dataclasses.replace(
        seen, point_position=np.asarray(points), keypoint_position=np.asarray(keypoints), pinhole=pinhole
    )


def _elsewhere():
    """Return a start that is right for half of the people."""
    right, wrong = (small_problem.random_people(PEOPLE, seed, turn=1.0) for seed in (1, 7))
    half = np.arange(PEOPLE) % 2 == 0
    return jax.tree.map(lambda a, b: np.where(half.reshape(-1, *(1,) * (a.ndim - 1)), a, b), right, wrong)


@functools.cache
def _fit(optimizer):
    """Fit by `lm`, also as if nothing were known of the camera (`weak`); by `dense_lm` from where `lm` ended."""
    observed = _near_people()[1]
    config, given = dataclasses.replace(CONFIG, steps=60), [_elsewhere()]
    if optimizer == "dense_lm":
        config, given = dataclasses.replace(config, optimizer="dense_lm", starts="given"), [_fit("lm").parameters]
    if optimizer == "weak":
        observed = dataclasses.replace(observed, pinhole=None)
    return register.register(small_problem.small_template(), observed, config, OBJECTIVE, given)


def test_few_people_go_the_same_way_from_every_start_as_many():
    """By the program of given starts: from afar first, all but the given one, then near."""
    found = []
    for people in (PEOPLE, 10_000):
        with machine.for_people(people):
            crowd = small_problem.small_template(), _near_people()[1]
            found.append(register.register(*crowd, CONFIG, OBJECTIVE, [_elsewhere()]))
    few, many = found
    np.testing.assert_allclose(few.start_energy, many.start_energy, rtol=1e-2)
    np.testing.assert_array_equal(few.start, many.start)
    assert 4 in few.start and few.start.min() < 4, "not always the same start"
    np.testing.assert_allclose(few.energy, many.energy, rtol=1e-2)
    np.testing.assert_allclose(few.parameters.translation, many.parameters.translation, atol=1e-3)
    np.testing.assert_array_equal(few.steps, many.steps)


@jax.jit
@jax.vmap
def _joints(person):
    template = small_problem.small_template()
    segments = kinematics.pose_skeleton(template, person.rotation, person.pose, person.segment_scale)
    return person.camera_scale * skinning.h36m_joints(template, segments)


def test_a_pinhole_in_a_crop_is_the_photograph_s_perspective():
    """The crop's formula against f X / Z + c in pixels, in a box beside the centre."""
    random = np.random.default_rng(0)
    intrinsics = np.float32([900.0, 900.0, 320.0, 240.0])
    box = np.float32([400.0, 100.0, 200.0, 200.0])
    position, points = np.float32([0.4, -0.2, 3.0]), random.normal(0, 0.5, (20, 3)).astype(np.float32)
    exact = cameras.project_perspective(points + position[None], jnp.asarray(intrinsics))
    scale, place = cameras.weak_from_position(jnp.asarray(position), jnp.asarray(intrinsics))
    camera_scale, translation = cameras.crop_from_photograph(scale, place, jnp.asarray(box))
    half = box[2] / 2
    pinhole = Pinhole(intrinsics[0] / half, (intrinsics[2:] - box[:2]) / half - 1)
    found = cameras.project(points, camera_scale, translation, pinhole)
    np.testing.assert_allclose((found + 1) * half + box[None, :2], exact, atol=2e-3)


def test_far_away_it_is_weak_perspective():
    points = np.random.default_rng(1).normal(0, 0.5, (20, 3)).astype(np.float32)
    far = cameras.project(points, 0.8, np.float32([0.1, 0.2]), Pinhole(jnp.float32(1e6), jnp.zeros(2)))
    np.testing.assert_allclose(far, cameras.project(points, 0.8, np.float32([0.1, 0.2])), atol=1e-5)


@pytest.mark.parametrize("optimizer", ["lm", "dense_lm"])
def test_the_energy_that_a_solver_returns_is_that_of_the_image(optimizer):
    fit = _fit(optimizer)
    exact = register.score(small_problem.small_template(), _near_people()[1], fit.parameters, OBJECTIVE)
    np.testing.assert_allclose(fit.energy, exact, rtol=1e-3, atol=1e-5)


def test_lm_ends_near_the_minimum_of_the_energy_in_the_image():
    """Both take exact steps, `lm` with a majoriser's curvature: from its end there is little left to gain."""
    ratio = np.asarray(_fit("lm").energy) / np.asarray(_fit("dense_lm").energy)
    assert np.median(ratio) < 1.1  # of exact points, whose least energy is next to nothing


@pytest.mark.parametrize("optimizer", ["lm", "dense_lm"])
def test_a_known_camera_halves_the_error_of_bodies_near_it(optimizer):
    truth = np.asarray(_joints(_near_people()[0]))

    def error(name):
        found = np.asarray(_joints(_fit(name).parameters))
        return np.median(np.linalg.norm(found - truth, axis=-1).mean(axis=1))

    assert error(optimizer) < 0.6 * error("weak")


def test_a_camera_turned_to_the_crop_s_ray_sees_the_body_that_the_turn_rotates():
    """Points of a body beside the middle of a photograph, and the same body in the turned camera's axes."""
    intrinsics, box = np.float32([[900.0, 950.0, 320.0, 240.0]] * 2), np.float32([[600, 80, 240, 240]] * 2)
    random = np.random.default_rng(0)
    position = np.array([1.7, -0.3, 4.0])
    body = random.uniform(-0.6, 0.6, (2, 17, 3))
    exact = np.asarray(jax.vmap(cameras.project_perspective)(jnp.asarray(body + position), intrinsics))
    seen = small_problem.observe(small_problem.random_people(2, 1), 2)
    crop = observation.crop_from_px(exact, box).astype(np.float32)
    seen = dataclasses.replace(seen, keypoint_position=crop, box_px=box)
    unknown = np.full((1, 4), np.nan, np.float32)
    turned = observation.along_ray(seen, np.concatenate([intrinsics[:1], unknown]))
    rotation = np.asarray(cameras.crop_rotation(jnp.asarray(box[0]), jnp.asarray(intrinsics[0])), np.float64)
    there, focal = position @ rotation, float(turned.pinhole.focal[0])
    pinhole = Pinhole(np.float32(focal), turned.pinhole.centre[0])
    scale, place = focal / there[2], focal * there[:2] / there[2]
    found = cameras.project(jnp.asarray(body[0] @ rotation), scale, place, pinhole)
    np.testing.assert_allclose(turned.keypoint_position[0], found, atol=1e-5)
    assert (
        np.abs(turned.keypoint_position[0] - crop[0]).max() < 0.25
    )  # much the same picture, 23 degrees beside its middle
    np.testing.assert_allclose(turned.keypoint_position[1], crop[1], atol=1e-3)  # an unknown camera is far away
    assert np.isfinite(turned.point_position).all()
