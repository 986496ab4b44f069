"""Boxes and key points: every usual JSON shape says the same; what cannot be used is named."""

import json

import numpy as np
import PIL.Image
import pytest

from dal_jax.observations import coco, detections
from dal_jax.observations.person import Rejected
from dal_jax.runtime.errors import InputError

NAMES = ("a.jpg", "000139.jpg")
BOXES = {"a.jpg": [[1, 2, 30, 40], [5.5, 2, 30, 41]], "000139.jpg": [[0, 0, 50, 60]]}
WANTED = [("a.jpg", [1, 2, 30, 40]), ("a.jpg", [5.5, 2, 30, 41]), ("000139.jpg", [0, 0, 50, 60])]


@pytest.fixture
def folder(tmp_path):
    for name in NAMES:
        PIL.Image.new("RGB", (100, 80)).save(tmp_path / name)
    return tmp_path


def _write(folder, content):
    path = folder / "people.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def _coco(entries, categories=()):
    images = [{"id": 7, "file_name": "a.jpg", "width": 100, "height": 80}, {"id": 139, "file_name": "000139.jpg"}]
    return {"images": images, "annotations": entries, "categories": list(categories)}


def _entry(number, image_id, box, **fields):
    return {"id": number, "image_id": image_id, "bbox": box} | fields


@pytest.mark.parametrize(
    "content",
    [
        BOXES,
        [{"image_id": name, "bbox": box} for name, box in WANTED],
        [{"file_name": name, "bbox": box, "category_id": 1, "score": 0.9} for name, box in WANTED]
        + [{"file_name": "a.jpg", "bbox": [0, 0, 9, 9], "category_id": 17}],
        [{"image_id": "a", "bbox": box} for _, box in WANTED[:2]] + [{"image_id": 139, "bbox": WANTED[2][1]}],
        _coco([_entry(n, 7 if name == "a.jpg" else 139, box) for n, (name, box) in enumerate(WANTED)]),
        _coco(
            [_entry(n, 7 if name == "a.jpg" else 139, box, category_id=3) for n, (name, box) in enumerate(WANTED)]
            + [_entry(8, 7, [0, 0, 9, 9], category_id=4), _entry(9, 7, [0, 0, 9, 9], category_id=3, iscrowd=1)],
            [{"id": 3, "name": "person"}, {"id": 4, "name": "dog"}],
        ),
    ],
    ids=["by name", "image_id", "file_name", "stems and numbers", "coco", "coco with dogs and crowds"],
)
def test_every_shape_of_json_says_the_same(folder, content):
    found = detections.read_boxes(_write(folder, content), NAMES)
    assert [(one.file_name, one.bbox_px.tolist()) for _, one in found] == WANTED
    assert len({one.annotation_id for _, one in found}) == 3
    people = detections.people(detections.list_photographs(folder), found).people
    assert [(one.file_name, one.bbox_px.tolist()) for one in people] == WANTED
    np.testing.assert_allclose(people[0].crop_px, [16 - 24, 22 - 24, 48, 48])  # 1.2 times the longer side


def test_a_list_of_boxes_belongs_to_the_only_picture(folder):
    path = _write(folder, [[1, 2, 3, 4]])
    assert detections.read_boxes(path, ["a.jpg"])[0][1].file_name == "a.jpg"
    with pytest.raises(InputError, match="there are 2 pictures"):
        detections.read_boxes(path, NAMES)


def _pose(flag=2.0):
    rng = np.random.default_rng(0)
    return np.column_stack([rng.uniform(20, 40, 17), rng.uniform(10, 70, 17), np.full(17, flag)])


def test_key_points_give_a_box_with_a_margin_unless_the_entry_has_its_own(folder):
    pose = _pose()
    flat = pose.ravel().tolist()
    content = _coco([
        {"id": 1, "image_id": 7, "keypoints": flat}, _entry(2, 7, [1, 2, 30, 40], keypoints=flat),
        {"id": 3, "image_id": 7, "keypoints": [0] * 51}, {"id": 4, "image_id": 7},
    ])  # fmt: skip
    (_, drawn), (_, own) = detections.read_keypoints(_write(folder, content), NAMES)
    assert own.bbox_px.tolist() == [1, 2, 30, 40] and (drawn.annotation_id, own.annotation_id) == (1, 2)
    low, high = pose[:, :2].min(axis=0), pose[:, :2].max(axis=0)
    np.testing.assert_allclose(drawn.bbox_px[2:], coco.KEYPOINTS_MARGIN * (high - low))
    np.testing.assert_allclose(drawn.bbox_px[:2] + drawn.bbox_px[2:] / 2, (low + high) / 2)
    assert drawn.keypoints.confidence[1] == 1.0
    ((_, listed),) = detections.read_keypoints(_write(folder, {"a.jpg": [pose.tolist()]}), NAMES)
    np.testing.assert_allclose(listed.bbox_px, drawn.bbox_px)


def test_a_detector_s_confidences_decide_what_is_known(folder):
    pose = _pose(0.9)
    pose[9] = [500, 500, 0.05]  # a wrist that nobody has seen
    ((_, found),) = detections.read_keypoints(
        _write(folder, [{"image_id": "a.jpg", "keypoints": pose.ravel().tolist()}]), NAMES
    )
    assert found.bbox_px[2] < 30
    assert (found.keypoints.confidence[:17] == 0).sum() == 1, "that wrist"


BAD_ENTRIES = {
    "another picture": ({"image_id": "b.jpg"}, "entry 0: there is no photograph 'b.jpg'"),
    "outside the folder": ({"image_id": "../a.jpg"}, "there is no photograph '../a.jpg'"),
    "outside by backslash": ({"image_id": "..\\a.jpg"}, "there is no photograph '..\\a.jpg'"),
    "below by backslash": ({"image_id": "sub\\a.jpg"}, "there is no photograph 'sub/a.jpg'"),
    "no picture": ({"image_id": None}, "image_id None names no picture"),
    "no box": ({"bbox": None}, "bbox is None, expected 4 numbers"),
    "three numbers": ({"bbox": [1, 2, 3]}, "bbox has 3 values"),
    "not finite": ({"bbox": [0, 0, float("nan"), 4]}, "bbox[2] is nan"),
    "text": ({"bbox": [0, 0, "9", 4]}, "bbox[2] is '9'"),
    "no size": ({"bbox": [0, 0, 0, 4]}, "is less than 2 px"),
    "beside the picture": ({"bbox": [100, 0, 9, 9]}, "lies outside the 100x80 picture"),
    "far too large": ({"bbox": [0, 0, 9000, 9]}, "dwarfs the 100x80 picture"),
    "twice": ({"id": 2}, "id 2 appears twice"),
}


@pytest.mark.parametrize("spoil", BAD_ENTRIES)
def test_a_bad_entry_is_named_or_skipped(folder, spoil):
    change, told = BAD_ENTRIES[spoil]
    good = {"id": 2, "image_id": "a.jpg", "bbox": [0, 0, 20, 20]}
    bad = {"image_id": "a.jpg", "bbox": [1, 1, 9, 9]} | change
    entries = [good, bad] if spoil == "twice" else [bad, good]
    pictures = detections.list_photographs(folder)
    found = detections.read_boxes(_write(folder, entries), [path.name for path in pictures])
    with pytest.raises(InputError) as caught:
        detections.people(pictures, found)
    assert told in str(caught.value) and "people.json" in str(caught.value) and "\n" not in str(caught.value)
    skipped = detections.people(pictures, found, skip_invalid=True)
    assert [type(entry) for entry in skipped.entries].count(Rejected) == 1
    assert skipped.people[0].bbox_px.tolist() == [0, 0, 20, 20]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("3", "neither a list"),
        ({"a.jpg": 3}, "'a.jpg' is 3"),
        ({"annotations": []}, "'images' is missing"),
        ({}, "no entry has 'bbox'"),
    ],
)
def test_a_file_of_no_known_shape_is_named(folder, content, told):
    with pytest.raises(InputError, match=told):
        detections.read_boxes(_write(folder, content), NAMES)
    with pytest.raises(InputError, match="absent.json"):
        detections.read_boxes(folder / "absent.json", NAMES)


def test_ids_and_categories_may_be_anything(folder):
    """What cannot be an id is none; a key of the file is printed as one line."""
    person, entry = {"id": 1, "name": "person"}, {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 20]}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [person, {"id": {}, "name": "person"}, {"id": [1], "name": "person"}, 3],
        "annotations": [entry | {"category_id": [1, 2]}, entry | {"category_id": {}}, entry | {"id": {"a": 1}}, entry],
    }
    found = detections.read_boxes(_write(folder, content), NAMES)
    assert [one.annotation_id for _, one in found] == [1, 1, -1, 1]
    assert found[0][1].message.endswith(": category_id is [1, 2], expected a number")
    assert "annotations[2]" in found[2][0]
    found = detections.read_boxes(_write(folder, {"a\n\x1b[31m.jpg": [[0, 0, 20, 20]]}), NAMES)
    with pytest.raises(InputError) as caught:
        detections.people(detections.list_photographs(folder), found)
    assert str(caught.value).isprintable()


def test_without_boxes_each_picture_is_its_own_crop(folder):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.new("RGB", (120, 60)).save(folder / "turned.JPG", exif=exif)
    for name in ("a_IUV.png", "notes.txt"):
        (folder / name).write_text("no photograph")
    pictures = detections.list_photographs(folder)
    assert [path.name for path in pictures] == ["000139.jpg", "a.jpg", "turned.JPG"]
    found = detections.people(pictures)
    people = found.people
    assert [found.photograph(one) for one in people] == pictures
    assert people[0].bbox_px.tolist() == [0, 0, 100, 80] and people[0].crop_px.tolist() == [0, -10, 100, 100]
    assert people[2].bbox_px.tolist() == [0, 0, 60, 120] and people[2].crop_px.tolist() == [-30, 0, 120, 120]
    assert detections.list_photographs(folder / "a.jpg") == [folder / "a.jpg"]


def test_folders_without_photographs_are_named(tmp_path):
    for path, told in ((tmp_path, "holds no photograph"), (tmp_path / "absent", "no such file or folder")):
        with pytest.raises(InputError, match=told):
            detections.list_photographs(path)
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(InputError, match=r"text\.jpg: cannot be read.*none of 1"):
        detections.people(detections.list_photographs(tmp_path), skip_invalid=True)
