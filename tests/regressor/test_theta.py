"""theta and back; what prediction finishes; the statistics of registrations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial

from dal_jax.body import parameters, rotations
from dal_jax.regressor.theta import SIZE, finish, measured_statistics, plain_statistics, to_parameters
from tests.regressor import people

ROUNDING = 1e-6


def test_parameters_survive_theta():
    bodies = people.random_bodies(5, seed=0)
    again = jax.jit(to_parameters)(people.theta(bodies))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=ROUNDING), again, bodies)
    assert people.theta(bodies).shape == (5, SIZE)


def test_any_finite_theta_finishes_as_a_body():
    theta = jnp.asarray(np.random.default_rng(0).normal(0, 1, (200, SIZE)), jnp.float32)
    raw = to_parameters(theta)
    assert np.any(np.linalg.det(raw.rotation) < 0)  # reflections are among them
    body = jax.jit(finish)(raw)
    identity = np.broadcast_to(np.eye(3), (200, 3, 3))
    np.testing.assert_allclose(body.rotation @ np.swapaxes(body.rotation, 1, 2), identity, atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(body.rotation), 1.0, atol=1e-5)
    np.testing.assert_allclose(np.mean(np.log(body.segment_scale), axis=1), 0.0, atol=1e-6)
    assert np.all(body.camera_scale > 0)


def test_what_is_projected_in_training_is_what_predicts():
    """At a negative determinant too, where Gram-Schmidt of all three rows would be a reflection; else it is that."""
    theta = jnp.asarray(np.random.default_rng(1).normal(0, 1, (200, SIZE)), jnp.float32)
    statistics = plain_statistics()
    projected = jax.jit(statistics.decode)(theta).rotation
    np.testing.assert_allclose(projected, jax.jit(statistics.finish)(theta).rotation, atol=ROUNDING)
    raw = to_parameters(theta).rotation
    proper = np.linalg.det(raw) > 0
    assert 50 < proper.sum() < 150
    published = jax.jit(rotations.gram_schmidt)(raw)
    np.testing.assert_allclose(projected[proper], published[proper], atol=2e-4)  # float32, rows nearly parallel
    np.testing.assert_allclose(projected[~proper, :2], published[~proper, :2], atol=2e-4)


def test_finished_bodies_are_left_alone():
    bodies = parameters.fix_gauge(people.random_bodies(5, seed=1))
    finished = jax.jit(finish)(bodies)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), finished, bodies)


def test_statistics_standardise_the_people_they_come_from():
    bodies = people.random_bodies(400, seed=2)
    statistics = measured_statistics(bodies)
    units = (people.theta(bodies) - statistics.mean[None]) / statistics.sd[None]
    np.testing.assert_allclose(np.mean(units, axis=0), 0.0, atol=1e-5)
    assert np.all(np.std(units, axis=0) < 1.0 + 1e-5)
    np.testing.assert_allclose(np.std(units[:, :69], axis=0), 1.0, atol=1e-5)  # poses vary by more than the least sd


def test_people_at_every_heading_have_a_mean_that_gram_schmidt_can_use():
    headings = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    turned = scipy.spatial.transform.Rotation.from_euler("y", headings[:, None]).as_matrix().astype(np.float32)
    bodies = people.random_bodies(12, seed=3).replace(rotation=turned)
    mean = to_parameters(measured_statistics(bodies).mean[None])
    body = jax.jit(finish)(mean)
    np.testing.assert_allclose(body.rotation[0], parameters.UPRIGHT_FACING_CAMERA, atol=1e-5)


def test_statistics_refuse_a_failed_registration():
    bodies = people.random_bodies(4, seed=4)
    bodies.pose[2, 3, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        measured_statistics(bodies)
