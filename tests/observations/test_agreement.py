"""Boxes, key points and dense points that contradict each other are told; those that agree are left alone."""

import json

import numpy as np
import PIL.Image
import pytest

from dal_jax.body import skeleton
from dal_jax.data import coco_sets
from dal_jax.observations import densepose, detections
from dal_jax.runtime.errors import InputError
from dal_jax.uncertainty import verdict
from tests.observations import annotation_files

PLACES = {  # of key points in the box's 0..1, of somebody who stands with the arms out
    "shoulder": (0.35, 0.2), "elbow": (0.2, 0.3), "wrist": (0.05, 0.4), "hip": (0.4, 0.5), "knee": (0.35, 0.75),
    "ankle": (0.3, 0.98),
}  # fmt: skip
BONES = {("knee", "ankle"): 12, ("hip", "knee"): 8, ("shoulder", "elbow"): 15, ("elbow", "wrist"): 19}
"""DensePose's part of a left limb; the right one's is beside it."""


def _entry(number, box, corners, rng):
    """Return somebody whose dense points lie on their bones."""
    x, y, width, height = box
    keypoints, points = np.zeros((17, 3)), []
    for side, sign in (("left", -1), ("right", 1)):
        for name, (across, down) in PLACES.items():
            place = x + width * (0.5 - sign * (0.5 - across)), y + height * down
            keypoints[skeleton.COCO_NAMES.index(f"{side}_{name}")] = [*place, 2]
        for (first, last), part in BONES.items():
            ends = [keypoints[skeleton.COCO_NAMES.index(f"{side}_{name}"), :2] for name in (first, last)]
            for share in rng.uniform(0, 1, 3):
                inside = (ends[0] + share * (ends[1] - ends[0]) - [x, y]) / [width, height] * 255
                points.append((part + (side == "right") * (1 if part > 12 else -1), *inside))
    part, dp_x, dp_y = np.transpose(points).tolist()
    dense = {"dp_I": part, "dp_U": [0.5] * len(part), "dp_V": [0.5] * len(part), "dp_x": dp_x, "dp_y": dp_y}
    bbox = [x, y, x + width, y + height] if corners else list(box)
    return annotation_files.entry(number) | dense | {"bbox": bbox, "keypoints": keypoints.ravel().tolist()}


@pytest.fixture
def write(tmp_path):
    """Write a file of people in 100 x 160 px photographs."""

    def make(boxes, corners, *fields):
        rng = np.random.default_rng(0)
        entries = [_entry(number, box, corners, rng) for number, box in enumerate(boxes, start=1)]
        for one in entries:
            for name in list(one):
                if name.startswith(fields):
                    del one[name]
        return annotation_files.write_json(tmp_path / "people.json", annotation_files.content(entries))

    return make


INSIDE, BEYOND = (20.0, 30.0, 55.0, 90.0), (40.0, 50.0, 55.0, 100.0)
"""Read as [x1, y1, x2, y2] the second one's corners would be a box that ends far outside the photograph."""


@pytest.mark.parametrize(
    ("boxes", "left_out", "told"),
    [
        ([INSIDE], (), r"dense points lie \d\S* px off the key points' bones, \S+ px if it is \[x1, y1, x2, y2\]"),
        ([BEYOND, INSIDE], ("dp_",), "1 of 2 boxes end far outside the image, none if"),
        ([BEYOND, BEYOND], ("keypoints",), "2 of 2 boxes end far outside the image, none if"),
    ],
)
def test_boxes_of_two_corners_are_refused_whole(write, boxes, left_out, told):
    path = write(boxes, True, *left_out)
    said = rf"people\.json: annotation 1: bbox \[.*\] must be \[x, y, width, height\]: {told}"
    for read in (lambda: densepose.read(path, skip_invalid=True), lambda: coco_sets.photographs(path, path.parent)):
        with pytest.raises(InputError, match=said) as caught:
            read()
        assert "\n" not in str(caught.value)
    assert len(densepose.read(write(boxes, False, *left_out)).people) == len(boxes)


@pytest.mark.parametrize("box", [(30.0, 60.0, 68.0, 140.0), (0.0, 0.0, 100.0, 160.0)])
def test_boxes_beyond_the_border_are_believed_where_the_points_agree(write, box):
    """Both could be corners in the photograph, and one ends far outside."""
    assert len(densepose.read(write([box], False)).people) == 1


def test_one_box_that_cannot_be_corners_frees_the_others(write):
    boxes = [BEYOND, (80.0, 120.0, 15.0, 30.0)]
    path = write(boxes, True, "keypoints")
    content = json.loads(path.read_text())
    content["annotations"][1]["bbox"] = list(boxes[1])
    assert len(densepose.read(annotation_files.write_json(path, content)).people) == 2


def test_a_detector_s_boxes_of_two_corners_are_refused(tmp_path):
    PIL.Image.new("RGB", (100, 80)).save(tmp_path / "a.jpg")
    pictures = detections.list_photographs(tmp_path)
    for boxes, refused in (([[50, 30, 90, 75]], True), ([[50, 30, 90, 75], [10, 10, 30, 9]], False)):
        path = annotation_files.write_json(tmp_path / "boxes.json", {"a.jpg": boxes})
        found = detections.read_boxes(path, ["a.jpg"])
        if refused:
            with pytest.raises(InputError, match=r"boxes\.json: 'a\.jpg'\[0\]: bbox .* 1 of 1 boxes end far outside"):
                detections.people(pictures, found)
        else:
            assert len(detections.people(pictures, found).people) == 2


def test_key_points_outside_the_box_are_told(write):
    path = write([INSIDE, BEYOND, INSIDE], False)
    content = json.loads(path.read_text())
    assert not densepose.read(path).notes
    for one in content["annotations"][1:]:
        one["keypoints"] = [value / 8 if place % 3 < 2 else value for place, value in enumerate(one["keypoints"])]
    told = [f"{path}: annotation 2: most key points lie outside the box (2 people in all)"]
    assert densepose.read(annotation_files.write_json(path, content)).notes == told


def test_scales_and_shift_are_found_whatever_is_unknown():
    rng = np.random.default_rng(0)
    body, confidence = rng.normal(size=(3, 9, 2)), np.ones((3, 9))
    scale, shift = rng.uniform(0.5, 2, (3, 1, 2)), rng.normal(size=(3, 1, 2))
    annotated = scale * body + shift
    annotated[:, 7], confidence[:, 7] = 1e6, 0
    confidence[2, 3:] = 0
    found, rest = verdict.rescaled(body, annotated, confidence)
    np.testing.assert_allclose(found[:2], scale[:2, 0])
    np.testing.assert_allclose(rest[:2], 0, atol=1e-9)
    assert np.isnan(found[2]).all() and np.isnan(rest[2]), "three key points say nothing"


def test_flags_name_the_scale_or_the_mirror_and_only_what_they_mend():
    assert "key points are 0.86 x 0.95 as large, or shifted (13.6 px off, 0.8 px otherwise)" in verdict.contradictions(
        13.6, np.array([0.86, 0.95]), 0.8
    )[0]  # fmt: skip
    assert "left and right may be swapped" in verdict.contradictions(64.6, np.array([-0.98, 1.02]), 9.9)[0]
    assert not verdict.contradictions(13.1, np.array([0.94, 1.03]), 12.2)
    assert not verdict.contradictions(13.1, np.array([np.nan, np.nan]), np.nan)


@annotation_files.needs_real_data
def test_real_people_are_believed_and_their_corners_are_not(tmp_path):
    path = annotation_files.real("densepose_coco/densepose_coco_2014_train.boxed.json")
    content = json.loads(path.read_text())
    for one in content["annotations"]:
        x, y, width, height = one["bbox"]
        one["bbox"] = [x, y, x + width, y + height]
    assert len(densepose.read(path).people) == 2
    with pytest.raises(InputError, match="dense points lie"):
        densepose.read(annotation_files.write_json(tmp_path / "corners.json", content))
