"""L_joint about a learned rest pose, against SciPy's rotations and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial import transform

from dal_jax.registration import energy, priors
from dal_jax.registration.priors import RestPose
from tests.registration import made_up_rest

FLOAT32 = 2e-6
FLOAT64 = 1e-9
DIFFERENCES = 1e-6  # central, in float64


def _poses(count=4):
    return np.random.default_rng(5).normal(0.0, 0.6, (count, 23, 3))


def test_deviation_is_what_is_left_beyond_the_rest_pose():
    rest = made_up_rest.rest()
    for pose in _poses():
        turned = transform.Rotation.from_rotvec(rest.turn).inv() * transform.Rotation.from_rotvec(pose)
        found = jax.jit(priors.pose_deviation)(jnp.asarray(pose, jnp.float32), jnp.asarray(rest.turn))
        np.testing.assert_allclose(found, turned.as_rotvec(), atol=4 * FLOAT32)


def test_energy_is_the_sum_of_the_quadratic_forms():
    rest = made_up_rest.rest()
    precision = np.swapaxes(rest.root, 1, 2) @ rest.root
    with jax.enable_x64(True):
        for pose in _poses():
            away = np.asarray(priors.pose_deviation(pose, np.float64(rest.turn)))
            expected = np.einsum("ki,kij,kj->", away, np.float64(precision), away)
            found = np.sum(np.asarray(energy.joint_residual(pose, jax.tree.map(np.float64, rest))) ** 2)
            np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_without_one_it_is_the_papers():
    pose = _poses()[0]
    assert energy.joint_residual(pose) is pose
    paper = RestPose(np.zeros((23, 3)), np.eye(3)[None].repeat(23, axis=0))
    with jax.enable_x64(True):
        np.testing.assert_allclose(priors.residual(pose, paper), pose, atol=FLOAT64)


def test_slope_is_finite_and_right_at_rest_and_away_from_it():
    with jax.enable_x64(True):
        rest = jax.tree.map(np.float64, made_up_rest.rest())
        slope = jax.jit(jax.jacfwd(lambda pose: priors.residual(pose, rest)))
        value = jax.jit(lambda pose: priors.residual(pose, rest))
        for pose in (rest.turn, _poses()[1]):
            direction = np.random.default_rng(1).normal(size=(23, 3))
            step = 1e-5 * direction
            expected = (value(pose + step) - value(pose - step)) / 2e-5
            found = np.einsum("kiab,ab->ki", slope(pose), direction)
            np.testing.assert_allclose(found, expected, atol=DIFFERENCES * np.abs(expected).max())
