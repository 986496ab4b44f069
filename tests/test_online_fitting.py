"""Online fitting on made-up people: the better fit is kept, and only of people that were shown."""

import dataclasses

import jax
import numpy as np
import pytest

from dal_jax import algorithm
from dal_jax.algorithm import Run, RunState
from dal_jax.body.formats import load
from dal_jax.config import Config, Round, demo
from dal_jax.data.people import People
from dal_jax.registration import register
from dal_jax.registration.energy import EnergyWeights
from dal_jax.registration.register import RegistrationConfig
from dal_jax.regressor import model, theta
from dal_jax.regressor.augmentation import AugmentationConfig
from dal_jax.teachers import BestFits, OnlineFitter
from tests.regressor import people

COUNT, BATCH, UNWEIGHTED = 12, 5, 3  # 11 people are shown: three steps, the last filled up
ROWS = np.array([7, 0, 4, 9, 2])
ENERGY_FLOAT32 = 1e-4  # relative: rotations by products against exponentials; a 3 x 3 solve in float32
SHARES = ("configured", "prediction", "best")  # as the starts are ordered


def _config() -> Config:
    config = demo()
    config.online_fitting, config.rounds, config.learning_checkpoint_steps = True, 2, 1
    config.lifting.width = 16
    config.later = Round(RegistrationConfig("lm", 4, starts="closed_form"), EnergyWeights(keypoint=30.0))
    config.regressor = dataclasses.replace(
        config.regressor, width=4, depth=14, image_size=32, batch=BATCH, epochs=2, augmentation=AugmentationConfig()
    )
    return config


@pytest.fixture(scope="module")
def setting():
    bodies = people.random_bodies(COUNT, seed=0)
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 32, 32, 3)).astype(np.uint8)
    annotated = People(
        people.observe(bodies, seed=0), images, [str(n) for n in range(COUNT)], np.full((COUNT, 4), np.nan, np.float32)
    )
    return Run(_config(), load.load_body(), annotated)


@pytest.fixture(scope="module")
def start(setting):
    """Return the state in which the first round's registration leaves a run: poor fits, energies forgotten."""
    state = algorithm.initial_state(setting)
    rng = np.random.default_rng(1)
    poor = people.random_bodies(COUNT, seed=0)
    poor = poor.replace(pose=poor.pose + rng.normal(0, 0.2, poor.pose.shape).astype(np.float32))
    regressor = state.regressor.replace(codec=theta.measured_codec("axis_angle", poor))
    weight = (np.arange(COUNT) != UNWEIGHTED).astype(np.float32)
    return state.replace(fits=poor, sample_weight=weight, regressor=regressor)


def _bodies(state) -> BestFits:
    return state.fits, state.energy


def _batch(setting, rows):
    taken = jax.tree.map(lambda leaf: leaf[rows], (setting.people.images, setting.people.observations))
    return jax.device_put(taken)


def _assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


# --- one batch ---


def test_a_batch_is_registered_from_its_prediction_and_its_best_fits(setting, start):
    """Against `register.register` on the same people: its fit where that has less energy, else the old one."""
    config, images = setting.config, setting.people.images
    energy = np.full(COUNT, np.inf, np.float32)
    energy[ROWS[1]] = 0.0  # cannot be beaten
    before = start.fits, energy
    refit = OnlineFitter(config, setting.template, config.later.objective(), before)
    fits, metrics = refit(start.regressor.learned, ROWS, *_batch(setting, ROWS))
    predicted = model.predict(config.regressor, start.regressor.learned, images[ROWS], BATCH)
    old, observed = jax.tree.map(lambda leaf: leaf[ROWS], (start.fits, setting.people.observations))
    one_device = dataclasses.replace(config.later.registration, batch=BATCH, devices=1)
    found = register.register(setting.template, observed, one_device, config.later.objective(), [predicted, old])
    better = np.arange(BATCH) != 1
    _assert_equal(
        jax.device_get(fits),
        jax.tree.map(lambda a, b: np.where(better.reshape(-1, *(1,) * (a.ndim - 1)), a, b), found.parameters, old),
    )
    winner = np.where(better, found.start, 2)
    for number, name in enumerate(SHARES):
        np.testing.assert_allclose(metrics[f"registration_from_{name}_share"], np.mean(winner == number), rtol=1e-6)
    np.testing.assert_allclose(metrics["registration_energy_mean"], np.mean(found.energy * better), rtol=1e-6)

    after = refit.best()
    _assert_equal(jax.tree.map(lambda leaf: leaf[ROWS], after[0]), jax.device_get(fits))
    others = np.setdiff1d(np.arange(COUNT), ROWS)
    _assert_equal(*(jax.tree.map(lambda leaf: leaf[others], bodies) for bodies in (after, before)))
    assert np.all(np.isinf(before[1][ROWS[[0, 2]]])), "the caller's arrays are left alone"


def test_people_that_come_again_start_from_what_was_found_before(setting, start):
    refit = OnlineFitter(setting.config, setting.template, setting.config.later.objective(), _bodies(start))
    energies = []
    for _ in range(3):
        refit(start.regressor.learned, ROWS, *_batch(setting, ROWS))
        energies.append(refit.best()[1][ROWS])
    first, second, third = energies
    assert np.all(second <= first) and np.all(third <= second) and np.any(second < 0.99 * first)


def test_a_network_that_answers_nonsense_does_no_harm(setting, start):
    learned = start.regressor.learned
    broken = learned.replace(codec=learned.codec.replace(mean=np.full_like(learned.codec.mean, np.nan)))
    refit = OnlineFitter(setting.config, setting.template, setting.config.later.objective(), _bodies(start))
    fits, metrics = refit(broken, ROWS, *_batch(setting, ROWS))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(jax.device_get(fits)))
    assert metrics["registration_from_prediction_share"] == 0 and np.isfinite(metrics["registration_energy_mean"])


# --- a run of two rounds of two epochs ---


class _Killed(Exception):
    pass


class _Memory:
    """Keeps every checkpoint, through the host; dies right after some of them."""

    def __init__(self, dies: bool):
        self.saved, self._dies, self.lines = [], dies, []

    def save(self, state, position):
        self.saved.append((jax.tree.map(lambda leaf: np.array(leaf), jax.device_get(state)), position))
        if self._dies:
            raise _Killed

    def log(self, position, values):
        self.lines.append({"phase": position.phase} | values)


def _run(setting, state, store, position):
    return algorithm.run_rounds(setting, state, position, store.save, store.log, lambda *_: {})[0]


@pytest.fixture(scope="module")
def undisturbed(setting, start):
    store = _Memory(dies=False)
    return _run(setting, start, store, RunState(phase="learn")), store


def test_no_energy_ever_rises(undisturbed, start):
    final, store = undisturbed
    energies = np.stack([start.energy, *[state.energy for state, _ in store.saved]])
    shown = np.arange(COUNT) != UNWEIGHTED
    assert np.all(energies[1:, shown] <= energies[:-1, shown])
    assert np.all(np.isfinite(energies[3, shown])), "all were shown in the first epoch"
    assert np.median(energies[-1, shown] / energies[3, shown]) < 0.9, "and is fitted better in the others"
    assert np.isinf(final.energy[UNWEIGHTED])


def test_energies_are_those_of_the_fits_and_people_that_are_not_shown_keep_theirs(setting, undisturbed, start):
    final, _ = undisturbed
    observed = algorithm.with_lifted_depth(setting, final.lifting, setting.people.observations)
    score = register.score(setting.template, observed, final.fits, setting.config.later.objective())
    shown = np.arange(COUNT) != UNWEIGHTED
    np.testing.assert_allclose(final.energy[shown], score[shown], rtol=ENERGY_FLOAT32)
    _assert_equal(*(jax.tree.map(lambda leaf: leaf[UNWEIGHTED], state.fits) for state in (final, start)))


def test_every_epoch_tells_where_its_fits_came_from(undisturbed):
    _, store = undisturbed
    assert len(store.lines) == 12, "two rounds of two epochs of three steps, and nothing of a phase of registration"
    for line in store.lines:
        assert line["phase"] == "learn" and line["registration_energy_mean"] > 0
        assert sum(line[f"registration_from_{name}_share"] for name in SHARES) == pytest.approx(1)


def test_a_run_killed_at_every_checkpoint_ends_with_the_same_bits(setting, undisturbed, start):
    final, store = undisturbed
    state, position, lines = start, RunState(phase="learn"), []
    for wanted, _ in store.saved:
        dying = _Memory(dies=True)
        with pytest.raises(_Killed):
            _run(setting, state, dying, position)
        (state, position), lines = dying.saved[0], lines + dying.lines
        _assert_equal(state, wanted)
    assert position.round == 3 and len(store.saved) == 2 * (6 + 1 + 1) + 1, "and the second round's deform"
    _assert_equal(state, jax.device_get(final))
    shares = [[line[f"registration_from_{name}_share"] for name in SHARES] for line in lines]
    assert shares == [[line[f"registration_from_{name}_share"] for name in SHARES] for line in store.lines]
