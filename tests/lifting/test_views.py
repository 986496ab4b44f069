"""Views of a lifted pose: rotations as laws, the camera against a pinhole's, what tells how near it is."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.lifting import config, losses, normalise, views
from dal_jax.lifting.config import LiftingConfig
from dal_jax.lifting.views import SharedCamera
from tests.lifting import stick_people

_FLOAT32 = 1e-6  # products of three float32 rotations of numbers of order 1
_POINTS = np.random.default_rng(0).normal(size=(17, 2)).astype(np.float32)
_DEPTH = np.random.default_rng(1).normal(size=17).astype(np.float32)
_rotate = jax.jit(lambda angle: views.rotate_pose(views.yaw(angle), _POINTS, _DEPTH))


def test_rotating_by_0_changes_nothing():
    points, depth = _rotate(0.0)
    np.testing.assert_array_equal(points, _POINTS)
    np.testing.assert_array_equal(depth, _DEPTH)


def test_the_rotation_is_the_published_one():
    angle = 0.7
    points, depth = jax.device_get(_rotate(angle))
    np.testing.assert_allclose(points[:, 0], _POINTS[:, 0] * np.cos(angle) + _DEPTH * np.sin(angle), atol=_FLOAT32)
    np.testing.assert_array_equal(points[:, 1], _POINTS[:, 1])
    before = np.linalg.norm(np.c_[_POINTS, _DEPTH], axis=-1)
    np.testing.assert_allclose(np.linalg.norm(np.c_[points, depth], axis=-1), before, rtol=_FLOAT32)


def _sampled(count, elevation=0.0, number=0, azimuths=None, **settings):
    """Return rotations drawn for people at these azimuths (without them all face the camera)."""
    azimuths = np.zeros(count, np.float32) if azimuths is None else azimuths
    return np.asarray(_sampler(tuple(settings.items()))(np.float32(elevation), azimuths, number))


@functools.cache
def _sampler(settings):
    """Return the compiled function of the camera's elevation, people's azimuths and the step."""

    @jax.jit
    def sample(elevation, azimuths, number):
        joints = _seen(elevation, azimuths, stick_people.STANDING)
        place = (joints[..., :2], joints[..., 2])
        cameras = (elevation, jnp.zeros(len(azimuths)))
        return views.sample_rotations(LiftingConfig(**dict(settings)), jax.random.key(0), cameras, place, number)

    return sample


def _seen(elevation, azimuths, person):
    """Return a person at these azimuths before a camera that looks down, (n, 17, 3)."""
    rotation = jax.vmap(lambda angle: views.tilt(elevation) @ views.yaw(angle))(azimuths)
    return jnp.einsum("nab,jb->nja", rotation, jnp.asarray(person, jnp.float32))


def _angle(rotations):
    return np.arctan2(rotations[:, 0, 2], rotations[:, 0, 0])


def test_people_are_seen_as_the_cameras_of_others_look_down():
    """The world's up, as each one's own camera sees it, goes to where another's sees it; all others have their turn."""
    more = np.float32([0.0, 0.1, -0.2, 0.3])
    place = (jnp.ones((4, 17, 2)), jnp.ones((4, 17)))
    rotations = jax.jit(functools.partial(views.sample_rotations, LiftingConfig()))(
        jax.random.key(0), (jnp.float32(0.2), more), place, 5000
    )
    up = np.stack([0 * more, -np.cos(0.2 + more), -np.sin(0.2 + more)], axis=-1)
    turned = np.einsum("nij,nj->ni", rotations, up)
    np.testing.assert_allclose(turned[:, 0], 0, atol=_FLOAT32)
    found = np.arctan2(-turned[:, 2], -turned[:, 1]) - 0.2
    assert np.abs(found - more).max() > 0.05
    np.testing.assert_allclose(np.sort(found), np.sort(more), atol=1e-5)


@pytest.mark.parametrize("elevation", [0.0, 0.3, -0.2])
@pytest.mark.parametrize("settings", [{}, {"azimuth_deg": 30.0}, {"matched_azimuths": 1.0}])
def test_a_sampled_rotation_is_about_the_worlds_vertical(elevation, settings):
    """A camera that looks down by e sees the world's up at (0, -cos e, -sin e)."""
    rotations = _sampled(20, elevation, 5000, **settings)
    up = np.array([0, -np.cos(elevation), -np.sin(elevation)])
    np.testing.assert_allclose(rotations @ up, np.tile(up, (20, 1)), atol=_FLOAT32)
    np.testing.assert_allclose(rotations @ rotations.mT, np.tile(np.eye(3), (20, 1, 1)), atol=_FLOAT32)
    np.testing.assert_allclose(np.linalg.det(rotations), 1, atol=10 * _FLOAT32)


def test_the_default_is_uniform_over_the_circle():
    angle = _angle(_sampled(1000))
    resultant = np.abs(np.exp(1j * angle[:, None] * np.arange(1, 4)).mean(axis=0))
    np.testing.assert_array_less(resultant, 0.1)  # 1 / sqrt(1000) = 0.03 for a uniform one


def test_rotations_go_as_far_as_the_range_and_no_further():
    angle = _angle(_sampled(500, azimuth_deg=30.0))
    assert np.abs(angle).max() <= np.radians(30) + _FLOAT32
    np.testing.assert_allclose(np.abs(angle).mean(), np.radians(15), rtol=0.1)  # uniform: 2.6% standard error


@pytest.mark.parametrize("elevation", [0.0, 0.25])
def test_azimuth_is_read_off_hips_and_shoulders(elevation):
    """Facing the camera is 0; a rotation by theta adds theta; the camera's tilt does not matter."""
    angles = np.linspace(-3.0, 3.0, 9, dtype=np.float32)
    person = stick_people.STANDING - 0.0
    person[:, 2] = np.where(np.isin(np.arange(17), [1, 4, 11, 14]), 0, person[:, 2])  # square to the camera

    @jax.jit
    def found(elevation):
        joints = _seen(elevation, angles, person)
        return views.azimuth(elevation, joints[..., :2], joints[..., 2])

    np.testing.assert_allclose(found(np.float32(elevation)), angles, atol=10 * _FLOAT32)


def test_azimuth_of_a_point_is_0_and_its_gradient_finite():
    points = np.zeros((1, 17, 2), np.float32)
    of_depth = jax.jit(jax.value_and_grad(lambda depth: views.azimuth(jnp.float32(0), points, depth)[0]))
    azimuth, gradient = of_depth(np.zeros((1, 17), np.float32))
    assert azimuth == 0 and np.isfinite(gradient).all()


def test_matched_fakes_take_the_azimuths_that_people_have():
    """People at 1 rad, or at -1: rotated, they are at one of these again, but for the deviation."""
    azimuths = np.where(np.arange(400) % 2 == 0, np.float32(1), np.float32(-1))
    rotations = _sampled(400, number=2000, azimuths=azimuths, matched_azimuths=1.0)
    reached = azimuths + _angle(rotations)
    reached = (reached + np.pi) % (2 * np.pi) - np.pi
    near = np.minimum(np.abs(reached - 1), np.abs(reached + 1))
    assert np.quantile(near, 0.95) < 2.2 * np.radians(20)  # normal, 20 degrees: 1.96
    assert 0.4 < np.mean(np.abs(reached - 1) < 1) < 0.6
    early = _sampled(400, number=1999, azimuths=azimuths, matched_azimuths=1.0)
    np.testing.assert_array_equal(early, _sampled(400, azimuths=azimuths))


_DISTANCE_M = 4.0
_CAMERAS = LiftingConfig(
    elevation_start_deg=6.0, elevation_rate=1e-3, inverse_distance_start=0.05, inverse_distance_rate=1e-4, adam_b1=0.5
)


def _photographed(people):
    """Return what a pinhole four metres from the hips sees, in metres at the hip's distance."""
    return people[..., :2] * _DISTANCE_M / (_DISTANCE_M + people[..., 2:])


def test_a_pinholes_picture_is_undone_and_made_again():
    people = stick_people.crowd(5, seed=0)
    size = 0.45
    seen, depth, inverse_distance = _photographed(people) / size, people[..., 2] / size, jnp.float32(size / _DISTANCE_M)
    joints = views.unproject(inverse_distance, seen, depth)
    np.testing.assert_allclose(joints, people[..., :2] / size, atol=1e-6)  # float32
    np.testing.assert_allclose(views.project(inverse_distance, joints, depth), seen, atol=1e-6)


def test_weak_perspective_changes_nothing():
    people = np.asarray(stick_people.crowd(5, seed=0), np.float32)
    np.testing.assert_array_equal(views.unproject(jnp.zeros(()), people[..., :2], people[..., 2]), people[..., :2])


def test_equal_proportions_tell_how_near_the_camera_stands():
    """Limbs towards the camera look longer: seen as weak perspective, people differ from each other."""
    people = np.einsum("nab,jb->nja", stick_people.rotations(np.linspace(0, 6, 40)), stick_people.STANDING)
    seen, depth, known = _photographed(people), jnp.asarray(people[..., 2]), jnp.ones((40, 16), bool)

    def unlikeness(inverse_distance):
        joints = views.unproject(inverse_distance, seen, depth)
        return losses.bone_unlikeness(losses.log_proportions(joints, depth), known)

    guesses = np.linspace(0, config.MAX_INVERSE_DISTANCE, 61, dtype=np.float32)  # per metre
    found = guesses[np.argmin(jax.jit(jax.vmap(unlikeness))(guesses))]
    assert found == pytest.approx(1 / _DISTANCE_M, abs=0.02)  # the stick man is not quite symmetric


@pytest.mark.parametrize("still", ["elevation", "inverse_distance"])
def test_each_number_is_learned_at_its_own_rate(still):
    settings = dataclasses.replace(_CAMERAS, **{f"{still}_rate": 0.0})
    camera, optimizer = views.initial_camera(settings), views.camera_optimizer(settings)
    updates, _ = optimizer.update(SharedCamera(jnp.float32(3), jnp.float32(-2)), optimizer.init(camera), camera)
    expected = {"elevation": -1e-3, "inverse_distance": 1e-4} | {still: 0.0}  # Adam's first step is the rate
    for name, step in expected.items():
        np.testing.assert_allclose(getattr(updates, name), step, rtol=1e-5)


def test_cameras_neither_look_up_nor_stand_inside_the_person():
    beyond = views.feasible(SharedCamera(jnp.float32(-0.1), jnp.float32(-0.1)))
    assert beyond.elevation == 0 and beyond.inverse_distance == 0
    assert views.feasible(SharedCamera(jnp.float32(0.1), jnp.float32(9))).inverse_distance < 1
    behind = views.project(jnp.float32(0.3), jnp.ones((17, 2)), jnp.full(17, -50.0))
    assert np.isfinite(behind).all() and (np.asarray(behind) > 0).all()


def test_a_pose_without_depth_rotates_into_a_line():
    """Seen from the side every x is 0."""
    poses = np.float32(stick_people.crowd(8, seed=0)[..., :2])
    quarter = np.tile(np.float32([[0, 0, 1], [0, 1, 0], [-1, 0, 0]]), (8, 1, 1))

    @jax.jit
    def rotate(poses):
        batch = normalise.normalise_all(poses, jnp.ones((8, 17), bool))
        return batch, *views.rotate_and_project(LiftingConfig(), jnp.zeros(()), quarter, batch, jnp.zeros((8, 17)))

    batch, shown, fakes, depth = jax.device_get(rotate(poses))
    np.testing.assert_array_equal(fakes.points[..., 0], 0)
    np.testing.assert_allclose(depth, -batch.points[..., 0], atol=1e-6)
    np.testing.assert_allclose(shown, fakes.points * fakes.scale[:, None, None], atol=1e-5)
