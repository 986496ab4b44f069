"""The learn phase with people held out: it stops early, its best epoch goes on, and killed anywhere it is the same."""

import dataclasses

import jax
import numpy as np
import pytest

from dal_jax import algorithm
from dal_jax.algorithm import Run, RunState
from dal_jax.body.formats import load
from dal_jax.config import Config, demo
from dal_jax.data.people import People
from dal_jax.loop.folder import RunFolder
from dal_jax.regressor import model
from dal_jax.runtime import progress
from dal_jax.runtime.errors import DivergedError
from tests.regressor import people

pytestmark = pytest.mark.slow

COUNT, EPOCHS = 12, 6


def _config() -> Config:
    """Two rounds of learning from the same fits; an epoch is three steps, a checkpoint two."""
    config = demo()
    config.rounds, config.refit, config.learning_checkpoint_steps, config.lifted_depth = 2, False, 2, "turns"
    config.lifting.width = 8
    config.regressor = dataclasses.replace(
        config.regressor, width=4, depth=14, image_size=32, batch=3, epochs=EPOCHS,
        learning_rate=2e-2, held_out_share=0.25, patience=1,
    )  # fmt: skip
    return config


@pytest.fixture(scope="module")
def setting():
    """Pictures of noise: what is learned of the people who are shown says nothing about the others."""
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 32, 32, 3)).astype(np.uint8)
    observed = people.observe(people.random_bodies(COUNT, seed=0), seed=0)
    names = [str(number) for number in range(COUNT)]
    return Run(
        _config(), load.load_body(), People(observed, images, names, np.full((len(names), 4), np.nan, np.float32))
    )


class _Killed(Exception):
    pass


class _Folder(RunFolder):
    """Dies right after its n-th checkpoint, as a killed process would; 0 lets it live."""

    saves_to_live = 0

    def save(self, state, position):
        super().save(state, position)
        self.saves_to_live -= 1
        if self.saves_to_live == 0:
            raise _Killed


@pytest.fixture(scope="module")
def fresh(setting):
    return algorithm.initial_state(setting)


def _run(setting, fresh, workdir, saves_to_live=0):
    """Run on from the last checkpoint; the first stands before round 1's learning."""
    if not (workdir / "checkpoints").exists():
        begun = fresh.replace(fits=people.random_bodies(COUNT, seed=0))
        with _Folder(workdir, setting.config) as run:
            run.save(begun, RunState(phase="learn"))
    with _Folder(workdir, setting.config) as run:
        run.saves_to_live = saves_to_live
        state, position = run.resume(fresh)
        return algorithm.run_rounds(setting, state, position, run.save, run.log, lambda *_: {})[0]


@pytest.fixture(scope="module")
def undisturbed(setting, fresh, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    return _run(setting, fresh, workdir), _lines(workdir)


def _lines(workdir):
    timed = ("images_per_second", "input_wait_share")
    lines = progress.read_metrics(workdir / "metrics.jsonl")
    return [{name: value for name, value in line.items() if name not in timed} for line in lines]


def _held_out_losses(lines, round_number):
    return [line["held_out_loss"] for line in lines if line["round"] == round_number and "held_out_loss" in line]


def test_a_round_stops_after_its_first_worse_epoch_and_the_best_goes_on(setting, undisturbed):
    state, lines = undisturbed
    for round_number in (1, 2):
        losses = _held_out_losses(lines, round_number)
        assert len(losses) < EPOCHS
        assert np.argmin(losses) == len(losses) - 2
    assert state.regressor.best.loss == np.float32(min(losses))
    jax.tree.map(np.testing.assert_array_equal, state.regressor.trained, state.regressor.best.variables)
    predicted = model.predict(setting.config.regressor, state.regressor.learned, setting.people.images)
    jax.tree.map(np.testing.assert_array_equal, predicted, state.predictions)


def test_the_epochs_of_a_stopped_round_are_counted_as_if_it_had_gone_on(undisturbed):
    """So a round's epochs begin where they would, and its learning rate falls as it would."""
    _, lines = undisturbed
    first = [line["epoch"] for line in lines if line["round"] == 2 and "held_out_loss" in line]
    assert first[0] == EPOCHS + 1


def test_killed_at_every_checkpoint_it_ends_with_the_same_bits(setting, fresh, undisturbed, tmp_path):
    state, lines = undisturbed
    for deaths in range(60):  # noqa: B007
        try:
            again = _run(setting, fresh, tmp_path / "run", saves_to_live=1)
            break
        except _Killed:
            pass
    epochs = sum(len(_held_out_losses(lines, number)) for number in (1, 2))
    assert deaths == 2 * epochs + 5, "twice an epoch; learn, judge, and between them deform"
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(again), jax.device_get(state))
    assert _lines(tmp_path / "run") == lines


def test_the_held_out_are_the_same_in_every_round_and_for_any_number_of_epochs(setting):
    chosen = algorithm.held_out_people(setting)
    assert chosen.sum() == 3
    config = dataclasses.replace(setting.config, regressor=dataclasses.replace(setting.config.regressor, epochs=50))
    longer = dataclasses.replace(setting, config=config)
    np.testing.assert_array_equal(algorithm.held_out_people(longer), chosen)


def test_scores_and_bodies_that_are_not_finite_are_refused_by_name(setting, fresh):
    def keep(*_):
        raise AssertionError("nothing may be saved")

    scores = {"lifting_test_mpjpe_mm": None, "regressor_test_mpjpe_mm": float("nan")}
    with pytest.raises(DivergedError, match="^round 2, judge: scores: regressor_test_mpjpe_mm is nan$"):
        algorithm.run_rounds(setting, fresh, RunState(2, "judge"), keep, keep, lambda *_: scores)
    bodies = people.random_bodies(COUNT, seed=0)
    bodies.pose[[3, 7], 1] = np.inf
    with pytest.raises(DivergedError, match=r"^prediction of \['3', '7'\]: 2 of 12 bodies are not finite$"):
        algorithm._refuse_diverged(setting, "prediction", bodies)
