"""The same people in every format are the same people, whichever binary reads them."""

import json

import numpy as np
import pytest

from dal_jax.body import skeleton
from dal_jax.body.formats import load
from dal_jax.data import coco_sets
from dal_jax.fits import fitting
from dal_jax.fits.options import FitOptions
from dal_jax.lifting import poses
from dal_jax.observations import detections, keypoints
from dal_jax.observations.annotations import read_annotations
from dal_jax.observations.coco import BadEntry
from dal_jax.observations.person import Annotations
from dal_jax.runtime.errors import InputError
from tests.observations import annotation_files, pose_formats
from tests.observations.pose_formats import FORMATS, PEOPLE, PICTURES

DIGITS_PX = 2e-3  # formats write 5 or 6 digits, some of them of a share of 200 px


@pytest.fixture
def photos(tmp_path):
    return pose_formats.write_pictures(tmp_path / "photos")


def _predicted(path, photos):
    pictures = detections.list_photographs(photos)
    return detections.people(pictures, detections.read_keypoints(path, pictures))


def _prepared(path, photos):
    """What the data set coco_folder makes of a file."""
    units = coco_sets.photographs(path, photos)
    people = [coco_sets._parse(unit, entry, points_needed=False) for unit in units for entry in unit.entries]
    return Annotations(people, notes=keypoints.notes((one.file_name, one.keypoints) for one in people))


READERS = {
    "register": lambda path, photos: read_annotations(path, photos),
    "predict": _predicted,
    "coco_folder": _prepared,
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_the_same_people_on_the_same_photographs(tmp_path, photos, name):
    write, names = FORMATS[name]
    path = write(tmp_path)
    has = np.array([one in names for one in skeleton.BODY_25B_NAMES])
    placeless = dict.fromkeys(one for one in names if one not in skeleton.BODY_25B_NAMES)
    for reader, read in READERS.items():
        found = read(path, photos)
        by_picture = {one.file_name: one for one in found.people}
        assert by_picture.keys() == PICTURES.keys(), reader
        for picture, one in by_picture.items():
            wanted = np.array([PEOPLE[picture][name] for name in skeleton.BODY_25B_NAMES])
            np.testing.assert_array_equal(one.keypoints.confidence, has, reader)
            np.testing.assert_allclose(one.keypoints.position_px[has], wanted[has], atol=DIGITS_PX, err_msg=reader)
            own_box = (
                "OpenPose" not in name and "MediaPipe" not in name and "results" not in name and "open" not in name
            )
            if own_box:
                np.testing.assert_allclose(one.bbox_px, pose_formats.xywh(PEOPLE[picture]), atol=DIGITS_PX)
        assert len(found.notes) == bool(placeless)
        assert all(repr(one) in found.notes[0] for one in list(placeless)[:6]), "what is left out is said"


@pytest.mark.parametrize(
    "name", [name for name in FORMATS if name not in ("OpenPose in shares", "Ultralytics normalised")]
)
def test_lifting_reads_the_same_formats_without_photographs(tmp_path, name):
    path = FORMATS[name][0](tmp_path)
    if name.startswith(("YOLO", "MediaPipe")):
        with pytest.raises(InputError, match="shares of the picture, whose size is needed: no photographs are given"):
            poses.read(path)
        return
    usual = poses.read(pose_formats.coco(tmp_path))
    found = poses.read(path)
    order = [0, 1] if path.is_file() else [1, 0]  # folders go by name
    both = found.visible & usual.visible[order]
    np.testing.assert_allclose(found.keypoints_px[both], usual.keypoints_px[order][both], atol=DIGITS_PX)
    assert (both.sum(axis=1) == usual.visible.sum(axis=1)).all()


def test_scores_of_all_detectors_follow_one_rule(tmp_path, photos, monkeypatch):
    """From 0.3 on a key point is seen, below it is unknown; of whole numbers, too, and above 1."""
    monkeypatch.setattr(pose_formats, "rows", lambda places, names, score=None: _scored(places, names))
    for name, (write, names) in FORMATS.items():
        if name in ("COCO", "YOLO labels without scores") or name.startswith(("COCO,", "COCO-W", "Halpe")):
            continue
        path = write(tmp_path)
        one = next(one for one in read_annotations(path, photos).people if one.file_name == "walk.jpg")
        seen = one.keypoints.confidence[[skeleton.BODY_25B_NAMES.index(which) for which in _SCORES]]
        assert seen.tolist() == [0, 0, 1, 1, 1], name
        assert one.keypoints.confidence.sum() == sum(which in names for which in skeleton.BODY_25B_NAMES) - 2, name


_SCORES = {"nose": 0.0, "left_wrist": 0.29, "right_wrist": 0.31, "left_knee": 1.0, "right_knee": 1.75}


def _scored(places, names):
    return [[*places[name].tolist(), _SCORES.get(name, 0.5)] for name in names]


BODY_PX = 1.0


@pytest.mark.slow
@pytest.mark.parametrize(("usual", "name"), [("COCO", "YOLO labels"), ("COCO results", "AlphaPose open")])
def test_the_same_people_get_the_same_bodies(tmp_path, photos, usual, name):
    """Files with boxes among themselves, and files without: a fit weighs priors against pixels of the crop."""
    joints_px = []
    for one in (usual, name):
        people = read_annotations(FORMATS[one][0](tmp_path), photos)
        fits = fitting.fit(people, load.load_body(), FitOptions(quality=False, held_out_share=0.0))
        rows = np.argsort([person.file_name for person in people.people])
        joints_px.append(np.asarray(fits.joints_px)[rows])
    np.testing.assert_allclose(*joints_px, atol=BODY_PX)


def test_frames_of_a_video_are_matched_by_their_number(tmp_path, photos):
    one = PEOPLE["walk.jpg"]
    for stem in ("clip_3", "clip_12"):
        annotation_files.write_picture(photos / f"{stem}.jpg")
    openpose = tmp_path / "openpose"
    openpose.mkdir()
    body = {"pose_keypoints_2d": pose_formats.flat(one, skeleton.OPENPOSE_25_NAMES)}
    for frame in (3, 12):
        (openpose / f"clip_{frame:012d}_keypoints.json").write_text(json.dumps({"version": 1.3, "people": [body]}))
    (openpose / "clip_000000000013_keypoints.json").write_text(json.dumps({"version": 1.3, "people": []}))
    assert [one.file_name for one in read_annotations(openpose, photos).people] == ["clip_3.jpg", "clip_12.jpg"]
    values = pose_formats.rows(one, skeleton.COCO_NAMES)
    instance = {"keypoints": [row[:2] for row in values], "keypoint_scores": [row[2] for row in values]}
    video = tmp_path / "clip.json"
    video.write_text(json.dumps([{"frame_id": frame, "instances": [instance]} for frame in (3, 12)]))
    assert [one.file_name for one in read_annotations(video, photos).people] == ["clip_3.jpg", "clip_12.jpg"]


def test_one_file_belongs_to_the_only_photograph(tmp_path, photos):
    folder = pose_formats.ultralytics(tmp_path)
    (one,) = read_annotations((folder / "walk.json").rename(tmp_path / "what.json"), photos / "walk.jpg").people
    assert one.file_name == "walk.jpg"
    with pytest.raises(
        InputError, match=r"what\.json: names no picture, there are 2 pictures, and none is called 'what'"
    ):
        read_annotations(tmp_path / "what.json", photos)


@pytest.mark.parametrize("stated", ["COCO's categories", "MMPose's meta_info"])
def test_human36m_s_order_is_taken_where_it_is_stated(tmp_path, photos, stated):
    """Its hips and feet lie at other places than COCO's, so they keep their set; without names 17 are COCO's."""
    rng = np.random.default_rng(0)
    places = {name: rng.uniform(20, 140, 2).round(3) for name in skeleton.H36M_JOINT_NAMES}
    values = [[*places[name].tolist(), 0.875] for name in skeleton.H36M_JOINT_NAMES]
    path = tmp_path / "walk.json"
    if stated == "COCO's categories":
        entry = {"id": 1, "image_id": 1, "keypoints": [value for row in values for value in row]}
        content = {"images": [{"id": 1, "file_name": "walk.jpg"}], "annotations": [entry]}
        content["categories"] = [{"id": 1, "name": "person", "keypoints": list(skeleton.H36M_JOINT_NAMES)}]
    else:
        theirs = ("root", *skeleton.H36M_JOINT_NAMES[1:9], "neck_base", *skeleton.H36M_JOINT_NAMES[10:])
        instance = {"keypoints": [row[:2] for row in values], "keypoint_scores": [row[2] for row in values]}
        meta = {"dataset_name": "h36m", "keypoint_id2name": {str(row): name for row, name in enumerate(theirs)}}
        content = {"meta_info": meta, "instance_info": [instance]}
    path.write_text(json.dumps(content))
    for read in READERS.values():
        (one,) = read(path, photos).people
        assert one.keypoints.keypoint_set == "h36m" and not one.keypoints.left_out
        np.testing.assert_allclose(one.keypoints.position_px, list(places.values()))
    found = poses.read(path)
    np.testing.assert_allclose(found.keypoints_px[0], list(places.values()), rtol=1e-6)
    assert found.visible.all()


@annotation_files.needs_real_data
def test_openpose_s_two_orders_of_25_are_told_apart_person_by_person(tmp_path):
    """400 real detections, each alone, in both orders; BODY_25's neck and middle hip are put between the others."""
    real = np.load(annotation_files.real("several_cameras/openpose_body25b.npz"))["keypoints_px"].reshape(-1, 25, 3)
    for row, values in enumerate(real[::10]):
        place: dict[str, np.ndarray] = dict(zip(skeleton.BODY_25B_NAMES, values, strict=True))
        place["neck"] = (place["left_shoulder"] + place["right_shoulder"]) / 2
        place["mid_hip"] = (place["left_hip"] + place["right_hip"]) / 2
        for names in (skeleton.BODY_25B_NAMES, skeleton.OPENPOSE_25_NAMES):
            body = np.concatenate([place[name] for name in names]).tolist()
            path = tmp_path / f"{row}_keypoints.json"
            path.write_text(json.dumps({"version": 1.3, "people": [{"pose_keypoints_2d": body}]}))
            (found,) = read_annotations(path).people
            shared = [name in names for name in skeleton.BODY_25B_NAMES]
            seen = (values[:, 2] >= 0.3) & shared
            np.testing.assert_array_equal(found.keypoints.confidence, seen)
            np.testing.assert_allclose(found.keypoints.position_px[seen], values[seen, :2])


def _openpose_body(count):
    return {"version": 1.3, "people": [{"pose_keypoints_2d": list(map(float, range(7, 3 * count + 7)))}]}


def _shares(places):
    return {"a.jpg": [[[x / 200, y / 160, 0.9] for x, y, _ in pose_formats.rows(places, skeleton.COCO_NAMES)]]}


WRONG = {
    "24 key points": (_openpose_body(24), "people[0]: keypoints has 72 values, which is 24 key points"),
    "not threes": (
        {"people": [{"pose_keypoints_2d": [1.0] * 74}]}, "24.67 key points of x, y and score; of OpenPose's JSON"
    ),
    "a file of 18": (
        [{"image_id": "walk.jpg", "keypoints": [9.5] * 54}], "54 values, which is 18 key points"
    ),
    "hardly anything known": (
        {"people": [{"pose_keypoints_2d": [0] * 72 + [9.5, 9.5, 0.9]}]}, "may be BODY_25 or BODY_25B: too few are known"
    ),
    "shares": (_shares(PEOPLE["walk.jpg"]), "these are shares of the picture, expected px"),
    "something else": ({"name": "dal", "version": "1.0"}, "an object of 'name', 'version'"),
    "text": ("hello", "nor what a known detector writes (docs/formats.md), but 'hello'"),
    "a list of something else": ([{"colour": "red"}], "but [{'colour': 'red'}]"),
    "no people": ({"version": 1.3, "people": []}, "no annotation has dense points"),
    "people of text": ({"people": ["me"]}, "people[0]: field 'pose_keypoints_2d' is missing or not a list"),
    "lists of two lengths": (
        [{"keypoints": [[1.0, 2.0]] * 17, "keypoint_scores": [0.9] * 16}], "are not lists of one length"
    ),
    "a box of text": ([{"box": {"x1": "a"}, "keypoints": {"x": [1], "y": [2]}}], "1 key points"),
    "marks without x": ([{"y": 0.5}] * 33, "keypoints[0] is None"),
    "huge": ({"people": [{"pose_keypoints_2d": [10**400] * 75}]}, "too few are known to tell"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_said_to_look_like_what_it_is(tmp_path, photos, name):
    content, told = WRONG[name]
    path = tmp_path / "walk.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        read_annotations(path, photos)
    assert told in str(caught.value) and "walk.json" in str(caught.value) and "\n" not in str(caught.value)


def test_mixed_up_files_are_said_to_be(tmp_path, photos):
    folder = pose_formats.openpose(tmp_path)
    (folder / "walk_keypoints.json").write_text('{"version": 1.3, "peop')
    with pytest.raises(InputError, match=r"walk_keypoints\.json: not valid JSON"):
        read_annotations(folder, photos)
    (folder / "walk_keypoints.json").write_text((pose_formats.mmpose(tmp_path) / "walk.json").read_text())
    with pytest.raises(InputError, match=r"walk_keypoints\.json: looks like MMPose's JSON, others .* OpenPose's JSON"):
        read_annotations(folder, photos)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: holds no \.json and no \.txt"):
        read_annotations(tmp_path / "empty", photos)
    labels = pose_formats.yolo(tmp_path)
    (labels / "walk.txt").write_text("0 0.5 0.5 0.1\n")
    with pytest.raises(InputError, match=r"walk\.txt: line 1: 4 numbers, expected YOLO's 5"):
        read_annotations(labels, photos)
    (labels / "walk.txt").write_text("person 0.5 0.5 0.1 0.1\n")
    with pytest.raises(InputError, match=r"walk\.txt: line 1 is 'person .*, expected YOLO's numbers"):
        read_annotations(labels, photos)


ODD = (None, "x", [], {}, [[]], [{}], True, -1, 10**400, float("nan"), float("inf"), {"a": 1}, [1, [2]])


def _places(value, way=()):
    """Yield the way to everything in JSON content."""
    yield way
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _places(inner, (*way, key))


def test_odd_values_anywhere_are_refused_in_a_line_or_harmless(tmp_path, photos):
    rng, refused = np.random.default_rng(0), 0
    for name, (write, _) in FORMATS.items():
        if "YOLO" in name or "13" in name:
            continue
        path = write(tmp_path)
        path = path if path.is_file() else path / next(one.name for one in path.iterdir() if "walk" in one.name)
        content, kept = json.loads(path.read_text()), path.read_text()
        ways = list(_places(content))
        few = [way for way in ways if len(way) < 5 and not any(isinstance(key, int) and key > 3 for key in way)]
        rows = [few[row] for row in rng.integers(1, len(few), 10)] + [
            ways[row] for row in rng.integers(1, len(ways), 6)
        ]
        for way in rows:
            content = json.loads(kept)
            holder = content
            for key in way[:-1]:
                holder = holder[key]
            holder[way[-1]] = ODD[rng.integers(len(ODD))]
            path.write_text(json.dumps(content))
            for read in READERS.values():
                try:
                    read(path, photos)
                except InputError:
                    refused += 1
                except BadEntry:  # coco_folder counts them
                    pass
        path.write_text(kept)
    assert refused > 200
