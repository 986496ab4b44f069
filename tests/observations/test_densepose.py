import copy
import json

import numpy as np
import pytest

from dal_jax.body import skeleton
from dal_jax.observations import densepose, person
from dal_jax.runtime.errors import InputError
from tests.observations import annotation_files


@pytest.fixture
def write(tmp_path):
    return lambda value: annotation_files.write_json(tmp_path / "people.json", value)


def test_points_go_from_the_box_to_the_photograph(write):
    raw = annotation_files.entry()
    raw.update(dp_x=[0, 255, 127.5], dp_y=[0, 255, 51], dp_I=[1, 2, 3], dp_U=[0, 1, 0.5], dp_V=[1, 0, 0.5])
    (one,) = densepose.read(write(annotation_files.content([raw]))).people
    np.testing.assert_allclose(one.point_px, [[20, 30], [71, 132], [45.5, 50.4]])
    np.testing.assert_array_equal(one.part, [1, 2, 3])
    np.testing.assert_array_equal(one.uv, [[0, 1], [1, 0], [0.5, 0.5]])
    assert (one.image_id, one.annotation_id, one.file_name, one.picture_size) == (10, 1, "10.jpg", (100, 160))


def test_the_square_crop_holds_the_box_with_a_margin(write):
    (one,) = densepose.read(write(annotation_files.content([annotation_files.entry()]))).people
    x, y, width, height = one.crop_px
    assert width == height == pytest.approx(person.CROP_MARGIN * 102)
    np.testing.assert_allclose([x + width / 2, y + height / 2], [45.5, 81])


def test_people_who_have_too_little_are_left_out_and_counted(write):
    plain = {"id": 9, "image_id": 10, "bbox": [1, 2, 30, 40], "keypoints": [0] * 51}
    found = densepose.read(write(annotation_files.content([annotation_files.entry(), plain])))
    assert len(found.entries) == 1 and found.without_points == 1
    assert found.summary() == "1 people; left out 1 without dense points or five key points"


def test_five_key_points_are_enough_but_not_of_a_crowd(write):
    keypoints = np.zeros((17, 3))
    keypoints[5:10] = np.column_stack([np.arange(5) + 5, np.arange(5) + 10, np.full(5, 2)])
    plain = {"id": 9, "image_id": 10, "bbox": [1, 2, 30, 40], "keypoints": keypoints.ravel().tolist()}
    crowd = plain | {"id": 8, "iscrowd": 1}
    found = densepose.read(write(annotation_files.content([annotation_files.entry(), plain, crowd])))
    assert [one.annotation_id for one in found.people] == [1, 9] and found.without_points == 1
    alone = found.people[1]
    assert len(alone.part) == 0 and alone.keypoints.confidence.sum() == 5


def test_who_it_is_over_the_frames_is_kept_and_must_be_an_id(write):
    entries = [annotation_files.entry() | {"id": number, "track_id": name} for number, name in ((1, 7), (2, "b"))]
    found = densepose.read(write(annotation_files.content(entries)))
    assert [one.track_id for one in found.people] == [7, "b"]
    entries[1]["track_id"] = [7]
    with pytest.raises(InputError, match=r"annotation 2: track_id is \[7\]"):
        densepose.read(write(annotation_files.content(entries)))


def test_no_key_points_is_fine(write):
    raw = annotation_files.entry()
    del raw["keypoints"]
    (one,) = densepose.read(write(annotation_files.content([raw]))).people
    assert not one.keypoints.confidence.any()


@pytest.mark.parametrize("fault", annotation_files.BAD_ENTRIES)
def test_a_bad_entry_is_named_in_one_line(write, fault):
    spoil, told = annotation_files.BAD_ENTRIES[fault]
    good, bad = annotation_files.entry(1), annotation_files.entry(2)
    value = annotation_files.content([good, bad])
    spoil(bad)
    path = write(value)
    with pytest.raises(InputError) as caught:
        densepose.read(path)
    line = str(caught.value)
    assert told in line and str(path) in line and "\n" not in line
    assert "annotation 2" in line or "annotations[1]" in line


@pytest.mark.parametrize("fault", annotation_files.BAD_ENTRIES)
def test_skip_invalid_runs_the_others_and_counts(write, fault):
    spoil, _ = annotation_files.BAD_ENTRIES[fault]
    entries = [annotation_files.entry(number) for number in (1, 2, 3)]
    value = annotation_files.content(entries)
    spoil(entries[1])
    found = densepose.read(write(value), skip_invalid=True)
    assert [one.annotation_id for one in found.people] == [1, 3]
    assert len(found.rejected) == 1 and f"skipped 1: 1 {found.rejected[0].kind}" in found.summary()


def test_the_same_id_twice_is_refused(write):
    path = write(annotation_files.content([annotation_files.entry(1), annotation_files.entry(1)]))
    with pytest.raises(InputError, match="id 1 appears twice"):
        densepose.read(path)
    assert len(densepose.read(path, skip_invalid=True).people) == 1


@pytest.mark.parametrize(
    "name",
    [
        "../secret.jpg",
        "/etc/secret.jpg",
        "a/../../b.jpg",
        "..\\b.jpg",
        "a\\..\\..\\b.jpg",
        "\\b.jpg",
        "C:\\b.jpg",
        "a\0.jpg",
    ],
)
def test_a_file_name_cannot_leave_the_folder(write, name):
    value = annotation_files.content([annotation_files.entry()])
    value["images"][0]["file_name"] = name
    with pytest.raises(InputError, match="leaves the images' folder"):
        densepose.read(write(value), check_picture=lambda *_: None)


def test_a_file_name_may_have_the_backslashes_of_windows(write):
    value = annotation_files.content([annotation_files.entry()])
    value["images"][0]["file_name"] = "sub\\a.jpg"
    assert densepose.read(write(value)).people[0].file_name == "sub/a.jpg"


def test_a_missing_photograph_is_named(write):
    path = write(annotation_files.content([annotation_files.entry(1), annotation_files.entry(2)]))

    def check(name, size):
        assert size == (100, 160)
        return None if name == "10.jpg" else f"{name}: no such file"

    with pytest.raises(InputError, match="annotation 2: 20.jpg: no such file"):
        densepose.read(path, check)
    assert len(densepose.read(path, check, skip_invalid=True).people) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"images": []}', '{"images": {}, "annotations": []}', "\xff"])
def test_a_file_that_is_no_annotation_is_refused(tmp_path, text):
    path = tmp_path / "people.json"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(InputError, match=r"people\.json: "):
        densepose.read(path, skip_invalid=True)


def test_a_truncated_file_is_refused(tmp_path):
    text = json.dumps(annotation_files.content([annotation_files.entry()]))
    path = tmp_path / "people.json"
    path.write_text(text[: len(text) // 2])
    with pytest.raises(InputError, match="not valid JSON"):
        densepose.read(path, skip_invalid=True)
    with pytest.raises(InputError, match="absent.json: no such file"):
        densepose.read(tmp_path / "absent.json")


def test_nothing_usable_is_an_error_even_when_skipping(write):
    raw = annotation_files.entry()
    raw["dp_I"][0] = 25
    with pytest.raises(InputError, match="none of 1 people can be used"):
        densepose.read(write(annotation_files.content([raw])), skip_invalid=True)


def test_a_file_in_the_wrong_unit_is_refused_whole(write):
    entries = [annotation_files.entry(number) for number in (1, 2)]
    for one in entries:
        one.update({name: [value / 255 for value in one[name]] for name in ("dp_x", "dp_y")})
    with pytest.raises(
        InputError, match=r"annotation 1: dp_x and dp_y end at 0\.\d+: .*\(none of 2 people can be used\)"
    ):
        densepose.read(write(annotation_files.content(entries)), skip_invalid=True)


def test_few_points_may_lie_together(write):
    raw = annotation_files.entry(points=3)
    raw.update(dp_x=[120.0, 121.0, 122.0], dp_y=[9.0, 9.5, 10.0])
    assert len(densepose.read(write(annotation_files.content([raw]))).people[0].part) == 3


def test_random_damage_never_crashes(write):
    """Any value in any field: a clean count, or one line."""
    rng = np.random.default_rng(0)
    junk = [None, True, "x", "../x", -1, 1e308, float("nan"), [], {}, [[]], [None], 2**70, 0, [1.5] * 4, "\ud800"]
    clean = [annotation_files.entry(number) for number in range(1, 4)]
    lines, counts = [], []
    for _ in range(300):
        entries = copy.deepcopy(clean)
        value = annotation_files.content(entries)
        for _ in range(rng.integers(1, 4)):
            target = entries[rng.integers(3)] if rng.random() < 0.8 else value["images"][rng.integers(3)]
            target[str(rng.choice(list(target)))] = junk[rng.integers(len(junk))]
        path = write(value)
        try:
            found = densepose.read(path, skip_invalid=True)
        except InputError as error:
            lines.append(str(error))
        else:
            counts.append(len(found.people) + len(found.rejected) + found.without_points)
    assert not any("\n" in line for line in lines)
    assert set(counts) == {3} and len(counts) > 100


@annotation_files.needs_real_data
def test_the_real_people_are_read():
    path = annotation_files.real("densepose_coco/densepose_coco_2014_train.boxed.json")
    first, second = densepose.read(path).people
    assert (len(first.part), len(second.part)) == (115, 70)
    with pytest.raises(InputError, match="bbox"):  # the published fixture has placeholder boxes
        densepose.read(annotation_files.real("densepose_coco/densepose_coco_2014_train.json"))


LIMBS = {  # DensePose's parts of a limb, left and right, and the Human3.6M joints at its ends
    ("shoulder", "elbow"): ((15, 17), (16, 18)),
    ("elbow", "wrist"): ((19, 21), (20, 22)),
    ("hip", "knee"): ((8, 10), (7, 9)),
    ("knee", "ankle"): ((12, 14), (11, 13)),
}


@annotation_files.needs_real_data
def test_left_and_right_of_real_points_agree_with_the_key_points():
    """Dense points of a limb lie nearer to the bone between that limb's key points than to the other side's."""
    path = annotation_files.real("densepose_coco/densepose_coco_2014_train.boxed.json")
    for one in densepose.read(path).people:
        own, other = [], []
        for (start, end), parts in LIMBS.items():
            for side, opposite, numbers in (("left", "right", parts[0]), ("right", "left", parts[1])):
                points = one.point_px[np.isin(one.part, numbers)]
                gaps = [_distance_to_bone(one, points, f"{name}_{start}", f"{name}_{end}") for name in (side, opposite)]
                if None not in gaps:
                    own.extend(gaps[0])
                    other.extend(gaps[1])
        assert len(own) >= 20
        assert np.mean(own) < 0.7 * np.mean(other)
        assert np.mean(np.array(own) < np.array(other)) > 0.7


def _distance_to_bone(one, points, start, end):
    """Return distances (px) to the segment between two key points, None where one of them is unknown."""
    ends = [skeleton.BODY_25B_NAMES.index(name) for name in (start, end)]
    if np.any(one.keypoints.confidence[ends] == 0):
        return None
    first, last = one.keypoints.position_px[ends]
    along = np.clip((points - first) @ (last - first) / np.sum((last - first) ** 2), 0, 1)
    return np.linalg.norm(points - first - along[:, None] * (last - first), axis=1).tolist()
