"""Every data set made from files: who is in it and who is left out, what an example holds, and its bytes."""

import dataclasses
import io
import json

import numpy as np
import PIL.Image
import pytest

from dal_jax.body import skeleton
from dal_jax.body.formats import load
from dal_jax.data import catalogue, people as people_lib, preparing
from dal_jax.data.files import Files
from dal_jax.data.preparing import prepare
from dal_jax.data.schema import Summary
from dal_jax.observations import densepose, observation, photographs
from dal_jax.observations.annotations import read_annotations
from dal_jax.observations.chart import body_chart
from dal_jax.regressor import batches
from dal_jax.runtime.errors import InputError
from tests.data import test_preparing
from tests.data.sources import made_folders
from tests.observations import annotation_files

SIZE = 64
FLOAT32_PX = 1e-3
PNG_STEP_GREY = 12  # a pixel of the crop is up to 4 of the ramp's grey levels; JPEG adds some
SUMMARIES = {
    "densepose_coco": Summary(
        {"train": 5, "minival": 2, "valminusminival": 1},
        {"without points": 2, "masks only": 1, "crowd": 1, "too few points": 1},
        {
            "photograph of several people": 1, "box over the border": 1, "grey photograph": 1,
            "fewer than 30 dense points": 1, "without key points": 1, "key points outside the box": 1,
        },
        {},
    ),
    "densepose_posetrack": Summary(
        {"train": 6, "val": 2},
        {"in an ignored region": 1, "without points": 1},
        {"photograph of several people": 4, "frame without dense annotation": 1},
        {},
    ),
    "iuv_folder": Summary(
        {"train": 6},
        {},
        {
            "photograph of several people": 2, "photograph without a person": 1, "grey photograph": 1,
            "without key points": 4,
        },
        {},
    ),
    "coco_folder": Summary(
        {"train": 6, "test": 2},
        {"not a person": 1},
        {"without dense points": 2, "without key points": 1, "damaged mask": 1},
        {},
    ),
}  # fmt: skip
NAMES = sorted(SUMMARIES)


class Made:
    """A data set of each kind, its folder and its examples by name."""

    def __init__(self, root):
        self.root, self.data_dir = root, root / "data"
        self.sources, self.builders, self.summaries = {}, {}, {}
        for name, make in made_folders.MAKERS.items():
            self.sources[name] = catalogue.source_of(name, Files(str(make(root / name)), image_size=SIZE))
            self.builders[name], self.summaries[name] = prepare(self.sources[name], self.data_dir, 0)

    def examples(self, name, split="train"):
        return {one["name"].decode(): one for one in self.builders[name].as_data_source(split=split)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Made(tmp_path_factory.mktemp("made"))


def test_every_data_set_of_the_catalogue_is_made_here():
    assert set(NAMES) == set(made_folders.MAKERS) <= set(catalogue.FROM_FILES)


@pytest.mark.parametrize("name", NAMES)
def test_everybody_is_counted_once(made, name):
    found = made.summaries[name]
    assert found == Summary(**{**vars(SUMMARIES[name]), "first": found.first})
    assert found.first.keys() == found.skipped.keys()
    assert all("annotation" in line and "\n" not in line for line in found.first.values())


@pytest.mark.parametrize("name", NAMES)
def test_made_twice_it_has_the_same_bytes(made, name, tmp_path):
    prepare(made.sources[name], tmp_path, workers=0)
    once, again = (test_preparing.contents(folder / name) for folder in (made.data_dir, tmp_path))
    assert once == again and len(once) > 2


@pytest.mark.parametrize("name", NAMES)
def test_killed_half_way_it_goes_on(made, name, tmp_path, monkeypatch):
    """A run that dies at its second chunk leaves the first; the next makes the rest, and the same bytes."""
    one_a_chunk = dataclasses.replace(made.sources[name], units_a_chunk=1)
    prepare_chunk, done = preparing.prepare_chunk, []

    def dying(chunk):
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(chunk.path)
        return prepare_chunk(chunk)

    monkeypatch.setattr(preparing, "prepare_chunk", dying)
    with pytest.raises(KeyboardInterrupt):
        prepare(one_a_chunk, tmp_path, workers=0)
    monkeypatch.setattr(preparing, "prepare_chunk", lambda chunk: done.append(chunk.path) or prepare_chunk(chunk))
    prepare(one_a_chunk, tmp_path, workers=0)
    assert len(set(done)) == len(done) > 2
    assert test_preparing.contents(tmp_path / name) == test_preparing.contents(made.data_dir / name)


@pytest.mark.parametrize("name", NAMES)
def test_a_photograph_that_changes_makes_another_data_set(made, name, tmp_path):
    folder = made_folders.MAKERS[name](tmp_path / name)
    source = catalogue.source_of(name, Files(str(folder), image_size=SIZE))
    assert source.digest() == made.sources[name].digest()
    photograph = next(path for path in sorted(folder.rglob("*.jpg")))
    photograph.write_bytes(photograph.read_bytes() + b" ")
    assert source.digest() != made.sources[name].digest()
    with pytest.raises(InputError, match="made from other files"):
        prepare(source, made.data_dir, workers=0)


@pytest.mark.parametrize("name", NAMES)
def test_people_are_loaded_without_truth_and_smaller_on_request(made, name):
    split = "train+valminusminival" if name == "densepose_coco" else "train"
    people = people_lib.load_people(made.builders[name], split, with_truth=True, image_size=SIZE // 2)
    assert people.truth is None
    assert people.images.shape == (6, SIZE // 2, SIZE // 2, 3)
    assert people.observations.point_confidence.shape == (6, 200)
    with pytest.raises(InputError, match="crops have 64 px, 65 are asked for"):
        people_lib.load_people(made.builders[name], "train", image_size=SIZE + 1)


def test_pictures_beyond_the_budget_are_decoded_in_threads_to_the_same_pixels(made, monkeypatch):
    held = people_lib.load_people(made.builders["iuv_folder"], "train").images
    monkeypatch.setattr(people_lib, "IMAGES_IN_MEMORY_BYTES", 0)
    lazy = people_lib.load_people(made.builders["iuv_folder"], "train").images
    assert not isinstance(lazy, np.ndarray)
    order = np.random.default_rng(0).integers(0, len(held), (20, 4))
    for rows, batch in zip(order, batches.decoded(lazy, order, threads=4), strict=True):
        np.testing.assert_array_equal(batch, held[rows])


def test_the_prepared_person_is_the_annotated_one(made):
    """What the loop reads of a data set is what `register` reads of the same annotation file."""
    folder = made.root / "coco_folder"
    annotated = read_annotations(folder / "test.json", folder / "images")
    direct = observation.observe_all(annotated.people, body_chart(load.load_body()))
    stored = people_lib.load_people(made.builders["coco_folder"], "test")
    assert list(stored.names) == [f"{one.file_name}#{one.annotation_id}" for one in annotated.people]
    for name in ("point_position", "point_face", "point_barycentric", "point_confidence", "box_px"):
        found, wanted = getattr(stored.observations, name), getattr(direct, name)
        used = direct.point_confidence[:, : found.shape[1]] > 0
        if name != "box_px":
            found, wanted = found[used], wanted[:, : found.shape[1]][used]
        np.testing.assert_allclose(found, wanted, atol=FLOAT32_PX, err_msg=name)
    np.testing.assert_array_equal(stored.observations.keypoint_confidence, direct.keypoint_confidence)
    crops = [
        photographs.crop(photographs.read_picture(annotated.photograph(one), one.picture_size), one.crop_px, SIZE)
        for one in annotated.people
    ]
    assert np.abs(stored.images.astype(int) - np.stack(crops)).max() <= PNG_STEP_GREY


def test_labels_and_photographs_that_lie_apart_are_told_how_to_meet(tmp_path):
    mine, labels = tmp_path / "mine", made_folders.coco_folder(tmp_path / "whole") / "train.json"
    mine.mkdir()
    for source, told in ((labels, "is a file, a folder is needed"), (mine, r"has no train\.json .*ln -s LABELS\.json")):
        with pytest.raises(InputError, match=told):
            catalogue.source_of("coco_folder", Files(str(source))).splits()
    (mine / "train.json").symlink_to(labels)
    with pytest.raises(InputError, match=r"holds no photographs; if they lie elsewhere: ln -s PHOTOGRAPHS .*images"):
        catalogue.source_of("coco_folder", Files(str(mine))).splits()
    (mine / "images").symlink_to(tmp_path / "whole" / "images")
    assert catalogue.source_of("coco_folder", Files(str(mine))).splits().keys() == {"train"}


def test_tracks_keep_their_time(made):
    examples = list(made.examples("densepose_posetrack").values())
    seen = [(one["video"], one["subject"], one["frame"]) for one in examples]
    track = [(b"000342", b"track 000000", frame) for frame in (0, 1, 2)]
    assert seen == track + [(video, b"track 000001", frame) for video, _, frame in track]


def test_posetrack_s_key_points_are_told_by_their_names(made):
    one = made.examples("densepose_posetrack")["images/train/000342_mpii_train/000000.jpg#10"]
    given = np.reshape(made_folders._posetrack_keypoints(10), (17, 3))
    assert one["keypoint_set"] == b"body_25b"
    for name, posetrack in (("head_top", "head_top"), ("upper_neck", "head_bottom"), ("left_ankle", "left_ankle")):
        joint, row = skeleton.BODY_25B_NAMES.index(name), made_folders.POSETRACK_NAMES.index(posetrack)
        np.testing.assert_allclose(one["keypoints_px"][joint], given[row, :2])
        assert one["keypoint_visible"][joint] == 2


def test_part_masks_lie_over_the_box(made):
    one = made.examples("densepose_coco")["COCO_train2014_000000000001.jpg#1"]
    mask = np.asarray(PIL.Image.open(io.BytesIO(one["mask"])))
    centre = observation.px_from_crop(_pixel_centres(SIZE)[None], one["box_px"][None])[0].reshape(SIZE, SIZE, 2)
    x, y, width, height = made_folders.BOX
    across, down = (centre[..., 0] - x) / width, (centre[..., 1] - y) / height
    inside = (across > 0) & (across < 1)
    torso = inside & (down > 0) & (down < 0.5)
    leg = inside & (across < 0.5) & (down > 0.5) & (down < 1)
    np.testing.assert_array_equal(mask, np.where(torso, 1, np.where(leg, 6, 0)))


def test_a_silhouette_stands_where_there_are_no_part_masks(made):
    examples = made.examples("coco_folder")
    mask = np.asarray(PIL.Image.open(io.BytesIO(examples["000000000004.jpg#4"]["mask"])))
    share = made_folders.BOX[2] * made_folders.BOX[3] / examples["000000000004.jpg#4"]["box_px"][2] ** 2
    assert set(np.unique(mask)) == {0, 255} and abs((mask > 0).mean() - share) < 2 / SIZE
    assert examples["000000000005.jpg#5"]["mask"] == b""


def _pixel_centres(size: int) -> np.ndarray:
    centre = (np.arange(size) + 0.5) / size * 2 - 1
    return np.stack(np.meshgrid(centre, centre), axis=-1).reshape(-1, 2)


def test_a_crop_over_the_border_is_black_there(made):
    one = made.examples("densepose_coco")["COCO_train2014_000000000004.jpg#5"]
    image = people_lib.decode(one["image"])
    right_of_the_photograph = int((100 - one["box_px"][0]) / one["box_px"][2] * SIZE) + 2
    assert image[:, right_of_the_photograph:].max() < PNG_STEP_GREY
    assert image[:40, : right_of_the_photograph - 4].max() > 100


def test_grey_photographs_get_three_equal_channels(made):
    image = people_lib.decode(made.examples("densepose_coco")["COCO_train2014_000000000005.jpg#6"]["image"])
    assert image.shape == (SIZE, SIZE, 3) and (image == image[..., :1]).all()


def test_key_points_go_to_the_person_that_they_lie_on(made):
    examples = made.examples("iuv_folder")
    nose = skeleton.BODY_25B_NAMES.index("nose")
    np.testing.assert_array_equal(examples["a.jpg#1"]["keypoints_px"][nose], [20, 60])
    np.testing.assert_array_equal(examples["a.jpg#2"]["keypoints_px"][nose], [70, 60])
    assert not examples["b.jpg#1"]["keypoint_visible"].any()


def test_predictions_keep_their_map_and_own_pixels(made):
    one = made.examples("iuv_folder")["a.jpg#2"]
    iuv, mask = (np.asarray(PIL.Image.open(io.BytesIO(one[name]))) for name in ("iuv", "mask"))
    np.testing.assert_array_equal(mask > 0, iuv[..., 0] > 0)
    used = one["point_confidence"] > 0
    place = observation.crop_from_px(one["point_px"][used], one["box_px"])
    column, row = np.floor((place + 1) / 2 * SIZE).astype(int).T
    part = np.asarray(load.load_body().part)[one["point_face"][used]]
    around = np.stack(
        [iuv[row + down, column + across, 0] for down in (-1, 0, 1) for across in (-1, 0, 1)]
    )  # a crop's pixel holds several of the picture's and takes the middle one's part
    assert (around == part).any(axis=0).all()


def test_what_is_missing_is_told_in_one_line(tmp_path):
    for name in NAMES:
        with pytest.raises(InputError, match="nowhere: no such folder"):
            catalogue.source_of(name, Files(str(tmp_path / "nowhere"))).digest()
        (tmp_path / name).mkdir()
        with pytest.raises(InputError) as caught:
            catalogue.source_of(name, Files(str(tmp_path / name))).splits()
        assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)
        with pytest.raises(InputError, match="--source=DIR"):
            catalogue.source_of(name, Files(""))
    with pytest.raises(InputError, match="--dataset=mnist: no such data set; there are synthetic_people/RECIPE"):
        catalogue.source_of("mnist", Files(""))


def test_without_files_what_is_prepared_is_opened_on_its_own_body_alone(made, tmp_path):
    opened = catalogue.open_prepared("coco_folder", Files(""), made.data_dir)
    assert opened.info.splits["train"].num_examples == 6
    body = tmp_path / "body.npz"
    body.write_bytes(b"another")
    with pytest.raises(InputError, match="another body"):
        catalogue.open_prepared("coco_folder", Files("", body=str(body)), made.data_dir)


@annotation_files.needs_real_data
def test_real_people_of_densepose_coco(tmp_path):
    """The two real people, whose photographs are not at hand: made-up ones stand in; points and chart are real."""
    content = json.loads(annotation_files.real("densepose_coco/densepose_coco_2014_train.boxed.json").read_text())
    for image in content["images"]:
        image["file_name"] = f"COCO_train2014_{image['id']:012d}.jpg"
        (tmp_path / "train2014").mkdir(exist_ok=True)
        size = image["width"], image["height"]
        annotation_files.write_picture(tmp_path / "train2014" / image["file_name"], *size)
    annotation_files.write_json(tmp_path / "densepose_coco_2014_train.json", content)
    chart = str(annotation_files.real("chart/UV_Processed.mat"))
    files = Files(str(tmp_path), chart, image_size=SIZE)
    builder, summary = prepare(catalogue.source_of("densepose_coco", files), tmp_path / "data", workers=0)
    assert summary.prepared == {"train": 2} and not summary.skipped
    stored = people_lib.load_people(builder, "train").observations
    people = densepose.read(annotation_files.real("densepose_coco/densepose_coco_2014_train.boxed.json")).people
    direct = observation.observe_all(people, files.load_chart())
    np.testing.assert_array_equal(stored.point_face, direct.point_face[:, : stored.point_face.shape[1]])
    for one, person in zip(builder.as_data_source(split="train"), people, strict=True):
        mask = np.asarray(PIL.Image.open(io.BytesIO(one["mask"])))
        place = (observation.crop_from_px(person.point_px, person.crop_px) + 1) / 2 * SIZE
        column, row = np.floor(place).astype(int).T
        assert (mask[row, column] > 0).mean() > 0.9  # real points lie on real part masks


@annotation_files.needs_real_data
def test_a_real_photograph_with_its_prediction(tmp_path):
    for ending in (".jpg", "_IUV.png", "_INDS.png"):
        (tmp_path / f"demo_im{ending}").symlink_to(annotation_files.real(f"densepose_demo/demo_im{ending}"))
    files = Files(str(tmp_path), str(annotation_files.real("chart/UV_Processed.mat")), image_size=SIZE)
    _, summary = prepare(catalogue.source_of("iuv_folder", files), tmp_path / "data", workers=0)
    assert summary.prepared["train"] == 12
