"""The best epoch so far: which one it is, and when it has been the best for too long."""

import numpy as np
import pytest

from dal_jax.regressor import training
from dal_jax.regressor.training import Best

LOSSES = (5.0, 3.0, 4.0, 3.0, float("nan"), 1.0)  # of six epochs


def _after(epochs: int) -> Best:
    best = training.nothing_yet({"weight": np.float32(-1)})
    for epoch, loss in enumerate(LOSSES[:epochs]):
        best = training.after_epoch(best, {"weight": np.float32(epoch)}, loss)
    return best


@pytest.mark.parametrize(("epochs", "best", "stale"), [(1, 0, 0), (3, 1, 1), (4, 1, 2), (5, 1, 3), (6, 5, 0)])
def test_the_first_of_the_best_epochs_is_kept(epochs, best, stale):
    found = _after(epochs)
    assert (found.variables["weight"], found.loss, found.stale) == (best, LOSSES[best], stale)


def test_where_no_epoch_has_a_loss_the_round_s_start_is_kept():
    best = training.after_epoch(training.nothing_yet({"weight": 7}), {"weight": 8}, float("nan"))
    assert best.variables == {"weight": 7} and best.loss == np.inf


def test_training_is_over_once_patience_runs_out():
    assert [epochs for epochs in range(7) if training.is_over(_after(epochs), patience=2)] == [4, 5]
    assert not any(training.is_over(_after(epochs), patience=0) for epochs in range(7))
    assert not training.is_over(None, patience=2)
