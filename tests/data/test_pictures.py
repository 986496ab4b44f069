import io

import numpy as np
import PIL.Image
import pytest

from dal_jax.correspondences import observations
from dal_jax.data import pictures
from dal_jax.runtime import errors

GREY_LEVEL = 2.0  # of 255: rounding to 8 bits, twice


def _ramp(width=120, height=90):
    y, x = np.mgrid[:height, :width] + 0.5
    return np.stack([2 * x, 2 * y, 0 * x], axis=-1).astype(np.uint8)


def test_crop_and_observation_agree_on_where_things_are():
    """The colour of a crop's pixel tells its place in the photograph; `px_from_crop` must say the same."""
    box = np.array([20.25, 11.5, 60.0, 60.0])
    size = 48
    cut = pictures.crop(_ramp(), box, size)
    centre = (np.arange(size) + 0.5) / size * 2 - 1
    grid = np.stack(np.meshgrid(centre, centre), axis=-1).reshape(-1, 2)
    place = observations.px_from_crop(grid, box).reshape(size, size, 2)
    inner = slice(2, -2)
    error = cut[inner, inner, :2] - 2 * place[inner, inner]
    assert np.abs(error).max() <= GREY_LEVEL


def test_labels_are_cut_where_the_pixels_are_and_never_blended():
    """Over a map of part of the photograph each pixel of the crop has its centre's label, and 0 beyond it."""
    labels = np.arange(1, 13, dtype=np.uint8).reshape(3, 4)
    labels_box, box, size = np.array([10.0, 20.0, 40.0, 30.0]), np.array([5.0, 10.0, 50.0, 50.0]), 25
    found = pictures.crop_labels(labels, labels_box, box, size)
    for row in range(size):
        for column in range(size):
            x, y = 5 + (column + 0.5) * 2, 10 + (row + 0.5) * 2
            inside = 10 <= x < 50 and 20 <= y < 50
            wanted = labels[int((y - 20) // 10), int((x - 10) // 10)] if inside else 0
            assert found[row, column] == wanted
    colours = np.stack([labels, labels + 50], axis=-1)
    np.testing.assert_array_equal(pictures.crop_labels(colours, labels_box, box, size)[..., 0], found)


def test_one_pixel_of_colour_makes_a_picture_coloured():
    pixels = np.full((90, 120, 3), 77, np.uint8)
    assert pictures.is_grey(pixels)
    pixels[33, 47, 2] += 1
    assert not pictures.is_grey(pixels) and not pictures.is_grey(_ramp())


def test_stored_pictures_come_back():
    for encode, tolerance in ((pictures.png, 0), (pictures.jpeg, 3)):  # JPEG at quality 95 on a smooth ramp
        with PIL.Image.open(io.BytesIO(encode(_ramp()))) as picture:
            assert np.abs(np.asarray(picture, int) - _ramp()).max() <= tolerance


def test_a_box_over_the_border_is_black_beyond_it():
    cut = pictures.crop(np.full((50, 50, 3), 200, np.uint8), np.array([-50.0, -50.0, 100.0, 100.0]), 20)
    assert cut.shape == (20, 20, 3)
    assert not cut[:9, :].any() and not cut[:, :9].any()
    assert (cut[12:, 12:] == 200).all()  # the cubic filter reaches two pixels over the border


@pytest.mark.parametrize("box", [[0, 0, 0, 0], [0, 0, 1e6, 1e6], [0, 0, np.nan, np.nan]])
def test_an_absurd_box_is_refused(box):
    with pytest.raises(errors.InputError):
        pictures.crop(_ramp(), np.array(box, float), 8)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK", "I;16"])
def test_any_kind_of_picture_comes_back_as_rgb(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    PIL.Image.new(mode, (12, 8)).save(path)
    pixels = pictures.read_picture(path)
    assert pixels.shape == (8, 12, 3) and pixels.dtype == np.uint8


def test_exif_turns_the_picture_unless_the_annotation_was_made_without(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: stored lying, to be turned by a quarter
    PIL.Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert pictures.read_picture(tmp_path / "a.jpg").shape == (40, 20, 3)
    assert pictures.read_picture(tmp_path / "a.jpg", (20, 40)).shape == (40, 20, 3)
    assert pictures.read_picture(tmp_path / "a.jpg", (40, 20)).shape == (20, 40, 3)


def test_wrong_files_are_named(tmp_path):
    good = tmp_path / "good.png"
    PIL.Image.fromarray(_ramp()).save(good)
    cut = tmp_path / "cut.png"
    cut.write_bytes(good.read_bytes()[:200])
    for path, size, told in (
        (tmp_path / "absent.png", None, "absent.png: .*no such file"),
        (cut, None, "cut.png: cannot be read"),
        (tmp_path, None, "cannot be read"),
        (good, (10, 10), "120x90 px, but its annotation is for 10x10"),
    ):
        with pytest.raises(errors.InputError, match=told) as caught:
            pictures.read_picture(path, size)
        assert "\n" not in str(caught.value)
