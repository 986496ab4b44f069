"""theta and back, in both kinds; what is projected and what is predicted; the units of registrations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import transform

from dal_jax.body import kinematics, rotations
from dal_jax.regressor.theta import LEAST_SD, SIZES, measured_codec, plain_codec, size
from tests.regressor import people

ROUNDING = 1e-6
KINDS = ("axis_angle", "6d")
PLAIN = plain_codec("axis_angle")


def test_parameters_survive_the_papers_theta():
    bodies = kinematics.fix_gauge(people.random_bodies(5, seed=0))
    again = _to_parameters(PLAIN, people.theta(bodies))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), again, bodies)
    assert people.theta(bodies).shape == (5, SIZES["axis_angle"])


def test_what_is_projected_in_training_is_what_predicts():
    """At a negative determinant too, where Gram-Schmidt of all three rows would be a reflection; else it is that."""
    theta = jnp.asarray(np.random.default_rng(1).normal(0, 1, (200, PLAIN.mean.size)), jnp.float32)
    projected = _decode(PLAIN, theta)[0].rotation
    np.testing.assert_allclose(projected, _to_parameters(PLAIN, theta).rotation, atol=ROUNDING)
    raw = theta[:, 93:102].reshape(200, 3, 3)
    proper = np.linalg.det(raw) > 0
    assert 50 < proper.sum() < 150
    published = jax.jit(rotations.gram_schmidt)(raw)
    np.testing.assert_allclose(projected[proper], published[proper], atol=2e-4)  # float32, rows nearly parallel
    np.testing.assert_allclose(projected[~proper, :2], published[~proper, :2], atol=2e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_any_finite_theta_is_a_body(kind):
    """For the paper's nine numbers of R reflections are among them."""
    codec = measured_codec("6d", people.random_bodies(40, seed=1)) if kind == "6d" else PLAIN
    theta = jnp.asarray(np.random.default_rng(4).normal(0, 1, (200, SIZES[kind])), jnp.float32)
    body = _to_parameters(codec, theta)
    identity = np.broadcast_to(np.eye(3), (200, 3, 3))
    np.testing.assert_allclose(body.rotation @ np.swapaxes(body.rotation, 1, 2), identity, atol=1e-4)
    np.testing.assert_allclose(np.linalg.det(body.rotation), 1.0, atol=1e-4)
    np.testing.assert_allclose(np.mean(np.log(body.segment_scale), axis=1), 0.0, atol=1e-6)
    assert kind == "axis_angle" or np.linalg.norm(body.pose, axis=-1).max() <= np.pi + NEAR_PI
    assert np.all(body.camera_scale > 0)


@pytest.mark.parametrize("kind", KINDS)
def test_units_standardise_the_people_they_come_from(kind):
    bodies = people.random_bodies(400, seed=2)
    codec = measured_codec(kind, bodies)
    units = np.asarray((_encode(codec, bodies) - codec.mean[None]) / codec.sd[None])
    spread = np.sqrt(np.mean(units**2, axis=0))
    assert np.all(spread < 1.0 + 1e-5)
    np.testing.assert_allclose(spread[codec.sd > LEAST_SD], 1.0, atol=1e-5)
    rotations_of = slice(0, 144 if kind == "6d" else 69)
    assert np.mean(codec.sd[rotations_of] > LEAST_SD) > 0.9
    if kind == "axis_angle":
        np.testing.assert_allclose(np.mean(units, axis=0), 0.0, atol=1e-5)


def test_people_at_every_azimuth_have_a_mean_that_gram_schmidt_can_use():
    codec = measured_codec("axis_angle", _at_every_azimuth(seed=3))
    body = _to_parameters(codec, codec.mean[None])
    np.testing.assert_allclose(body.rotation[0], kinematics.UPRIGHT_FACING_CAMERA, atol=1e-5)


def _at_every_azimuth(seed):
    azimuth = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    rotation = transform.Rotation.from_euler("y", azimuth[:, None]).as_matrix().astype(np.float32)
    return people.random_bodies(12, seed=seed).replace(rotation=rotation)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["pose", "translation"])
def test_units_of_a_failed_registration_are_refused(kind, name):
    bodies = people.random_bodies(4, seed=10)
    getattr(bodies, name)[2, 1] = np.nan
    with pytest.raises(ValueError, match="finite"):
        measured_codec(kind, bodies)


# --- six numbers a rotation, where axis-angles jump ---

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
def _encode(codec, bodies):
    return codec.encode(bodies)


@jax.jit
def _decode(codec, theta):
    return codec.decode(theta)


@jax.jit
def _to_parameters(codec, theta):
    return codec.to_parameters(theta)


@pytest.fixture(scope="module")
def measured():
    return measured_codec("6d", people.random_bodies(40, seed=1))


@pytest.mark.parametrize("frame", ["plain", "measured"])
def test_bodies_survive_theta(measured, frame):
    codec = measured if frame == "measured" else plain_codec("6d")
    bodies = _widely_posed(30, seed=2)
    theta = _encode(codec, bodies)
    assert theta.shape == (30, SIZES["6d"]) and codec.mean.shape == codec.sd.shape == (SIZES["6d"],)
    again, joint_rotation = _decode(codec, theta)
    np.testing.assert_allclose(joint_rotation, _matrices(bodies.pose), atol=FLOAT32)
    np.testing.assert_allclose(again.rotation, bodies.rotation, atol=FLOAT32)
    for name in ("segment_scale", "camera_scale", "translation"):
        np.testing.assert_allclose(getattr(again, name), getattr(bodies, name), rtol=FLOAT32, atol=FLOAT32)


def test_finished_bodies_survive_theta(measured):
    """As axis-angles below pi too, in the gauge of registrations."""
    bodies = kinematics.fix_gauge(people.random_bodies(30, seed=3))
    finished = _to_parameters(measured, _encode(measured, bodies))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=NEAR_PI), finished, bodies)


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
    body = kinematics.t_pose().replace(rotation=wrong[0].astype(np.float32), pose=pose)
    apart = np.asarray(_encode(measured, body) - measured.mean)[:144].reshape(24, 6)
    np.testing.assert_allclose(np.sum(apart**2, axis=1), error**2 @ [1, 1, 2], rtol=1e-3)  # next: the error squared


def test_an_output_of_zero_is_the_mean_rotation_of_every_joint():
    """SciPy's mean of rotations is the same, by the largest eigenvector of their quaternions' second moments."""
    bodies = people.random_bodies(40, seed=7)
    codec = measured_codec("6d", bodies)
    body, joint_rotation = _decode(codec, codec.mean)
    for joint in range(23):
        mean = transform.Rotation.from_rotvec(np.float64(bodies.pose[:, joint])).mean()
        np.testing.assert_allclose(joint_rotation[joint], mean.as_matrix(), atol=FLOAT32)
    whole = transform.Rotation.from_matrix(np.float64(bodies.rotation)).mean()
    np.testing.assert_allclose(body.rotation, whole.as_matrix(), atol=FLOAT32)
    np.testing.assert_allclose(np.log(body.segment_scale), np.log(bodies.segment_scale).mean(axis=0), atol=FLOAT32)
    np.testing.assert_allclose(body.translation, bodies.translation.mean(axis=0), atol=FLOAT32)


def test_an_output_of_zero_is_the_t_pose_where_no_units_are_asked_for():
    codec = plain_codec("6d")
    finished = _to_parameters(codec, codec.mean)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=FLOAT32), finished, kinematics.t_pose())


def test_people_at_every_azimuth_have_a_frame():
    codec = measured_codec("6d", _at_every_azimuth(seed=9))
    np.testing.assert_array_equal(codec.frame[0], kinematics.UPRIGHT_FACING_CAMERA)
    np.testing.assert_allclose(np.linalg.det(codec.frame), 1.0, atol=FLOAT32)
    assert not np.any(np.all(codec.frame[1:] == IDENTITY[None], axis=(1, 2)))  # the joints have their means


@pytest.mark.parametrize("kind", ["axis_angle", "6d"])
def test_segment_girths_are_the_last_of_theta(kind):
    """Bodies survive the round trip; an output of zero is their mean; without girths theta is as it was."""
    bodies = people.random_bodies(40, seed=1)
    girth = np.exp(np.random.default_rng(2).normal(0.1, 0.2, (40, 24, 2))).astype(np.float32)
    wide, codec = bodies.replace(segment_girth=girth), measured_codec(kind, bodies)
    theirs = measured_codec(kind, wide)
    assert theirs.anisotropic and not codec.anisotropic
    assert theirs.mean.shape == (size(kind, "anisotropic"),) == plain_codec(kind, "anisotropic").mean.shape
    encoded = jax.jit(theirs.encode)(wide)
    np.testing.assert_allclose(encoded[:, :-48], jax.jit(codec.encode)(bodies), atol=1e-6)
    np.testing.assert_allclose(jax.jit(theirs.to_parameters)(encoded).segment_girth, girth, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(theirs.decode)(encoded)[0].segment_girth, girth, rtol=1e-5)
    usual, _ = jax.jit(theirs.decode)(theirs.from_output(jnp.zeros((1, size(kind, "anisotropic")))))
    np.testing.assert_allclose(usual.segment_girth[0], np.exp(np.log(girth).mean(axis=0)), rtol=1e-5)
