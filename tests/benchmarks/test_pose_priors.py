"""A joint that is left out is not read, and what is measured is how far the fit has it from its place."""

import numpy as np

from benchmarks import pose_priors
from dal_jax.registration import register
from dal_jax.registration.energy import Objective
from dal_jax.registration.register import RegistrationConfig
from tests.registration import small_problem


def test_each_limb_joint_is_left_out_in_turn(monkeypatch):
    """The fits are the people themselves; one joint of one of them is annotated 0.04 crop units beside its place."""
    bodies = small_problem.random_people(2, seed=3)
    observations = small_problem.observe(bodies, seed=4)
    observations.keypoint_position[1, 16, 0] += 0.04
    observations.keypoint_confidence[0, 1] = 0.0
    seen = []

    def perfect(template, observations, config, objective):
        seen.append(np.asarray(observations.keypoint_confidence) > 0)
        return register.Fit(bodies, *[np.zeros(2)] * 5)

    monkeypatch.setattr(register, "register", perfect)
    error = pose_priors.left_out_percent(
        small_problem.small_template(), observations, RegistrationConfig(), Objective()
    )
    assert error.shape == (len(pose_priors.LIMBS), 2)
    for joint, known in zip(pose_priors.LIMBS, seen, strict=True):
        assert not known[:, joint].any() and known.sum() == 2 * 17 - 2 - (joint != 1)
    assert np.isnan(error[pose_priors.LIMBS.index(1), 0])
    expected = np.zeros_like(error)
    expected[pose_priors.LIMBS.index(16), 1] = 2.0  # % of a crop's side, which is 2 units
    np.testing.assert_allclose(np.nan_to_num(error), expected, atol=1e-3)
