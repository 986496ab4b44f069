"""The literal reading of T_j = A_j S_j: joints stay, surfaces swell about them; at a scale of 1 both readings agree."""

import jax.numpy as jnp
import numpy as np

from benchmarks import scale_readings
from dal_jax.body import kinematics, rotations, skinning
from tests.registration import small_problem


def _posed(reading: str, scale: np.ndarray):
    template = small_problem.small_template()
    random = np.random.default_rng(0)
    turns = rotations.axis_angle_to_matrix(jnp.asarray(random.normal(0, 0.4, (23, 3)), jnp.float32))
    segments = scale_readings.READINGS[reading](template, np.eye(3, dtype=np.float32), turns, jnp.asarray(scale))
    return segments, np.asarray(skinning.skin_vertices(template, segments))


def test_scales_move_no_joint_and_swell_the_surface():
    ones, scale = np.ones(24, np.float32), np.random.default_rng(1).uniform(0.8, 1.3, 24).astype(np.float32)
    rest, swollen = (_posed("literal", each) for each in (ones, scale))
    np.testing.assert_array_equal(rest[0].position, swollen[0].position)
    np.testing.assert_array_equal(swollen[0].scale, scale)
    assert np.abs(rest[1] - swollen[1]).max() > 0.01
    ours = _posed("lengthening", scale)[0]
    assert np.abs(np.asarray(ours.position) - np.asarray(swollen[0].position)).max() > 0.02
    np.testing.assert_allclose(_posed("lengthening", ones)[1], rest[1], atol=1e-6)


def test_ours_is_the_library_s():
    assert scale_readings.READINGS["lengthening"] is kinematics.turn_skeleton
