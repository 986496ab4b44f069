"""DensePose's predictions in one file are what they are as IUV pictures."""

import base64
import dataclasses
import io
import json

import numpy as np
import PIL.Image
import pytest

from dal_jax.observations import iuv
from dal_jax.observations.annotations import read_annotations
from dal_jax.runtime.errors import InputError
from tests import damage
from tests.body.formats import test_torch_file
from tests.observations import annotation_files

ROUNDING_PX = 1e-4  # boxes are float32


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    annotation_files.write_picture(folder / "walk.jpg", 100, 80)
    annotation_files.write_picture(folder / "000000000139.jpg", 100, 80)
    return folder


def _dump(tmp_path, layout="archive"):
    path = tmp_path / "results.pkl"
    path.write_bytes(test_torch_file.WRITTEN[layout].tobytes())
    return path


def _png(pixels):
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, "PNG")
    return base64.encodebytes(stream.getvalue()).decode()


def _results(path, people, image_id: int | str = 139, **changes):
    """Write DensePose's results.json: (part, u, v) of each pixel of a box, and the box."""
    entries = [
        {
            "image_id": image_id,
            "category_id": 1,
            "bbox": box,
            "score": 0.95,
            "uv_shape": [3, *pixels.shape[:2]],
            "uv_data": _png(pixels),
        }
        | changes
        for pixels, box in people
    ]
    path.write_text(json.dumps(entries))
    return path


@pytest.mark.parametrize("layout", test_torch_file.LAYOUTS)
def test_a_dump_is_the_iuv_picture_of_its_boxes(tmp_path, photos, layout):
    made, (x1, y1, x2, y2) = test_torch_file.made()[0], test_torch_file.BOXES[0].astype(float)
    found = read_annotations(_dump(tmp_path, layout), photos)
    (one,) = found.people
    assert (one.file_name, one.picture_size, one.annotation_id) == ("walk.jpg", (100, 80), 1) and found.predicted
    assert found.notes == [f"{tmp_path / 'results.pkl'}: 1 people of a score below 0.8 are left out"]
    picture = np.concatenate([made["labels"][None], np.rint(made["uv"] * 255)])[::-1]
    picture = np.pad(np.moveaxis(picture, 0, -1), [(30, 20), (10, 15), (0, 0)]).astype(np.uint8)
    PIL.Image.fromarray(picture).save(tmp_path / "own_IUV.png")
    (own,) = iuv.read_iuv(tmp_path / "own_IUV.png").people
    own = dataclasses.replace(own, point_px=own.point_px - (10, 30), bbox_px=own.bbox_px - (10, 30, 0, 0))
    step = np.array([(x2 - x1) / 12, (y2 - y1) / 16])
    np.testing.assert_allclose(one.point_px, (x1, y1) + own.point_px * step, atol=ROUNDING_PX)
    np.testing.assert_allclose(
        one.bbox_px, [*((x1, y1) + own.bbox_px[:2] * step), *(own.bbox_px[2:] * step)], atol=ROUNDING_PX
    )
    np.testing.assert_array_equal(one.part, own.part)
    np.testing.assert_array_equal(one.uv, own.uv)


@annotation_files.needs_real_data
def test_results_json_of_real_predictions_has_the_people_of_the_iuv_picture(tmp_path):
    iuv_path, inds = (annotation_files.real(f"densepose_demo/demo_im_{name}.png") for name in ("IUV", "INDS"))
    pixels, owner = iuv.read_pictures(iuv_path, inds)
    wanted = iuv.people_of(pixels, owner, "", file_name="", image_id=0).people
    boxes = [tuple(one.bbox_px.astype(int).tolist()) for one in wanted]
    crops = []
    for one, (x, y, width, height) in zip(wanted, boxes, strict=True):
        inside = np.s_[y : y + height, x : x + width]
        crops.append(np.where((owner == one.annotation_id)[inside][..., None], pixels[inside][..., ::-1], 0))
    path = _results(tmp_path / "results.json", list(zip(crops, map(list, boxes), strict=True)), "demo_im.jpg")
    found = read_annotations(path, annotation_files.real("densepose_demo"))
    assert [one.file_name for one in found.people] == ["demo_im.jpg"] * len(wanted)
    for one, other in zip(found.people, wanted, strict=True):
        np.testing.assert_allclose(one.bbox_px, other.bbox_px)
        row, column = np.floor(one.point_px - 1e-6).astype(int)[:, ::-1].T
        assert (owner[row, column] == other.annotation_id).all()
        np.testing.assert_array_equal(pixels[row, column, 2], one.part)
        np.testing.assert_allclose(pixels[row, column, 1::-1] / 255, one.uv)
        assert len(one.part) > 0.95 * len(other.part)  # where people touch, one is not inside the other


def _pixels():
    made = test_torch_file.made()[1]
    return np.moveaxis(np.concatenate([made["labels"][None], np.rint(made["uv"] * 255)]), 0, -1).astype(np.uint8)


def test_pictures_of_results_json_are_matched_by_number(tmp_path, photos):
    path = _results(tmp_path / "results.json", [(_pixels(), [5, 6, 12, 16])])
    assert read_annotations(path, photos).people[0].file_name == "000000000139.jpg"
    assert read_annotations(path).people[0].image_id == 139
    with pytest.raises(InputError, match="there is no photograph 140"):
        read_annotations(_results(path, [(_pixels(), [5, 6, 12, 16])], 140), photos)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"bbox": [5, 6, 12]}, "entry 0: bbox is"),
        ({"bbox": [5, 6, 0, 16]}, "entry 0: bbox [5.0, 6.0, 0.0, 16.0] is less than 2 px wide or high"),
        ({"uv_shape": [3, 16, 13]}, "shape is [3, 16, 13], but its picture has (3, 16, 12)"),
        ({"uv_shape": None}, "entry 0: "),
        ({"uv_data": "?"}, "entry 0: "),
        ({"uv_data": _png(np.zeros((4, 4), np.uint8))}, "a picture in L, expected RGB"),
        ({"uv_data": _png(np.full((16, 12, 3), 25, np.uint8))}, "part is 25, a part is 0 to 24"),
        ({"uv_data": _png(np.zeros((16, 12, 3), np.uint8))}, "no pixel belongs to a person"),
        ({"score": 0.1}, "1 people of a score below 0.8 are left out"),
    ],
)
def test_a_bad_person_of_results_json_is_named(tmp_path, changes, told):
    path = _results(tmp_path / "results.json", [(_pixels(), [5, 6, 12, 16])], **changes)
    with pytest.raises(InputError) as caught:
        read_annotations(path)
    assert told in str(caught.value) and "results.json" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.",
            "names 'os.system', which no array needs: nothing of it was run",
        ),
        (b"\x80\x04N.", "holds a NoneType, expected what apply_net.py dump writes"),
        (b"PK\x03\x04", "not a readable file"),
        (
            b"\x80\x02]}X\x0e\x00\x00\x00pred_densepose"
            b"cdensepose.structures.cse\nDensePoseEmbeddingPredictorOutput\n)\x81sa.",
            "holds continuous surface embeddings (CSE)",
        ),
        (b"\x80\x02]}X\x0f\x00\x00\x00pred_boxes_XYXYNsa.", "holds boxes alone"),
    ],
)
def test_what_is_no_dump_is_told_and_never_run(tmp_path, content, told):
    path = tmp_path / "results.pkl"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_annotations(path)
    assert told in str(caught.value) and "results.pkl" in str(caught.value) and "\n" not in str(caught.value)


def test_a_dump_cut_short_is_refused(tmp_path):
    for layout in test_torch_file.LAYOUTS:
        path = _dump(tmp_path, layout)
        path.write_bytes(path.read_bytes()[:-900])
        with pytest.raises(InputError, match=r"results\.pkl"):
            read_annotations(path)


@pytest.mark.parametrize("layout", test_torch_file.LAYOUTS)
def test_a_damaged_dump_is_refused_or_read(tmp_path, layout):
    path = _dump(tmp_path, layout)
    assert damage.refusals(path, lambda: read_annotations(path), 200) > 20
