"""Plots come out as readable pictures, with the curves that there are."""

import io

import numpy as np
from PIL import Image

from dal_jax.viewing import plots

_HISTORY = [
    {"round": number, "regressor_test_mpjpe_mm": 170.0 - 9 * number, "lifting_test_mpjpe_mm": 120.0,
     "registration_train_mpjpe_mm": 78.0 - 2 * number, "regressor_train_mpjpe_mm": None}
    for number in (1, 2, 3)
]  # fmt: skip


def _pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def _has_colour(pixels: np.ndarray, colour: str) -> bool:
    wanted = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    return (np.abs(pixels - wanted).max(axis=-1) < 4).sum() > 100


def test_figure_2_has_the_papers_three_colours():
    pixels = _pixels(plots.plot_history(_HISTORY))
    for _, _, colour, _ in plots.FIGURE_2[:3]:
        assert _has_colour(pixels, colour)


def test_a_curve_without_truth_is_left_out():
    entries = [entry | {"lifting_test_mpjpe_mm": None} for entry in _HISTORY]
    assert not _has_colour(_pixels(plots.plot_history(entries)), plots.FIGURE_2[1][2])


def test_a_history_without_any_truth_is_an_empty_plot():
    assert _pixels(plots.plot_history([{"round": 1}])).shape[2] == 3


def test_same_numbers_give_the_same_bytes():
    curves = {"loss": ([0, 1, 2], [3.0, 2.0, 1.0]), "_hidden": ([0], [1.0])}
    first, second = (plots.plot_curves(curves, "step", "loss", logarithmic=True) for _ in range(2))
    assert first == second
    assert first != plots.plot_curves({"loss": curves["loss"]}, "step", "loss", logarithmic=True)
