"""What a run's regressor learns from comes back from its folder: bodies, lifted depths, weights; errors are named."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from benchmarks import registered_runs
from dal_jax import algorithm
from dal_jax.algorithm import RunState
from dal_jax.loop.folder import RunFolder
from dal_jax.registration import priors
from dal_jax.registration.energy import EnergyWeights, Objective
from dal_jax.runtime.errors import InputError
from tests.loop import registered_run
from tests.regressor import people

LATER = Objective(EnergyWeights(), priors.population())


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """Return a folder for runs, what they are about, and a state of theirs with bodies of people's shape."""
    root = tmp_path_factory.mktemp("runs")
    of = registered_run.record(root / "data")
    bodies = people.random_bodies(len(of.people.names), seed=3)
    return root, of, algorithm.initial_state(of).replace(fits=bodies, predictions=bodies, objective=LATER)


def _write(setting, name: str, round_number: int, phase: str, **changes) -> None:
    root, of, state = setting
    with RunFolder(root / name, of.config) as run:
        run.save(state.replace(**changes), RunState(round=round_number, phase=phase))


@pytest.fixture(scope="module")
def loaded(setting):
    _write(setting, "run", 4, "deform")
    return registered_runs.load(setting[0] / "run" / "checkpoints")


def test_bodies_depths_and_configuration_are_the_run_s(setting, loaded):
    """The data set is found beside the run's folder."""
    _, of, state = setting
    run = loaded
    assert run.step == 1 and run.judge.run.config == of.config
    _assert_equal(run.objective, LATER)
    _assert_equal(run.fits, state.fits)
    expected = algorithm.with_lifted_depth(of, state.lifting, of.people.observations)
    jax.tree.map(np.testing.assert_array_equal, run.observations, expected)
    assert np.any(run.observations.depth_confidence > 0)


def test_a_score_is_the_judge_s_and_key_points_need_no_truth(setting, loaded):
    run, state = loaded, setting[2]
    config = run.judge.run.config.regressor
    scores = run.score(config, state.regressor.learned)
    judged = run.judge(1, state)
    assert scores["mpjpe_mm"] == judged["regressor_test_mpjpe_mm"]
    assert scores["pa_mpjpe_mm"] == judged["regressor_test_pa_mpjpe_mm"]
    assert scores["keypoint_error_px"] > 0
    judge = dataclasses.replace(run.judge, train_truth=None, test=run.judge.test.replace(truth=None))
    blind = dataclasses.replace(run, judge=judge)
    assert blind.score(config, state.regressor.learned) == scores | {"mpjpe_mm": None, "pa_mpjpe_mm": None}


def test_the_objective_is_the_one_that_the_fits_were_scored_with(setting):
    """With a prior and without one, a robust loss and none: a checkpoint says which."""
    objectives = (Objective(EnergyWeights(scale=77.0)), Objective(EnergyWeights(outlier=0.1), priors.broad()))
    for number, objective in enumerate(objectives):
        _write(setting, f"objective{number}", 1, "learn", objective=objective)
        _assert_equal(registered_runs.load(setting[0] / f"objective{number}").objective, objective)


def _assert_equal(one, other) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_checkpoint_whose_bodies_are_gone_is_a_damaged_one(setting):
    root, of, state = setting
    _write(setting, "bodiless", 2, "learn")
    shutil.rmtree(root / "bodiless" / "people" / "1")
    with (
        RunFolder(root / "bodiless", of.config) as run,
        pytest.raises(InputError, match="people/1: there is no checkpoint; no other is left, --overwrite starts anew"),
    ):
        run.resume(state)


def test_a_run_without_registered_people_is_one_line(setting, tmp_path):
    root, of, _ = setting
    _write(setting, "tpose", 1, "deform")
    (tmp_path / "empty").mkdir()
    RunFolder(root / "begun", of.config)
    for path, told in (
        (root / "tpose", "no one is registered yet"),
        (root / "begun", "has no checkpoint yet"),
        (tmp_path / "absent", "no such folder"),
        (tmp_path / "empty", "it has no config.json"),
    ):
        with pytest.raises(InputError, match=told) as caught:
            registered_runs.load(path)
        assert path.name in str(caught.value)


def test_a_damaged_configuration_is_one_line(setting):
    root, *_ = setting
    _write(setting, "spoilt", 3, "deform")
    path = root / "spoilt" / "config.json"
    whole = json.loads(path.read_text())
    for group, field, value, told in (
        (
            "later",
            "weights",
            {"outlier": "far"},
            "config.later.weights.outlier is 'far', not of type NoneType or float",
        ),
        ("lifting", "layers", 3, "config.lifting.layers is unknown"),
        (None, "sample_weight", "hope", "config.sample_weight is 'hope'"),
    ):
        content = json.loads(json.dumps(whole))
        (content[group] if group else content)[field] = value
        path.write_text(json.dumps(content))
        with pytest.raises(InputError, match=told):
            registered_runs.load(root / "spoilt")
    whole["later"]["weights"]["outlier"] = 0.05
    path.write_text(json.dumps(whole))
    assert registered_runs.load(root / "spoilt").judge.run.config.later.weights.outlier == 0.05
