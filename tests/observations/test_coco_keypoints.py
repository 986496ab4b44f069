"""The `keypoints` of COCO-style files: every binary reads the same of the same file."""

import json

import numpy as np
import pytest

from dal_jax.body import skeleton
from dal_jax.data import coco_sets
from dal_jax.lifting import poses
from dal_jax.observations import coco, densepose, detections, keypoints
from dal_jax.observations.coco import BadEntry
from dal_jax.runtime.errors import InputError

PLACES = np.random.default_rng(0).uniform([20, 30], [70, 130], (17, 2)).round(2)
HIDDEN = skeleton.COCO_NAMES.index("left_ear")


def _write(path, names=skeleton.COCO_NAMES, flag=2.0, hidden=1.0):
    """Write a person's key points in the order of COCO's `names`, their places PLACES, one of them hidden."""
    rows = [skeleton.COCO_NAMES.index(name) for name in names]
    flags = np.full(17, flag)
    flags[HIDDEN] = hidden
    entry = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [20.0, 30.0, 51.0, 102.0]}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 160}],
        "annotations": [entry | {"keypoints": np.column_stack([PLACES, flags])[rows].ravel().tolist()}],
        "categories": [{"id": 1, "name": "person", "keypoints": [name.replace("_", " ") for name in names]}],
    }
    path.write_text(json.dumps(content))
    return path


def _prepared(path):
    (unit,) = coco_sets.photographs(path, path.parent)
    return coco_sets._parse(unit, unit.entries[0], points_needed=False).keypoints


READERS = {
    "register": lambda path: densepose.read(path).people[0].keypoints,
    "predict": lambda path: detections.read_keypoints(path, ["a.png"])[0][1].keypoints,
    "coco_folder": _prepared,
}
OTHER_SIDE_FIRST = [skeleton.BODY_25B_NAMES[row] for row in skeleton.KEYPOINT_MIRROR["body_25b"][:17]]


@pytest.mark.parametrize("names", [skeleton.COCO_NAMES, skeleton.COCO_NAMES[::-1], OTHER_SIDE_FIRST])
def test_the_order_is_what_categories_say(tmp_path, names):
    path = _write(tmp_path / "people.json", names)
    for reader, read in READERS.items():
        found = read(path)
        np.testing.assert_array_equal(found.position_px[:17], PLACES, err_msg=reader)
        assert found.flag[HIDDEN] == 1 and found.confidence.sum() == 16, reader
    usual = poses.read(_write(tmp_path / "usual.json"))
    lifted = poses.read(path)
    np.testing.assert_array_equal(lifted.keypoints_px, usual.keypoints_px)
    np.testing.assert_array_equal(lifted.visible, usual.visible)
    assert lifted.visible.sum() == 16  # COCO has no top of the head


def test_without_a_two_in_the_file_a_one_is_seen(tmp_path):
    path = _write(tmp_path / "people.json", flag=1.0, hidden=0.0)
    for reader, read in READERS.items():
        assert read(path).confidence.sum() == 16, reader


def test_a_detector_s_confidences_are_read_by_all(tmp_path):
    path = _write(tmp_path / "people.json", flag=0.8, hidden=0.1)
    for reader, read in READERS.items():
        found = read(path)
        assert found.confidence.sum() == 16 and found.flag[HIDDEN] == 0, reader
    assert poses.read(path).visible.sum() == 16


@pytest.mark.parametrize("place", [(0, 0), (-1, -1), (-1.0, -1.0), (float("nan"), float("nan"))])
def test_places_that_stand_for_none_are_told_and_not_used(tmp_path, place):
    path = _write(tmp_path / "people.json")
    content = json.loads(path.read_text())
    (entry,) = content["annotations"]
    entry["keypoints"][3 * 7 : 3 * 7 + 2] = entry["keypoints"][3 * 9 : 3 * 9 + 2] = place
    entry["keypoints"][3 * 10 : 3 * 11] = [*place, 0]  # unlabelled: nothing to tell
    entry["keypoints"][3 * 12 : 3 * 13] = [*place, place[0]]
    path.write_text(json.dumps(content))
    for reader, read in READERS.items():
        found = read(path)
        assert not found.flag[[7, 9, 10, 12]].any() and not found.position_px[[7, 9, 10, 12]].any(), reader
        assert found.left_out == tuple((f"left {name}", keypoints.NOWHERE) for name in ("elbow", "wrist")), reader
    told = "annotation 1: key point 'left elbow', 'left wrist' at 0, 0 or -1, -1 or NaN: not used (2 in all)"
    assert densepose.read(path).notes == poses.read(path).notes == [f"{path}: {told}"]
    assert not poses.read(path).visible[0, [0, 1, 12, 13]].all()  # the left arm, and the hip that is between the hips
    entry["keypoints"][:] = [*place, 2] * 17
    path.write_text(json.dumps(content))
    for read in (densepose.read, poses.read):
        with pytest.raises(InputError, match=r"people\.json: .*at 0, 0 or -1, -1 or NaN: not used \(17 in all\)"):
            read(path)


def test_places_beside_the_corner_are_places(tmp_path):
    path = _write(tmp_path / "people.json")
    content = json.loads(path.read_text())
    content["annotations"][0]["keypoints"][:6] = [0, 1, 2, -1, 0.5, 2]
    path.write_text(json.dumps(content))
    found = densepose.read(path).people[0].keypoints
    assert found.position_px[:2].tolist() == [[0, 1], [-1, 0.5]] and not found.left_out


def test_names_that_nobody_knows_are_told_not_dropped(tmp_path):
    path = _write(tmp_path / "people.json")
    content = json.loads(path.read_text())
    content["categories"][0]["keypoints"][:2] = ["snout", "horn"]
    path.write_text(json.dumps(content))
    told = f"{path}: annotation 1: key point 'snout', 'horn' of an unknown name: not used (2 in all)"
    assert densepose.read(path).notes == [told] and poses.read(path).notes == [told]
    assert [name for name, _ in READERS["predict"](path).left_out] == ["snout", "horn"]
    content["categories"][0]["keypoints"] = [f"place {number}" for number in range(17)]
    path.write_text(json.dumps(content))
    for read in (densepose.read, poses.read):
        with pytest.raises(InputError, match=r"people\.json: .*key point 'place 0', .* of an unknown name"):
            read(path)
    assert "of an unknown name" in detections.read_keypoints(path, ["a.png"])[0][1].message


def test_the_person_s_category_names_the_key_points():
    dog, cat = ({"id": 18, "name": name, "keypoints": [f"{name}'s tail"]} for name in ("dog", "cat"))
    person = {"id": 1, "name": "person", "keypoints": ["nose", "head_top"]}
    assert coco.labelling([dog, person], []).names == ("nose", "head_top")
    assert coco.labelling([dog, cat], []).names == ("dog's tail",)


@pytest.mark.parametrize("categories", [None, 7, [], [7], [{}], [{"name": "person"}], [{"keypoints": [1]}]])
def test_without_proper_categories_key_points_are_coco_s(categories):
    entries = [None, {}, {"keypoints": 3}, {"keypoints": [[]]}, {"keypoints": [[5.0, 5.0, 2.0]] * 17}]
    labels = coco.labelling(categories, entries)
    assert labels == coco.COCO
    assert coco.parse(entries[-1], labels).confidence.sum() == 17


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([1, 2], "keypoints has 2 values, expected 51"),
        ("none", "keypoints is 'none', expected a list"),
        ([1, 2, 2] * 16 + [1, "2", 2], r"keypoints\[49\] is '2'"),
        ([1, 2, 2] * 16 + [1, float("nan"), 2], r"keypoints\[49\] is nan"),
        ([1, 2, 2] * 16 + [1, 2, float("nan")], r"keypoints\[50\] is nan"),
        ([1, 2, 2] * 16 + [float("inf")] * 2 + [0], r"keypoints\[48\] is inf"),
        ([1, 2, 2] * 16 + [1, 2, 7], "a visibility is 7, expected 0 to 2"),
        ([1, 2, 2] * 16 + [1, 2e6, 2], r"keypoints reach 2e\+06 px"),
    ],
)
def test_what_is_no_key_point_is_named(values, told):
    with pytest.raises(BadEntry, match=told):
        coco.parse({"keypoints": values})
