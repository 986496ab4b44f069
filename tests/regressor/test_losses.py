"""Eq. 3 to 6 against NumPy, and what must hold of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.body.formats import load
from dal_jax.observations import residuals
from dal_jax.observations.residuals import Target
from dal_jax.regressor import losses, theta
from dal_jax.regressor.losses import LossWeights
from tests.regressor import people

FLOAT32 = 1e-4  # sums of up to 105 terms of order 1
CODEC = theta.plain_codec("axis_angle")
UNIT = jnp.ones_like(CODEC.mean)


@pytest.fixture(scope="module")
def sample():
    return people.sample(seed=0)


def _terms(predicted, sample, unit=UNIT):
    return _jitted_terms(predicted, sample, unit)


@jax.jit
def _jitted_terms(predicted, sample, unit):
    return losses.terms(load.load_body(), CODEC, predicted, sample, unit)


def _away(sample, seed=1, by=0.3):
    step = np.random.default_rng(seed).normal(0, by, CODEC.mean.size).astype(np.float32)
    return people.theta(sample.fit) + step


def test_the_registered_body_itself_costs_nothing(sample):
    for name, value in _terms(people.theta(sample.fit), sample).items():
        np.testing.assert_allclose(value, 0.0, atol=1e-9, err_msg=name)


def test_regress_is_the_smooth_l1_of_eq_6(sample):
    predicted = _away(sample, by=1.0)
    unit = np.random.default_rng(2).uniform(0.5, 2.0, CODEC.mean.size).astype(np.float32)
    error = np.abs(np.asarray(predicted, np.float64) - people.theta(sample.fit)) / unit
    assert np.any(error < 1) and np.any(error > 1)
    expected = np.sum(np.where(error < 1, error**2 / 2, error - 0.5))
    np.testing.assert_allclose(_terms(predicted, sample, jnp.asarray(unit))["regress"], expected, rtol=FLOAT32)


def test_l2_takes_failed_registrations_at_their_square():
    error = np.array([0.5, -3.0], np.float32)
    np.testing.assert_allclose(losses.regress(error, np.zeros(2, np.float32), "l2"), 0.125 + 4.5)


def test_dense_and_keypoint_terms_are_eq_3_and_eq_4(sample):
    predicted = _away(sample)
    body = jax.jit(CODEC.to_parameters)(predicted)
    dense, joints = jax.device_get(jax.jit(people.project)(body, sample.target.points))
    terms, host = _terms(predicted, sample), jax.device_get(sample.target.observation)
    expected = host.point_confidence @ np.sum((dense - host.point_position) ** 2, axis=1)
    np.testing.assert_allclose(terms["dense"], expected, rtol=FLOAT32)
    planar = host.keypoint_confidence @ np.sum((joints[:, :2] - host.keypoint_position) ** 2, axis=1)
    off = joints[:, 2] - host.depth
    depth = host.depth_confidence @ (off - np.average(off, weights=host.depth_confidence)) ** 2
    np.testing.assert_allclose(terms["keypoint"], planar + depth, rtol=FLOAT32)


def test_the_losses_are_the_squares_of_registration_s_residuals(sample):
    rng = np.random.default_rng(3)
    confidence = rng.uniform(0, 1, 17).astype(np.float32)
    seen = sample.target.observation.replace(keypoint_confidence=confidence, depth_confidence=confidence[::-1])
    target = Target(sample.target.points, seen)
    points = rng.normal(size=seen.point_position.shape).astype(np.float32)
    keypoints = rng.normal(size=(17, 3)).astype(np.float32)
    dense = np.sum(np.square(residuals.dense_residual(points, target)))
    np.testing.assert_allclose(residuals.dense_loss(points, target), dense, rtol=FLOAT32)
    keypoint = np.sum(np.square(residuals.keypoint_residual(keypoints, target)))
    np.testing.assert_allclose(residuals.keypoint_loss(keypoints, target), keypoint, rtol=FLOAT32)


def test_the_joint_term_is_the_distance_between_two_skeletons(sample):
    fit = sample.fit
    longer = people.theta(fit.replace(segment_scale=2.0 * fit.segment_scale))
    here = _positions(fit)
    np.testing.assert_allclose(_terms(longer, sample)["joint"], np.sum(np.linalg.norm(here, axis=1)), rtol=FLOAT32)


def _positions(body):
    """Twice the scales put every joint twice as far from the pelvis: the distance moved is the distance from it."""
    template = load.load_body()
    rotation, position = [np.asarray(body.rotation, np.float64)], [np.zeros(3)]
    for child in range(1, 24):
        parent, a = template.parents[child], np.asarray(body.pose[child - 1], np.float64)
        angle = np.linalg.norm(a)
        x, y, z = a / angle
        k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        turn = np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k
        bone = template.joints[child] - template.joints[parent]
        position.append(position[parent] + float(body.segment_scale[parent]) * rotation[parent] @ bone)
        rotation.append(rotation[parent] @ turn)
    return np.array(position)


def test_what_has_no_confidence_is_not_read(sample):
    predicted = _away(sample)
    seen = sample.target.observation
    elsewhere = seen.replace(
        point_position=jnp.where(seen.point_confidence[:, None] > 0, seen.point_position, 7.0),
        keypoint_position=jnp.where(seen.keypoint_confidence[:, None] > 0, seen.keypoint_position, 7.0),
        depth=jnp.where(seen.depth_confidence > 0, seen.depth, 7.0),
    )
    assert np.any(elsewhere.point_position != seen.point_position)
    moved = sample.replace(target=Target(sample.target.points, elsewhere))
    jax.tree.map(np.testing.assert_array_equal, _terms(predicted, moved), _terms(predicted, sample))


def test_gradients_are_finite_also_where_every_term_is_zero(sample):
    @jax.jit
    @jax.grad
    def gradient(predicted):
        return sum(losses.terms(load.load_body(), CODEC, predicted, sample, UNIT).values())

    rest = CODEC.mean  # no rotation anywhere
    for predicted in (people.theta(sample.fit), rest, _away(sample, by=2.0)):
        assert np.all(np.isfinite(gradient(predicted)))


def test_weights_are_applied_by_name():
    weights = LossWeights(regress=1.0, dense=10.0, keypoint=100.0, joint=1000.0)
    ones = {field.name: jnp.ones(3) for field in dataclasses.fields(weights)}
    np.testing.assert_array_equal(losses.weighted(ones, weights), 1111.0)
    with pytest.raises(ValueError, match="shape"):
        losses.weighted({**ones, "shape": jnp.ones(3)}, weights)


def test_people_count_by_their_weight():
    values, weight = jnp.array([1.0, 5.0, 100.0]), jnp.array([1.0, 3.0, 0.0])
    np.testing.assert_allclose(losses.batch_mean(values, weight), 4.0)
    np.testing.assert_allclose(losses.batch_mean(values, jnp.zeros(3)), 0.0)
