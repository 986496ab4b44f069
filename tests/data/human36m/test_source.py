"""A tiny release recorded by both routes: what is stored is what is true of it; damage is counted, and named."""

import dataclasses
import pathlib
import pickle
import shutil
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
from scipy.spatial.transform import Rotation

from dal_jax.body.formats import load
from dal_jax.data.files import Files
from dal_jax.data.human36m import mosh, release
from dal_jax.data.human36m.source import human36m
from dal_jax.data.people import load_people, load_truth
from dal_jax.data.preparing import prepare
from dal_jax.observations import human36m_cameras as cameras
from dal_jax.runtime.errors import InputError
from tests.data.human36m import release as release_lib

POINT_PX = 0.5  # float32 joints in the files, a body placed by their least squares
GREY = 4  # levels: H.264, then JPEG
FLOAT32_MM = 0.01
SURFACE_M = 0.02  # a pixel of an IUV picture, and its u and v in steps of 1/255

FRAMES = (0, 5, 10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("human36m")


@pytest.fixture(scope="module")
def recorded(folder):
    return release_lib.write(folder / "h36m")


@pytest.fixture(scope="module")
def own_files(folder, recorded):
    return Files(str(folder / "h36m"), image_size=48)


@pytest.fixture(scope="module")
def source(own_files):
    return human36m(own_files)


def _at(folder, **options):
    """Return a source like that of the fixture in another folder."""
    return human36m(Files(str(folder), image_size=48), **options)


@pytest.fixture(scope="module")
def prepared(folder, source):
    return prepare(source, folder / "data", workers=0)


def _seen(recorded, subject):
    """Return the true bodies' vertices before the camera of a subject, millimetres."""
    template = load.load_body()
    vertices = np.stack(list(mosh._bodies(template, recorded.root, recorded.pose))) + recorded.trans[:, None]
    poses, _ = release_lib.camera_numbers()
    placed = poses[cameras.NAMES.index(release_lib.CAMERA), subject - 1]
    return (1000 * vertices - placed[3:]) @ Rotation.from_euler("XYZ", placed[:3]).as_matrix().T


def test_everybody_is_recorded_and_the_corrupt_video_is_left_out(prepared):
    builder, summary = prepared
    assert summary.prepared == {"train": 3, "test": 3}
    assert summary.skipped == {"video known to be bad": 1} and not summary.noted
    assert "S11/Directions.54138969: left out: the video is damaged" in summary.first.values()
    assert set(builder.info.splits) == {"train", "test"}


def test_what_is_stored_is_what_is_true(prepared, recorded, own_files):
    builder, _ = prepared
    people = load_people(builder, "train", with_truth=True)
    assert list(people.names) == [f"S1_Photo 1.54138969_{frame:06d}" for frame in FRAMES]
    examples = list(builder.as_data_source("train"))
    assert [one["action"].decode() for one in examples] == ["Photo"] * 3
    assert [(one["video"].decode(), int(one["frame"])) for one in examples] == [
        ("S1/Photo 1.54138969", frame) for frame in FRAMES
    ]
    folder = own_files.folder / "S1" / "MyPoseFeatures"
    mono = release.read_joints(folder / "D3_Positions_mono" / "Photo 1.54138969.cdf", 3)[list(FRAMES)]
    pixels = release.read_joints(folder / "D2_Positions" / "Photo 1.54138969.cdf", 2)[list(FRAMES)]
    assert people.truth.joints_h36m_mm == pytest.approx(mono, abs=FLOAT32_MM)
    assert people.truth.joints_mm is None and people.truth.vertices_mm is None, "unknown, not zero"
    assert np.isnan(examples[0]["truth_joints_mm"]).all() and np.isnan(examples[0]["truth_pose"]).all()
    assert np.stack([one["keypoints_px"][:17] for one in examples]) == pytest.approx(pixels, abs=1e-3)
    for image, frame in zip(people.images, FRAMES, strict=True):
        inside = image[16:32, 16:32].astype(int)  # the crop's middle is inside the picture
        assert np.abs(inside - release_lib.grey_of(frame)).max() <= GREY


def test_dense_points_are_where_the_true_bodies_are(prepared, recorded):
    builder, _ = prepared
    lens = cameras.published()[release_lib.CAMERA]
    faces = np.asarray(load.load_body().faces)
    for split, subject in (("train", 1), ("test", 9)):
        for example in builder.as_data_source(split):
            used = example["point_confidence"] > 0
            assert 100 <= used.sum() <= 150
            corners = _seen(recorded, subject)[example["frame"]][faces[example["point_face"][used]]]
            points = np.einsum("pc,pcx->px", example["point_barycentric"][used], corners)
            assert example["point_px"][used] == pytest.approx(lens.project(points), abs=POINT_PX)


def test_without_mono_positions_the_metadata_places_the_camera(own_files, prepared, tmp_path):
    root = tmp_path / "h36m"
    shutil.copytree(own_files.folder, root)
    for mono in root.glob("*/MyPoseFeatures/D3_Positions_mono"):
        shutil.rmtree(mono)
    blind = _at(root)
    with pytest.raises(InputError, match=r"h36m: no D3_Positions_mono; D3_Positions need metadata.xml"):
        prepare(blind, tmp_path / "none", workers=0)
    release_lib.write_metadata(root / "metadata.xml")
    builder, _ = prepare(blind, tmp_path / "data", workers=0)
    truth = load_truth(builder, "test").joints_h36m_mm
    assert truth == pytest.approx(load_truth(prepared[0], "test").joints_h36m_mm, abs=FLOAT32_MM)
    one = builder.as_data_source("test")[0]
    assert one["moment"].decode() == f"S9 Directions {one['frame']}"
    _, stood = cameras.read_metadata(root / "metadata.xml")
    wanted = stood["S9", release_lib.CAMERA] * [1, 1, 1, 1e-3]
    np.testing.assert_allclose(one["extrinsics_m"], wanted, rtol=1e-6)
    plain = prepared[0].as_data_source("test")[0]
    assert plain["moment"] == b"" and np.isnan(plain["extrinsics_m"]).all()


def _write_iuv(path, vertices_mm):
    """Write what a perfect DensePose would predict of a body, as OpenCV writes it: the part last."""
    template = load.load_body()
    lens = cameras.published()[release_lib.CAMERA]
    x, y = np.meshgrid(np.arange(release_lib.SIZE[0]) + 0.5, np.arange(release_lib.SIZE[1]) + 0.5)
    outline = lens.project(vertices_mm)
    low, high = np.floor(outline.min(axis=0)).astype(int), np.ceil(outline.max(axis=0)).astype(int)
    window = np.s_[max(low[1], 0) : high[1], max(low[0], 0) : high[0]]
    cast = mosh._caster(vertices_mm / 1000, np.asarray(template.faces), lens)
    hits = cast(np.stack([x, y], axis=-1)[window])
    picture = np.zeros((*x.shape, 3), np.uint8)
    uv = np.einsum("hwc,hwcd->hwd", hits.barycentric, np.asarray(template.uv)[hits.face])
    picture[window][..., 2] = np.where(hits.mask, np.asarray(template.part)[hits.face], 0)
    picture[window][..., :2] = np.where(hits.mask[..., None], np.round(255 * uv[..., ::-1]), 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(picture).save(path)


def test_predictions_of_densepose_are_the_other_route(own_files, recorded, tmp_path):
    root = tmp_path / "h36m"
    shutil.copytree(own_files.folder, root)
    for subject, stem in ((1, "Photo 1"), (9, "Directions")):
        seen = _seen(recorded, subject)
        place = root / "iuv" / f"S{subject}" / f"{stem}.54138969"
        for frame in (0, 5)[: 2 if subject == 1 else 1]:
            _write_iuv(place / f"frame_{frame:06d}_IUV.png", seen[frame])
    PIL.Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(place / "frame_000005_IUV.png")
    with pytest.raises(InputError, match="has folders mosh and iuv; name one by --dense"):
        _at(root).splits()
    builder, summary = prepare(_at(root, dense="iuv"), tmp_path / "data", workers=0)
    assert summary.prepared == {"train": 2, "test": 1}
    assert summary.noted == {"frame without a prediction": 2, "frame in which the network found no person": 1}
    template = load.load_body()
    example = builder.as_data_source("train")[1]
    used = example["point_confidence"] > 0
    cast = mosh._caster(_seen(recorded, 1)[5] / 1000, np.asarray(template.faces), cameras.published()["54138969"])
    hits = cast(example["point_px"][used])
    corners = np.asarray(template.vertices)[np.asarray(template.faces)]
    places = [
        np.einsum("pc,pcx->px", weight, corners[face])
        for face, weight in (
            (hits.face, hits.barycentric), (example["point_face"][used], example["point_barycentric"][used])
        )
    ]  # fmt: skip
    assert used.sum() > 100
    assert np.quantile(np.linalg.norm(places[0] - places[1], axis=1), 0.9) < SURFACE_M


def _no_parameters(root):
    (root / "mosh" / "S1" / "Photo 1.npz").unlink()


def _cut_video(root):
    path = root / "S1" / "Videos" / "Photo 1.54138969.mp4"
    path.write_bytes(path.read_bytes()[:5000])


def _short_video(root):
    release_lib.write_video(root / "S1" / "Videos" / "Photo 1.54138969.mp4", frames=7)


def _shrunk_video(root):
    release_lib.write_video(root / "S1" / "Videos" / "Photo 1.54138969.mp4", size=(500, 502))


def _other_camera(root):
    path = root / "S1" / "MyPoseFeatures" / "D2_Positions" / "Photo 1.54138969.cdf"
    release_lib.write_cdf(path, release.read_joints(path, 2) + 40.0)


def _other_moment(root):
    path = root / "mosh" / "S1" / "Photo 1.npz"
    entries = dict(np.load(path))
    entries["poses"][5] = np.random.default_rng(0).normal(0, 1.5, 72)
    np.savez(path, **entries)


class _Opener:
    """Would leave a mark if it were unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def _pickle_that_runs(root):
    _no_parameters(root)
    content = {"poses": _Opener(root / "mark"), "trans": np.zeros((11, 3))}
    (root / "mosh" / "S1" / "Photo 1.pkl").write_bytes(pickle.dumps(content))


@pytest.mark.parametrize(
    ("damage", "people", "kind", "message"),
    [
        (_no_parameters, 0, "unreadable file", "mosh/S1: no Photo 1{.npz,"),
        (_cut_video, 0, "unreadable file", "Photo 1.54138969.mp4: frame 0: cannot be read as a video"),
        (_shrunk_video, 0, "unreadable file", "Photo 1.54138969.mp4: 500x502 px, but the cameras' pictures have about"),
        (_other_camera, 0, "unreadable file", "D2_Positions/Photo 1.54138969.cdf: 57 px from the 3D joints"),
        (_other_moment, 2, "parameters do not fit", "Photo 1.npz: frame 5 of S1/Photo 1.54138969: joints are"),
        (_pickle_that_runs, 0, "unreadable file", "Photo 1.pkl: names '"),
    ],
)
def test_damage_is_counted_and_named(own_files, tmp_path, damage, people, kind, message):
    for name in ("S1", "mosh"):
        shutil.copytree(own_files.folder / name, tmp_path / name)
    damage(tmp_path)
    damaged = _at(tmp_path)
    items = [item for unit in damaged.splits()["train"] for item in damaged.read(unit)]
    rejected = [item for item in items if not isinstance(item, dict)]
    assert sum(isinstance(item, dict) for item in items) == people
    assert [item.kind for item in rejected] == [kind]
    assert message in rejected[0].message and "\n" not in rejected[0].message
    assert not (tmp_path / "mark").exists()


def test_a_video_that_ends_early_leaves_out_the_frames_beyond(own_files, tmp_path):
    for name in ("S1", "mosh"):
        shutil.copytree(own_files.folder / name, tmp_path / name)
    _short_video(tmp_path)
    short = _at(tmp_path)
    items = [item for unit in short.splits()["train"] for item in short.read(unit)]
    assert [isinstance(item, dict) for item in items] == [True, True, False]
    assert items[2] == "frame beyond the video's end"


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({}, {"dense": "guess"}, "--dense=guess: one of mosh, iuv"),
        ({}, {"dense": "iuv"}, "h36m: no folder iuv in it"),
        ({}, {"smpl": "nowhere.npz"}, "nowhere.npz: "),
        ({"body": "nowhere.npz"}, {}, "nowhere.npz: "),
        ({"source": "nowhere"}, {}, "nowhere: no such folder"),
    ],
)
def test_wrong_options_end_the_run_before_it_begins(own_files, files, options, message):
    with pytest.raises(InputError) as caught:
        human36m(dataclasses.replace(own_files, **files), **options).splits()
    assert message in str(caught.value)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(InputError, match="no folder mosh or iuv in it"):
        _at(tmp_path).splits()
    (tmp_path / "mosh").mkdir()
    with pytest.raises(InputError, match="no video S1/Videos"):
        _at(tmp_path).splits()


def test_the_digest_follows_files_and_options(source, own_files, tmp_path):
    assert source.digest() == human36m(own_files).digest()
    assert source.digest() != human36m(own_files, frame_step=2).digest()
    shutil.copytree(own_files.folder, tmp_path / "h36m")
    assert source.digest() == _at(tmp_path / "h36m").digest()
    release_lib.write_metadata(tmp_path / "h36m" / "metadata.xml")
    assert source.digest() != _at(tmp_path / "h36m").digest()


def test_the_binary_records_it_and_says_who_was_left_out(own_files, tmp_path):
    command = [sys.executable, "-m", "experiments.prepare_data", "--dataset=human36m", "--workers=0"]
    command += [f"--source={own_files.source}", f"--data_dir={tmp_path}", "--image_size=48", "--frame_step=10"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 train, 2 test people" in done.stdout
    assert "prepared 4, skipped 1: 1 video known to be bad" in done.stdout
    assert "S11/Directions.54138969: left out: the video is damaged" in done.stderr
