"""Which weights and which rest pose a round has, and that a crowd's poses come out of its fits."""

import dataclasses

import jax
import numpy as np
import pytest

from dal_jax import presets, round_weights
from dal_jax.body import template as template_lib
from dal_jax.loop import session
from dal_jax.registration import energy, poses
from dal_jax.runtime import errors
from tests.regressor import people

OWN = poses.broad()


def _config(first_rest_pose: str, rest_pose: str) -> presets.Config:
    return dataclasses.replace(presets.paper(), first_rest_pose=first_rest_pose, rest_pose=rest_pose)


def test_the_papers_rounds_pull_to_the_t_pose():
    config = presets.paper()
    assert round_weights.weights(config, True, OWN) == energy.stiff_weights()
    assert round_weights.weights(config, False, OWN) == energy.EnergyWeights()


@pytest.mark.parametrize(("rest_pose", "expected"), [("usual", poses.usual()), ("learned", OWN)])
def test_later_rounds_pull_to_what_is_asked_for(rest_pose, expected):
    config = _config("tpose", rest_pose)
    assert round_weights.weights(config, True, OWN).rest is None
    found = round_weights.weights(config, False, OWN)
    np.testing.assert_array_equal(found.rest.turn, expected.mean)
    assert dataclasses.replace(found, rest=None) == config.weights


def test_the_first_round_may_know_how_people_stand():
    found = round_weights.weights(_config("usual", "learned"), True, OWN)
    np.testing.assert_array_equal(found.rest.turn, poses.usual().mean)


def test_poses_are_learned_from_fits():
    """People who bend a knee by half a radian: the mean bends, most of the way past two people of the prior."""
    bodies = people.random_bodies(24, seed=0)
    bent = np.zeros((23, 3), np.float32)
    bent[3] = bent[4] = [0.5, 0.0, 0.0]  # knees
    bodies = bodies.replace(pose=0.1 * bodies.pose + bent)
    seen = people.observe(bodies, seed=0)
    found = round_weights.learn_poses(
        template_lib.load_template(), seen, jax.tree.map(np.asarray, bodies), energy.EnergyWeights()
    )
    np.testing.assert_allclose(found.mean[3], bent[3], atol=0.1)
    np.testing.assert_allclose(found.mean[17], 0.0, atol=0.15)  # an elbow


@pytest.mark.parametrize(("field", "value"), [("first_rest_pose", "learned"), ("rest_pose", "sitting")])
def test_what_no_round_can_pull_to_is_one_line(field, value):
    with pytest.raises(errors.InputError, match=rf"config\.{field} is '{value}': one of tpose, usual"):
        session.check(dataclasses.replace(presets.demo(), **{field: value}))
