"""Text tables: aligned, complete, with gaps shown as dashes."""

import numpy as np

from dal_jax.evaluation import metrics


def _entry(number: int, **values) -> dict:
    return dict.fromkeys(metrics.HISTORY_COLUMNS) | {"round": number} | values


def test_history_shows_every_round_and_a_dash_for_null():
    text = metrics.history_table([_entry(1, regressor_test_mpjpe_mm=166.04, seconds=12.0), _entry(2)])
    _, header, rule, first, second = text.splitlines()
    assert "166.0" in first and "12.0" in first
    assert second.split() == ["2"] + ["-"] * 7
    assert len(rule) == len(header)
    for label in metrics.HISTORY_COLUMNS.values():
        assert label in header


def test_numbers_are_aligned_to_the_right_and_words_to_the_left():
    assert metrics.text_table(["who", "mm"], [["a", 9.96], ["long name", 123.0]]).splitlines() == [
        "who           mm",
        "---------  -----",
        "a           10.0",
        "long name  123.0",
    ]


def test_actions_are_averaged_apart():
    scores = {"mpjpe_mm": np.array([10.0, 20.0, 60.0], np.float32)}
    text = metrics.per_action_table(scores, ["Walking", "Walking", "Eating"])
    assert [line.split() for line in text.splitlines()[2:]] == [
        ["Eating", "1", "60.0"],
        ["Walking", "2", "15.0"],
        ["all", "3", "30.0"],
    ]
