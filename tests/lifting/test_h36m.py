import numpy as np
import pytest

from dal_jax.body import skeleton
from dal_jax.lifting import h36m


def _joint(name):
    return skeleton.H36M_JOINT_NAMES.index(name)


def _row(name):
    return skeleton.BODY_25B_NAMES.index(name)


PLACES = np.arange(50, dtype=np.float32).reshape(25, 2)
KNOWN = np.ones(25, np.float32)


def test_joints_that_both_sets_have_keep_their_place():
    position, confidence = h36m.h36m_places(PLACES, KNOWN)
    for joint, name in (("left_foot", "left_ankle"), ("neck_nose", "nose"), ("head", "head_top"), ("left_hip",) * 2):
        np.testing.assert_allclose(position[_joint(joint)], PLACES[_row(name)])
        assert confidence[_joint(joint)] == 1


def test_midpoints_are_trusted_less_and_need_both_ends():
    position, confidence = h36m.h36m_places(PLACES, KNOWN)
    np.testing.assert_allclose(position[_joint("hip")], (PLACES[_row("left_hip")] + PLACES[_row("right_hip")]) / 2)
    assert confidence[_joint("spine")] == h36m.DERIVED_CONFIDENCE
    _, confidence = h36m.h36m_places(PLACES, np.where(np.arange(25) == _row("left_hip"), 0, KNOWN))
    assert [float(confidence[_joint(name)]) for name in ("left_hip", "hip", "spine", "thorax")] == [0, 0, 0, 0.5]


def test_mirrored_key_points_give_mirrored_joints():
    straight, _ = h36m.h36m_places(PLACES, KNOWN)
    mirrored, _ = h36m.h36m_places(PLACES[list(skeleton.KEYPOINT_MIRROR["body_25b"])], KNOWN)
    np.testing.assert_allclose(mirrored, np.asarray(straight)[list(skeleton.H36M_MIRROR)])


def test_depths_come_back_where_the_place_is_the_same():
    depth = np.arange(17, dtype=np.float32)
    back, confidence = h36m.from_h36m("body_25b", depth, np.full(17, 0.5, np.float32))
    assert float(back[_row("left_ankle")]) == _joint("left_foot")
    trusted = {name for name, one in zip(skeleton.BODY_25B_NAMES, np.asarray(confidence), strict=True) if one > 0}
    limbs = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    assert trusted == {f"{side}_{limb}" for side in ("left", "right") for limb in limbs}
    same = h36m.from_h36m("h36m", depth, depth)
    assert np.asarray(same[0]) == pytest.approx(depth)
