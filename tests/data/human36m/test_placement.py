"""Where a recorded motion stands before the camera, and which of its frames the video shows."""

import pathlib

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dal_jax.data.human36m import mosh
from dal_jax.runtime.errors import InputError

EXACT = 1e-9
_RANDOM = np.random.default_rng(2)
_BODY = _RANDOM.normal(0, 0.4, (6, 17, 3))
_TRANS = _RANDOM.normal(0, 1, (6, 3))
_TURN = Rotation.from_rotvec([1.0, 2.0, -0.5]).as_matrix()


def test_align_finds_the_similarity_it_was_given():
    target = 1.3 * _BODY[0] @ _TURN.T + [1, 2, 3]
    found = mosh.align(_BODY[0], target, scaled=True)
    assert found.scale == pytest.approx(1.3, abs=EXACT)
    assert found(_BODY[0]) == pytest.approx(target, abs=EXACT)
    rigid = mosh.align(_BODY[0], target, scaled=False)
    assert rigid.scale == 1.0 and rigid.rotation == pytest.approx(_TURN, abs=EXACT)


def test_align_never_mirrors():
    found = mosh.align(_BODY[0], _BODY[0] * [-1, 1, 1], scaled=True)
    assert np.linalg.det(found.rotation) == pytest.approx(1.0, abs=EXACT)


@pytest.mark.parametrize("scaled", [True, False])
def test_a_body_is_placed_whatever_world_it_was_recorded_in(scaled):
    scale = 1.1 if scaled else 1.0
    truth = scale * (_BODY + _TRANS[:, None]) @ _TURN.T + [0.5, 0.2, 5.0]
    for trans in (_TRANS, None):
        placed = mosh.place(_BODY, truth, trans, scaled)
        for one, body, goal in zip(placed, _BODY, truth, strict=True):
            assert one(body) == pytest.approx(goal, abs=1e-7)


def test_one_place_for_a_sequence_does_not_follow_a_frame_that_is_wrong():
    """With `trans` a frame whose joints are off stays off, so that it can be told and left out."""
    truth = (_BODY + _TRANS[:, None]) @ _TURN.T
    truth[3] += [0.0, 0.0, 1.0]
    whole = mosh.place(_BODY, truth, _TRANS, False)
    assert np.linalg.norm(whole[3](_BODY[3]) - truth[3], axis=1).min() > 0.5
    each = mosh.place(_BODY, truth, None, False)
    assert each[3](_BODY[3]) == pytest.approx(truth[3], abs=1e-7)


@pytest.mark.parametrize(
    ("recorded", "rate", "wanted", "expected"),
    [
        (500, 50.0, [0, 5, 499], [0, 5, 499]),
        (2000, None, [0, 5, 499], [0, 20, 1996]),  # MoSh's 200 a second
        (100, None, [0, 1, 5, 10], [0, -1, 1, 2]),  # 10 a second: every fifth frame has parameters
        (1200, 120.0, [0, 1, 2], [0, 2, 5]),
        (498, 50.0, [497, 498, 499], [497, -1, -1]),  # a little shorter
    ],
)
def test_a_frame_of_the_video_has_its_frame_of_the_motion(recorded, rate, wanted, expected):
    rows = mosh.motion_frames(pathlib.Path("a.npz"), recorded, rate, 500, np.array(wanted))
    assert rows.tolist() == expected


@pytest.mark.parametrize(("recorded", "rate"), [(500, 120.0), (700, None)])
def test_a_motion_of_another_length_is_refused(recorded, rate):
    with pytest.raises(InputError, match=rf"a.npz: {recorded} frames at .* are not the sequence's 10.0 s"):
        mosh.motion_frames(pathlib.Path("a.npz"), recorded, rate, 500, np.array([0]))
