"""Folders in the true layout of every data set, small and made up: a few people on ramps of colour.

Each has six people to train on who can be used, one of them with more than 150 points, and two to be tested on where
there is a test split: data sets of one shape are compiled for once.
"""

import json
import pathlib

import numpy as np
import PIL.Image
import pycocotools.mask

from tests.observations import annotation_files

POSETRACK_NAMES = (
    "nose", "head_bottom", "head_top", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
BOX = (20.0, 30.0, 51.0, 102.0)


def run_lengths(mask: np.ndarray) -> dict:
    """Return a mask as COCO's compressed run lengths, as text."""
    found = pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in found["size"]], "counts": found["counts"].decode()}


def part_masks() -> list:
    """Return dp_masks as DensePose-COCO has them: 14 of 256 x 256, here torso above, a leg below, no others."""
    torso, leg = np.zeros((256, 256), bool), np.zeros((256, 256), bool)
    torso[:128], leg[128:, :128] = True, True
    return [run_lengths(torso), [], [], [], [], run_lengths(leg), *([[]] * 8)]


def entry(number: int, image: int, points: int = 40, **changes) -> dict:
    """Return an annotation as DensePose-COCO writes it; a change to None takes a field away."""
    made = annotation_files.entry(number, points) | {
        "image_id": image,
        "dp_masks": part_masks(),
        "segmentation": [[20.0, 30.0, 71.0, 30.0, 71.0, 132.0, 20.0, 132.0]],
        "area": 5202.0,
    }
    made |= changes
    return {name: value for name, value in made.items() if value is not None}


def without_points(made: dict) -> dict:
    """Return an annotation without dense points and part masks."""
    return {name: value for name, value in made.items() if not name.startswith("dp_")}


def coco_container(entries: list[dict], prefix: str = "", **changes) -> dict:
    """Return a file's content: 100 x 160 px images, named after their number."""
    numbers = sorted({one["image_id"] for one in entries})
    images = [
        {"id": number, "file_name": f"{prefix}{number:012d}.jpg", "width": 100, "height": 160} for number in numbers
    ]
    person = {"id": 1, "name": "person", "supercategory": "person"}
    return {"info": {}, "licenses": [], "images": images, "annotations": entries, "categories": [person]} | changes


def write_container(path: pathlib.Path, images: pathlib.Path, content: dict) -> None:
    """Write an annotation file and the photographs that it names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    for image in content["images"]:
        place = images / image["file_name"]
        place.parent.mkdir(parents=True, exist_ok=True)
        annotation_files.write_picture(place)


def densepose_coco(folder: pathlib.Path) -> pathlib.Path:
    """Make a DensePose-COCO: train with six photographs, the others with two; partial data of every kind."""
    train = [
        entry(1, 1, points=160),
        entry(2, 1, bbox=[10.0, 20.0, 50.0, 90.0]),  # two people in a photograph
        entry(3, 2, points=8),  # few points, yet key points
        entry(5, 4, bbox=[60.0, 80.0, 60.0, 100.0]),  # over the border
        entry(6, 5),  # on a grey photograph
        without_points(entry(7, 5)),
        without_points(entry(8, 6)) | {"dp_masks": part_masks()},  # masks only
        without_points(entry(9, 6)) | {"iscrowd": 1, "segmentation": run_lengths(np.ones((160, 100)))},
        entry(10, 6, points=3, keypoints=None),  # too little of everything
    ]
    write_container(
        folder / "annotations" / "densepose_coco_2014_train.json",
        folder / "train2014",
        coco_container(train, "COCO_train2014_"),
    )
    PIL.Image.new("L", (100, 160), 90).save(folder / "train2014" / "COCO_train2014_000000000005.jpg")
    for split, entries in {
        "minival": [entry(21, 31), entry(22, 32)],
        "valminusminival": [entry(4, 33, keypoints=None), without_points(entry(23, 34))],
    }.items():
        path = folder / "annotations" / f"densepose_coco_2014_{split}.json"
        write_container(path, folder / "val2014", coco_container(entries, "COCO_val2014_"))
    return folder


def densepose_posetrack(folder: pathlib.Path) -> pathlib.Path:
    """Make a DensePose-PoseTrack: a video of four frames with two tracks, and one of one frame, out of order."""
    frames = [("000342", 2), ("000342", 0), ("000342", 1), ("000342", 3), ("000001", 5)]
    images = [_frame(video, frame) for video, frame in frames]
    images[3]["has_no_densepose"] = True
    images[4] |= {"ignore_regions_x": [[60, 99, 99, 60]], "ignore_regions_y": [[0, 0, 159, 159]]}
    entries = []
    for index, image in enumerate(images):
        for track in (1, 0):
            number = 10 * index + track
            points = 160 if index == 0 else 40
            one = entry(number, image["id"], points, track_id=track, keypoints=_posetrack_keypoints(number))
            if index == 4 and track == 1:
                one["bbox"] = [60.0, 30.0, 38.0, 102.0]
            entries.append(without_points(one) if index == 4 and track == 0 else one)
    category = {"id": 1, "name": "person", "supercategory": "person", "keypoints": list(POSETRACK_NAMES)}
    content = {"images": images, "annotations": entries, "categories": [category]}
    write_container(folder / "densepose_only_posetrack_train2017.json", folder, content)
    val = {"images": [_frame("000010", 7)], "annotations": [], "categories": [category]}
    val["annotations"] = [
        entry(90 + track, val["images"][0]["id"], track_id=track, keypoints=_posetrack_keypoints(9)) for track in (0, 1)
    ]
    write_container(folder / "densepose_only_posetrack_val2017.json", folder, val)
    return folder


def _frame(video: str, frame: int) -> dict:
    number = int(f"1{video}{frame:04d}")
    return {
        "id": number,
        "file_name": f"images/train/{video}_mpii_train/{frame:06d}.jpg",
        "width": 100,
        "height": 160,
        "vid_id": video,
        "frame_id": number,
        "nframes": 30,
        "is_labeled": True,
    }


def _posetrack_keypoints(seed: int) -> list[float]:
    places = np.random.default_rng(seed).integers(20, 70, (17, 2))
    flags = np.ones(17)
    flags[3:5] = 0  # ears are not annotated
    return np.column_stack([places * (flags > 0)[:, None], flags]).ravel().tolist()


def iuv_folder(folder: pathlib.Path) -> pathlib.Path:
    """Make photographs with predictions: two people with key points; one; two; nobody; one without INDS, grey."""
    folder.mkdir(parents=True, exist_ok=True)
    two = [(10, 20, 40, 130), (55, 30, 90, 120)]
    for name, boxes in (("a", two), ("b", [(20, 20, 60, 140)]), ("c", []), ("e", two)):
        pixels, owner = np.zeros((160, 100, 3), np.uint8), np.zeros((160, 100), np.uint8)
        for number, (left, top, right, bottom) in enumerate(boxes, start=1):
            _paint(pixels[top:bottom, left:right], seed=number)
            owner[top:bottom, left:right] = number
        PIL.Image.fromarray(pixels).save(folder / f"{name}_IUV.png")
        PIL.Image.fromarray(owner).save(folder / f"{name}_INDS.png")
        annotation_files.write_picture(folder / f"{name}.jpg")
    pixels = np.zeros((160, 100, 3), np.uint8)
    _paint(pixels[30:150, 20:80], seed=7)
    PIL.Image.fromarray(pixels).save(folder / "d_IUV.png")
    PIL.Image.new("L", (100, 160), 90).save(folder / "d.jpg")
    left, right = np.tile([20, 60, 2], 17).tolist(), np.tile([70, 60, 2], 17).tolist()
    entries = [{"id": 1, "image_id": 1, "keypoints": right}, {"id": 2, "image_id": 1, "keypoints": left}]
    content = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": entries, "categories": []}
    (folder / "keypoints.json").write_text(json.dumps(content))
    return folder


def _paint(area: np.ndarray, seed: int) -> None:
    """Fill a rectangle with (v, u, part): six bands of parts, u and v ramps."""
    height, width = area.shape[:2]
    rows, columns = np.indices((height, width))
    area[..., 0] = columns * 255 // max(width - 1, 1)
    area[..., 1] = rows * 255 // max(height - 1, 1)
    area[..., 2] = 1 + (rows * 6 // height * 4 + seed) % 24


def coco_folder(folder: pathlib.Path) -> pathlib.Path:
    """Make one's own folder: people with points and key points, with either alone, with a damaged mask; and a dog."""
    entries = [entry(1, 1, 160), entry(2, 2, keypoints=None), without_points(entry(3, 3)), entry(4, 4, dp_masks=None)]
    entries += [entry(5, 5, dp_masks=None, segmentation=None), without_points(entry(6, 6, segmentation=[[1.0, 2.0]]))]
    entries += [entry(7, 6, category_id=18)]  # a dog
    write_container(folder / "train.json", folder / "images", coco_container(entries))
    write_container(folder / "test.json", folder / "images", coco_container([entry(11, 11), entry(12, 12)]))
    return folder


MAKERS = {
    "densepose_coco": densepose_coco,
    "densepose_posetrack": densepose_posetrack,
    "iuv_folder": iuv_folder,
    "coco_folder": coco_folder,
}
"""What makes the folder of a data set, by its name."""
