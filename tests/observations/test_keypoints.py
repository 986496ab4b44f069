import numpy as np

from dal_jax.body import skeleton
from dal_jax.observations import keypoints


def _coco(visibility=2):
    places = np.arange(34, dtype=np.float64).reshape(17, 2)
    return np.concatenate([places, np.full((17, 1), visibility)], axis=1)


def _row(name):
    return keypoints.COCO_NAMES.index(name)


def _joint(name):
    return skeleton.H36M_JOINT_NAMES.index(name)


def test_every_annotated_joint_finds_its_place():
    found = keypoints.h36m_from_coco(_coco())
    for joint, name in enumerate(skeleton.H36M_JOINT_NAMES):
        coco_name = {"left_foot": "left_ankle", "right_foot": "right_ankle", "neck_nose": "nose"}.get(name, name)
        if coco_name in keypoints.COCO_NAMES:
            np.testing.assert_array_equal(found.position_px[joint], _coco()[_row(coco_name), :2])
            assert found.confidence[joint] == 1 and not found.derived[joint]


def test_mid_points_are_marked_as_derived_and_trusted_less():
    found = keypoints.h36m_from_coco(_coco())
    hips = (_coco()[_row("left_hip"), :2] + _coco()[_row("right_hip"), :2]) / 2
    np.testing.assert_array_equal(found.position_px[_joint("hip")], hips)
    for name in ("hip", "thorax", "spine"):
        assert found.derived[_joint(name)]
        assert found.confidence[_joint(name)] == keypoints.DERIVED_CONFIDENCE
    assert found.confidence[_joint("head")] == 0  # COCO has no top of the head


def test_hidden_and_unlabelled_joints_have_no_say():
    coco = _coco()
    coco[_row("left_knee"), 2] = 1
    coco[_row("left_hip")] = 0
    found = keypoints.h36m_from_coco(coco)
    assert found.confidence[_joint("left_knee")] == 0
    np.testing.assert_array_equal(found.position_px[_joint("left_knee")], coco[_row("left_knee"), :2])
    for name in ("left_hip", "hip", "spine"):  # a mid-point needs both ends
        assert found.confidence[_joint(name)] == 0
        assert not found.position_px[_joint(name)].any()


def test_flags_are_kept_and_a_mid_point_has_the_lowest_of_its_ends():
    coco = _coco()
    coco[_row("left_hip"), 2] = 1
    coco[_row("nose"), 2] = 0
    flag = keypoints.h36m_from_coco(coco).flag
    assert flag[_joint("right_hip")] == 2 and flag[_joint("left_hip")] == 1 and flag[_joint("hip")] == 1
    assert flag[_joint("neck_nose")] == 0 and flag[_joint("head")] == 0


def test_names_in_any_order_and_the_top_of_the_head():
    names = ("head_top", "tail", *reversed(keypoints.COCO_NAMES))
    values = np.concatenate([[[5.0, 6.0, 2.0], [7.0, 8.0, 2.0]], _coco()[::-1]])
    found, plain = keypoints.h36m_from_named(names, values), keypoints.h36m_from_coco(_coco())
    head = _joint("head")
    np.testing.assert_array_equal(found.position_px[head], [5, 6])
    assert found.confidence[head] == 1 and not found.derived[head]
    others = np.arange(17) != head
    np.testing.assert_array_equal(found.position_px[others], plain.position_px[others])


def test_mirrored_input_gives_the_mirrored_output():
    coco = _coco()
    mirror = [_row(n.replace("left", "x").replace("right", "left").replace("x", "right")) for n in keypoints.COCO_NAMES]
    straight, mirrored = keypoints.h36m_from_coco(coco), keypoints.h36m_from_coco(coco[mirror])
    np.testing.assert_allclose(mirrored.position_px, straight.position_px[list(skeleton.H36M_MIRROR)])


def test_missing_means_no_term_at_all():
    assert not keypoints.missing().confidence.any()
