import dataclasses

import numpy as np
import pytest

from dal_jax.body import skeleton
from dal_jax.observations.observation import with_depth
from dal_jax.registration import single_views
from tests.registration import small_problem


def _observed():
    return small_problem.observe(small_problem.random_people(2, 0), 1)


def test_lifted_depths_stay_and_missing_ones_are_near_the_middle():
    observed = _observed()
    confidence = np.array(observed.depth_confidence)
    confidence[1] = 0
    found = single_views.complete(with_depth(observed, observed.depth, confidence))
    np.testing.assert_array_equal(found.depth[0], observed.depth[0])
    np.testing.assert_array_equal(found.depth_confidence[0], confidence[0])
    assert not found.depth[1].any() and (found.depth_confidence[1] > 0).all()
    wrist, spine = (skeleton.H36M_JOINT_NAMES.index(name) for name in ("left_wrist", "spine"))
    assert found.depth_confidence[1, wrist] < found.depth_confidence[1, spine] / 10, "a wrist may be anywhere"


def test_key_points_pull_harder_where_there_is_nothing_else():
    observed = _observed()
    points = np.array(observed.point_confidence)
    points[1] = 0
    found = single_views.complete(dataclasses.replace(observed, point_confidence=points))
    np.testing.assert_array_equal(found.keypoint_confidence[0], observed.keypoint_confidence[0])
    assert found.keypoint_confidence[1] == pytest.approx(observed.keypoint_confidence[1] * 10 / 3)


def test_nothing_is_said_of_the_depth_of_face_and_feet():
    observed = _observed()
    more = [(0, 0), (0, 8)]
    wide = dataclasses.replace(
        observed,
        keypoint_position=np.pad(observed.keypoint_position, [*more, (0, 0)]),
        keypoint_confidence=np.pad(observed.keypoint_confidence, more),
        depth=np.zeros((2, 25), np.float32),
        depth_confidence=np.zeros((2, 25), np.float32),
        keypoint_set="body_25b",
    )
    found = single_views.complete(wide).depth_confidence[0]
    for name, one in zip(skeleton.BODY_25B_NAMES, found, strict=True):
        silent = name.split("_", 1)[-1] in ("nose", "eye", "ear", "big_toe", "small_toe", "heel")
        assert (one == 0) == silent, name
