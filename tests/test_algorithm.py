"""The loop on a handful of synthetic people: it runs, resumes to the same history, and never needs truth."""

import copy
import dataclasses
import json

import jax
import numpy as np
import pytest

from dal_jax import algorithm
from dal_jax.algorithm import Run
from dal_jax.body.formats.load import load_body
from dal_jax.config import Config, demo
from dal_jax.loop import judge, prediction, run as run_lib
from dal_jax.loop.folder import RunFolder
from dal_jax.registration.energy import Objective
from dal_jax.regressor import model
from dal_jax.runtime import progress
from dal_jax.runtime.errors import DivergedError, InputError
from dal_jax.synthetic import annotator
from tests.regressor import people

pytestmark = pytest.mark.slow


def small_config(**changes) -> Config:
    """Two rounds in seconds: narrow networks, few steps, and a checkpoint inside every long phase.

    One program of `lm`: from several given starts it takes eight times as long to compile as one of `adam`.
    """
    config = demo()
    config.synthetic = "tiny"
    config.rounds, config.sample_weight = 2, "residual"
    config.lifting.width, config.lifting.batch, config.lifting.steps = 16, 8, 40
    config.lifting.steps_per_call = config.lifting_checkpoint_steps = 20
    config.regressor.width, config.regressor.batch, config.regressor.epochs = 4, 8, 2
    config.regressor.depth = 14
    config.learning_checkpoint_steps = 2  # of the 3 of an epoch
    for stage in (config.first.registration, config.later.registration):
        stage.steps, stage.batch = 3, 24
    config.later.registration.optimizer, config.later.registration.learning_rate = "adam", 0.03
    return dataclasses.replace(config, **changes)


@pytest.fixture(scope="module")
def data_dir(tiny_people):
    return tiny_people


@pytest.fixture(scope="module")
def undisturbed(data_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    return run_lib.deform_and_learn(small_config(), workdir, data_dir), workdir


def without_seconds(history):
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in history]


def test_history_has_the_contract_s_fields(undisturbed):
    result, workdir = undisturbed
    history = json.loads((workdir / "history.json").read_text())
    assert history == result.history
    assert [entry["round"] for entry in history] == [1, 2]
    for who in ("registration_train", "regressor_train", "regressor_test"):  # cameras are known: all in their frames
        assert history[1][f"{who}_mpjpe_mm"] == history[1][f"{who}_turned_mpjpe_mm"]
    for entry in history:
        assert entry.keys() == {"round", "seconds", *judge.FIELDS}
        assert all(np.isfinite(entry[name]) and entry[name] > 0 for name in judge.FIELDS)


def test_the_run_leaves_a_report_and_a_log(undisturbed):
    result, workdir = undisturbed
    assert result.report == workdir / "report" / "index.html"
    assert "history.png" in result.report.read_text()
    phases = {line["phase"] for line in progress.read_metrics(workdir / "metrics.jsonl")}
    assert phases == {"lift", "deform", "learn"}
    assert result.scores["mean_pose_test_mpjpe_mm"] > 50
    assert result.scores["regressor_test_vertex_error_mm"] > 10
    assert json.loads((workdir / "scores.json").read_text()) == result.scores


def test_the_regressor_of_a_finished_run_can_be_loaded_alone(undisturbed, data_dir):
    """From a true checkpoint, optimiser and all; its answers to the training people are those of the last round."""
    _, workdir = undisturbed
    loaded = prediction.load(workdir / "checkpoints")
    assert loaded.training_steps > 0 and loaded.folder == workdir
    config = small_config()
    train, _ = run_lib.load(config, data_dir)
    of = Run(config, load_body(), train)
    with RunFolder(workdir, config) as run:
        state, _ = run.resume(algorithm.initial_state(of))
    found = model.predict(loaded.config, loaded.learned, of.people.images)
    jax.tree.map(np.testing.assert_array_equal, found, state.predictions)


class _Killed(Exception):
    pass


class _DyingFolder(RunFolder):
    """Dies right after its n-th checkpoint, as a killed process would: nothing else is written."""

    saves_to_live: int

    def save(self, state, position):
        super().save(state, position)
        self.saves_to_live -= 1
        if self.saves_to_live == 0:
            raise _Killed


def test_a_run_killed_at_every_checkpoint_has_the_same_history(undisturbed, data_dir, tmp_path, monkeypatch):
    result, undisturbed_dir = undisturbed
    monkeypatch.setattr(run_lib, "RunFolder", _DyingFolder)
    seen = []
    for _ in range(40):
        _DyingFolder.saves_to_live = 1
        try:
            again = run_lib.deform_and_learn(small_config(), tmp_path / "run", data_dir)
            break
        except _Killed:
            seen.append(json.loads((tmp_path / "run" / "history.json").read_text()))
    assert len(seen) == 17, "lift saves 2 + 1 times, deform and judge once a round, learn 2 x 2 + 1 times a round"
    assert without_seconds(again.history) == without_seconds(result.history)
    lines, expected = (progress.read_metrics(path / "metrics.jsonl") for path in (tmp_path / "run", undisturbed_dir))
    drop = ("images_per_second", "input_wait_share")
    assert [{k: v for k, v in line.items() if k not in drop} for line in lines] == [
        {k: v for k, v in line.items() if k not in drop} for line in expected
    ]


def test_training_does_not_depend_on_truth(undisturbed, data_dir, tmp_path, monkeypatch):
    result, _ = undisturbed
    load = run_lib.load

    def load_with_false_truth(*arguments):
        train, test = load(*arguments)
        false = train.truth.replace(joints_h36m_mm=copy.deepcopy(train.truth.joints_h36m_mm[::-1]))
        return train.replace(truth=false), test

    monkeypatch.setattr(run_lib, "load", load_with_false_truth)
    lied_to = run_lib.deform_and_learn(small_config(), tmp_path / "run", data_dir)
    for entry, other in zip(result.history, lied_to.history, strict=True):
        assert entry["regressor_test_pa_mpjpe_mm"] == other["regressor_test_pa_mpjpe_mm"]
        assert entry["registration_train_mpjpe_mm"] != other["registration_train_mpjpe_mm"]


def test_the_control_keeps_the_fits_of_round_1_and_does_without_a_lifter(undisturbed, data_dir, tmp_path):
    config = small_config(refit=False, lifted_depth="none")
    control = run_lib.deform_and_learn(config, tmp_path / "run", data_dir)
    first, last = control.history
    assert first["lifting_test_mpjpe_mm"] is None and first["lifting_train_mpjpe_mm"] is None
    assert first["registration_train_mpjpe_mm"] != undisturbed[0].history[0]["registration_train_mpjpe_mm"]
    assert "lift" not in {line["phase"] for line in progress.read_metrics(tmp_path / "run" / "metrics.jsonl")}
    assert first["registration_train_mpjpe_mm"] == last["registration_train_mpjpe_mm"]
    assert first["regressor_train_mpjpe_mm"] != last["regressor_train_mpjpe_mm"]


def test_a_run_that_diverges_keeps_its_last_checkpoint_and_goes_on_at_a_sane_rate(undisturbed, data_dir, tmp_path):
    wild = small_config()
    wild.regressor.learning_rate = 1e30
    with pytest.raises(DivergedError, match=r"^round 1, learn: regressor, step \d: .* (nan|inf|not finite)"):
        run_lib.deform_and_learn(wild, tmp_path / "run", data_dir)
    again = run_lib.deform_and_learn(small_config(), tmp_path / "run", data_dir)
    assert without_seconds(again.history) == without_seconds(undisturbed[0].history)


def test_another_configuration_is_refused_by_name(undisturbed, data_dir):
    _, workdir = undisturbed
    with pytest.raises(InputError, match=r"config\.json: the run there has config\.seed=0 where 1"):
        run_lib.deform_and_learn(small_config(seed=1), workdir, data_dir)


def test_a_bad_configuration_is_refused_before_anything_is_begun(tmp_path, data_dir):
    with pytest.raises(InputError, match=r"config\.online_fitting .* needs config\.refit and \.keep_better"):
        run_lib.deform_and_learn(small_config(online_fitting=True, refit=False), tmp_path / "run", data_dir)
    assert not (tmp_path / "run").exists()


def test_an_empty_training_set_is_refused_before_anything_is_begun(tmp_path, data_dir):
    config = small_config()
    config.regressor.held_out_share = 0.99
    with pytest.raises(InputError, match="held_out_share is 0.99: of 24 people none would be shown"):
        run_lib.deform_and_learn(config, tmp_path / "run", data_dir)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_configuration_that_never_ran_does_not_stand_in_the_way(tmp_path, data_dir):
    with pytest.raises(InputError, match="config.data is 'nonsense'"):
        run_lib.deform_and_learn(small_config(data="nonsense"), tmp_path / "run", data_dir)
    RunFolder(tmp_path / "run", small_config())
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"] == "synthetic"


def test_a_folder_that_is_no_run_is_left_alone(tmp_path, data_dir):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="thesis.txt"):
        run_lib.deform_and_learn(small_config(), tmp_path, data_dir, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_the_tiny_recipe_fits_the_demo_s_network():
    assert annotator.RECIPES["tiny"].image_size == demo().regressor.image_size


def test_phases_are_those_that_run_dispatches():
    assert algorithm.PHASES == ("lift", "deform", "learn", "judge")


def test_poses_are_learned_from_fits():
    """People who bend a knee by half a radian: the mean bends, most of the way past two people of the prior."""
    bodies = people.random_bodies(24, seed=0)
    bent = np.zeros((23, 3), np.float32)
    bent[3] = bent[4] = [0.5, 0.0, 0.0]  # knees
    bodies = bodies.replace(pose=0.1 * bodies.pose + bent)
    seen = people.observe(bodies, seed=0)
    found = algorithm.learn_prior(load_body(), seen, jax.tree.map(np.asarray, bodies), Objective())
    np.testing.assert_allclose(found.mean[3], bent[3], atol=0.1)
    np.testing.assert_allclose(found.mean[17], 0.0, atol=0.15)  # an elbow
