"""One annotated person, whatever file the annotation came from; whether its parts agree; and what a whole file held."""

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8

from dal_jax.body import skeleton
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
            frame = photographs.frame_reader(self.images)
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


# --- Whether box, key points and dense points agree in scale and place ---

Size = tuple[int, int]
"""Width and height of a photograph, px."""

_LIMBS = {
    ("left_shoulder", "left_elbow"): (15, 17), ("right_shoulder", "right_elbow"): (16, 18),
    ("left_elbow", "left_wrist"): (19, 21), ("right_elbow", "right_wrist"): (20, 22),
    ("left_hip", "left_knee"): (8, 10), ("right_hip", "right_knee"): (7, 9),
    ("left_knee", "left_ankle"): (12, 14), ("right_knee", "right_ankle"): (11, 13),
}  # fmt: skip
"""The key points at the ends of a bone, and DensePose's parts around it."""

# Note: our choices. Two real people: 4 and 8 px off with boxes read right, 200 px and more with boxes read wrong.
_ENOUGH_POINTS, _NEARER = 10, 0.7
_FAR_OUT = 1.1  # over the photograph's side: boxes may pass the border
_SLACK = 0.1  # of the box: key points may pass its border


def may_be_corners(one: AnnotatedPerson, size: Size | None) -> bool:
    """Tell whether a box could be [x1, y1, x2, y2]: it lies in the photograph, and the key points lie in it."""
    low, high = one.bbox_px[:2], one.bbox_px[2:]
    slack = _SLACK * np.max(high - low)
    labelled = one.keypoints.position_px[one.keypoints.flag > 0]
    ordered = np.all(low >= 0) and np.all(high > low) and np.all(high <= np.array(size or (np.inf, np.inf)) + 1)
    return bool(ordered and np.all(labelled >= low - slack) and np.all(labelled <= high + slack))


def keypoints_outside(one: AnnotatedPerson) -> bool:
    """Tell whether most of a person's labelled key points lie outside the box."""
    low, extent = one.bbox_px[:2], one.bbox_px[2:]
    labelled = one.keypoints.position_px[one.keypoints.flag > 0]
    slack = _SLACK * np.max(extent)
    outside = np.any((labelled < low - slack) | (labelled > low + extent + slack), axis=1)
    return 2 * int(np.sum(outside)) > len(labelled)


def box_notes(people: Iterable[tuple[str, AnnotatedPerson]]) -> list[str]:
    """Return a line on people whose key points lie outside their boxes; `people`: file and entry, and the person."""
    found = [where for where, one in people if keypoints_outside(one)]
    return [f"{found[0]}: most key points lie outside the box ({len(found)} people in all)"] if found else []


def refuse_corners(people: Iterable[tuple[str, AnnotatedPerson, Size | None]]) -> None:
    """Refuse a file whose boxes are [x1, y1, x2, y2] instead of [x, y, width, height].

    All of them must be able to be. Then the dense points of limbs tell, which lie nearer to the bones between the key
    points if the box is read right; without them, boxes of which most end far outside the photograph.

    Args:
      people: of the whole file: file and entry, the person, the photograph's size where it is known.

    Raises:
      errors.InputError: they are.
    """
    people = list(people)
    if not people or not all(may_be_corners(one, size) for _, one, size in people):
        return
    off = np.concatenate([_off_bones(one) for _, one, _ in people], axis=1)
    given, other = np.sqrt(np.mean(off**2, axis=1)) if off.shape[1] >= _ENOUGH_POINTS else (0.0, 0.0)
    out = [(where, one) for where, one, size in people if size is not None and _ends_far_out(one, size)]
    if other < _NEARER * given:
        (where, one, _), why = (
            people[0],
            f"dense points lie {given:.3g} px off the key points' bones, {other:.3g} px if",
        )
    elif off.shape[1] < _ENOUGH_POINTS and 2 * len(out) >= len(people):
        (where, one), why = out[0], f"{len(out)} of {len(people)} boxes end far outside the image, none if"
    else:
        return
    box = one.bbox_px.round(2).tolist()
    raise InputError(f"{where}: bbox {box} must be [x, y, width, height]: {why} it is [x1, y1, x2, y2]")


def _ends_far_out(one: AnnotatedPerson, size: Size) -> bool:
    return bool(np.any(one.bbox_px[:2] + one.bbox_px[2:] > _FAR_OUT * np.array(size)))


def _off_bones(one: AnnotatedPerson) -> Float[np.ndarray, "2 p"]:
    """Return how far limbs' dense points lie from their bones, px: with the box as it is, and read as corners."""
    low, extent = one.bbox_px[:2], one.bbox_px[2:]
    readings = np.stack([one.point_px, low + (one.point_px - low) / extent * (extent - low)])
    off = [np.zeros((2, 0))]
    for ends, parts in _LIMBS.items():
        names = skeleton.KEYPOINT_SETS[one.keypoints.keypoint_set]
        rows = [names.index(name) for name in ends if name in names]  # Human3.6M's has no ankles
        if len(rows) == len(ends) and np.all(one.keypoints.flag[rows] > 0):
            first, last = one.keypoints.position_px[rows]
            bone, points = last - first, readings[:, np.isin(one.part, parts)] - first
            along = np.clip(points @ bone / max(bone @ bone, 1e-9), 0.0, 1.0)
            off.append(np.linalg.norm(points - along[..., None] * bone, axis=-1))
    return np.concatenate(off, axis=1)
