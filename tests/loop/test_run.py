"""A run that goes on says where; one that begins says nothing."""

import pytest

from dal_jax.algorithm import RunState
from dal_jax.loop import run


@pytest.mark.parametrize(
    ("position", "line"),
    [
        (RunState(), ""),
        (RunState(seconds=3.0), "resuming round 1, lift"),
        (RunState(2, "learn", epoch=3), "resuming round 2, learn, epoch 3"),
        (RunState(2, "deform", epoch=9), "resuming round 2, deform"),
        (RunState(3, "deform"), "all 2 rounds are done: only the report is written again"),
    ],
)
def test_a_run_that_goes_on_says_where(position, line):
    assert run._resuming(position, rounds=2) == line
