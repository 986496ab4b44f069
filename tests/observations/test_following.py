"""Made-up people on their way: whoever crosses, is lost for a while or comes later keeps a number of their own."""

import dataclasses

import numpy as np
import pytest

from dal_jax.body import skeleton
from dal_jax.observations import following
from dal_jax.observations.observation import px_from_crop
from dal_jax.observations.observations import Observations
from dal_jax.runtime.errors import InputError

_SHAPE = np.random.default_rng(0).random((17, 2)) * (60, 150)


def _walk(paths, lost=()):
    """Return who (person, frame) there is, and 17 key points a person; `lost` are pairs that nobody saw."""
    random, who, keypoints = np.random.default_rng(1), [], []
    for frame in range(40):
        for person, (start, speed) in enumerate(paths):
            if (person, frame) not in lost:
                who.append((person, frame))
                keypoints.append(_SHAPE + start + frame * np.array(speed) + random.normal(0, 2, _SHAPE.shape))
    return np.array(who), np.array(keypoints)


def _people(who, keypoints):
    return Observations.from_points(keypoints_px=keypoints, keypoint_set="coco").with_frames(who[:, 1])


def _follow(who, keypoints):
    return following.frames_of(_people(who, keypoints), 30.0).track


_CROSSING = (((0, 0), (10, 0)), ((400, 20), (-10, 0)))


@pytest.mark.parametrize("lost", [(), [(0, frame) for frame in (10, 11, 12)], [(1, frame) for frame in (19, 20, 21)]])
def test_people_who_cross_keep_their_numbers_over_gaps(lost):
    who, keypoints = _walk(_CROSSING, lost)
    np.testing.assert_array_equal(_follow(who, keypoints), who[:, 0])


def test_no_number_is_twice_in_a_frame_and_the_order_of_people_does_not_matter():
    who, keypoints = _walk([*_CROSSING, ((200, -30), (0, 3)), ((210, 0), (0, 0))])
    order = np.random.default_rng(2).permutation(len(who))
    track = _follow(who[order], keypoints[order])
    assert len(set(zip(track, who[order, 1], strict=True))) == len(who)
    assert len(set(zip(track, who[order, 0], strict=True))) == len(set(track)) == 4


def test_who_comes_where_somebody_left_long_ago_or_is_far_away_is_somebody_else():
    long_ago = [(0, frame) for frame in range(10, 10 + following.LONGEST_GAP + 1)]
    who, keypoints = _walk([((0, 0), (0, 0))], long_ago)
    np.testing.assert_array_equal(_follow(who, keypoints), who[:, 1] >= 10)
    keypoints[who[:, 1] >= 30] += 300
    assert _follow(who, keypoints).max() == 2


def test_the_inputs_own_ids_come_first():
    who, keypoints = _walk(_CROSSING)
    people = _people(who, keypoints)
    named = dataclasses.replace(people, track_id=["b" if person else "a" for person in 1 - who[:, 0]])
    np.testing.assert_array_equal(following.frames_of(named, 30.0).track, who[:, 0])
    with pytest.raises(InputError, match="track_id 7: two people of image 0"):
        following.frames_of(dataclasses.replace(people, track_id=[7] * len(who)), 30.0)


@pytest.mark.parametrize(
    ("names", "ids", "tracks", "frames"),
    [
        (["a/f_09.png", "a/f_10.png"], ["x", "y"], 1, [9, 10]),
        (["one_007.jpg", "two_007.jpg"], [1, 2], 2, [7, 7]),
        (["cam01.mp4", "cam01.mp4"], [4, 5], 1, [4, 5]),
        (["b.png", "a.png"], ["x", "y"], 1, [1, 0]),
        (["", ""], [3, 5], 1, [3, 5]),
    ],
)
def test_names_or_ids_tell_video_and_frame(names, ids, tracks, frames):
    people = Observations.from_points(keypoints_px=np.stack([_SHAPE, _SHAPE + 1]), keypoint_set="coco")
    found = following.frames_of(dataclasses.replace(people, file_name=names, image_id=ids), 30.0)
    assert len(set(found.track)) == tracks
    np.testing.assert_array_equal(found.frame, frames)


def test_sides_that_a_detector_exchanged_for_a_while_are_set_right_and_no_others():
    """A person walks and turns round once: in between both sides lie on each other, and nothing tells them apart."""
    mirror = np.array(skeleton.KEYPOINT_MIRROR["body_25b"])[:17]
    width = np.cos(np.linspace(0, np.pi, 40))[:, None] * np.where(mirror > np.arange(17), 1.0, -1.0) * 30
    width = np.where(mirror == np.arange(17), 0.0, width)
    height = np.maximum(_SHAPE[:, 1], _SHAPE[mirror, 1])
    true = np.stack([100 + np.arange(40)[:, None] * 5 + width, np.tile(height, (40, 1))], axis=-1)
    true += np.random.default_rng(3).normal(0, 1, true.shape)
    wrong = np.isin(np.arange(40), [3, 8, 9, 10, 30, 31, 32, 33])
    given = np.where(wrong[:, None, None], true[:, mirror], true)
    people = Observations.from_points(keypoints_px=given, keypoint_set="coco").with_frames(np.arange(40))
    found, exchanged = following.set_right(people, following.frames_of(people, 30.0))
    np.testing.assert_array_equal(exchanged, wrong)
    box = people.stacked.box_px
    np.testing.assert_allclose(px_from_crop(found.stacked.keypoint_position, box)[:, :17], true, atol=1e-3)
    again, none = following.set_right(found, following.frames_of(found, 30.0))
    assert not none.any()
    np.testing.assert_array_equal(again.stacked.keypoint_position, found.stacked.keypoint_position)
