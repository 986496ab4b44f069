import numpy as np
import pytest

from dal_jax.body import skeleton
from dal_jax.observations import keypoints


def _coco(visibility=2):
    places = np.arange(34, dtype=np.float64).reshape(17, 2)
    return np.concatenate([places, np.full((17, 1), visibility)], axis=1)


def _row(name):
    return skeleton.BODY_25B_NAMES.index(name)


def test_coco_s_key_points_are_the_first_of_body_25b():
    found = keypoints.from_named(skeleton.COCO_NAMES, _coco())
    assert found.keypoint_set == "body_25b"
    np.testing.assert_array_equal(found.position_px[:17], _coco()[:, :2])
    assert found.confidence.tolist() == [1.0] * 17 + [0.0] * 8


def test_hidden_ones_keep_their_place_and_unlabelled_ones_have_none():
    coco = _coco()
    coco[_row("left_knee"), 2] = 1
    coco[_row("left_hip")] = 5, 6, 0
    found = keypoints.from_named(skeleton.COCO_NAMES, coco)
    assert found.flag[[_row("left_knee"), _row("left_hip"), _row("nose")]].tolist() == [1, 0, 2]
    assert found.confidence[[_row("left_knee"), _row("left_hip")]].tolist() == [0, 0]
    np.testing.assert_array_equal(found.position_px[_row("left_knee")], coco[_row("left_knee"), :2])
    assert not found.position_px[_row("left_hip")].any()


def test_names_in_any_order_posetrack_s_head_and_foreign_names():
    names = ("head_top", "tail", "head_bottom", *reversed(skeleton.COCO_NAMES))
    values = np.concatenate([[[5.0, 6.0, 2.0], [7.0, 8.0, 2.0], [1.0, 2.0, 2.0]], _coco()[::-1]])
    found = keypoints.from_named(names, values)
    np.testing.assert_array_equal(found.position_px[[_row("head_top"), _row("upper_neck")]], [[5, 6], [1, 2]])
    np.testing.assert_array_equal(found.position_px[:17], _coco()[:, :2])
    assert found.left_out == (("tail", keypoints.UNKNOWN),)


@pytest.mark.parametrize(
    "spell",
    [
        lambda side, rest: f"{side} {rest}",
        lambda side, rest: f"{side.title()}-{rest.title()}",
        lambda side, rest: f"{side[0].upper()}{rest.title()}",
        lambda side, rest: f"{side}{rest.title()}",
        lambda side, rest: f"{rest}_{side[0]}",
        lambda side, rest: f"{rest.upper()}.{side.upper()}",
    ],
)
def test_names_may_be_spelled_in_any_way(spell):
    names = [spell(*name.split("_", 1)) if "_" in name else name.title() for name in skeleton.COCO_NAMES]
    found = keypoints.from_named(names, _coco())
    np.testing.assert_array_equal(found.position_px[:17], _coco()[:, :2])
    assert not found.left_out


def test_what_is_not_used_is_told_in_a_line_for_each_reason():
    names = ("tail", "nose", "Nose", "paw", "left_eye")
    values = np.array([[5, 6, 2], [1, 2, 1], [3, 4, 2], [7, 8, 0], [9, 9, 2]], np.float64)
    found = keypoints.from_named(names, values)
    assert found.position_px[0].tolist() == [1, 2], "the first of two"
    lines = keypoints.notes([("a.json: annotation 1", found), ("a.json: annotation 2", found)])
    assert lines == [
        "a.json: annotation 1: key point 'tail' of an unknown name: not used (2 in all)",
        "a.json: annotation 1: key point 'Nose' of a repeated name: not used (2 in all)",
    ]
    assert not keypoints.notes([("a.json", keypoints.missing())])


def test_missing_means_no_term_at_all():
    for name, places in skeleton.KEYPOINT_SETS.items():
        none = keypoints.missing(name)
        assert len(none.confidence) == len(places) and not none.confidence.any()
