"""Held-out people: a fixed draw, never shown, judged by the 2D terms of eq. 5 alone; the best epoch of a round."""

import dataclasses

import jax
import numpy as np
import pytest

from dal_jax.regressor import held_out, model, training
from dal_jax.regressor.training import Best
from dal_jax.runtime.errors import InputError
from tests.regressor import people

CONFIG = dataclasses.replace(model.demo(), width=4, image_size=32, batch=4, held_out_share=0.5, average_decay=0.9)
COUNT = 12
FLOAT32 = 1e-4  # sums of up to 37 terms of order 1


def test_the_share_s_nearest_whole_number_is_drawn_but_at_least_one():
    for share, count, wanted in ((0.0, 100, 0), (0.05, 100, 5), (0.05, 9, 1), (0.3, 9, 3), (0.99, 100, 99)):
        config = dataclasses.replace(CONFIG, held_out_share=share)
        drawn = held_out.draw(config, jax.random.key(0), count)
        assert drawn.shape == (count,) and drawn.sum() == wanted
    again = held_out.draw(config, jax.random.key(0), count)
    np.testing.assert_array_equal(again, drawn)
    assert np.any(held_out.draw(config, jax.random.key(1), count) != drawn)


def test_an_empty_training_set_is_one_line():
    with pytest.raises(InputError, match="config.regressor.held_out_share is 0.5: of 1 people none would be"):
        held_out.draw(CONFIG, jax.random.key(0), 1)


@pytest.fixture(scope="module")
def data():
    return people.training_set(COUNT)


@pytest.fixture(scope="module")
def state():
    """Half-trained: running statistics that are no batch's, and a running mean of the weights that is not the last."""
    state = training.initial_state(CONFIG, jax.random.key(0))
    return state.replace(trained=_opinionated(state.trained, 0.05), average=_opinionated(state.average, 0.02))


def _opinionated(variables, size):
    """Return the variables with a last layer of this size, so that answers differ from picture to picture."""
    params = variables["params"]
    kernel = np.random.default_rng(1).normal(0, size, params["theta"]["kernel"].shape).astype(np.float32)
    return variables | {"params": params | {"theta": params["theta"] | {"kernel": kernel}}}


def test_the_losses_are_eq_3_and_eq_4_of_what_would_be_predicted(data, state):
    """Against bodies as `predict` finishes them, projected, in NumPy; in any number of batches."""
    observed, chosen = data.observations, np.arange(COUNT) % 2 == 1
    bodies = model.predict(CONFIG, state.learned, data.images)
    shown = people.observe(bodies, seed=0)  # the same surface points and joints, where the prediction puts them
    dense = np.sum(observed.point_confidence * np.sum((shown.point_position - observed.point_position) ** 2, -1), 1)
    planar = np.sum((shown.keypoint_position - observed.keypoint_position) ** 2, axis=-1)
    off = shown.depth - observed.depth
    mean = np.sum(observed.depth_confidence * off, axis=1) / np.sum(observed.depth_confidence, axis=1)
    depth = (off - mean[:, None]) ** 2
    keypoint = np.sum(observed.keypoint_confidence * planar + observed.depth_confidence * depth, axis=1)
    for batch in (4, 8):  # two batches, the last filled up; one
        found = held_out.losses(dataclasses.replace(CONFIG, batch=batch), state, data, chosen)
        np.testing.assert_allclose(found["held_out_loss_dense"], dense[chosen].mean(), rtol=FLOAT32)
        np.testing.assert_allclose(found["held_out_loss_keypoint"], keypoint[chosen].mean(), rtol=FLOAT32)
    weighted = CONFIG.weights.dense * dense[chosen].mean() + CONFIG.weights.keypoint * keypoint[chosen].mean()
    np.testing.assert_allclose(found["held_out_loss"], weighted, rtol=FLOAT32)


def test_only_the_held_out_count(data, state):
    chosen = np.arange(COUNT) < 5
    others = data.observations.point_position + 9.0 * ~chosen[:, None, None]
    pictures = np.where(chosen[:, None, None, None], data.images, 0).astype(np.uint8)
    moved = data.observations.replace(point_position=others.astype(np.float32))
    changed = dataclasses.replace(data, images=pictures, observations=moved)
    assert held_out.losses(CONFIG, state, data, chosen) == held_out.losses(CONFIG, state, changed, chosen)


def test_a_round_ends_with_its_best_epoch_in_both_sets_of_weights(data):
    """Three epochs' weights, of which the second, closest to the mean body, errs least."""
    chosen = held_out.draw(CONFIG, jax.random.key(0), COUNT)
    state = training.start_round(CONFIG, training.initial_state(CONFIG, jax.random.key(0)), data.fits)
    averages = [_opinionated(state.average, size) for size in (0.05, 0.01, 0.03)]
    judged = []
    for average in averages:
        state = state.replace(trained=_opinionated(state.trained, 0.1), average=average)
        state, losses = held_out.judge_epoch(CONFIG, state, data, chosen)
        judged.append(losses["held_out_loss"])
    assert np.argmin(judged) == 1 and state.best.loss == np.float32(judged[1])
    finished = training.finish_round(state)
    for kept in (finished.trained, finished.average):
        jax.tree.map(np.testing.assert_array_equal, kept, averages[1])
    following = training.start_round(CONFIG, finished, data.fits)
    assert following.best.loss == np.inf and following.best.stale == 0


def test_nothing_is_kept_where_no_one_is_held_out(data, state):
    none = np.zeros(COUNT, bool)
    plain = state.replace(best=None)
    judged = held_out.judge_epoch(CONFIG, plain, data, none)
    assert judged == (plain, {}) and training.finish_round(plain) is plain
    assert training.initial_state(dataclasses.replace(CONFIG, held_out_share=0.0), jax.random.key(0)).best is None


LOSSES = (5.0, 3.0, 4.0, 3.0, float("nan"), 1.0)  # of six epochs


def _before_the_first(variables):
    return Best(variables, np.float32(np.inf), np.int32(0))


def _after(epochs: int) -> Best:
    best = _before_the_first({"weight": np.float32(-1)})
    for epoch, loss in enumerate(LOSSES[:epochs]):
        best = held_out.after_epoch(best, {"weight": np.float32(epoch)}, loss)
    return best


@pytest.mark.parametrize(("epochs", "best", "stale"), [(1, 0, 0), (3, 1, 1), (4, 1, 2), (5, 1, 3), (6, 5, 0)])
def test_the_first_of_the_best_epochs_is_kept(epochs, best, stale):
    found = _after(epochs)
    assert (found.variables["weight"], found.loss, found.stale) == (best, LOSSES[best], stale)


def test_where_no_epoch_has_a_loss_the_round_s_start_is_kept():
    best = held_out.after_epoch(_before_the_first({"weight": 7}), {"weight": 8}, float("nan"))
    assert best.variables == {"weight": 7} and best.loss == np.inf


def test_training_is_over_once_patience_runs_out():
    assert [epochs for epochs in range(7) if held_out.is_over(_after(epochs), patience=2)] == [4, 5]
    assert not any(held_out.is_over(_after(epochs), patience=0) for epochs in range(7))
    assert not held_out.is_over(None, patience=2)
