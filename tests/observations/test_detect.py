"""People found in photographs alone: where OpenPose sees them, each once; what is wrong is one line."""

import pathlib

import numpy as np
import PIL.Image
import pytest

import dal_jax as dal
from dal_jax.body import skeleton
from dal_jax.observations import detect, photographs
from dal_jax.runtime.errors import InputError
from tests.observations import annotation_files

pytest.importorskip("mediapipe", exc_type=ImportError)

_APART = 0.05  # of the person's height: what two detectors and their conventions disagree by
_LIMBS = [
    skeleton.BODY_25B_NAMES.index(f"{side}_{name}")
    for name in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    for side in ("left", "right")
]


def _real(name: str) -> pathlib.Path:
    return pathlib.Path(annotation_files.real(name))


def _model() -> pathlib.Path:
    return _real("pose_landmarker_full.task")


@pytest.fixture(scope="module", autouse=True)
def needs_graphics_libraries(tmp_path_factory):
    """Skip, and say so, where MediaPipe is installed but libraries of the system that it wants are not."""
    folder = tmp_path_factory.mktemp("loads")
    PIL.Image.new("RGB", (64, 64)).save(folder / "a.png")
    (folder / "no.task").write_bytes(b"no model")
    try:
        dal.detect(folder, folder / "no.task")
    except InputError as error:
        if "cannot be loaded" in str(error):
            pytest.skip(str(error))


@annotation_files.needs_real_data
def test_a_person_is_found_where_another_detector_sees_it(tmp_path, capfd):
    folder = _real("several_cameras")
    with np.load(folder / "openpose_body25b.npz") as archive:
        expected = archive["keypoints_px"][1, 0, _LIMBS, :2]
    with PIL.Image.open(folder / "photographs" / "cam02_000.jpg") as picture:
        picture.save(tmp_path / "a.jpg", quality=95)
        PIL.Image.new("RGB", picture.size, "grey").save(tmp_path / "nobody.png")
    found = dal.detect(tmp_path, _model())
    (one,) = found.people
    height = np.ptp(expected[:, 1])
    assert np.linalg.norm(one.keypoints.position_px[_LIMBS] - expected, axis=1).max() < _APART * height
    assert one.keypoints.confidence[_LIMBS].tolist() == [1] * 12
    assert one.keypoints.flag[skeleton.BODY_25B_NAMES.index("head_top")] == 0  # is not detected
    assert np.all(one.bbox_px[:2] < expected.min(axis=0)) and one.picture_size == (1080, 1920)
    assert [entry.message for entry in found.rejected] == [f"{tmp_path}: nobody is found in nobody.png"]
    assert found.summary() == f"1 people, skipped 1: 1 {detect.NOBODY}"
    assert capfd.readouterr().err == ""  # MediaPipe's own log


@pytest.mark.slow
@annotation_files.needs_real_data
def test_frames_of_a_video_are_pictures():
    folder = _real("several_cameras")
    frames = dal.detect(folder / "videos" / "cam02.mp4", _model(), most_people=1)
    assert [entry.file_name for entry in frames.entries] == [f"cam02_{number:06d}" for number in range(100)]
    first, pixels = frames.people[0], photographs.read_picture(folder / "photographs" / "cam02_000.jpg")
    (same,) = dal.detect(folder / "photographs" / "cam02_000.jpg", _model()).people
    apart = np.linalg.norm(first.keypoints.position_px[_LIMBS] - same.keypoints.position_px[_LIMBS], axis=1)
    assert apart.max() < _APART * same.bbox_px[3]
    assert np.mean(np.abs(frames.reader()(first).astype(int) - pixels)) < 5
    with pytest.raises(InputError, match="does not say its focal length"):
        frames.focal_px(first)
    assert frames.focal_px(first, assume=True) == 1920


@annotation_files.needs_real_data
def test_two_people_of_one_photograph_are_two(tmp_path):
    with PIL.Image.open(_real("several_cameras") / "photographs" / "cam02_000.jpg") as picture:
        one = picture.crop((150, 300, 950, 1300))
        pair = PIL.Image.new("RGB", (1600, 1000))
        pair.paste(one, (0, 0))
        pair.paste(one, (800, 0))
        pair.save(tmp_path / "pair.jpg")
    people = sorted(dal.detect(tmp_path / "pair.jpg", _model()).people, key=lambda person: person.bbox_px[0])
    assert len(people) == 2 and {person.annotation_id for person in people} == {1, 2}
    np.testing.assert_allclose(people[1].bbox_px - people[0].bbox_px, (800, 0, 0, 0), atol=40)


def test_a_model_file_that_is_none_is_one_line(tmp_path):
    PIL.Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "no.task").write_bytes(b"no model")
    with pytest.raises(InputError, match="no.task: is no model of MediaPipe's Pose Landmarker") as caught:
        dal.detect(tmp_path, tmp_path / "no.task")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="absent.task: no such file; MediaPipe offers"):
        dal.detect(tmp_path, tmp_path / "absent.task")


@annotation_files.needs_real_data
def test_pictures_without_people_or_that_cannot_be_read_are_one_line(tmp_path):
    PIL.Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="nobody is found in 1 pictures"):
        dal.detect(tmp_path / "a.png", _model())
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match="b.jpg: cannot be read as a picture"):
        dal.detect(tmp_path, _model())
    (tmp_path / f"c{photographs.VIDEO_ENDINGS[0]}").write_bytes(b"no video")
    with pytest.raises(InputError, match="c.mp4: frame 0: cannot be read as a video"):
        dal.detect(tmp_path / "c.mp4", _model())
