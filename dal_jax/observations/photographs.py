"""Photographs: read upright and in 8-bit RGB checked, and cut to a person's square crop; and the frames of videos.

A video's frames come one after the other, upright as its metadata says (FFmpeg through PyAV).
"""

import contextlib
import io
import os
import pathlib
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps
from jaxtyping import Float, UInt8

from dal_jax.runtime import door
from dal_jax.runtime.errors import InputError, needs_extra

DENSEPOSE_OUTPUT = ("_iuv.png", "_inds.png")
"""How files end that lie beside photographs and are none."""

ENDINGS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".webp", ".bmp")
"""Of photographs' names, in the order in which a photograph of a stem is looked for."""

_LARGEST_CROP_PX = 30_000  # a crop is cut before it is resized; beyond this the box is a mistake
_JPEG_QUALITY = 95

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""By Pillow's names: of its others some start programs."""


def read_picture(path: str | pathlib.Path, size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """Return a photograph as RGB, turned upright as its EXIF says; grey pictures get three equal channels.

    16 bits become 8; what is transparent becomes black, as is what lies beyond the border of a crop.

    Args:
      size: (width, height) the annotation was made for. Where it fits the stored pixels only, they are not rotated.

    Raises:
      errors.InputError: missing, not a picture, cut off, or of another size.
    """
    with opened(path) as stored:
        if stored.getexif().get(_ORIENTATION, 1) == 1 or size == stored.size != _upright(stored):
            pixels = _rgb(stored)
        else:
            pixels = _rgb(PIL.ImageOps.exif_transpose(stored))
    if size is not None and (pixels.shape[1], pixels.shape[0]) != tuple(size):
        raise InputError(
            f"{path}: {pixels.shape[1]}x{pixels.shape[0]} px, but its annotation is for {size[0]}x{size[1]} px"
        )
    return pixels


def upright_size(path: str | pathlib.Path) -> tuple[int, int]:
    """Return (width, height) as `read_picture` will, from the file's header where the format allows that.

    Raises:
      errors.InputError: missing, or not a picture.
    """
    with opened(path) as stored:
        return _upright(stored)


def _upright(stored: PIL.Image.Image) -> tuple[int, int]:
    turned = stored.getexif().get(_ORIENTATION) in _QUARTER_TURNS
    width, height = stored.size
    return (height, width) if turned else (width, height)


def focal_px(path: str | pathlib.Path) -> float:
    """Return the focal length that the camera wrote into a photograph, px of the photograph.

    EXIF's equivalent on film of 36 x 24 mm, scaled by the diagonals.

    Raises:
      errors.InputError: as `opened`, or the photograph does not say.
    """
    with opened(path) as picture:
        written = picture.getexif().get_ifd(PIL.ExifTags.IFD.Exif).get(PIL.ExifTags.Base.FocalLengthIn35mmFilm)
        diagonal_px = float(np.hypot(*picture.size))
    if isinstance(written, int | float) and 1 <= written <= _LONGEST_MM:
        return float(written) * diagonal_px / _FILM_DIAGONAL_MM
    said = "no focal length" if written is None else f"a focal length of {str(written)[:20]} mm"
    raise InputError(f"{path}: its EXIF has {said}; give --focal_px, or take --camera=weak")


@contextlib.contextmanager
def opened(path: str | pathlib.Path | io.BytesIO) -> Iterator[PIL.Image.Image]:
    """Open a picture whose format is one of photographs' and of annotation's, and whose size is one of theirs.

    What is wrong with its pixels is found when the block takes them, and raised as below.

    Note: Pillow knows sixty formats more, some of which start other programs or have decoders of little use elsewhere.

    Raises:
      errors.InputError: missing, not a picture, cut off, or larger than a program should unpack.
    """
    name = "a picture inside" if isinstance(path, io.BytesIO) else path
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of damaged EXIF and of sizes that are refused here
            file = contextlib.nullcontext(path) if isinstance(path, io.BytesIO) else door.opened(path)
            with file as stream, PIL.Image.open(stream, formats=FORMATS) as picture:
                width, height = picture.size
                if width * height > 1e6 * most_megapixels():
                    raise ValueError(
                        f"{width}x{height} px, at most {most_megapixels():.0f} million are read (--most_megapixels)"
                    )
                yield picture
    except PIL.UnidentifiedImageError as error:
        raise InputError(f"{name}: cannot be read as a picture: is none of {', '.join(FORMATS)}") from error
    except _UNREADABLE as error:
        system = error.strerror if isinstance(error, OSError) else None
        text = "no such file" if isinstance(error, FileNotFoundError) else system or str(error) or type(error).__name__
        raise InputError(f"{name}: cannot be read as a picture: {text}") from error


def of_stem(folder: pathlib.Path, stem: str) -> pathlib.Path:
    """Return the photograph of `{stem}_IUV.png`: of that stem and any ending, in the folder or in images/ below it.

    Raises:
      errors.InputError: there is none.
    """
    for place in (folder, folder / "images"):
        for ending in ENDINGS:
            if (path := place / f"{stem}{ending}").is_file():
                return path
    raise InputError(f"{folder}: no photograph {stem}.jpg or {stem}.png for {stem}_IUV.png")


_FILM_DIAGONAL_MM, _LONGEST_MM = float(np.hypot(36.0, 24.0)), 5000
_ORIENTATION, _QUARTER_TURNS = 0x0112, (5, 6, 7, 8)  # EXIF
_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_MOST_MEGAPIXELS = 50.0  # fifteen bytes a pixel, until it is upright and in RGB, are three quarters of a gigabyte
_UNREADABLE = (*door.UNREADABLE, PIL.Image.DecompressionBombError)


def most_megapixels() -> float:
    """Return the millions of pixels above which a picture is refused: --most_megapixels of every binary, else 50."""
    return float(os.environ.get(door.MOST_MEGAPIXELS) or _MOST_MEGAPIXELS)


def _rgb(picture: PIL.Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    if picture.mode.startswith("I"):  # 16 bits of grey, which Pillow's own conversion would cut off at 255
        grey = (np.clip(np.asarray(picture, np.int32), 0, 65535) + 128) // 257
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
    if picture.mode in _WITH_ALPHA or "transparency" in picture.info:
        seen = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        picture = PIL.Image.new("RGB", seen.size)
        picture.paste(seen, mask=seen.getchannel("A"))
    return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))


def crop(pixels: UInt8[np.ndarray, "h w 3"], box_px: Float[np.ndarray, "4"], size: int) -> UInt8[np.ndarray, "s s 3"]:
    """Cut a square box out of a photograph and resize it, without aliasing; black beyond the border.

    Pixel (0, 0) covers [0, 1] x [0, 1], so that `observation.crop_from_px` and the crop agree.
    """
    x, y, side, _ = np.asarray(box_px, np.float64)
    if not 0 < side < _LARGEST_CROP_PX:
        raise InputError(f"crop box {np.asarray(box_px).tolist()} is not of a usable size")
    left, top = int(np.floor(x)), int(np.floor(y))
    right, bottom = int(np.ceil(x + side)), int(np.ceil(y + side))
    window = PIL.Image.fromarray(pixels).crop((left, top, right, bottom))
    inner = (x - left, y - top, x - left + side, y - top + side)
    return np.asarray(window.resize((size, size), PIL.Image.Resampling.BICUBIC, box=inner))


def crop_labels(
    labels: UInt8[np.ndarray, "h w *channels"],
    labels_box_px: Float[np.ndarray, "4"],
    box_px: Float[np.ndarray, "4"],
    size: int,
) -> UInt8[np.ndarray, "s s *channels"]:
    """Cut a square box out of a map of labels, which are never blended: each pixel takes its centre's; 0 beyond them.

    labels_box_px: x, y, width, height that the map covers in the photograph.
    """
    height, width = labels.shape[:2]
    centre = (np.arange(size) + 0.5) / size
    column = np.floor((box_px[0] + centre * box_px[2] - labels_box_px[0]) / labels_box_px[2] * width).astype(int)
    row = np.floor((box_px[1] + centre * box_px[3] - labels_box_px[1]) / labels_box_px[3] * height).astype(int)
    found = labels[np.clip(row, 0, height - 1)[:, None], np.clip(column, 0, width - 1)[None]]
    found[(row < 0) | (row >= height)] = 0
    found[:, (column < 0) | (column >= width)] = 0
    return found


def is_grey(pixels: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Tell whether a picture has no colour at all."""
    few = pixels[::16, ::16]  # nearly every picture with colour shows it here
    return bool((few == few[..., :1]).all() and (pixels == pixels[..., :1]).all())


def png(pixels: UInt8[np.ndarray, "h w *channels"], effort: int = 6) -> bytes:
    """Return a picture as the content of a .png file; of photographs an effort of 4 is half the work, 4% more bytes."""
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, "PNG", compress_level=effort)
    return stream.getvalue()


def jpeg(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Return a photograph as the content of a .jpg file whose losses are not visible."""
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return stream.getvalue()


VIDEO_ENDINGS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")
"""Of videos' names, in any case."""

_VIDEO_FORMATS = "mov,matroska,avi,mpeg"
_SAFE_VIDEO = {
    "format_whitelist": _VIDEO_FORMATS,
    "protocol_whitelist": "file",
}  # a playlist could name other files and hosts
_MOST_PX = 61_000_000  # as of photographs


def is_video(path: str | os.PathLike[str]) -> bool:
    """Tell by its name whether a file is a video."""
    return pathlib.PurePath(path).suffix.lower() in VIDEO_ENDINGS


def frame_name(path: str | os.PathLike[str], number: int) -> str:
    """Return what a frame is called: NAME_000123."""
    return f"{pathlib.PurePath(path).stem}_{number:06d}"


def frame_number(name: str) -> int:
    """Return the number of a frame from its name."""
    return int(name.rpartition("_")[2])


def frames(
    path: str | os.PathLike[str], step: int = 1, extra: str = "data"
) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
    """Yield (number, RGB) of the frames 0, step, 2 step, ..., counted as they are shown, whatever time lies between.

    Videos predict most frames from their neighbours, so all are decoded; only those asked for become pictures.

    Args:
      path: of the file.
      step: of the frames that are yielded.
      extra: the extra of this package that is named where PyAV is missing.

    Raises:
      errors.InputError: the file is missing, is no video or is damaged; names the frame reached.
    """
    with needs_extra(extra):
        import av
        import av.error
    number = 0
    try:
        door.opened(path).close()
        with av.open(os.fspath(path), metadata_errors="ignore", options=_SAFE_VIDEO) as container:
            if not container.streams.video:
                raise InputError(f"{path}: holds no video")
            stream = container.streams.video[0]
            if stream.width * stream.height > _MOST_PX:
                raise InputError(f"{path}: {stream.width}x{stream.height} px, at most {_MOST_PX} in all are read")
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                if number % step == 0:
                    turns = round(frame.rotation / 90)  # counterclockwise; cameras turn by quarters alone
                    yield number, np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
                number += 1
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"{path}: frame {number}: cannot be read as a video: {_video_reason(error)}") from error
    if not number:
        raise InputError(f"{path}: holds no frame")


def frames_and_rate(path: str | os.PathLike[str], extra: str = "data") -> tuple[int | None, float | None]:
    """Return how many frames a video says that it has, and how many a second; None where it does not say."""
    with needs_extra(extra):
        import av
        import av.error
    try:
        door.opened(path).close()
        with av.open(os.fspath(path), metadata_errors="ignore", options=_SAFE_VIDEO) as container:
            stream = container.streams.video[0] if container.streams.video else None
            if stream is None:
                return None, None
            return stream.frames or None, float(stream.average_rate) if stream.average_rate else None
    except (av.error.FFmpegError, OSError):
        return None, None  # `frames` says why


def frame_reader(path: str | os.PathLike[str]) -> Callable[[int], UInt8[np.ndarray, "h w 3"]]:
    """Return what reads frames of one video by their number; going forward decodes each frame once.

    It raises errors.InputError, as `frames` does, and where the video ends before a frame.
    """
    coming, at, pixels = iter(()), -1, None

    def read(number: int) -> UInt8[np.ndarray, "h w 3"]:
        nonlocal coming, at, pixels
        if pixels is None or number < at:
            coming, at = frames(path), -1
        while at < number:
            at, pixels = next(coming, (number, None))
        if pixels is None:
            raise InputError(f"{path}: has no frame {number}")
        return pixels

    return read


def _video_reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
