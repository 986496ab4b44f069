"""One annotated person, whatever file the annotation came from; and what a whole file held."""

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8

from dal_jax.observations import photographs
from dal_jax.observations.keypoints import Keypoints
from dal_jax.runtime import files
from dal_jax.runtime.errors import InputError, one_line

CROP_MARGIN = 1.2
"""Side of the square crop over the longer side of the person's box."""


@dataclasses.dataclass(frozen=True, eq=False)
class AnnotatedPerson:
    """Dense points in the photograph and in the chart, key points, and where they came from.

    image_id, annotation_id: the file's own; file_name: of the photograph, '' if unknown.
    picture_size: width and height the annotation was made for, px, None if unknown.
    bbox_px: x, y, width, height of the person.
    crop_margin: side of the square crop over the longer side of that box.
    track_id: the file's own name of who it is over the frames of a video; None where it has none.
    """

    image_id: int | str
    annotation_id: int | str
    file_name: str
    picture_size: tuple[int, int] | None
    bbox_px: Float[np.ndarray, "4"]
    point_px: Float[np.ndarray, "p 2"]
    part: Int[np.ndarray, "p"]
    uv: Float[np.ndarray, "p 2"]
    keypoints: Keypoints
    crop_margin: float = CROP_MARGIN
    track_id: int | str | None = None

    @property
    def crop_px(self) -> Float[np.ndarray, "4"]:
        """The square crop: the box's centre, the margin times its longer side; it may pass the picture's border."""
        return square_crop(self.bbox_px, self.crop_margin)


def square_crop(bbox_px: Float[np.ndarray, "4"], margin: float = CROP_MARGIN) -> Float[np.ndarray, "4"]:
    """Return the square around a box's centre whose side is `margin` times the longer side of the box."""
    x, y, width, height = bbox_px
    side = margin * max(width, height)
    return np.array([x + width / 2 - side / 2, y + height / 2 - side / 2, side, side])


@dataclasses.dataclass(frozen=True)
class Rejected:
    """An entry that cannot be used: its ids, a short kind to count by, and the full line to print."""

    image_id: int | str
    annotation_id: int | str
    file_name: str
    kind: str
    message: str

    def __post_init__(self):
        object.__setattr__(self, "message", one_line(self.message))


@dataclasses.dataclass(frozen=True)
class Annotations:
    """The people of an annotation file, of IUV pictures or of a detector.

    entries: in the file's order. without_points: how many further entries have neither dense nor key points enough.
    images: folder of the photographs, or the one photograph or video; '' where none are given.
    chart: DensePose's UV_Processed.mat; '': the dense points are in the body's own chart.
    predicted: whether a network made the dense points, so that some are wrong.
    detected: whether a network found the people in photographs alone (`detect`).
    notes: lines on what of the people's annotation is not used, or looks wrong.
    """

    entries: Sequence[AnnotatedPerson | Rejected]
    without_points: int = 0
    images: str = ""
    chart: str = ""
    predicted: bool = False
    detected: bool = False
    notes: Sequence[str] = ()

    @property
    def people(self) -> list[AnnotatedPerson]:
        """The entries that can be run."""
        return [entry for entry in self.entries if isinstance(entry, AnnotatedPerson)]

    @property
    def rejected(self) -> list[Rejected]:
        """The entries that cannot."""
        return [entry for entry in self.entries if isinstance(entry, Rejected)]

    def photograph(self, person: AnnotatedPerson) -> pathlib.Path:
        """Return the path of a person's photograph; `images` must be given."""
        images = pathlib.Path(self.images)
        return images if images.is_file() else files.below(images, person.file_name)

    def reader(self) -> Callable[[AnnotatedPerson], UInt8[np.ndarray, "h w 3"]]:
        """Return what reads a person's photograph, or frame of the video, once for people who come together.

        It raises errors.InputError, as `photographs.read_picture` and `photographs.frames` do.
        """
        if photographs.is_video(self.images):
            frame = photographs.VideoReader(self.images)
            return lambda person: frame(photographs.frame_number(person.file_name))
        read = functools.lru_cache(1)(photographs.read_picture)
        return lambda person: read(self.photograph(person), person.picture_size)

    def fps(self) -> float | None:
        """Return how many frames a second the video says that it has; None of photographs, and where it does not."""
        return photographs.frames_and_rate(self.images)[1] if photographs.is_video(self.images) else None

    def middle_px(self, person: AnnotatedPerson) -> tuple[float, float]:
        """Return the middle of a person's photograph, px.

        Raises:
          errors.InputError: neither the annotation nor a photograph says how large it is.
        """
        width, height = self._size(person)
        return width / 2.0, height / 2.0

    def focal_px(self, person: AnnotatedPerson, assume: bool = False) -> float:
        """Return the focal length that a person's photograph was taken with, px, from its EXIF.

        assume: where it does not say, take the photograph's longer side, as of a lens of 36 mm on film.
          Note: our choice, between phones (26 mm) and normal lenses (50 mm); too long costs less than too short
          (`benchmarks/distances.json`).

        Raises:
          errors.InputError: there is no photograph, or it does not say.
        """
        try:
            if not self.images:
                where = f"image_id {person.image_id}, annotation {person.annotation_id}"
                raise InputError(f"{where}: without photographs a perspective camera needs its focal length")
            if photographs.is_video(self.images):
                raise InputError(f"{self.images}: a video does not say its focal length; give --focal_px")
            return photographs.focal_px(self.photograph(person))
        except InputError:
            if assume:
                return float(max(self._size(person)))
            raise

    def _size(self, person: AnnotatedPerson) -> tuple[int, int]:
        if person.picture_size is not None:
            return person.picture_size
        if self.images:
            return photographs.upright_size(self.photograph(person))
        where = f"image_id {person.image_id}, annotation {person.annotation_id}"
        raise InputError(f"{where}: the photograph's size is not known, which its camera needs")

    def summary(self) -> str:
        """Return one line for the terminal: `2 people, skipped 3: 2 not finite, 1 image missing`."""
        line = f"{len(self.people)} people"
        if self.rejected:
            kinds = collections.Counter(entry.kind for entry in self.rejected).most_common()
            line += f", skipped {len(self.rejected)}: " + ", ".join(f"{count} {kind}" for kind, count in kinds)
        if self.without_points:
            line += f"; left out {self.without_points} without dense points or five key points"
        return line
