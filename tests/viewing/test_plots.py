"""Plots have the curves that there are; stick figures have left and right, near and far, and enough frames."""

import io

import numpy as np
from PIL import Image

from dal_jax.viewing import plots
from tests.lifting import stick_people

_RED, _BLUE, _ORANGE = (214, 69, 47), (31, 111, 208), (255, 176, 0)

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


def _columns(picture, colour):
    """Return the columns in which a colour (nearly) occurs."""
    close = np.abs(picture.astype(int) - np.array(colour)).max(axis=-1) < 30
    return np.flatnonzero(close.any(axis=0))


def test_someone_who_faces_the_camera_has_the_right_side_on_the_left_and_from_behind_the_other_way_round():
    sheet = plots.sheet(stick_people.STANDING[None], cell_px=100, poses_a_row=1)
    assert sheet.shape == (100, 400, 3)
    front, behind = sheet[:, :100], sheet[:, 300:]
    assert _columns(front, _RED).mean() < _columns(front, _BLUE).mean()
    assert _columns(behind, _RED).mean() > _columns(behind, _BLUE).mean()


def test_size_and_place_do_not_matter():
    one = plots.sheet(stick_people.STANDING[None])
    other = plots.sheet(500 * stick_people.STANDING[None] + 40)
    assert np.mean(one != other) < 1e-3  # rounding to pixels


def test_a_flagged_joint_is_ringed():
    flagged = np.zeros((1, 17), bool)
    plain = plots.sheet(stick_people.STANDING[None], flagged=flagged)
    flagged[0, 10] = True
    ringed = plots.sheet(stick_people.STANDING[None], ["7"], flagged)
    assert not len(_columns(plain, _ORANGE)) and len(_columns(ringed, _ORANGE))


def test_many_poses_fill_rows_and_no_size_is_no_crash():
    people = np.concatenate([stick_people.crowd(4, seed=0), np.zeros((1, 17, 3))])
    assert plots.sheet(people, cell_px=40, poses_a_row=2).shape == (120, 320, 3)


def test_turntable_goes_round_once():
    with Image.open(io.BytesIO(plots.turntable(stick_people.crowd(3, seed=0), frames=8, cell_px=50))) as gif:
        assert gif.n_frames == 8 and gif.size == (150, 50)
        frames = []
        for number in range(8):
            gif.seek(number)
            frames.append(np.asarray(gif.convert("RGB")))
    assert all(np.any(frames[0] != frame) for frame in frames[1:])
