import contextlib
import io
import struct
import zlib

import numpy as np
import PIL.ExifTags
import PIL.Image
import pytest

from dal_jax.observations import observation, photographs
from dal_jax.runtime.errors import InputError
from tests.data.human36m import release as made

GREY_LEVEL = 2.0  # of 255: rounding to 8 bits, twice


def _ramp(width=120, height=90):
    y, x = np.mgrid[:height, :width] + 0.5
    return np.stack([2 * x, 2 * y, 0 * x], axis=-1).astype(np.uint8)


def test_crop_and_observation_agree_on_where_things_are():
    """The colour of a crop's pixel tells its place in the photograph; `px_from_crop` must say the same."""
    box = np.array([20.25, 11.5, 60.0, 60.0])
    size = 48
    cut = photographs.crop(_ramp(), box, size)
    centre = (np.arange(size) + 0.5) / size * 2 - 1
    grid = np.stack(np.meshgrid(centre, centre), axis=-1).reshape(-1, 2)
    place = observation.px_from_crop(grid, box).reshape(size, size, 2)
    inner = slice(2, -2)
    error = cut[inner, inner, :2] - 2 * place[inner, inner]
    assert np.abs(error).max() <= GREY_LEVEL


def test_labels_are_cut_where_the_pixels_are_and_never_blended():
    """Over a map of part of the photograph each pixel of the crop has its centre's label, and 0 beyond it."""
    labels = np.arange(1, 13, dtype=np.uint8).reshape(3, 4)
    labels_box, box, size = np.array([10.0, 20.0, 40.0, 30.0]), np.array([5.0, 10.0, 50.0, 50.0]), 25
    found = photographs.crop_labels(labels, labels_box, box, size)
    for row in range(size):
        for column in range(size):
            x, y = 5 + (column + 0.5) * 2, 10 + (row + 0.5) * 2
            inside = 10 <= x < 50 and 20 <= y < 50
            wanted = labels[int((y - 20) // 10), int((x - 10) // 10)] if inside else 0
            assert found[row, column] == wanted
    colours = np.stack([labels, labels + 50], axis=-1)
    np.testing.assert_array_equal(photographs.crop_labels(colours, labels_box, box, size)[..., 0], found)


def test_one_pixel_of_colour_makes_a_picture_coloured():
    pixels = np.full((90, 120, 3), 77, np.uint8)
    assert photographs.is_grey(pixels)
    pixels[33, 47, 2] += 1
    assert not photographs.is_grey(pixels) and not photographs.is_grey(_ramp())


def test_stored_pictures_come_back():
    for encode, tolerance in ((photographs.png, 0), (photographs.jpeg, 3)):  # JPEG at quality 95 on a smooth ramp
        with PIL.Image.open(io.BytesIO(encode(_ramp()))) as picture:
            assert np.abs(np.asarray(picture, int) - _ramp()).max() <= tolerance


def test_a_box_over_the_border_is_black_beyond_it():
    cut = photographs.crop(np.full((50, 50, 3), 200, np.uint8), np.array([-50.0, -50.0, 100.0, 100.0]), 20)
    assert cut.shape == (20, 20, 3)
    assert not cut[:9, :].any() and not cut[:, :9].any()
    assert (cut[12:, 12:] == 200).all()  # the cubic filter reaches two pixels over the border


@pytest.mark.parametrize("box", [[0, 0, 0, 0], [0, 0, 1e6, 1e6], [0, 0, np.nan, np.nan]])
def test_an_absurd_box_is_refused(box):
    with pytest.raises(InputError):
        photographs.crop(_ramp(), np.array(box, float), 8)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK", "I;16"])
def test_any_kind_of_picture_comes_back_as_rgb(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    PIL.Image.new(mode, (12, 8)).save(path)
    pixels = photographs.read_picture(path)
    assert pixels.shape == (8, 12, 3) and pixels.dtype == np.uint8


def _photograph():
    """A smooth picture of all colours, wider than high, on which a turn or a wrong channel shows."""
    y, x = np.mgrid[:60, :80]
    pixels = np.stack([3 * x, 4 * y, 250 - 2 * x - y], axis=-1).clip(0, 255).astype(np.uint8)
    return PIL.Image.fromarray(pixels)


def _exif(orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return exif


ENCODINGS = {
    "jpg": (lambda p, path: p.save(path, quality=97), 3.0),
    "turned by a quarter.jpg": (
        lambda p, path: p.transpose(PIL.Image.Transpose.ROTATE_90).save(path, quality=97, exif=_exif(6)), 3.0
    ),
    "turned back.jpg": (
        lambda p, path: p.transpose(PIL.Image.Transpose.ROTATE_270).save(path, quality=97, exif=_exif(8)), 3.0
    ),
    "upside down.png": (lambda p, path: p.transpose(PIL.Image.Transpose.ROTATE_180).save(path, exif=_exif(3)), 0.0),
    "mirrored.png": (
        lambda p, path: p.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT).save(path, exif=_exif(2)), 0.0
    ),
    "rgba.png": (lambda p, path: p.convert("RGBA").save(path), 0.0),
    "palette.png": (lambda p, path: p.quantize(256).save(path), 12.0),
    "cmyk.jpg": (lambda p, path: p.convert("CMYK").save(path, quality=97), 6.0),
    "webp": (lambda p, path: p.save(path, lossless=True), 0.0),
}  # fmt: skip
"""How a photograph is stored, and by how many of 255 levels its crop may then be off: what that encoding loses."""


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_encoding_gives_the_same_crop(tmp_path, name):
    save, levels = ENCODINGS[name]
    path = tmp_path / (name if "." in name else f"a.{name}")
    save(_photograph(), path)
    box = np.array([11.5, 3.25, 50.0, 50.0])
    wanted = photographs.crop(np.asarray(_photograph()), box, 32).astype(int)
    found = photographs.crop(photographs.read_picture(path), box, 32).astype(int)
    assert np.abs(found - wanted).max() <= levels
    assert photographs.upright_size(path) == (80, 60)


@pytest.mark.parametrize("name", ["grey.png", "grey.jpg", "grey and alpha.png", "16 bit.png"])
def test_grey_pictures_of_any_depth_give_the_same_crop(tmp_path, name):
    grey = np.asarray(_photograph().convert("L"))
    stored = PIL.Image.fromarray(grey.astype(np.uint16) * 257 if "16" in name else grey)
    (stored.convert("LA") if "alpha" in name else stored).save(tmp_path / name)
    found = photographs.read_picture(tmp_path / name).astype(int)
    assert np.abs(found - grey[..., None]).max() <= (3 if name.endswith("jpg") else 0)


def test_what_is_transparent_is_black(tmp_path):
    cut_out = _photograph().convert("RGBA")
    cut_out.putalpha(PIL.Image.fromarray(np.where(np.arange(80) < 40, 255, 0).astype(np.uint8)[None].repeat(60, 0)))
    cut_out.save(tmp_path / "a.png")
    pixels = photographs.read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels[:, :40], np.asarray(_photograph())[:, :40])
    assert not pixels[:, 40:].any()


def test_exif_turns_the_picture_unless_the_annotation_was_made_without(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: stored lying, to be turned by a quarter
    PIL.Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert photographs.read_picture(tmp_path / "a.jpg").shape == (40, 20, 3)
    assert photographs.read_picture(tmp_path / "a.jpg", (20, 40)).shape == (40, 20, 3)
    assert photographs.read_picture(tmp_path / "a.jpg", (40, 20)).shape == (20, 40, 3)


def test_other_formats_are_refused_whatever_their_name(tmp_path):
    """Pillow would give PostScript to another program."""
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    PIL.Image.fromarray(_ramp()).save(tmp_path / "b.jpg", "TIFF")
    for name in ("a.jpg", "b.jpg"):
        for read in (photographs.read_picture, photographs.upright_size):
            with pytest.raises(InputError, match=f"{name}: cannot be read as a picture: is none of JPEG, PNG"):
                read(tmp_path / name)


def test_more_pixels_than_a_photograph_has_are_refused_before_they_are_unpacked(tmp_path):
    header = struct.pack(">IIBBBBB", 13300, 13300, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    content = b"".join(struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    for read in (photographs.read_picture, photographs.upright_size):
        with pytest.raises(InputError, match="a.png: cannot be read as a picture: 13300x13300 px, at most 50 million"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.bmp"])
def test_damage_anywhere_is_refused_or_harmless(tmp_path, name):
    rng, path = np.random.default_rng(0), tmp_path / name
    PIL.Image.fromarray(_ramp()).save(path)
    content = path.read_bytes()
    for _ in range(200):
        damaged = bytearray(content[: rng.integers(1, len(content) + 1)])
        for place in rng.integers(0, min(len(damaged), 200), rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(InputError):
            photographs.read_picture(path)


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
        with pytest.raises(InputError, match=told) as caught:
            photographs.read_picture(path, size)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("written", [26, None, 0, 10**6])
def test_the_focal_length_is_the_equivalent_on_film(tmp_path, written):
    """A 26 mm equivalent sees 79.5 degrees along the diagonal."""
    exif = PIL.Image.Exif()
    if written is not None:
        exif.get_ifd(PIL.ExifTags.IFD.Exif)[PIL.ExifTags.Base.FocalLengthIn35mmFilm] = written
    path = tmp_path / "a.jpg"
    PIL.Image.fromarray(_ramp()).save(path, exif=exif)
    if written == 26:
        half_angle = np.arctan(np.hypot(120, 90) / 2 / photographs.focal_px(path))
        assert np.degrees(2 * half_angle) == pytest.approx(79.5, abs=0.1)
    else:
        with pytest.raises(InputError, match=r"a\.jpg: its EXIF has .*give --focal_px, or take --camera=weak"):
            photographs.focal_px(path)


_GREY = 3  # what H.264 changes in a frame of one grey


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return made.write_video(tmp_path_factory.mktemp("clip") / "a.mp4", frames=8, size=(64, 48))


@pytest.mark.parametrize("step", [1, 3])
def test_every_frame_asked_for_is_the_one_that_was_encoded(clip, step):
    read = dict(photographs.frames(clip, step))
    assert list(read) == list(range(0, 8, step))
    for number, pixels in read.items():
        assert pixels.shape == (48, 64, 3)
        assert np.abs(pixels.astype(int) - made.grey_of(number)).max() <= _GREY


def test_a_damaged_video_is_one_line(tmp_path, clip):
    broken = tmp_path / "broken.mp4"
    for content in (b"no video", clip.read_bytes()[:200], b""):
        broken.write_bytes(content)
        with pytest.raises(InputError, match="broken.mp4: frame 0: cannot be read as a video: ") as caught:
            list(photographs.frames(broken))
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="absent.mp4: no such file"):
        list(photographs.frames(tmp_path / "absent.mp4"))


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_frames_stand_upright_as_the_files_matrix_says(tmp_path, clip, degrees):
    """The matrix of ISO 14496-12's track header, written by hand, turns stored frames clockwise by `degrees`."""
    cosine, sine = round(np.cos(np.radians(degrees))), round(np.sin(np.radians(degrees)))
    content = bytearray(clip.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    matrix = np.array([cosine, sine, 0, -sine, cosine, 0, 0, 0, 16384]) * 65536
    content[at : at + 36] = matrix.astype(">i4").tobytes()
    path = tmp_path / "turned.mp4"
    path.write_bytes(bytes(content))
    stored, shown = (next(iter(photographs.frames(one)))[1] for one in (clip, path))
    np.testing.assert_array_equal(shown, np.rot90(stored, -degrees // 90))


def test_frames_by_number_are_those_of_the_video_in_any_order(clip):
    every, read = dict(photographs.frames(clip)), photographs.frame_reader(clip)
    for number in (2, 2, 5, 0, 7):
        np.testing.assert_array_equal(read(number), every[number])
    with pytest.raises(InputError, match="a.mp4: has no frame 8"):
        read(8)
    assert photographs.frame_name(clip, 123) == "a_000123" and photographs.frame_number("a_000123") == 123


def test_a_playlist_that_is_called_a_video_opens_nothing(tmp_path, clip):
    path = tmp_path / "list.mp4"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{clip}\n#EXT-X-ENDLIST\n")
    with pytest.raises(InputError, match="list.mp4: frame 0: cannot be read as a video: "):
        list(photographs.frames(path))
