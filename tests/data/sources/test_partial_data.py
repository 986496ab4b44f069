"""What single data sets must bear: tracks without time, damaged regions, predictions without pictures."""

import json

import numpy as np
import PIL.Image
import pytest

from dal_jax.data import catalogue, preparing
from dal_jax.data.files import Files
from dal_jax.data.schema import Summary, count
from dal_jax.runtime.errors import InputError
from tests.data.sources import made_folders


def _read(name, folder) -> Summary:
    source = catalogue.source_of(name, Files(str(folder), image_size=32))
    items = [item for unit in source.splits()["train"] for item in source.read(unit)]
    return count("train", items)


@pytest.mark.parametrize(
    ("spoil", "skipped", "noted"),
    [
        (lambda images, people: people[0].pop("track_id"), {"without a track": 1}, {}),
        (lambda images, people: people[0].update(track_id=[1]), {"without a track": 1}, {}),
        (lambda images, people: images[0].update(frame_id="first"), {"without a time": 2}, {}),
        (lambda images, people: images[0].update(frame_id=-1), {"without a time": 2}, {}),
        (lambda images, people: images[4].update(ignore_regions_y=65), {}, {"frame with damaged ignored regions": 1}),
        (lambda images, people: images[4].pop("ignore_regions_x"), {}, {"frame with damaged ignored regions": 1}),
        (lambda images, people: people[0].update(bbox=None), {"wrong type": 1}, {}),
        (lambda images, people: images[0].update(file_name="images/../../x.jpg"), {"unsafe file name": 2}, {}),
    ],
)
def test_posetrack_bears_what_is_damaged(tmp_path, spoil, skipped, noted):
    folder = made_folders.densepose_posetrack(tmp_path)
    path = folder / "densepose_only_posetrack_train2017.json"
    clean = _read("densepose_posetrack", folder)
    content = json.loads(path.read_text())
    spoil(content["images"], content["annotations"])
    path.write_text(json.dumps(content))
    found = _read("densepose_posetrack", folder)
    assert {kind: found.skipped.get(kind) for kind in skipped} == skipped
    assert {kind: found.noted.get(kind) for kind in noted} == noted
    total = found.prepared["train"] + sum(found.skipped.values())
    assert total == clean.prepared["train"] + sum(clean.skipped.values())


def test_frames_are_told_by_packed_and_by_plain_numbers(tmp_path):
    folder = made_folders.densepose_posetrack(tmp_path)
    path = folder / "densepose_only_posetrack_train2017.json"
    source = catalogue.source_of("densepose_posetrack", Files(str(folder), image_size=32))

    def seen():
        items = [item for unit in source.splits()["train"] for item in source.read(unit)]
        return [(one["video"], one["frame"]) for one in items if isinstance(one, dict)]

    packed = seen()
    content = json.loads(path.read_text())
    for image in content["images"]:
        image["frame_id"] %= 10_000
        image["vid_id"] = int(image["vid_id"])
    path.write_text(json.dumps(content))
    assert seen() == [(str(int(video)), frame) for video, frame in packed]


def test_the_file_with_every_frame_serves_as_well(tmp_path):
    folder = made_folders.densepose_posetrack(tmp_path)
    only = _read("densepose_posetrack", folder)
    path = folder / "densepose_only_posetrack_train2017.json"
    path.rename(folder / "densepose_posetrack_train2017.json")
    assert _read("densepose_posetrack", folder) == Summary(
        only.prepared,
        only.skipped,
        only.noted,
        {kind: line.replace("densepose_only_", "densepose_") for kind, line in only.first.items()},
    )


def _no_photograph(folder):
    (folder / "a.jpg").unlink()


def _no_picture(folder):
    (folder / "b_IUV.png").write_bytes(b"no picture")


def _another_size(folder):
    PIL.Image.new("RGB", (50, 50)).save(folder / "b.jpg")


def _splinter(folder):
    owner = np.asarray(PIL.Image.open(folder / "b_INDS.png")).copy()
    owner[20:23, 20:25] = 9
    PIL.Image.fromarray(owner).save(folder / "b_INDS.png")


def _damaged_keypoints(folder):
    content = json.loads((folder / "keypoints.json").read_text())
    content["annotations"][0]["keypoints"] = [1, 2, 3]
    (folder / "keypoints.json").write_text(json.dumps(content))


def _keypoints_of_others(folder):
    content = json.loads((folder / "keypoints.json").read_text())
    content["images"].append({"id": 2, "file_name": "../z.jpg"})
    content["annotations"] += [one | {"image_id": 2} for one in content["annotations"]]
    (folder / "keypoints.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("spoil", "prepared", "skipped", "noted"),
    [
        (_no_photograph, 4, {"image missing or unreadable": 1}, {"without key points": 4}),
        (_no_picture, 5, {"image missing or unreadable": 1}, {}),
        (_another_size, 5, {"image missing or unreadable": 1}, {}),
        (_splinter, 6, {"too few pixels": 1}, {}),
        (_keypoints_of_others, 6, {}, {"key points without a prediction": 2, "without key points": 4}),
        (_damaged_keypoints, 6, {}, {"key points that are damaged": 1, "without key points": 5}),
    ],
)
def test_a_folder_of_predictions_bears_what_is_damaged(tmp_path, spoil, prepared, skipped, noted):
    folder = made_folders.iuv_folder(tmp_path)
    spoil(folder)
    found = _read("iuv_folder", folder)
    assert found.prepared["train"] == prepared and found.skipped == skipped
    assert noted.items() <= found.noted.items()
    assert not any("\n" in line for line in found.first.values())


def test_photographs_may_lie_below_and_key_points_on_nobody_are_nobody_s(tmp_path):
    folder = made_folders.iuv_folder(tmp_path)
    (folder / "images").mkdir()
    for path in folder.glob("*.jpg"):
        path.rename(folder / "images" / path.name)
    content = json.loads((folder / "keypoints.json").read_text())
    for one in content["annotations"]:
        one["keypoints"] = [2, 2, 2] * 17
    content["images"][0]["file_name"] = "images\\a.jpg"  # as Windows writes it
    (folder / "keypoints.json").write_text(json.dumps(content))
    found = _read("iuv_folder", folder)
    assert found.prepared["train"] == 6 and found.noted["without key points"] == 6
    assert "key points without a prediction" not in found.noted


def test_a_size_that_the_file_does_not_tell_is_the_photograph_s(tmp_path):
    folder = made_folders.coco_folder(tmp_path)
    content = json.loads((folder / "train.json").read_text())
    for image in content["images"]:
        del image["width"]
    content["annotations"][0]["bbox"] = [20.0, 30.0, 90_000.0, 102.0]
    content["annotations"][1]["bbox"] = [500.0, 30.0, 51.0, 102.0]
    (folder / "train.json").write_text(json.dumps(content))
    found = _read("coco_folder", folder)
    assert found.skipped == {"box outside": 2, "not a person": 1} and found.prepared["train"] == 4


def test_an_id_is_the_same_as_a_number_and_as_a_name(tmp_path):
    folder = made_folders.coco_folder(tmp_path)
    content = json.loads((folder / "train.json").read_text())
    content["annotations"][1]["id"] = str(content["annotations"][0]["id"])
    (folder / "train.json").write_text(json.dumps(content))
    assert _read("coco_folder", folder).skipped == {"duplicate id": 1, "not a person": 1}


def test_a_chart_that_is_none_is_told(tmp_path):
    folder = made_folders.coco_folder(tmp_path / "mine")
    chart = tmp_path / "chart.mat"
    for text in (None, b"no chart"):
        if text:
            chart.write_bytes(text)
        source = catalogue.source_of("coco_folder", Files(str(folder), str(chart), image_size=32))
        with pytest.raises(InputError, match=r"chart\.mat"):
            preparing.prepare(source, tmp_path / "data", workers=0)
