import warnings

import numpy as np
import pycocotools.mask
import pytest

from dal_jax.observations import masks
from dal_jax.observations.coco import BadEntry


def _encoded(mask: np.ndarray) -> dict:
    found = pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in found["size"]], "counts": found["counts"].decode()}


def test_run_lengths_are_read_as_pycocotools_writes_them():
    rng = np.random.default_rng(0)
    for share in (0.0, 0.02, 0.5, 0.98, 1.0):
        for _ in range(20):
            mask = rng.random(rng.integers(1, 60, 2)) < share
            np.testing.assert_array_equal(masks.decode(_encoded(mask), "mask"), mask)
    large = np.zeros((256, 256), bool)
    large[30:200, 40:222] = True
    np.testing.assert_array_equal(masks.decode(_encoded(large), "mask"), large)


def test_run_lengths_as_numbers():
    found = masks.decode({"size": [2, 3], "counts": [1, 2, 3]}, "mask")
    np.testing.assert_array_equal(found, [[False, True, False], [True, False, False]])


def test_polygons_are_filled_as_pycocotools_fills_them():
    rng = np.random.default_rng(1)
    for _ in range(20):
        shapes = [rng.uniform(-20, 80, 2 * rng.integers(3, 8)).tolist() for _ in range(rng.integers(1, 4))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its decode uses an interface that NumPy 2 is about to drop
            wanted = pycocotools.mask.decode(pycocotools.mask.frPyObjects(shapes, 40, 60)).any(axis=-1)
        np.testing.assert_array_equal(masks.segmentation(shapes, (60, 40)), wanted)


def test_made_up_run_lengths_are_refused_and_never_crash():
    """On most of these pycocotools itself ends the process."""
    rng = np.random.default_rng(2)
    good = _encoded(np.eye(256, dtype=bool))["counts"]
    read = refused = 0
    for trial in range(3000):
        letters = list(good)
        for _ in range(trial % 3):
            letters[rng.integers(len(letters))] = chr(rng.integers(48, 112))
        text = "".join(letters if trial % 2 else (chr(code) for code in rng.integers(0, 300, rng.integers(0, 40))))
        try:
            read += masks.decode({"size": [256, 256], "counts": text}, "mask").shape == (256, 256)
        except BadEntry as bad:
            refused += "\n" not in str(bad)
    assert read + refused == 3000 and read >= 500 and refused > 1500


@pytest.mark.parametrize(
    "wrong",
    [
        7, "text", [], {}, {"size": [2, 3]}, {"counts": [6]}, {"size": [2, 3], "counts": [5]},
        {"size": [2, 3], "counts": [7, -1]}, {"size": [2, 3], "counts": [6.0]}, {"size": [0, 3], "counts": []},
        {"size": [1 << 20, 1 << 20], "counts": [1 << 40]}, {"size": ["2", 3], "counts": [6]},
        {"size": [2, 3], "counts": None}, {"size": [2, 3], "counts": [True, 5]},
    ],
)  # fmt: skip
def test_what_is_no_mask_is_refused(wrong):
    with pytest.raises(BadEntry) as caught:
        masks.decode(wrong, "mask")
    assert caught.value.kind == "wrong mask"


def test_polygons_whose_borders_have_no_end_are_refused():
    """pycocotools walks along every border, with a hundred bytes a pixel, and does not look whether it got them."""
    to_and_fro = [9e4, 9e4, -9e4, -9e4] * 30
    for polygons in ([to_and_fro], [to_and_fro[:6]] * 9):
        with pytest.raises(BadEntry, match=r"borders of \d+ px in \(8, 8\) px"):
            masks.segmentation(polygons, (8, 8))
    assert masks.segmentation([to_and_fro[:6]], (8, 8)).shape == (8, 8)


def test_part_maps_and_segmentations_of_the_wrong_form_are_refused():
    two, three = _encoded(np.ones((2, 2), bool)), _encoded(np.ones((3, 2), bool))
    assert masks.part_map(None) is None and masks.part_map([]) is None and masks.part_map([[], []]) is None
    np.testing.assert_array_equal(masks.part_map([[], two]), np.full((2, 2), 2))
    for wrong in ("x", [two, three], [7], [two] * 15):
        with pytest.raises(BadEntry):
            masks.part_map(wrong)
    assert masks.segmentation([], (2, 2)) is None and masks.segmentation([[0, 0, 1, 1, 0, 1]], None) is None
    for wrong in ("x", three, [7], [[1, 2]], [[0, 0, 1, 1, 0, 1e9]], [[0, 0, 1, 1, 0, float("nan")]], [[[0, 0]]]):
        with pytest.raises(BadEntry):
            masks.segmentation(wrong, (2, 2))


def test_a_region_holds_what_is_inside():
    entry = {"x": [[0, 4, 4, 0], [10, 12, 10]], "y": [[0, 0, 4, 4], [0, 0, 8]]}
    found = masks.regions(entry, "x", "y")
    for point, inside in (((2, 2), True), ((5, 2), False), ((10.5, 1), True), ((11.9, 7), False), ((2, 5), False)):
        assert masks.hold(found, np.array(point, float)) == inside
    assert not masks.hold(found, None) and not masks.hold(masks.regions({}, "x", "y"), np.zeros(2))
    for wrong in ({"x": [[0]], "y": 65}, {"x": [[0, 1]], "y": [[0]]}, {"x": [[0, "a"]], "y": [[0, 1]]}, {"x": [1]}):
        with pytest.raises(BadEntry):
            masks.regions(wrong, "x", "y")
