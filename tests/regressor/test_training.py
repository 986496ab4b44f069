"""Training on made-up people: it learns, it resumes to the bit, it leaves alone what it must.

With both of HMR's changes, six numbers a rotation and iterations: one compiled step for all. The demo has neither.
"""

import dataclasses
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.regressor import model, theta, training
from dal_jax.regressor.augmentation import AugmentationConfig
from dal_jax.regressor.losses import LossWeights
from dal_jax.regressor.model import RegressorConfig
from dal_jax.regressor.training import TrainingSet
from dal_jax.runtime.errors import DivergedError
from tests.regressor import people

CONFIG = RegressorConfig(
    preset="tiny",
    width=4,
    depth=14,
    image_size=32,
    rotations="6d",
    iterations=3,
    batch=8,
    epochs=40,
    learning_rate=1e-2,
    warmup_share=0.1,
    last_rate_share=0.1,
    weight_decay=1e-4,
    average_decay=0.9,
    standardise=True,
    weights=LossWeights(joint=1.0),
    augmentation=AugmentationConfig(flip_share=0.05, brightness=0.02),
)
FLOAT32 = 1e-4
KEY = jax.random.key(1)
COUNT = 20  # three steps an epoch, the last filled up


@pytest.fixture(scope="module")
def data():
    return people.training_set(COUNT)


@pytest.fixture(scope="module")
def start(data):
    return training.start_round(CONFIG, training.initial_state(CONFIG, jax.random.key(0)), data.fits)


def _epoch(state, data, config=CONFIG, span=(0, CONFIG.epochs), **options):
    return training.train_epoch(config, state, data, KEY, span=span, **options)


def _first(count, data):
    changed = jax.tree.map(lambda leaf: leaf[:count], (data.images, data.observations, data.fits))
    return TrainingSet(data.template, *changed)


def _assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_it_learns_eight_people(data, start):
    """An untrained network's answer is the mean body; trained, its answers are bodies that differ."""
    images, history, state = data.images[:8], [], start
    mean = jax.jit(lambda codec: codec.to_parameters(codec.mean[None]))(start.codec)
    first = model.predict(CONFIG, start.learned, images, batch=8)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, np.repeat(b, 8, axis=0), atol=FLOAT32), first, mean)
    for epoch in range(CONFIG.epochs):
        state, metrics = _epoch(state, _first(8, data), span=(epoch, CONFIG.epochs))
        history.append(metrics)
    last = model.predict(CONFIG, state.learned, images, batch=8)
    products = last.rotation @ np.swapaxes(last.rotation, 1, 2)
    np.testing.assert_allclose(products, np.broadcast_to(np.eye(3), products.shape), atol=FLOAT32)
    assert np.ptp(last.pose, axis=0).max() > 0.01
    assert np.all(last.camera_scale > 0) and np.all(last.segment_scale > 0)
    assert history[-1]["loss"] < history[0]["loss"] / 5
    assert all(np.isfinite(value) for metrics in history for value in metrics.values())
    assert history[-1]["joint_to_fit_mm"] < history[0]["joint_to_fit_mm"] / 2


def test_half_precision_is_the_trunk_s_alone(data, start):
    """All that is kept is float32's; the first step's loss, of the mean body, is the very same, later ones nearly."""
    half = dataclasses.replace(CONFIG, compute_dtype="bfloat16")
    narrow, wide = start, start
    for tolerance in (1e-6, 0.05):
        narrow, found = _epoch(narrow, _first(8, data), config=half)
        wide, expected = _epoch(wide, _first(8, data))
        np.testing.assert_allclose(found["loss"], expected["loss"], rtol=tolerance)
    assert jax.tree.map(lambda leaf: leaf.dtype, narrow) == jax.tree.map(lambda leaf: leaf.dtype, start)
    moved = [leaf.dtype.name for leaf in jax.tree.leaves((narrow.learned.variables, narrow.optimizer)) if leaf.ndim]
    assert set(moved) == {"float32"}
    assert np.any(
        narrow.trained["params"]["trunk"]["conv1"]["kernel"] != wide.trained["params"]["trunk"]["conv1"]["kernel"]
    )


def test_a_loss_that_is_not_finite_comes_back_as_no_state(data, start):
    lengths = np.asarray(data.fits.camera_scale).copy()
    lengths[3] = np.nan
    spoilt = dataclasses.replace(data, fits=dataclasses.replace(data.fits, camera_scale=lengths))
    with pytest.raises(DivergedError, match="^regressor, step 3: loss.* is nan$"):
        _epoch(start, spoilt)


def test_a_resumed_run_is_bit_equal(data, start):
    def two_epochs(restore):
        state, first = _epoch(start, data)
        state, second = _epoch(restore(state), data)
        return state, first["loss"], second["loss"]

    through, resumed = two_epochs(lambda state: state), two_epochs(_through_the_host)
    _assert_equal(through, resumed)


@pytest.mark.parametrize("decoded", [False, True], ids=["held", "decoded"])
def test_a_run_killed_inside_an_epoch_ends_with_the_same_bits(data, start, decoded):
    """Two epochs of three steps, stopped after every step and gone on with from what a checkpoint holds."""
    pictures = dataclasses.replace(data, images=_Decoded(data.images)) if decoded else data
    through, stopped, lines = start, start, []
    for _ in range(2):
        through, whole = _epoch(through, pictures)
        for part in range(3):
            assert int(stopped.epoch_step) == part
            stopped, metrics = _epoch(_through_the_host(stopped), pictures, steps=1)
            lines.append(metrics["loss"])
        np.testing.assert_allclose(np.mean(lines[-3:]), whole["loss"], rtol=1e-6)
    _assert_equal(through, stopped)
    assert int(through.step) == 6 and int(through.epoch_step) == 0


def test_refitting_that_leaves_the_bodies_alone_changes_nothing(data, start):
    """Its bodies teach, not `fits`; it sees every batch as it is, with the state that the step goes on from."""
    seen, wrong = [], data.fits.replace(pose=data.fits.pose + 1)

    def fit_batch(learned, rows, image, observation):
        shown = (image, observation)
        jax.tree.map(np.testing.assert_array_equal, shown, _rows((data.images, data.observations), rows))
        seen.append((learned.variables["params"]["theta"]["change"]["bias"].copy(), rows))
        return jax.device_put(_rows(data.fits, rows)), {"number_mean": np.float32(len(seen))}

    plain, metrics = _epoch(start, data)
    refitted, told = _epoch(start, dataclasses.replace(data, fits=wrong), fit_batch=fit_batch)
    _assert_equal(refitted, plain)
    assert told["loss"] == metrics["loss"] and told["number_mean"] == 2
    biases = np.stack([bias for bias, _ in seen])
    assert len(biases) == 3 and np.all(np.any(np.diff(biases, axis=0) != 0, axis=1)), "each step's own weights"
    assert all(len(np.unique(rows)) == CONFIG.batch for _, rows in seen)
    np.testing.assert_array_equal(np.unique([rows for _, rows in seen]), np.arange(COUNT))


def _rows(tree, rows):
    return jax.tree.map(lambda leaf: leaf[rows], tree)


class _Decoded(Sequence):
    """Pictures that are decoded one by one."""

    def __init__(self, images):
        self._images = images

    def __len__(self):
        return len(self._images)

    def __getitem__(self, index: int):
        return self._images[index].copy()


def test_pictures_that_are_decoded_on_the_way_give_the_same_bits(data, start):
    held, _ = _epoch(start, data)
    decoded, _ = _epoch(start, dataclasses.replace(data, images=_Decoded(data.images)))
    _assert_equal(held, decoded)


def _through_the_host(state):
    return jax.tree.map(lambda leaf: np.array(leaf), jax.device_get(state))


def test_the_caller_s_state_stays_usable(data, start):
    before = _through_the_host(start)
    _epoch(start, data)
    _assert_equal(_through_the_host(start), before)


def test_a_step_is_compiled_once_and_sends_nothing_but_its_batch(data, start, monkeypatch):
    """What a step is given lies on the device: anything else it would be sent, or send, is an error here."""
    step = training._compiled_step(CONFIG)

    def guarded(*arguments):
        with jax.transfer_guard("disallow"):
            return step(*arguments)

    monkeypatch.setattr(training, "_compiled_step", lambda config: guarded)
    state, _ = _epoch(_epoch(start, data)[0], data)
    already = step._cache_size()
    _epoch(_through_the_host(state), data, steps=2)
    assert step._cache_size() == already
    with jax.transfer_guard("disallow"), pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed"):
        jax.jit(jnp.sin)(np.zeros(3))  # the guard sees it here


def test_every_image_counts_once_in_the_progress(data, start):
    seen = []
    state, _ = _epoch(start, data, progress=seen.append)
    assert seen == [8, 8, 4]
    assert int(state.step) == 3


def test_people_of_no_weight_teach_nothing(data, start):
    weight = (np.arange(COUNT) < 8).astype(np.float32)
    weighted = dataclasses.replace(data, sample_weight=weight)
    nonsense = data.fits.replace(pose=data.fits.pose + 3.0 * (1.0 - weight[:, None, None]))
    right, _ = _epoch(start, weighted)
    wrong, _ = _epoch(start, dataclasses.replace(weighted, fits=nonsense))
    _assert_equal(right, wrong)


def test_who_has_no_weight_might_as_well_not_be_there(data, start):
    """Not even batch normalisation sees them, so the others alone give the same bits."""
    absent, _ = _epoch(start, dataclasses.replace(data, sample_weight=(np.arange(COUNT) < 8).astype(np.float32)))
    alone, _ = _epoch(start, _first(8, data))
    _assert_equal(absent, alone)
    with pytest.raises(ValueError, match="all weights are 0"):
        _epoch(start, dataclasses.replace(data, sample_weight=np.zeros(COUNT, np.float32)))


def test_the_input_s_share_of_the_time_is_told(data, start):
    class Slow(_Decoded):
        def __getitem__(self, index: int):
            time.sleep(0.05)
            return super().__getitem__(index)

    _epoch(start, data)  # compiled
    held, slow = (
        _epoch(start, dataclasses.replace(data, images=images))[1] for images in (data.images, Slow(data.images))
    )
    assert 0 <= held["input_wait_share"] <= 1 and slow["input_wait_share"] <= 1
    assert slow["input_wait_share"] > 0.02  # the first batch at least has to be waited for


def test_a_new_round_goes_on_with_weights_units_and_optimiser(data, start):
    state, _ = _epoch(start, data)
    following = training.start_round(CONFIG, state, people.random_bodies(COUNT, seed=9))
    _assert_equal(following.trained, state.trained)
    _assert_equal(following.codec, start.codec)
    _assert_equal(following.optimizer, state.optimizer)
    assert int(following.epoch_step) == 0 and int(following.step) == 3
    assert any(np.any(leaf) for leaf in jax.tree.leaves(state.optimizer))


def test_the_first_round_fixes_the_units_where_they_are_asked_for(data):
    plain = dataclasses.replace(CONFIG, standardise=False)
    for config, codec in (
        (CONFIG, theta.measured_codec(CONFIG.rotations, data.fits)),
        (plain, theta.plain_codec(CONFIG.rotations)),
    ):
        state = training.start_round(config, training.initial_state(config, jax.random.key(0)), data.fits)
        _assert_equal(state.codec, codec)


def test_the_average_predicts_and_lies_between_old_and_new_weights(data, start):
    state, _ = _epoch(start, _first(8, data))  # one step
    assert state.learned.variables is state.average
    new, old, mean = (s["params"]["theta"]["change"]["bias"] for s in (state.trained, start.trained, state.average))
    np.testing.assert_allclose(mean, 0.1 * old + 0.9 * new, atol=1e-7)
    paper = training.initial_state(dataclasses.replace(CONFIG, average_decay=0.0), jax.random.key(0))
    assert paper.average is None and paper.learned.variables is paper.trained


SCHEDULE = dataclasses.replace(
    RegressorConfig(), learning_rate=1e-2, warmup_share=0.1, last_rate_share=0.1, average_decay=0.9
)


def test_the_rate_rises_then_falls_along_a_cosine():
    rate = [float(training.learning_rate(SCHEDULE, jnp.asarray(step), jnp.asarray(100))) for step in range(101)]
    np.testing.assert_allclose(rate[:10], 1e-2 * np.arange(1, 11) / 10, rtol=1e-5)
    np.testing.assert_allclose(rate[55], 1e-2 * (0.1 + 0.9 / 2), rtol=1e-5)
    np.testing.assert_allclose(rate[100], 1e-3, rtol=1e-5)
    assert np.all(np.diff(rate[10:]) <= 0)
    constant = [float(training.learning_rate(model.paper(), jnp.asarray(s), jnp.asarray(100))) for s in (0, 50, 99)]
    np.testing.assert_allclose(constant, 1e-4, rtol=1e-6)


def test_the_rate_falls_over_all_epochs_of_a_run(data, start):
    """Three steps an epoch: the last of the second of four epochs is step 5 of 12, from whatever state it is taken."""
    _, metrics = _epoch(start, data, span=(1, 4))
    np.testing.assert_allclose(metrics["learning_rate"], training.learning_rate(CONFIG, 5, 12), rtol=1e-6)


def test_the_running_mean_is_numpy_s():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(200, 3)).astype(np.float32)
    mean, expected = jnp.zeros(3), np.zeros(3)
    follow = jax.jit(lambda step, mean, new: training.running_mean(SCHEDULE, step, mean, new))
    for step, new in enumerate(weights):
        mean = follow(jnp.asarray(step, jnp.int32), mean, new)
        decay = min(0.9, (step + 1) / (step + 10))
        expected = decay * expected + (1 - decay) * new
    np.testing.assert_allclose(mean, expected, atol=1e-6)
    assert training.running_mean(SCHEDULE, jnp.asarray(0), None, weights[0]) is None


@pytest.mark.parametrize("decay", [0.0, 1e-4])
def test_only_kernels_decay(decay):
    optimizer = training.make_optimizer(dataclasses.replace(SCHEDULE, weight_decay=decay))
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], decay * np.ones((2, 3)), rtol=1e-6)
    np.testing.assert_array_equal(updates["bias"], np.zeros(3))
