"""Whole configurations: what each round minimises, and what is refused."""

import dataclasses

import numpy as np
import pytest

from dal_jax import config as configurations
from dal_jax.config import Config, Round, demo, paper
from dal_jax.registration import energy, priors
from dal_jax.registration.energy import Objective
from dal_jax.runtime.errors import InputError

OWN = priors.broad()


def test_the_papers_rounds_pull_to_the_t_pose():
    config = paper()
    assert config.first.objective(OWN) == Objective(energy.stiff_weights())
    assert config.later.objective(OWN) == Objective()


@pytest.mark.parametrize(("prior", "expected"), [("population", priors.population()), ("learned", OWN)])
def test_a_round_pulls_to_what_is_asked_for(prior, expected):
    plan = dataclasses.replace(demo().later, prior=prior)
    objective = plan.objective(OWN)
    np.testing.assert_array_equal(objective.prior.mean, expected.mean)
    assert objective.weights == plan.weights


def test_whole_numbers_among_the_weights_become_what_a_checkpoint_holds():
    weights = dataclasses.replace(Round().weights, keypoint=30)
    assert type(Round(weights=weights).objective().weights.keypoint) is float


@pytest.mark.parametrize("name", configurations.PRESETS)
def test_the_whole_configurations_are_valid(name):
    config = configurations.preset(name)
    assert config.preset == name
    config.check()


def _changed(**changes) -> Config:
    config = demo()
    for path, value in changes.items():
        *groups, field = path.split("__")
        group = config
        for name in groups:
            group = getattr(group, name)
        setattr(group, field, value)
    return config


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rounds": 0}, r"config\.rounds is 0: at least 1"),
        ({"regressor__learning_rate": float("nan")}, r"config\.regressor\.learning_rate is nan: a finite number"),
        ({"regressor__batch": 0}, r"config\.regressor\.batch is 0: at least 1"),
        ({"lifting__steps": 0}, r"config\.lifting\.steps is 0: at least 1"),
        ({"later__registration__learning_rate": -1}, r"later\.registration\.learning_rate is -1: at least 0"),
        ({"first__prior": "learned"}, r"config\.first\.prior is 'learned': one of tpose, population"),
        ({"later__prior": "sitting"}, r"config\.later\.prior is 'sitting': one of tpose, population, learned"),
        ({"sample_weight": "hope"}, r"config\.sample_weight is 'hope': one of none, residual, posterior"),
        ({"regressor__rotations": "euler"}, r"config\.regressor\.rotations is 'euler': one of axis_angle, 6d"),
        ({"regressor__depth": 18}, r"config\.regressor\.depth is 18: one of 50, 26, 14"),
        ({"regressor__depth": 14, "regressor__pretrained": "a"}, r"depth is 14: pretrained weights are a ResNet50's"),
        ({"online_fitting": True, "refit": False}, r"config\.online_fitting .* needs config\.refit and \.keep_better"),
        ({"online_fitting": True, "keep_better": False}, r"config\.online_fitting .* needs config\.refit"),
    ],
)
def test_values_that_would_fail_late_are_one_line(changes, told):
    with pytest.raises(InputError, match=told):
        _changed(**changes).check()


def test_an_unknown_preset_is_one_line():
    with pytest.raises(InputError, match=r"config\.preset is 'quick': one of demo, paper, best"):
        configurations.preset("quick")
