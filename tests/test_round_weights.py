"""Which weights and which pose prior a round has, and that a crowd's poses come out of its fits."""

import dataclasses

import jax
import numpy as np
import pytest

from dal_jax.body.formats import load
from dal_jax.config import Config, demo, learn_poses, objective, paper
from dal_jax.loop import run
from dal_jax.registration import energy, priors
from dal_jax.registration.energy import Objective
from dal_jax.runtime.errors import InputError
from tests.regressor import people

OWN = priors.broad()


def _config(first_rest_pose: str, rest_pose: str) -> Config:
    return dataclasses.replace(paper(), first_rest_pose=first_rest_pose, rest_pose=rest_pose)


def test_the_papers_rounds_pull_to_the_t_pose():
    config = paper()
    assert objective(config, True, OWN) == Objective(energy.stiff_weights())
    assert objective(config, False, OWN) == Objective()


@pytest.mark.parametrize(("rest_pose", "expected"), [("usual", priors.population()), ("learned", OWN)])
def test_later_rounds_pull_to_what_is_asked_for(rest_pose, expected):
    config = _config("tpose", rest_pose)
    assert objective(config, True, OWN).prior is None
    found = objective(config, False, OWN)
    np.testing.assert_array_equal(found.prior.mean, expected.mean)
    assert found.weights == config.weights


def test_the_first_round_may_know_how_people_stand():
    found = objective(_config("usual", "learned"), True, OWN)
    np.testing.assert_array_equal(found.prior.mean, priors.population().mean)


def test_poses_are_learned_from_fits():
    """People who bend a knee by half a radian: the mean bends, most of the way past two people of the prior."""
    bodies = people.random_bodies(24, seed=0)
    bent = np.zeros((23, 3), np.float32)
    bent[3] = bent[4] = [0.5, 0.0, 0.0]  # knees
    bodies = bodies.replace(pose=0.1 * bodies.pose + bent)
    seen = people.observe(bodies, seed=0)
    found = learn_poses(load.load_body(), seen, jax.tree.map(np.asarray, bodies), Objective())
    np.testing.assert_allclose(found.mean[3], bent[3], atol=0.1)
    np.testing.assert_allclose(found.mean[17], 0.0, atol=0.15)  # an elbow


@pytest.mark.parametrize(("field", "value"), [("first_rest_pose", "learned"), ("rest_pose", "sitting")])
def test_what_no_round_can_pull_to_is_one_line(field, value):
    with pytest.raises(InputError, match=rf"config\.{field} is '{value}': one of tpose, usual"):
        run.check(dataclasses.replace(demo(), **{field: value}))
