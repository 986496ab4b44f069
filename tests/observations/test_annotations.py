import numpy as np
import PIL.Image
import pytest

from dal_jax.body.formats import load
from dal_jax.observations import annotations, observation
from dal_jax.observations.annotations import AnnotationFiles
from dal_jax.runtime.errors import InputError
from tests.observations import annotation_files

SIZE = 24


@pytest.fixture(scope="module")
def template():
    return load.load_body()


@pytest.fixture
def coco(tmp_path):
    """Two people on two photographs, one of them grey."""
    (tmp_path / "photos").mkdir()
    annotation_files.write_picture(tmp_path / "photos" / "10.jpg")
    PIL.Image.new("L", (100, 160), 90).save(tmp_path / "photos" / "20.jpg")
    content = annotation_files.content([annotation_files.entry(1), annotation_files.entry(2)])
    path = annotation_files.write_json(tmp_path / "people.json", content)
    return AnnotationFiles(annotations=str(path), images=str(tmp_path / "photos"))


@pytest.fixture
def iuv_folder(tmp_path):
    """Two IUV pictures with INDS and photographs."""
    for name, shift in (("a", 0), ("b", 20)):
        pixels, owner = np.zeros((80, 100, 3), np.uint8), np.zeros((80, 100), np.uint8)
        pixels[10:60, 10 + shift : 40 + shift] = (100, 100, 2)
        owner[10:60, 10 + shift : 40 + shift] = 3
        PIL.Image.fromarray(pixels).save(tmp_path / f"{name}_IUV.png")
        PIL.Image.fromarray(owner).save(tmp_path / f"{name}_INDS.png")
        annotation_files.write_picture(tmp_path / f"{name}.jpg", 100, 80)
    return tmp_path


def test_people_come_with_their_crops_and_no_truth(coco, template):
    people = annotations.load_annotations(coco, template, SIZE)
    assert people.images.shape == (2, SIZE, SIZE, 3) and people.images.dtype == np.uint8
    assert people.truth is None and people.names == ["10.jpg#1", "20.jpg#2"]
    assert people.observations.point_position.shape[0] == 2
    assert people.observations.point_confidence.sum(axis=1).tolist() == [6, 6]
    assert np.ptp(people.images[1].astype(int), axis=-1).max() == 0  # grey stays grey


def test_many_crops_stay_on_disk_and_decode_when_indexed(coco, template, monkeypatch):
    held = annotations.load_annotations(coco, template, SIZE).images
    monkeypatch.setattr(annotations, "IMAGES_IN_MEMORY_BYTES", 0)
    lazy = annotations.load_annotations(coco, template, SIZE).images
    assert not isinstance(lazy, np.ndarray) and len(lazy) == 2
    np.testing.assert_array_equal(lazy[1], held[1])
    np.testing.assert_array_equal(lazy[np.array([1, 0])], held[[1, 0]])
    np.testing.assert_array_equal(lazy[:1], held[:1])


def test_points_lie_on_the_pixels_they_were_annotated_on(coco, template):
    """The ramp's colour at an annotated point of the crop tells where in the photograph it was clicked."""
    people = annotations.load_annotations(coco, template, 96)
    kept = people.observations.point_confidence[0] > 0
    crop = people.observations.point_position[0][kept]
    column, row = np.floor((crop + 1) / 2 * 96).astype(int).T
    colour = people.images[0][row, column, :2].astype(float)
    place = observation.px_from_crop(crop[None], people.observations.box_px[:1])[0]
    expected = place * [255 / 100, 255 / 160]
    assert np.abs(colour - expected).max() < 8  # one pixel is 2.6 grey levels; JPEG adds some


def test_a_folder_of_iuv_pictures(iuv_folder, template):
    source = AnnotationFiles(annotations=str(iuv_folder), inds=str(iuv_folder), images=str(iuv_folder))
    people = annotations.load_annotations(source, template, SIZE)
    assert people.names == ["a.jpg#3", "b.jpg#3"]
    assert not people.observations.keypoint_confidence.any()
    found = annotations.read(source).people
    assert [(one.image_id, one.annotation_id) for one in found] == [(0, 3), (1, 3)]


def test_one_iuv_picture_with_its_photograph_by_name(iuv_folder):
    source = AnnotationFiles(
        annotations=str(iuv_folder / "a_IUV.png"), inds=str(iuv_folder / "a_INDS.png"), images=str(iuv_folder / "a.jpg")
    )
    (one,) = annotations.read(source).people
    assert one.file_name == "a.jpg" and annotations.picture_path(source, one) == iuv_folder / "a.jpg"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"annotations": ""}, "no annotation file"),
        ({"annotations": "absent.json"}, "absent.json: cannot be read"),
        ({"annotations": "absent.png"}, "absent.png"),
        ({"images": "nowhere"}, "nowhere: no such"),
        ({"images": ""}, "photographs"),
        ({"chart": "absent.mat"}, "absent.mat"),
    ],
)
def test_what_is_missing_is_named(coco, template, change, told):
    for name, value in change.items():
        setattr(coco, name, value)
    with pytest.raises(InputError, match=told) as caught:
        annotations.load_annotations(coco, template, SIZE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", ["absent", "cut off", "another size"])
def test_a_bad_photograph_is_named_and_can_be_skipped(coco, template, fault):
    folder = annotations.pathlib.Path(coco.images)
    if fault == "absent":
        (folder / "20.jpg").unlink()
    elif fault == "cut off":
        (folder / "20.jpg").write_bytes((folder / "10.jpg").read_bytes()[:700])
    else:
        PIL.Image.new("RGB", (50, 50)).save(folder / "20.jpg")
    with pytest.raises(InputError, match=r"annotation 2: .*20\.jpg"):
        annotations.read(coco)
    coco.skip_invalid = True
    assert annotations.load_annotations(coco, template, SIZE).names == ["10.jpg#1"]


def test_a_bad_picture_in_an_iuv_folder_can_be_skipped(iuv_folder):
    (iuv_folder / "a_IUV.png").write_bytes(b"no picture")
    source = AnnotationFiles(annotations=str(iuv_folder))
    with pytest.raises(InputError, match="a_IUV.png"):
        annotations.read(source)
    source.skip_invalid = True
    found = annotations.read(source)
    assert len(found.people) == 1 and found.summary() == "1 people, skipped 1: 1 unreadable picture"
