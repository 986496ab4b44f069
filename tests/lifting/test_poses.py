"""Files of 2D poses: what is read, and the one line that says what is wrong."""

import json

import numpy as np
import pytest

from dal_jax.body import skeleton
from dal_jax.lifting import poses
from dal_jax.runtime.errors import InputError

_RANDOM = np.random.default_rng(0)
_KEYPOINTS = _RANDOM.uniform(10, 500, (4, 17, 2)).astype(np.float32)


def _coco(count=3):
    """COCO annotations whose 17 key points lie at (10 i + person, 5 i), all seen."""
    people = []
    for person in range(count):
        points = [[10 * i + person, 5 * i, 2] for i in range(17)]
        people.append({"id": 70 + person, "keypoints": np.ravel(points).tolist(), "num_keypoints": 17})
    return people


def _write_coco(path, annotations):
    path.write_text(json.dumps({"images": [], "annotations": annotations}))
    return path


def test_npz_with_and_without_visibility(tmp_path):
    visible = _RANDOM.random((4, 17)) < 0.7
    broken = np.where(visible[..., None], _KEYPOINTS, np.nan)
    np.savez(tmp_path / "some.npz", keypoints=broken, visible=visible)
    np.savez(tmp_path / "all.npz", keypoints=_KEYPOINTS)
    some, whole = poses.read(tmp_path / "some.npz"), poses.read(tmp_path / "all.npz")
    np.testing.assert_array_equal(some.keypoints_px, np.where(visible[..., None], _KEYPOINTS, 0))
    np.testing.assert_array_equal(some.visible, visible)
    np.testing.assert_array_equal(whole.keypoints_px, _KEYPOINTS)
    assert whole.visible.all() and whole.entry.tolist() == [0, 1, 2, 3]


def test_intrinsics_of_the_file_of_a_flag_and_assumed(tmp_path):
    one = [1000, 1100, 500, 400]
    np.savez(tmp_path / "poses.npz", keypoints=_KEYPOINTS, intrinsics_px=one)
    assert poses.read(tmp_path / "poses.npz").intrinsics_px.tolist() == [one] * 4
    flag = poses.read(tmp_path / "poses.npz", ["7", "8", "1", "2.5"])
    assert flag.intrinsics_px.tolist() == [[7, 8, 1, 2.5]] * 4
    people = [one | {"image_id": 5} for one in _coco()]
    picture = {"id": 5, "width": 640, "height": 480}
    path = tmp_path / "people.json"
    path.write_text(json.dumps({"images": [picture], "annotations": people}))
    assert poses.read(path).intrinsics_px is None
    assert poses.read(path, assume_camera=True).intrinsics_px.tolist() == [[640, 640, 320, 240]] * 3


def test_whose_poses_they_are_and_when(tmp_path):
    """Numbers of an .npz; of COCO's JSON the track_id in each video, and the last number in the photograph's name."""
    np.savez(tmp_path / "poses.npz", keypoints=_KEYPOINTS, track_id=[3, 3, -1, 0], frame=[5, 6, 0, 9])
    read = poses.read(tmp_path / "poses.npz")
    assert read.track_id.tolist() == [3, 3, -1, 0] and read.frame.tolist() == [5, 6, 0, 9]
    names = ["walk_007.jpg", "walk_009.jpg", "run_003.jpg"]
    pictures = [{"id": number, "file_name": name, "width": 640, "height": 480} for number, name in enumerate(names)]
    people = [one | {"image_id": number, "track_id": 4} for number, one in enumerate(_coco())]
    path = tmp_path / "people.json"
    path.write_text(json.dumps({"images": pictures, "annotations": people}))
    read = poses.read(path)
    assert read.track_id.tolist() == [0, 0, 1] and read.frame.tolist() == [7, 9, 3]
    del people[1]["track_id"]
    path.write_text(json.dumps({"images": pictures, "annotations": people}))
    assert poses.read(path).track_id is None


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"track_id": np.zeros(4)}, r"track_id has shape \(4,\) of float64, not \(4,\) whole numbers"),
        ({"frame": [1, 2]}, r"frame has shape \(2,\)"),
        ({"frame": [1, 2, -5, 3]}, r"frame\[2\] is -5"),
    ],
)
def test_wrong_numbers_of_tracks_and_frames_are_named(tmp_path, numbers, message):
    np.savez(tmp_path / "poses.npz", keypoints=_KEYPOINTS, **numbers)
    with pytest.raises(InputError, match=message):
        poses.read(tmp_path / "poses.npz")


@pytest.mark.parametrize(
    ("intrinsics", "message"),
    [
        (np.ones(3), r"intrinsics_px has shape \(3,\)"),
        (np.float32([1, 0, 5, 5]), r"intrinsics_px\[0\] is \[1.0, 0.0, 5.0, 5.0\]"),
        (np.float32([[9, 9, 5, 5]] * 3 + [[9, 9, np.nan, 5]]), r"intrinsics_px\[3\] is"),
        (np.array(["a"] * 4), "intrinsics_px has shape"),
    ],
)
def test_wrong_intrinsics_are_named(tmp_path, intrinsics, message):
    np.savez(tmp_path / "poses.npz", keypoints=_KEYPOINTS, intrinsics_px=intrinsics)
    with pytest.raises(InputError, match=f"poses.npz: {message}"):
        poses.read(tmp_path / "poses.npz")


@pytest.mark.parametrize(("given", "assume"), [(["1", "x", "2", "3"], False), (["1", "2", "3"], False), (None, True)])
def test_a_camera_that_cannot_be_had_is_one_line(tmp_path, given, assume):
    np.savez(tmp_path / "poses.npz", keypoints=_KEYPOINTS)
    with pytest.raises(InputError, match="intrinsics_px"):
        poses.read(tmp_path / "poses.npz", given, assume)


@pytest.mark.parametrize("shape", [(4, 34), (4, 17, 2)])
def test_npy(tmp_path, shape):
    np.save(tmp_path / "poses.npy", _KEYPOINTS.reshape(shape).astype(np.float64))
    np.testing.assert_array_equal(poses.read(tmp_path / "poses.npy").keypoints_px, _KEYPOINTS)


def test_coco_in_human36m_order(tmp_path):
    people = _coco()
    people[1]["keypoints"][3 * 9 + 2] = 1  # left wrist hidden, yet labelled
    people[1]["keypoints"][3 * 10 : 3 * 11] = [0, 0, 0]  # right wrist unlabelled
    people.append({"id": 99})  # no key points at all
    people.append({"id": 98, "keypoints": [0] * 51})
    read = poses.read(_write_coco(tmp_path / "people.json", people))
    assert read.entry.tolist() == [70, 71, 72] and read.skipped == 2
    pose, visible = read.keypoints_px[1], read.visible[1]
    np.testing.assert_array_equal(pose[3], [10 * 16 + 1, 5 * 16])  # right foot = COCO's right ankle
    np.testing.assert_array_equal(pose[0], [10 * 11.5 + 1, 5 * 11.5])  # hip = middle of COCO's hips, 11 and 12
    np.testing.assert_array_equal(pose[13], [10 * 9 + 1, 5 * 9])
    assert visible[13] and not visible[16] and not visible[10]
    assert visible.sum() == 15 and read.visible[2].sum() == 16


def _change(place, value):
    def make(path):
        changed = _KEYPOINTS.copy()
        changed[place] = value
        np.savez(path / "poses.npz", keypoints=changed)
        return path / "poses.npz"

    return make


def _npz(**fields):
    def make(path):
        np.savez(path / "poses.npz", **fields)
        return path / "poses.npz"

    return make


def _json(change):
    def make(path):
        people = _coco()
        change(people)
        return _write_coco(path / "people.json", people)

    return make


def _text(name, text):
    def make(path):
        (path / name).write_text(text)
        return path / name

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "absent.npz", "absent.npz: no such file"),
        (lambda path: path / "absent.json", "absent.json: no such file"),
        (_text("poses.csv", ""), "poses.csv: 2D poses are .npz, .npy or what an annotator or a detector writes"),
        (_text("poses.npz", "no archive"), "poses.npz: not a readable .npz"),
        (_npz(points=_KEYPOINTS), "no field 'keypoints'; it has points"),
        (_npz(keypoints=_KEYPOINTS[:, :14]), "keypoints has shape (4, 14, 2), not (n, 17, 2)"),
        (_npz(keypoints=_KEYPOINTS[:0]), "holds no pose"),
        (_npz(keypoints=_KEYPOINTS.astype(str)), "not a real number"),
        (_npz(keypoints=_KEYPOINTS, visible=np.ones((4, 14))), "visible has shape (4, 14), not (4, 17)"),
        (_npz(keypoints=_KEYPOINTS, visible=np.full((4, 17), 0.5)), "visible[0, 0] is 0.5, not 0 or 1"),
        (_npz(keypoints=_KEYPOINTS, visible=np.arange(17) < [[9], [9], [1], [9]]), "keypoints[2] has no size"),
        (_change((2, 5, 0), np.nan), "keypoints[2, 5] is [nan,"),
        (_change((2, 5, 1), 1e30), "keypoints[2, 5] is ["),
        (_change(3, 7.0), "keypoints[3] has no size"),
        (_text("people.json", '{"annotations": ['), "people.json: not valid JSON: Expecting value: line 1"),
        (_text("people.json", "[1]"), "people.json[0]: keypoints is 1, expected a list"),
        (_text("people.json", '{"annotations": [1]}'), "annotations[0]: is no object"),
        (_json(lambda people: people[1]["keypoints"].pop()), "annotation 71: keypoints has 50 values, expected 51"),
        (_json(lambda people: people[1].update(keypoints="none")), "annotation 71: keypoints is 'none'"),
        (_json(lambda people: people[2]["keypoints"].__setitem__(4, float("nan"))), "72: keypoints[4] is nan"),
        (_json(lambda people: people[2]["keypoints"].__setitem__(4, None)), "72: keypoints[4] is None"),
        (_json(lambda people: people[0].update(id="x")), "annotation x: id is 'x', not a whole number"),
        (_json(lambda people: people.clear()), "people.json: holds no pose"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_in_one_line(tmp_path, make, message):
    path = make(tmp_path)
    with pytest.raises(InputError) as caught:
        poses.read(path)
    assert message in str(caught.value) and str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def _joint(name):
    return skeleton.H36M_JOINT_NAMES.index(name)


def _row(name):
    return skeleton.BODY_25B_NAMES.index(name)


PLACES = np.arange(50, dtype=np.float32).reshape(25, 2)
KNOWN = np.ones(25, np.float32)


def test_joints_that_both_sets_have_keep_their_place():
    position, confidence = poses.h36m_places(PLACES, KNOWN)
    for joint, name in (("left_foot", "left_ankle"), ("neck_nose", "nose"), ("head", "head_top"), ("left_hip",) * 2):
        np.testing.assert_allclose(position[_joint(joint)], PLACES[_row(name)])
        assert confidence[_joint(joint)] == 1


def test_midpoints_are_trusted_less_and_need_both_ends():
    position, confidence = poses.h36m_places(PLACES, KNOWN)
    np.testing.assert_allclose(position[_joint("hip")], (PLACES[_row("left_hip")] + PLACES[_row("right_hip")]) / 2)
    assert confidence[_joint("spine")] == poses.DERIVED_CONFIDENCE
    _, confidence = poses.h36m_places(PLACES, np.where(np.arange(25) == _row("left_hip"), 0, KNOWN))
    assert [float(confidence[_joint(name)]) for name in ("left_hip", "hip", "spine", "thorax")] == [0, 0, 0, 0.5]


def test_mirrored_key_points_give_mirrored_joints():
    straight, _ = poses.h36m_places(PLACES, KNOWN)
    mirrored, _ = poses.h36m_places(PLACES[list(skeleton.KEYPOINT_MIRROR["body_25b"])], KNOWN)
    np.testing.assert_allclose(mirrored, np.asarray(straight)[list(skeleton.H36M_MIRROR)])


def test_depths_come_back_where_the_place_is_the_same():
    depth = np.arange(17, dtype=np.float32)
    back, confidence = poses.from_h36m("body_25b", depth, np.full(17, 0.5, np.float32))
    assert float(back[_row("left_ankle")]) == _joint("left_foot")
    trusted = {name for name, one in zip(skeleton.BODY_25B_NAMES, np.asarray(confidence), strict=True) if one > 0}
    limbs = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    assert trusted == {f"{side}_{limb}" for side in ("left", "right") for limb in limbs}
    same = poses.from_h36m("h36m", depth, depth)
    assert np.asarray(same[0]) == pytest.approx(depth)
