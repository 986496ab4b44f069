import numpy as np
import PIL.Image
import pytest

from dal_jax.body.formats import load
from dal_jax.observations import observation, photographs
from dal_jax.observations.annotations import read_annotations
from dal_jax.observations.chart import load_chart
from dal_jax.runtime.errors import InputError
from tests.observations import annotation_files


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
    return {"path": path, "images": tmp_path / "photos"}


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


def test_people_come_with_the_places_of_their_photographs_and_of_the_chart(coco):
    found = read_annotations(**coco, chart="UV_Processed.mat")
    assert [(one.file_name, one.annotation_id) for one in found.people] == [("10.jpg", 1), ("20.jpg", 2)]
    assert [found.photograph(one) for one in found.people] == [coco["images"] / "10.jpg", coco["images"] / "20.jpg"]
    assert found.chart == "UV_Processed.mat" and found.summary() == "2 people"


def test_points_lie_on_the_pixels_they_were_annotated_on(coco, template):
    """The ramp's colour at an annotated point of the crop tells where in the photograph it was clicked."""
    found = read_annotations(**coco)
    one = found.people[0]
    observed = observation.observe(one, load_chart("", template))
    image = photographs.crop(photographs.read_picture(found.photograph(one)), one.crop_px, 96)
    crop = observed.point_position[observed.point_confidence > 0]
    column, row = np.floor((crop + 1) / 2 * 96).astype(int).T
    colour = image[row, column, :2].astype(float)
    place = observation.px_from_crop(crop, observed.box_px)
    expected = place * [255 / 100, 255 / 160]
    assert np.abs(colour - expected).max() < 8  # one pixel is 2.6 grey levels; JPEG adds some


def test_a_folder_of_iuv_pictures(iuv_folder):
    found = read_annotations(iuv_folder, iuv_folder, inds=iuv_folder)
    assert [(one.file_name, one.image_id, one.annotation_id) for one in found.people] == [
        ("a.jpg", 0, 3), ("b.jpg", 1, 3)
    ]  # fmt: skip
    assert not any(one.keypoints.confidence.any() for one in found.people)


def test_photographs_below_the_folder_are_found_again(iuv_folder):
    (iuv_folder / "images").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (iuv_folder / name).rename(iuv_folder / "images" / name)
    found = read_annotations(iuv_folder, iuv_folder, inds=iuv_folder)
    assert all(found.photograph(one).is_file() for one in found.people)


def test_one_iuv_picture_with_its_photograph_by_name(iuv_folder):
    found = read_annotations(iuv_folder / "a_IUV.png", iuv_folder / "a.jpg", inds=iuv_folder / "a_INDS.png")
    (one,) = found.people
    assert one.file_name == "a.jpg" and found.photograph(one) == iuv_folder / "a.jpg"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"path": ""}, "no annotation file"),
        ({"path": "absent.json"}, "absent.json: no such file"),
        ({"path": "absent.png"}, "absent.png"),
        ({"images": "nowhere"}, "nowhere: no such"),
        ({"inds": "a_INDS.png"}, "a_INDS.png: INDS pictures belong to IUV pictures"),
    ],
)
def test_what_is_missing_is_named(coco, change, told):
    with pytest.raises(InputError, match=told) as caught:
        read_annotations(**coco | change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", ["absent", "cut off", "another size"])
def test_a_bad_photograph_is_named_and_can_be_skipped(coco, fault):
    folder = coco["images"]
    if fault == "absent":
        (folder / "20.jpg").unlink()
    elif fault == "cut off":
        (folder / "20.jpg").write_bytes((folder / "10.jpg").read_bytes()[:700])
    else:
        PIL.Image.new("RGB", (50, 50)).save(folder / "20.jpg")
    with pytest.raises(InputError, match=r"annotation 2: .*20\.jpg"):
        read_annotations(**coco)
    assert [one.file_name for one in read_annotations(**coco, skip_invalid=True).people] == ["10.jpg"]


def test_a_bad_picture_in_an_iuv_folder_can_be_skipped(iuv_folder):
    (iuv_folder / "a_IUV.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="a_IUV.png"):
        read_annotations(iuv_folder)
    found = read_annotations(iuv_folder, skip_invalid=True)
    assert len(found.people) == 1 and found.summary() == "1 people, skipped 1: 1 unreadable picture"
