"""Stick figures: left and right, near and far, the right number of frames."""

import io

import numpy as np
import PIL.Image

from dal_jax.viewing import plots
from tests.lifting import stick_people

_RED, _BLUE, _ORANGE = (214, 69, 47), (31, 111, 208), (255, 176, 0)


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
    with PIL.Image.open(io.BytesIO(plots.turntable(stick_people.crowd(3, seed=0), frames=8, cell_px=50))) as gif:
        assert gif.n_frames == 8 and gif.size == (150, 50)
        frames = []
        for number in range(8):
            gif.seek(number)
            frames.append(np.asarray(gif.convert("RGB")))
    assert all(np.any(frames[0] != frame) for frame in frames[1:])
