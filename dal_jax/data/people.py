"""The people of a data set in memory: what is observed; and, through a door of its own, what is true."""

import contextlib
import dataclasses
import io
from collections.abc import Sequence

import numpy as np
import PIL.Image
from jaxtyping import Float, UInt8

from dal_jax.body import skeleton
from dal_jax.data.schema import DatasetBuilder
from dal_jax.observations import observation
from dal_jax.observations.observation import Observation
from dal_jax.runtime import struct
from dal_jax.runtime.errors import InputError, damage_named

IMAGES_IN_MEMORY_BYTES = 2 << 30
HIDDEN_CONFIDENCE = 0.5
"""Confidence of a key point that its annotator could not see and had to guess; a seen one has 1."""


@struct.dataclass
class Truth:
    """What evaluation alone may read; millimetres, the camera's frame (x right, y down, z away).

    joints_mm: SMPL's; vertices_mm: of the true surface, its faces the free body's; None where not known of all.
    """

    joints_h36m_mm: Float[np.ndarray, "people 17 3"]
    joints_mm: Float[np.ndarray, "people 24 3"] | None
    vertices_mm: Float[np.ndarray, "people n 3"] | None


@struct.dataclass
class People:
    """Annotated people, stacked on the leading axis; truth is None unless it was asked for.

    images: square crops, an array or a sequence that decodes what is indexed.
    intrinsics_px: fx, fy, cx, cy of each photograph's camera; NaN where it is not known.
    """

    observations: Observation
    images: UInt8[np.ndarray, "people s s 3"] | Sequence
    names: list[str] = struct.static()
    intrinsics_px: Float[np.ndarray, "people 4"]
    truth: Truth | None = None


def load_people(
    builder: DatasetBuilder,
    split: str,
    limit: int | None = None,
    with_truth: bool = False,
    image_size: int | None = None,
) -> People:
    """Return a split's people (the first `limit`), with `truth` only if asked for: training never asks.

    split: a name, or several as in `train+valminusminival`.
    image_size: px, to make stored crops smaller.

    Raises:
      errors.InputError: there is no such split, or its crops are smaller than `image_size`.
    """
    with _damage_named(builder.data_dir):
        return _load_people(builder, split, limit, with_truth, image_size)


def _load_people(
    builder: DatasetBuilder, split: str, limit: int | None, with_truth: bool, image_size: int | None
) -> People:
    source = _source(builder, split)
    rows = range(_count(source, limit))
    columns: dict[str, list] = {name: [] for name in _OBSERVED}
    pictures: list[np.ndarray] | LazyImages = []
    for row in rows:
        example = source[row]
        for name in _OBSERVED:
            columns[name].append(example[name])
        if row == 0:
            first = decode(example["image"], image_size)
            _refuse_smaller(builder, first, image_size)
            if first.nbytes * len(rows) > IMAGES_IN_MEMORY_BYTES:
                pictures = LazyImages(source, len(rows), image_size, builder.data_dir)
        if isinstance(pictures, list):
            pictures.append(decode(example["image"], image_size))
    names, intrinsics = [name.decode() for name in columns.pop("name")], np.stack(columns.pop("intrinsics_px"))
    return People(
        observations=_observe({name: np.stack(values) for name, values in columns.items()}),
        images=np.stack(pictures) if isinstance(pictures, list) else pictures,
        names=names,
        intrinsics_px=intrinsics,
        truth=load_truth(builder, split, limit) if with_truth else None,
    )


def before_cameras(people: People) -> People:
    """Return people as cameras of full perspective see them that look at the middles of their crops (`along_ray`)."""
    return dataclasses.replace(people, observations=observation.along_ray(people.observations, people.intrinsics_px))


def _damage_named(place: object) -> contextlib.AbstractContextManager[None]:
    return damage_named(place, "data set", "; remove that folder, and the same command makes it again")


def load_truth(builder: DatasetBuilder, split: str, limit: int | None = None) -> Truth | None:
    """Return what is true of a split's people (the first `limit`), None unless known of all; for evaluation only."""
    source = _source(builder, split)
    joints_h36m, joints, vertices = [], [], []
    rows = range(_count(source, limit))
    for row in rows:
        example = source[row]
        if not example["truth_joints_known"]:
            return None
        joints_h36m.append(example["truth_joints_h36m_mm"])
        if example["truth_body_known"]:
            joints.append(example["truth_joints_mm"])
        tenths = example["truth_vertices_tenth_mm"]
        if len(tenths):
            vertices.append((tenths / np.float32(10) + example["truth_joints_mm"][0]).astype(np.float32))
    whole = [np.stack(values) if len(values) == len(rows) else None for values in (joints, vertices)]
    return Truth(np.stack(joints_h36m), *whole)


class LazyImages(Sequence):
    """Images of a data source, decoded when indexed: by a number, a slice, or an array of numbers."""

    def __init__(self, source: Sequence, count: int, size: int | None = None, place: object = "images"):
        self._source, self._count, self._size, self._place = source, count, size, place

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        if isinstance(index, int | np.integer):
            with _damage_named(self._place):
                return decode(self._source[int(index)]["image"], self._size)
        return np.stack([self[int(row)] for row in np.arange(self._count)[index]])


def decode(encoded: bytes, size: int | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """Return the pixels of an encoded picture, RGB, made smaller where they are more than `size` x `size`."""
    with PIL.Image.open(io.BytesIO(encoded)) as picture:
        colour = picture.convert("RGB")
        if size is not None and max(colour.size) > size:
            colour = colour.resize((size, size), PIL.Image.Resampling.BICUBIC, reducing_gap=3.0)
        return np.asarray(colour)


def _refuse_smaller(builder: DatasetBuilder, first: np.ndarray, size: int | None) -> None:
    if size is not None and len(first) < size:
        raise InputError(
            f"{builder.data_dir}: its crops have {len(first)} px, {size} are asked for; prepare it with --image_size"
        )


_OBSERVED = (
    "name", "box_px", "intrinsics_px", "keypoint_set", "keypoints_px", "keypoint_visible", "point_px", "point_face",
    "point_barycentric", "point_confidence",
)  # fmt: skip
_POINTS_STEP = 50  # places for points are a multiple of it, or every data set would be compiled for anew


def _observe(columns: dict[str, np.ndarray]) -> Observation:
    """Turn photograph pixels into the crop's [-1, 1], and leave out places for points that no person uses."""
    box = columns["box_px"]
    used = np.flatnonzero(np.any(columns["point_confidence"] > 0, axis=0))
    places = _POINTS_STEP * -(-(1 + used.max(initial=0)) // _POINTS_STEP)
    confidence = columns["point_confidence"][:, :places]
    points = observation.crop_from_px(columns["point_px"][:, :places], box)
    people = len(box)
    keypoint_set = columns["keypoint_set"][0].decode()
    keypoints = len(skeleton.KEYPOINT_SETS[keypoint_set])
    trust = np.array([0.0, HIDDEN_CONFIDENCE, 1.0], np.float32)[columns["keypoint_visible"][:, :keypoints]]
    return Observation(
        point_position=np.where(confidence[..., None] > 0, points, 0.0).astype(np.float32),
        point_face=columns["point_face"][:, :places],
        point_barycentric=columns["point_barycentric"][:, :places],
        point_confidence=confidence,
        keypoint_position=observation.crop_from_px(columns["keypoints_px"][:, :keypoints], box).astype(np.float32),
        keypoint_confidence=trust,
        depth=np.zeros((people, keypoints), np.float32),
        depth_confidence=np.zeros((people, keypoints), np.float32),
        box_px=box,
        keypoint_set=keypoint_set,
    )


def _source(builder: DatasetBuilder, split: str) -> Sequence:
    for name in split.split("+"):
        if name not in builder.info.splits:
            raise InputError(f"{builder.data_dir}: no split {name!r}; it has {', '.join(builder.info.splits)}")
    return builder.as_data_source(split=split)  # pyright: ignore[reportCallIssue]: hidden by its decorator


def _count(source: Sequence, limit: int | None) -> int:
    return len(source) if limit is None else min(limit, len(source))
