"""Photographs: read upright and in 8-bit RGB whatever the file holds, checked, and cut to a person's square crop."""

import dataclasses
import io
import os
import pathlib
from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageOps
from jaxtyping import Float, UInt8

from dal_jax.observations import keypoints, person
from dal_jax.observations.detections import Detection
from dal_jax.observations.person import AnnotatedPerson, Annotations, Rejected
from dal_jax.runtime.errors import InputError

_LARGEST_CROP_PX = 30_000  # a crop is cut before it is resized; beyond this the box is a mistake
_JPEG_QUALITY = 95


def read_picture(path: str | pathlib.Path, size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """Return a photograph as RGB, turned upright as its EXIF says; grey pictures get three equal channels.

    16 bits become 8; what is transparent becomes black, as is what lies beyond the border of a crop.

    Args:
      size: (width, height) the annotation was made for. Where it fits the stored pixels only, they are not turned.
    Raises:
      errors.InputError: missing, not a picture, cut off, or of another size.
    """
    try:
        with PIL.Image.open(path) as stored:
            picture = PIL.ImageOps.exif_transpose(stored)
            if size is not None and picture.size != size == stored.size:
                picture = stored
            pixels = _rgb(picture)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
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
    try:
        with PIL.Image.open(path) as stored:
            turned = stored.getexif().get(_ORIENTATION) in _QUARTER_TURNS
            return stored.size[::-1] if turned else stored.size
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


_ORIENTATION, _QUARTER_TURNS = 0x0112, (5, 6, 7, 8)  # EXIF
_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_UNREADABLE = (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError)


def _unreadable(path: str | pathlib.Path, error: Exception) -> InputError:
    text = "no such file" if isinstance(error, FileNotFoundError) else " ".join(str(error).split())[:200]
    return InputError(f"{path}: cannot be read as a picture: {text}")


def _rgb(picture: PIL.Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    if picture.mode.startswith("I"):  # 16 bits of grey, which Pillow's own conversion would cut off at 255
        grey = (np.clip(np.asarray(picture, np.int32), 0, 65535) + 128) // 257
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
    if picture.mode == "F":
        raise ValueError("its pixels are floating point numbers, of which none is known to be white")
    if picture.mode in _WITH_ALPHA or "transparency" in picture.info:
        seen = picture.convert("RGBA")
        picture = PIL.Image.alpha_composite(PIL.Image.new("RGBA", seen.size, (0, 0, 0, 255)), seen)
    return np.asarray(picture.convert("RGB"))


def crop(pixels: UInt8[np.ndarray, "h w 3"], box_px: Float[np.ndarray, "4"], size: int) -> UInt8[np.ndarray, "s s 3"]:
    """Cut a square box out of a photograph and resize it, without aliasing; black beyond the border.

    Pixel (0, 0) covers [0, 1] x [0, 1], so that `observations.crop_from_px` and the crop agree.
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


def png(pixels: UInt8[np.ndarray, "h w *channels"]) -> bytes:
    """Return a picture as the content of a .png file."""
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def jpeg(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Return a photograph as the content of a .jpg file whose losses nobody sees."""
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return stream.getvalue()


# A folder of photographs and the people in them who are not annotated: one a box, one a pose, or one a picture.

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""Of photographs' names, in lower case."""

_DENSEPOSE_OUTPUT = ("_iuv.png", "_inds.png")  # lie beside photographs, and are none
_LARGEST_BOX = 3.0  # over the picture: a box may pass the border, not dwarf the picture


@dataclasses.dataclass(frozen=True)
class Photographs:
    """The pictures of a folder, in the order of their names."""

    folder: pathlib.Path
    names: tuple[str, ...]

    def path(self, name: str) -> pathlib.Path:
        """Return a picture's path."""
        return self.folder / name


def listing(images: str | os.PathLike[str]) -> Photographs:
    """List a folder's photographs, by the endings of `ENDINGS`; or take one picture alone.

    Raises:
      errors.InputError: there is no such folder or picture, or no photograph in it.
    """
    path = pathlib.Path(images)
    if path.is_file():
        return Photographs(path.parent, (path.name,))
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder")
    found = sorted(one.name for one in path.iterdir() if one.suffix.lower() in ENDINGS and one.is_file())
    names = tuple(name for name in found if not name.lower().endswith(_DENSEPOSE_OUTPUT))
    if not names:
        raise InputError(f"{path}: holds no photograph ({', '.join(ENDINGS)})")
    return Photographs(path, names)


def people(
    photographs: Photographs, found: Sequence[Detection] | None = None, skip_invalid: bool = False
) -> Annotations:
    """Return the people of the photographs, checked against the pictures' sizes; nobody has dense points.

    Args:
      found: people by box or key points (`boxes.read_boxes`, `boxes.read_keypoints`). None: each picture is one
        person's, and its square crop is the picture itself, without a margin.
      skip_invalid: keep going over bad entries and list them as rejected.
    Raises:
      errors.InputError: the first bad entry, or nobody is left.
    """
    if found is None:
        found = [Detection(name, row, row + 1, name) for row, name in enumerate(photographs.names)]
    known = frozenset(photographs.names)
    sizes: dict[str, tuple[int, int] | str] = {}
    entries: list[AnnotatedPerson | Rejected] = []
    for one in found:
        entry = _entry(photographs, known, one, sizes)
        if isinstance(entry, Rejected) and not skip_invalid:
            raise InputError(entry.message)
        entries.append(entry)
    annotations = Annotations(entries)
    if not annotations.people:
        first = f"{entries[0].message} (none of {len(entries)} people can be used)" if entries else "there is nobody"
        raise InputError(first)
    return annotations


def _entry(
    photographs: Photographs, known: frozenset[str], one: Detection, sizes: dict[str, tuple[int, int] | str]
) -> AnnotatedPerson | Rejected:
    """Return a person, or why there is none; `sizes` remembers what is known of each picture."""

    def reject(kind: str, message: str) -> Rejected:
        return Rejected(one.image_id, one.annotation_id, one.file_name, kind, message)

    if one.problem:
        return reject("bad entry", f"{one.where}: {one.problem}")
    if one.file_name not in known:
        return reject("image missing", f"{one.where}: there is no photograph '{one.file_name}' in {photographs.folder}")
    if one.file_name not in sizes:
        sizes[one.file_name] = _size(photographs.path(one.file_name))
    size = sizes[one.file_name]
    if isinstance(size, str):
        return reject("unreadable picture", size)
    size = one.picture_size or size
    whole = one.bbox_px is None
    bbox = np.array([0.0, 0.0, *size]) if whole else one.bbox_px
    if np.any(bbox[:2] >= size) or np.any(bbox[:2] + bbox[2:] <= 0):
        return reject("box outside", f"{one.where}: {bbox.tolist()} lies outside the {size[0]}x{size[1]} picture")
    if np.any(bbox[2:] > _LARGEST_BOX * np.array(size)):
        return reject("box outside", f"{one.where}: {bbox.tolist()} dwarfs the {size[0]}x{size[1]} picture")
    return AnnotatedPerson(
        image_id=one.image_id,
        annotation_id=one.annotation_id,
        file_name=one.file_name,
        picture_size=one.picture_size,
        bbox_px=bbox,
        point_px=np.zeros((0, 2)),
        part=np.zeros(0, np.int64),
        uv=np.zeros((0, 2)),
        keypoints=one.keypoints or keypoints.missing(),
        crop_margin=1.0 if whole else person.CROP_MARGIN,
    )


def _size(path: pathlib.Path) -> tuple[int, int] | str:
    try:
        return upright_size(path)
    except InputError as error:
        return str(error)
