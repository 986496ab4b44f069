"""One person in the formats that annotators and detectors write, each in the layout of the program that writes it."""

import json
import pathlib

import numpy as np
import PIL.Image

from dal_jax.body import skeleton

PICTURES = {"walk.jpg": (200, 160), "000000000139.jpg": (160, 200)}
SCORE = 0.875
"""Of each key point: no whole number, and exact in binary."""

_EXTRA = (
    "neck", "mid_hip", "hip", "head_top", "upper_neck", *skeleton.FEET_NAMES, "face", "left_hand", "right_hand",
    *(name for name in skeleton.MEDIAPIPE_NAMES if name not in skeleton.COCO_NAMES),
)  # fmt: skip


def person(number: int, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Return the places of a standing person's key points, px, by name; those of every format."""
    rng = np.random.default_rng(number)
    upright = {
        "nose": (0, 0), "eye": (0.03, -0.03), "ear": (0.06, -0.02), "shoulder": (0.15, 0.2), "elbow": (0.2, 0.45),
        "wrist": (0.22, 0.65), "hip": (0.1, 0.7), "knee": (0.11, 1.1), "ankle": (0.12, 1.5), "toe": (0.15, 1.6),
        "heel": (0.11, 1.55),
    }  # fmt: skip
    places = {}
    for name in dict.fromkeys((*skeleton.BODY_25B_NAMES, *_EXTRA)):
        side = {"left": 1, "right": -1}.get(name.split("_")[0], 0)
        x, y = upright.get(name.rsplit("_", 1)[-1], (0.01, 0.2))
        place = np.array([0.5 + 0.3 * side * x, 0.1 + 0.5 * y]) * size + rng.uniform(-1, 1, 2)
        places[name] = place.round(3)
    return places


PEOPLE = {name: person(row, size) for row, (name, size) in enumerate(PICTURES.items())}


def rows(places: dict[str, np.ndarray], names, score: float = SCORE) -> list[list[float]]:
    """Return x, y, score of the named key points."""
    return [[*places[name].tolist(), score] for name in names]


def flat(places: dict[str, np.ndarray], names, score: float = SCORE) -> list[float]:
    return [value for row in rows(places, names, score) for value in row]


def box(places: dict[str, np.ndarray]) -> list[float]:
    """Return x1, y1, x2, y2 round a person."""
    points = np.array([places[name] for name in skeleton.COCO_NAMES])
    return [*(points.min(axis=0) - 4).tolist(), *(points.max(axis=0) + 4).tolist()]


def xywh(places) -> list[float]:
    x1, y1, x2, y2 = box(places)
    return [x1, y1, x2 - x1, y2 - y1]


def write_pictures(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir()
    for name, size in PICTURES.items():
        PIL.Image.new("RGB", size).save(folder / name)
    return folder


def _json(path: pathlib.Path, content) -> pathlib.Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def coco(folder, names=skeleton.COCO_NAMES, stated=True, visibility=2):
    images = [
        {"id": row, "file_name": name, "width": size[0], "height": size[1]}
        for row, (name, size) in enumerate(PICTURES.items())
    ]
    entries = [
        {"id": row, "image_id": row, "category_id": 1, "bbox": xywh(one), "keypoints": flat(one, names, visibility)}
        for row, one in enumerate(PEOPLE.values())
    ]
    categories = [{"id": 1, "name": "person"} | ({"keypoints": list(names)} if stated else {})]
    return _json(folder / "coco.json", {"images": images, "annotations": entries, "categories": categories})


def coco_wholebody(folder):
    """COCO-WholeBody's annotation: feet, face and hands stand apart."""
    path = coco(folder)
    content = json.loads(path.read_text())
    for entry, one in zip(content["annotations"], PEOPLE.values(), strict=True):
        entry |= {"foot_kpts": flat(one, skeleton.FEET_NAMES, 2), "foot_valid": True, "face_kpts": [0.0] * 204}
        entry |= {"lefthand_kpts": [0.0] * 63, "righthand_kpts": [0.0] * 63}
    return _json(path, content)


def results(folder, names=skeleton.COCO_NAMES):
    """`CocoMetric`'s and ViTPose's: pictures by number."""
    entries = [
        {
            "image_id": 139 if name.startswith("0") else name,
            "category_id": 1,
            "keypoints": flat(one, names),
            "score": 0.9,
        }
        for name, one in PEOPLE.items()
    ]
    return _json(folder / "results.keypoints.json", entries)


def results_wholebody(folder):
    """`CocoWholeBodyMetric`'s."""
    path = results(folder)
    entries = json.loads(path.read_text())
    for entry, one in zip(entries, PEOPLE.values(), strict=True):
        entry |= {"foot_kpts": flat(one, skeleton.FEET_NAMES), "face_kpts": [0.0] * 204}
    return _json(path, entries)


def alphapose(folder, names=skeleton.COCO_NAMES):
    """`demo_inference.py`: the score is the sum of others, box and idx are its own names."""
    entries = [
        {
            "image_id": name,
            "category_id": 1,
            "keypoints": flat(one, names),
            "score": 2.75,
            "box": xywh(one),
            "idx": [0.0],
        }
        for name, one in PEOPLE.items()
    ]
    return _json(folder / "alphapose-results.json", entries)


def alphapose_open(folder):
    """`demo_inference.py --format open`."""
    content = {
        name: {"version": "AlphaPose v0.3", "people": [{"pose_keypoints_2d": flat(one, skeleton.OPENPOSE_18_NAMES)}]}
        for name, one in PEOPLE.items()
    }
    return _json(folder / "alphapose-results.json", content)


def openpose(folder, names=skeleton.OPENPOSE_25_NAMES, shares=False):
    """`openpose.bin --write_json`, with `--keypoint_scale=3` in shares."""
    out = folder / "openpose"
    for name, one in PEOPLE.items():
        values = [
            [x / PICTURES[name][0], y / PICTURES[name][1], s] if shares else [x, y, s] for x, y, s in rows(one, names)
        ]
        empty = {
            f"{part}_keypoints_{kind}": [] for part in ("face", "hand_left", "hand_right") for kind in ("2d", "3d")
        }
        body = {"person_id": [-1], "pose_keypoints_2d": [value for row in values for value in row]}
        _json(
            out / f"{name[:-4]}_keypoints.json", {"version": 1.3, "people": [body | empty | {"pose_keypoints_3d": []}]}
        )
    return out


def mmpose(folder, names=skeleton.COCO_NAMES):
    """`MMPoseInferencer(pred_out_dir=...)`: a list of instances a picture, the box wrapped once more."""
    for name, one in PEOPLE.items():
        places = rows(one, names)
        instance = {
            "keypoints": [row[:2] for row in places], "keypoint_scores": [row[2] for row in places],
            "bbox": [box(one)], "bbox_score": 0.9,
        }  # fmt: skip
        _json(folder / "predictions" / f"{name[:-4]}.json", [instance])
    return folder / "predictions"


def mmpose_demo(folder, names=skeleton.COCO_NAMES):
    """`topdown_demo_with_mmdet.py --save-predictions`."""
    mmpose(folder, names)
    stated = {"dataset_name": "any", "keypoint_id2name": {str(row): name for row, name in enumerate(names)}}
    for path in (folder / "predictions").glob("*.json"):
        content = {"meta_info": stated, "instance_info": json.loads(path.read_text())}
        _json(folder / "demo" / f"results_{path.name}", content)
    return folder / "demo"


def ultralytics(folder, normalize=False):
    """`results[0].to_json(normalize)`, one file a picture."""
    for name, one in PEOPLE.items():
        width, height = PICTURES[name] if normalize else (1, 1)
        corners = dict(zip(("x1", "y1", "x2", "y2"), np.divide(box(one), (width, height) * 2).round(5), strict=True))
        x, y, visible = np.array(rows(one, skeleton.COCO_NAMES)).T
        points = {"x": (x / width).round(5).tolist(), "y": (y / height).round(5).tolist(), "visible": visible.tolist()}
        entry = {"name": "person", "class": 0, "confidence": 0.9, "box": corners, "keypoints": points}
        _json(folder / "ultralytics" / f"{name[:-4]}.json", [entry])
    return folder / "ultralytics"


def yolo(folder, visible=True):
    """`yolo pose predict save_txt=True save_conf=True`."""
    out = folder / "labels"
    out.mkdir()
    for name, one in PEOPLE.items():
        size, (x, y, width, height) = PICTURES[name], xywh(one)
        values = [0, *np.divide([x + width / 2, y + height / 2, width, height], size * 2)]
        for place_x, place_y, score in rows(one, skeleton.COCO_NAMES):
            values += [place_x / size[0], place_y / size[1], *[score] * visible]
        values += [0.9]
        (out / f"{name[:-4]}.txt").write_text(("%g " * len(values)).rstrip() % tuple(values) + "\n")
    return out


def mediapipe(folder, key="pose_landmarks"):
    """`dataclasses.asdict(PoseLandmarker.detect(...))`, one file a picture."""
    for name, one in PEOPLE.items():
        marks = [
            {"x": x / PICTURES[name][0], "y": y / PICTURES[name][1], "z": -0.1, "visibility": 0.05, "presence": score}
            for x, y, score in rows(one, skeleton.MEDIAPIPE_NAMES)
        ]
        content = {key: [marks], "pose_world_landmarks": [[mark | {"x": 0.0} for mark in marks]]}
        _json(folder / "mediapipe" / f"{name[:-4]}.json", content)
    return folder / "mediapipe"


FORMATS = {
    "COCO": (coco, skeleton.COCO_NAMES),
    "COCO, names in another order": (lambda folder: coco(folder, skeleton.COCO_NAMES[::-1]), skeleton.COCO_NAMES),
    "COCO-WholeBody": (coco_wholebody, skeleton.WHOLEBODY_NAMES[:23]),
    "COCO-WholeBody, 133": (
        lambda folder: coco(folder, skeleton.WHOLEBODY_NAMES, stated=False), skeleton.WHOLEBODY_NAMES
    ),
    "Halpe 26": (lambda folder: coco(folder, skeleton.HALPE_26_NAMES, stated=False), skeleton.HALPE_26_NAMES),
    "COCO results": (results, skeleton.COCO_NAMES),
    "COCO-WholeBody results": (results_wholebody, skeleton.WHOLEBODY_NAMES[:23]),
    "AlphaPose 17": (alphapose, skeleton.COCO_NAMES),
    "AlphaPose 26": (lambda folder: alphapose(folder, skeleton.HALPE_26_NAMES), skeleton.HALPE_26_NAMES),
    "AlphaPose 136": (lambda folder: alphapose(folder, skeleton.HALPE_136_NAMES), skeleton.HALPE_136_NAMES),
    "AlphaPose open": (alphapose_open, skeleton.OPENPOSE_18_NAMES),
    "OpenPose BODY_25": (openpose, skeleton.OPENPOSE_25_NAMES),
    "OpenPose BODY_25B": (lambda folder: openpose(folder, skeleton.BODY_25B_NAMES), skeleton.BODY_25B_NAMES),
    "OpenPose COCO": (lambda folder: openpose(folder, skeleton.OPENPOSE_18_NAMES), skeleton.OPENPOSE_18_NAMES),
    "OpenPose in shares": (lambda folder: openpose(folder, shares=True), skeleton.OPENPOSE_25_NAMES),
    "MMPose": (mmpose, skeleton.COCO_NAMES),
    "MMPose 26": (lambda folder: mmpose(folder, skeleton.HALPE_26_NAMES), skeleton.HALPE_26_NAMES),
    "MMPose 133": (lambda folder: mmpose(folder, skeleton.WHOLEBODY_NAMES), skeleton.WHOLEBODY_NAMES),
    "MMPose demo": (mmpose_demo, skeleton.COCO_NAMES),
    "MMPose demo of BODY_25": (
        lambda folder: mmpose_demo(folder, skeleton.OPENPOSE_25_NAMES), skeleton.OPENPOSE_25_NAMES
    ),
    "Ultralytics": (ultralytics, skeleton.COCO_NAMES),
    "Ultralytics normalised": (lambda folder: ultralytics(folder, normalize=True), skeleton.COCO_NAMES),
    "YOLO labels": (yolo, skeleton.COCO_NAMES),
    "YOLO labels without scores": (lambda folder: yolo(folder, visible=False), skeleton.COCO_NAMES),
    "MediaPipe": (mediapipe, skeleton.MEDIAPIPE_NAMES),
    "MediaPipe in JavaScript": (lambda folder: mediapipe(folder, "landmarks"), skeleton.MEDIAPIPE_NAMES),
}  # fmt: skip
"""Of each format what writes the two people into a folder, and the key points that it has."""
