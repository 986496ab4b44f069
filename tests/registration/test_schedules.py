"""Objectives by name, and the stages of every schedule."""

import numpy as np
import pytest

from dal_jax.body.cameras import Pinhole
from dal_jax.registration import energy, priors, schedules
from dal_jax.registration.energy import EnergyWeights, Objective


def test_names_are_the_papers_rounds_and_ours():
    assert schedules.objective_by_name("paper_stiff") == Objective(energy.stiff_weights())
    assert schedules.objective_by_name("paper_soft") == Objective()
    ours = schedules.objective_by_name("pose_prior")
    np.testing.assert_array_equal(ours.prior.mean, priors.population().mean)
    assert (ours.weights.dense, ours.weights.scale) == (EnergyWeights().dense, 0.0)
    shapes = ours.active_shape()
    assert shapes.root is priors.population_shapes().root, "proportions are pulled to people's, not to the template's"
    np.testing.assert_array_equal(shapes.girth, priors.DRESSED_GIRTH)
    with pytest.raises(ValueError, match="weights 'firm' is not one of paper_stiff, paper_soft, pose_prior"):
        schedules.objective_by_name("firm")


def test_before_a_known_camera_starts_begin_from_afar_and_given_ones_stay():
    stages = schedules.stages("graduated", Objective())
    camera = Pinhole(np.ones(2, np.float32), np.zeros((2, 2), np.float32))
    (stage, distance, moves), *way = schedules.legs(stages, camera, starts=5, given=2)
    assert stage == stages[0] and distance >= 100
    np.testing.assert_array_equal(moves, [True, True, True, False, False])
    assert [stage for stage, _, _ in way] == list(stages)
    assert all(distance == 1 and moves.all() for _, distance, moves in way)
    for known, given in ((None, 2), (camera, 5)):
        assert [stage for stage, _, _ in schedules.legs(stages, known, starts=5, given=given)] == list(stages)
