"""The search for equal energy, on made-up descents; and the largest batch, whose limits are obeyed."""

import types

import numpy as np
import pytest

from benchmarks import equal_energy


class _Descent:
    """A course whose energy is known: 100 / (1 + steps) for everybody."""

    def __init__(self):
        self.tried = []

    def energies(self, steps):
        self.tried.append(steps)
        return np.array([0.5, 1.0, 2.0]) * 100.0 / (1 + steps)


@pytest.mark.parametrize("needed", [1, 2, 3, 7, 8, 9, 19])
def test_the_fewest_steps_are_found(needed):
    assert equal_energy.steps_to(_Descent(), 100.0 / (1 + needed), most=64) == (needed, needed)


def test_a_long_way_is_searched_to_a_tenth():
    found, _ = equal_energy.steps_to(_Descent(), 100.0 / (1 + 700), most=4096)
    assert 700 <= found <= 770


def test_what_is_not_reached_is_not_claimed():
    descent = _Descent()
    assert equal_energy.steps_to(descent, 0.1, most=300) == (None, 300)
    assert descent.tried == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]
    assert equal_energy.steps_to(_Descent(), 0.1, most=300, patience_s=0.0) == (None, 1)


@pytest.mark.parametrize(
    ("bytes_a_person", "s_a_person", "largest", "limit"),
    [
        (1e6, 1e-9, 512, "memory"),
        (1e3, 1e-4, 512, "time"),
        (1.0, 1e-9, equal_energy.LARGEST_BATCH, "the largest tried"),
    ],
)
def test_the_largest_batch_keeps_both_limits(monkeypatch, bytes_a_person, s_a_person, largest, limit):
    tried = []

    def attempt(racer, observations, batch):
        tried.append(batch)
        return bytes_a_person * batch, s_a_person * batch * (1.5 if batch > 512 else 1.0)

    monkeypatch.setattr(equal_energy, "_try", attempt)
    row = equal_energy.largest_batch(types.SimpleNamespace(), None, 10, memory_limit=1e9, time_limit_s=1.0)
    assert (row["largest_batch"], row["limited_by"]) == (largest, limit)
    assert row["memory_gb"] <= 1.0 and row["seconds_a_batch"] <= 1.0 and max(tried) <= equal_energy.LARGEST_BATCH
