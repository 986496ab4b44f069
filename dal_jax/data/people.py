"""The people of a data set: what is observed; and, through a door of its own, what is true."""

import contextlib
import io
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import PIL.Image
from jaxtyping import Float, Int, UInt8

from dal_jax.body import cameras
from dal_jax.data import columns as columns_lib
from dal_jax.data.schema import DatasetBuilder
from dal_jax.observations import photographs
from dal_jax.observations.observation import Observation
from dal_jax.runtime import struct
from dal_jax.runtime.errors import InputError, damage_named

IMAGES_IN_MEMORY_BYTES = 128 << 20
"""Pictures that take more are decoded when they are asked for: decoding these takes seconds."""


@struct.dataclass
class Truth:
    """What evaluation alone may read; millimetres, the camera's frame (x right, y down, z away).

    joints_mm: SMPL's; vertices_mm: of the true surface, its faces the free body's; None where not known of all.
    """

    joints_h36m_mm: Float[np.ndarray, "people 17 3"]
    joints_mm: Float[np.ndarray, "people 24 3"] | None
    vertices_mm: Float[np.ndarray, "people n 3"] | None


@struct.dataclass
class Rig:
    """Cameras that see people at the same moments.

    moment: a number for all pictures of a person at a moment. extrinsics_m: [R | t] of each picture's camera, world to
    the frame in which its observation is; NaN where it is not known.
    """

    moment: Int[np.ndarray, "people"]
    extrinsics_m: Float[np.ndarray, "people 3 4"]


@struct.dataclass
class People:
    """Annotated people, stacked on the leading axis; truth is None unless it was asked for.

    images: square crops, an array or a sequence that decodes what is indexed.
    intrinsics_px: fx, fy, cx, cy of each photograph's camera; NaN where it is not known.
    rig: None where every picture shows a moment of its own.
    """

    observations: Observation
    images: UInt8[np.ndarray, "people s s 3"] | Sequence
    names: Sequence[str] | np.ndarray = struct.static()
    intrinsics_px: Float[np.ndarray, "people 4"]
    truth: Truth | None = None
    rig: Rig | None = None

    def take(self, rows: Int[np.ndarray, "rows"]) -> "People":
        """Return some of the people, in that order, observed and true values in memory."""

        def of(tree: Any) -> Any:
            return jax.tree.map(lambda leaf: np.asarray(leaf)[rows], tree)

        images = self.images
        images = images.take(rows) if isinstance(images, LazyImages) else np.asarray(images)[rows]
        names = np.asarray(self.names)[rows]
        return People(of(self.observations), images, names, self.intrinsics_px[rows], of(self.truth), of(self.rig))


def load_people(
    builder: DatasetBuilder,
    split: str,
    limit: int | None = None,
    *,
    image_size: int | None = None,
    along_ray: bool = False,
    with_truth: bool = False,
    with_vertices: bool = True,
) -> People:
    """Return a split's people (the first `limit`), with `truth` only if asked for: training never asks.

    What is observed stays on the disk until it is read; few pictures are decoded now, many when they are asked for.

    Args:
      builder: the data set.
      split: a name, or several as in `train+valminusminival`.
      limit: how many people.
      image_size: px, to make stored crops smaller.
      along_ray: as cameras of full perspective see people that look at the middles of their crops.
      with_truth: what evaluation may read, too.
      with_vertices: of true surfaces, too, which are in memory.

    Raises:
      errors.InputError: there is no such split, or its crops are smaller than `image_size`.
    """
    asked = {
        "image_size": image_size, "along_ray": along_ray, "with_truth": with_truth, "with_vertices": with_vertices
    }  # fmt: skip
    with _damage_named(builder.data_dir):
        return _load_people(builder, split, limit, asked)


def _load_people(builder: DatasetBuilder, split: str, limit: int | None, asked: dict[str, Any]) -> People:
    read, columns = reader(builder, split, "image"), _columns(builder, split, limit)
    count, size = len(columns["name"]), asked["image_size"]
    pictures = LazyImages(read, count, size, builder.data_dir)
    first = pictures[0]
    _refuse_smaller(builder, first, size)
    return People(
        observations=columns_lib.observations(columns, asked["along_ray"]),
        images=pictures[:] if first.nbytes * count <= IMAGES_IN_MEMORY_BYTES else pictures,
        names=columns["name"],
        intrinsics_px=columns["intrinsics_px"],
        truth=_truth(builder, split, columns, asked["with_vertices"]) if asked["with_truth"] else None,
        rig=_rig(columns, asked["along_ray"]),
    )


def _rig(columns: columns_lib.Columns, along_ray: bool) -> Rig | None:
    moment = np.asarray(columns["moment"])
    if not (moment != "").any():
        return None
    alone = np.char.add("\n", np.arange(len(moment)).astype(str))  # no moment is called so
    number = np.unique(np.where(moment == "", alone, moment), return_inverse=True)[1]
    extrinsics = np.asarray(columns["extrinsics_m"], np.float64)
    if along_ray:
        turned = cameras.crop_rotations(columns["box_px"], columns["intrinsics_px"]).astype(np.float64)
        extrinsics = np.einsum("nji,njk->nik", turned, extrinsics)
    return Rig(number, extrinsics)


def _columns(builder: DatasetBuilder, split: str, limit: int | None) -> columns_lib.Columns:
    return columns_lib.read(pathlib.Path(builder.data_dir) / columns_lib.FOLDER, split, limit)


def _damage_named(place: object) -> contextlib.AbstractContextManager[None]:
    return damage_named(place, "data set", "; remove that folder, and the same command makes it again")


def load_truth(builder: DatasetBuilder, split: str, limit: int | None = None) -> Truth | None:
    """Return what is true of a split's people (the first `limit`), None unless known of all; for evaluation only."""
    with _damage_named(builder.data_dir):
        return _truth(builder, split, _columns(builder, split, limit), with_vertices=True)


def _truth(builder: DatasetBuilder, split: str, columns: columns_lib.Columns, with_vertices: bool) -> Truth | None:
    if not columns["truth_joints_known"].all():
        return None
    joints = columns["truth_joints_mm"] if columns["truth_body_known"].all() else None
    vertices = None
    if with_vertices and joints is not None:
        read = reader(builder, split, "truth_vertices_tenth_mm")
        if len(read(0)):
            tenths = [read(row) for row in range(len(joints))]
            if all(map(len, tenths)):
                vertices = (np.stack(tenths) / np.float32(10) + joints[:, :1]).astype(np.float32)
    return Truth(columns["truth_joints_h36m_mm"], joints, vertices)


class LazyImages(Sequence):
    """Encoded pictures that are read and decoded when indexed: by a number, a slice, or an array of numbers."""

    def __init__(self, read: Callable[[int], bytes], count: int, size: int | None = None, place: object = "images"):
        self._read, self._count, self._size, self._place = read, count, size, place

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        if isinstance(index, int | np.integer):
            with _damage_named(self._place):
                return decode(self._read(int(index)), self._size)
        return np.stack([self[int(row)] for row in np.arange(self._count)[index]])

    def take(self, rows: Int[np.ndarray, "rows"]) -> "LazyImages":
        """Return some of the pictures, in that order, still encoded."""
        return LazyImages(lambda row: self._read(int(rows[row])), len(rows), self._size, self._place)


def decode(encoded: bytes, size: int | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """Return the pixels of an encoded picture, RGB, made smaller where they are more than `size` x `size`.

    It may come with a data set that somebody has sent: formats and sizes are those of photographs.
    """
    with PIL.Image.open(io.BytesIO(encoded), formats=photographs.FORMATS) as picture:
        if picture.width * picture.height > 1e6 * photographs.most_megapixels():
            raise ValueError(f"a picture of {picture.width}x{picture.height} px")
        colour = picture.convert("RGB")
        if size is not None and max(colour.size) > size:
            colour = colour.resize((size, size), PIL.Image.Resampling.BICUBIC, reducing_gap=3.0)
        return np.asarray(colour)


def _refuse_smaller(builder: DatasetBuilder, first: np.ndarray, size: int | None) -> None:
    if size is not None and len(first) < size:
        raise InputError(
            f"{builder.data_dir}: its crops have {len(first)} px, {size} are asked for; prepare it with --image_size"
        )


def reader(builder: DatasetBuilder, split: str, feature: str) -> Callable[[int], Any]:
    """Return a function that reads one feature of an example, by its number in the split."""
    for name in split.split("+"):
        if name not in builder.info.splits:
            raise InputError(f"{builder.data_dir}: no split {name!r}; it has {', '.join(builder.info.splits)}")
    import tensorflow_datasets as tfds  # there, or there were no builder

    whole: Any = builder.as_data_source  # a decorator hides its arguments
    source = whole(split=split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    features: Any = builder.info.features
    wanted: Any = tfds.features.FeaturesDict({feature: features[feature]})
    return lambda row: wanted.deserialize_example_np(source[row])[feature]
