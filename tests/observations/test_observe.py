import numpy as np
import pytest

from dal_jax.body.formats import load
from dal_jax.observations import keypoints, observation, person
from dal_jax.observations.chart import body_chart
from dal_jax.observations.person import AnnotatedPerson

CROP_ROUND_OFF = 1e-6


@pytest.fixture(scope="module")
def chart():
    return body_chart(load.load_body())


def _person(count, keypoint_confidence=0.0):
    rng = np.random.default_rng(count)
    joints = keypoints.missing()._replace(
        position_px=np.full((17, 2), 70.0), confidence=np.full(17, keypoint_confidence, np.float32)
    )
    return AnnotatedPerson(
        1, 2, "", None, np.array([10.0, 20, 100, 50]), rng.uniform(20, 70, (count, 2)), rng.integers(1, 25, count),
        rng.uniform(0, 1, (count, 2)), joints,
    )  # fmt: skip


def test_padding_is_masked_and_harmless(chart):
    seen = observation.observe(_person(5), chart, points=8)
    assert seen.point_confidence.tolist() == [1] * 5 + [0] * 3
    np.testing.assert_allclose(seen.point_barycentric.sum(axis=1), 1, atol=1e-5)
    assert seen.point_face.dtype == np.int32 and seen.point_face[5:].max() == 0


def test_points_come_back_in_pixels(chart):
    one = _person(5)
    seen = observation.observe(one, chart, points=8)
    back = observation.px_from_crop(seen.point_position, seen.box_px)[:5]
    np.testing.assert_allclose(back, one.point_px, atol=1e-3)
    assert np.abs(seen.point_position).max() <= 1 / person.CROP_MARGIN + CROP_ROUND_OFF  # the box is inside the crop


def test_too_many_points_are_thinned_evenly_and_always_alike(chart):
    seen, again = (observation.observe(_person(50), chart, points=8) for _ in range(2))
    assert seen.point_confidence.tolist() == [1] * 8
    np.testing.assert_array_equal(seen.point_position, again.point_position)
    np.testing.assert_array_equal(observation.evenly(50, 8), [0, 6, 12, 18, 25, 31, 37, 43])


def test_unknown_key_points_are_zero_with_no_confidence(chart):
    assert not observation.observe(_person(5), chart).keypoint_position.any()
    known = observation.observe(_person(5, keypoint_confidence=0.5), chart)
    np.testing.assert_allclose(known.keypoint_confidence, 0.5)
    np.testing.assert_allclose(observation.px_from_crop(known.keypoint_position, known.box_px), 70, atol=1e-3)


def test_stacking_equals_one_by_one(chart):
    both = observation.observe_all([_person(5), _person(9)], chart, points=8)
    single = observation.observe(_person(9), chart, points=8)
    np.testing.assert_array_equal(both.point_face[1], single.point_face)
    np.testing.assert_array_equal(both.box_px[1], single.box_px)


def test_room_for_dense_points_is_made_where_somebody_has_some(chart):
    nobody, somebody = ([_person(0), _person(last)] for last in (0, 5))
    assert observation.observe_all(nobody, chart).point_confidence.shape == (2, 0)
    assert observation.observe_all(somebody, chart, points=8).point_confidence.tolist() == [[0] * 8, [1] * 5 + [0] * 3]


def test_every_point_is_left_out_of_exactly_one_fold(chart):
    both = observation.observe_all([_person(5), _person(9)], chart, points=16)
    parts = [observation.hold_out(both, fold, 5) for fold in range(5)]
    for kept, left_out in parts:
        np.testing.assert_array_equal(kept + left_out, both.point_confidence)
        assert not np.any((kept > 0) & (left_out > 0))
    np.testing.assert_array_equal(sum(left_out for _, left_out in parts), both.point_confidence)
