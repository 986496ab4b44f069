"""Six numbers a rotation: there and back, where axis-angles jump, and the statistics of registrations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import transform

from dal_jax.body import parameters
from dal_jax.regressor import theta_6d
from dal_jax.regressor.theta import LEAST_SD
from tests.regressor import people

FLOAT32 = 2e-6  # entries of rotations through Rodrigues' formula, two products and Gram-Schmidt
NEAR_PI = 1e-5  # radians, at an angle of pi, after the same
IDENTITY = np.eye(3)


def _widely_posed(count, seed):
    """Return people whose joints turn by up to pi, some by exactly that."""
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=(count, 23, 3))
    angle = np.where(rng.random((count, 23, 1)) < 0.2, np.pi, rng.uniform(0, np.pi, (count, 23, 1)))
    pose = axis / np.linalg.norm(axis, axis=-1, keepdims=True) * angle
    return people.random_bodies(count, seed).replace(pose=pose.astype(np.float32))


def _matrices(axis_angle):
    flat = np.asarray(axis_angle, np.float64).reshape(-1, 3)
    return transform.Rotation.from_rotvec(flat).as_matrix().reshape(*axis_angle.shape[:-1], 3, 3)


@jax.jit
def _encode(statistics, bodies):
    return statistics.encode(bodies)


@jax.jit
def _decode(statistics, theta):
    return statistics.decode(theta)


@jax.jit
def _finish(statistics, theta):
    return statistics.finish(theta)


@pytest.fixture(scope="module")
def measured():
    return theta_6d.measured_statistics(people.random_bodies(40, seed=1))


@pytest.mark.parametrize("frame", ["plain", "measured"])
def test_bodies_survive_theta(measured, frame):
    statistics = measured if frame == "measured" else theta_6d.plain_statistics()
    bodies = _widely_posed(30, seed=2)
    theta = _encode(statistics, bodies)
    assert theta.shape == (30, theta_6d.SIZE) and statistics.mean.shape == statistics.sd.shape == (theta_6d.SIZE,)
    again = _decode(statistics, theta)
    np.testing.assert_allclose(again.turns, _matrices(bodies.pose), atol=FLOAT32)
    np.testing.assert_allclose(again.rotation, bodies.rotation, atol=FLOAT32)
    for name in ("segment_scale", "camera_scale", "translation"):
        np.testing.assert_allclose(getattr(again, name), getattr(bodies, name), rtol=FLOAT32, atol=FLOAT32)


def test_finished_bodies_survive_theta(measured):
    """As axis-angles below pi too, in the gauge of registrations."""
    bodies = parameters.fix_gauge(people.random_bodies(30, seed=3))
    finished = _finish(measured, _encode(measured, bodies))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=NEAR_PI), finished, bodies)


def test_any_finite_theta_finishes_as_a_body(measured):
    theta = jnp.asarray(np.random.default_rng(4).normal(0, 1, (30, theta_6d.SIZE)), jnp.float32)
    body = _finish(measured, theta)
    identity = np.broadcast_to(IDENTITY, (30, 3, 3))
    np.testing.assert_allclose(body.rotation @ np.swapaxes(body.rotation, 1, 2), identity, atol=1e-4)
    np.testing.assert_allclose(np.linalg.det(body.rotation), 1.0, atol=1e-4)
    np.testing.assert_allclose(np.mean(np.log(body.segment_scale), axis=1), 0.0, atol=1e-6)
    assert np.linalg.norm(body.pose, axis=-1).max() <= np.pi + NEAR_PI
    assert np.all(body.camera_scale > 0)


def test_both_axis_angles_of_a_half_turn_are_one_target(measured):
    """Where those of the paper's theta are as far apart as can be."""
    bodies = people.random_bodies(1, seed=5)
    axis = bodies.pose / np.linalg.norm(bodies.pose, axis=-1, keepdims=True)
    one, other = (bodies.replace(pose=(sign * np.pi * axis).astype(np.float32)) for sign in (1, -1))
    np.testing.assert_allclose(_encode(measured, one), _encode(measured, other), atol=FLOAT32)
    assert np.linalg.norm(people.theta(one) - people.theta(other)) > 2 * np.pi


def test_a_small_error_costs_what_it_costs_in_axis_angles(measured):
    """|six - six'|^2 = x^2 + y^2 + 2 z^2 for a turn by (x, y, z) away from the frame."""
    error = np.random.default_rng(6).normal(0, 1e-2, (24, 3))
    wrong = np.asarray(measured.frame, np.float64) @ _matrices(error)
    pose = transform.Rotation.from_matrix(wrong[1:]).as_rotvec().astype(np.float32)
    body = parameters.t_pose().replace(rotation=wrong[0].astype(np.float32), pose=pose)
    apart = np.asarray(_encode(measured, body) - measured.mean)[:144].reshape(24, 6)
    np.testing.assert_allclose(np.sum(apart**2, axis=1), error**2 @ [1, 1, 2], rtol=1e-3)  # next: the error squared


def test_an_output_of_zero_is_the_mean_rotation_of_every_joint():
    """SciPy's mean of rotations is the same, by the largest eigenvector of their quaternions' second moments."""
    bodies = people.random_bodies(40, seed=7)
    statistics = theta_6d.measured_statistics(bodies)
    body = _decode(statistics, statistics.mean)
    for joint in range(23):
        mean = transform.Rotation.from_rotvec(np.float64(bodies.pose[:, joint])).mean()
        np.testing.assert_allclose(body.turns[joint], mean.as_matrix(), atol=FLOAT32)
    whole = transform.Rotation.from_matrix(np.float64(bodies.rotation)).mean()
    np.testing.assert_allclose(body.rotation, whole.as_matrix(), atol=FLOAT32)
    np.testing.assert_allclose(np.log(body.segment_scale), np.log(bodies.segment_scale).mean(axis=0), atol=FLOAT32)
    np.testing.assert_allclose(body.translation, bodies.translation.mean(axis=0), atol=FLOAT32)


def test_an_output_of_zero_is_the_t_pose_where_no_statistics_are_asked_for():
    statistics = theta_6d.plain_statistics()
    finished = _finish(statistics, statistics.mean)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=FLOAT32), finished, parameters.t_pose())


def test_statistics_standardise_the_people_they_come_from():
    bodies = people.random_bodies(40, seed=8)
    statistics = theta_6d.measured_statistics(bodies)
    units = np.asarray((_encode(statistics, bodies) - statistics.mean[None]) / statistics.sd[None])
    spread = np.sqrt(np.mean(units**2, axis=0))
    assert np.all(spread < 1.0 + 1e-5)
    np.testing.assert_allclose(spread[statistics.sd > LEAST_SD], 1.0, atol=1e-5)
    assert np.mean(statistics.sd[:144] > LEAST_SD) > 0.9


def test_people_at_every_heading_have_a_frame():
    headings = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    turned = transform.Rotation.from_euler("y", headings[:, None]).as_matrix().astype(np.float32)
    statistics = theta_6d.measured_statistics(people.random_bodies(12, seed=9).replace(rotation=turned))
    np.testing.assert_array_equal(statistics.frame[0], parameters.UPRIGHT_FACING_CAMERA)
    np.testing.assert_allclose(np.linalg.det(statistics.frame), 1.0, atol=FLOAT32)
    assert not np.any(np.all(statistics.frame[1:] == IDENTITY[None], axis=(1, 2)))  # the joints have their means


def test_statistics_refuse_a_failed_registration():
    for name in ("pose", "translation"):
        bodies = people.random_bodies(4, seed=10)
        getattr(bodies, name)[2, 1] = np.nan
        with pytest.raises(ValueError, match="finite"):
            theta_6d.measured_statistics(bodies)
