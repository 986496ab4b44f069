import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.observations import residuals
from dal_jax.registration import energy, priors
from dal_jax.registration.energy import Objective
from dal_jax.uncertainty import sandwich
from tests.registration import small_problem

DIFFERENCES = 2e-3  # central differences in float32: rounding 1e-6 over a step of 2e-3, curvature below it
STEP = 1e-3
REST = small_problem.pose_prior().mean


@pytest.fixture(scope="module")
def person():
    people = small_problem.random_people(1, seed=2, pose_sd=0.4)
    seen = small_problem.observe(people, seed=3, points=20, noise=0.05)
    seen.point_confidence[0, 3], seen.keypoint_confidence[0, 5], seen.depth_confidence[0, 2] = 0.0, 0.5, 0.25
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[0], (people, seen))


_linearise = jax.jit(sandwich.linearise)


def _terms(template, target, body, delta):
    moved = sandwich.move(body, delta)
    terms = energy.residuals(template, target, moved, Objective())
    return {
        "dense": terms["dense"],
        "keypoint": terms["keypoint"][:, :2],
        "depth": terms["keypoint"][:, 2],
        "scale": terms["scale"],
        "pose": priors.pose_deviation(moved.pose, REST).reshape(-1),
    }


def test_residuals_and_jacobians_are_those_of_the_energy(person):
    template, (body, seen) = small_problem.small_template(), person
    target = residuals.make_target(template, seen)
    linear = _linearise(template, target, body, REST)
    place = jax.jit(lambda delta: _terms(template, target, body, delta))
    for name, value in place(jnp.zeros(98)).items():
        np.testing.assert_allclose(getattr(linear, name), value, atol=1e-6)
    random = np.random.default_rng(0)
    for _ in range(4):
        delta = jnp.asarray(random.normal(0, 1, 98), jnp.float32)
        ahead, behind = place(STEP * delta), place(-STEP * delta)
        for name in ahead:
            slope = (ahead[name] - behind[name]) / (2 * STEP)
            found = getattr(linear, f"{name}_jacobian") @ delta
            np.testing.assert_allclose(found, slope, atol=DIFFERENCES * np.abs(slope).max() + DIFFERENCES)


def test_what_is_not_trusted_has_no_residual_and_no_slope(person):
    template, (body, seen) = small_problem.small_template(), person
    linear = _linearise(template, residuals.make_target(template, seen), body, REST)
    assert not linear.dense[3].any()
    assert not linear.dense_jacobian[3].any()
    assert linear.dense_jacobian[4].any()


def test_a_step_leaves_the_cameras_scale_alone(person):
    body, _ = person
    moved = jax.jit(sandwich.move)(body, jnp.full(98, 0.1))
    np.testing.assert_allclose(jnp.exp(moved.log_camera_scale), body.camera_scale, rtol=1e-6)
    np.testing.assert_allclose(moved.translation, body.translation + 0.1, rtol=1e-6)
