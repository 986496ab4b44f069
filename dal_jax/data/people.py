"""The people of a data set: what is observed; and, through a door of its own, what is true.

All but their pictures is kept as columns: an .npy file a field and split, mapped into memory. Opening them takes
neither time nor memory, however many people there are; what is asked for is read. They lie beside the array_record
files, which hold the pictures. Observations are stored as they are used, in the crop's [-1, 1], and once more as
`observation.along_ray` sees them.
"""

import contextlib
import io
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import PIL.Image
from jaxtyping import Float, Int, UInt8

from dal_jax.body import cameras, skeleton
from dal_jax.body.cameras import Pinhole
from dal_jax.data.schema import DatasetBuilder
from dal_jax.observations import observation, photographs
from dal_jax.observations.observation import Observation
from dal_jax.runtime import files, struct
from dal_jax.runtime.errors import InputError, damage_named

COLUMNS = "columns"
"""The folder of the columns, in that of a data set."""

HIDDEN_CONFIDENCE = 0.5
"""Confidence of a key point that its annotator could not see and had to guess; a seen one has 1."""

COLUMNS_NEEDED = (
    "name", "box_px", "intrinsics_px", "extrinsics_m", "moment", "keypoint_set", "keypoints_px", "keypoint_visible",
    "point_px", "point_face", "point_barycentric", "point_confidence", "truth_joints_known", "truth_body_known",
    "truth_joints_mm", "truth_joints_h36m_mm",
)  # fmt: skip
"""Features of an example (`data.schema`) that become columns."""

_SEEN = (
    "point_position", "point_face", "point_barycentric", "point_confidence", "keypoint_position",
    "keypoint_confidence", "box_px",
)  # fmt: skip
_TEXTS = ("name", "moment")  # as wide as the longest
_TURNED = ("point_position", "keypoint_position")
_POINTS_STEP = 50  # places for points are a multiple of it, or every data set would be compiled for anew

Columns = dict[str, np.ndarray]
"""Fields, stacked over people."""


def write_columns(
    folder: pathlib.Path, splits: Mapping[str, Callable[[], Iterable[Columns]]], people: Mapping[str, int]
) -> None:
    """Write the columns of all splits, a piece of the people at a time.

    Args:
      folder: becomes that of the columns.
      splits: by name a function that yields the `COLUMNS_NEEDED` features of some people after the others, in order,
        the same each time that it is called.
      people: how many of them each split has.
    """
    used, width = 0, dict.fromkeys(_TEXTS, 1)
    for pieces in splits.values():
        for piece in pieces():
            used = max(used, 1 + np.flatnonzero(np.any(piece["point_confidence"] > 0, axis=0)).max(initial=0))
            width = {name: max(least, *map(len, piece[name].tolist())) for name, least in width.items()}
    places = _POINTS_STEP * -(-used // _POINTS_STEP)
    with files.directory(folder, overwrite=True) as building:
        for split, pieces in splits.items():
            (building / split).mkdir()
            written: Columns = {}
            done = 0
            for piece in pieces():
                made = _as_columns(piece, places) | {name: piece[name].astype(f"<U{width[name]}") for name in _TEXTS}
                for field, values in made.items():
                    if field not in written:
                        path, shape = building / split / f"{field}.npy", (people[split], *values.shape[1:])
                        written[field] = np.lib.format.open_memmap(path, "w+", values.dtype, shape)
                    written[field][done : done + len(values)] = values
                done += len(piece["name"])


def _as_columns(piece: Columns, places: int) -> Columns:
    seen = _observe(piece, places)
    turned = observation.along_ray(seen, piece["intrinsics_px"])
    assert turned.pinhole is not None
    keypoint_set = np.full(len(piece["name"]), seen.keypoint_set, "<U16")
    kept = {name: piece[name] for name in COLUMNS_NEEDED if name.startswith(("truth_", "intrinsics_", "extrinsics_"))}
    return {
        **kept,
        **{name: np.asarray(getattr(seen, name)) for name in _SEEN},
        **{f"ray_{name}": np.asarray(getattr(turned, name)) for name in _TURNED},
        "ray_focal": np.asarray(turned.pinhole.focal),
        "keypoint_set": keypoint_set,
    }


def _observe(piece: Columns, places: int) -> Observation:
    """Turn photograph pixels into the crop's [-1, 1], and leave out places for points that no person uses."""
    box = piece["box_px"]
    confidence = piece["point_confidence"][:, :places]
    points = observation.crop_from_px(piece["point_px"][:, :places], box)
    keypoint_set = str(piece["keypoint_set"][0])
    keypoints = len(skeleton.KEYPOINT_SETS[keypoint_set])
    trust = np.array([0.0, HIDDEN_CONFIDENCE, 1.0], np.float32)[piece["keypoint_visible"][:, :keypoints]]
    no_depth = np.zeros((len(box), keypoints), np.float32)
    return Observation(
        point_position=np.where(confidence[..., None] > 0, points, 0.0).astype(np.float32),
        point_face=piece["point_face"][:, :places],
        point_barycentric=piece["point_barycentric"][:, :places],
        point_confidence=confidence,
        keypoint_position=observation.crop_from_px(piece["keypoints_px"][:, :keypoints], box).astype(np.float32),
        keypoint_confidence=trust,
        depth=no_depth,
        depth_confidence=no_depth,
        box_px=box,
        keypoint_set=keypoint_set,
    )


def read_columns(folder: pathlib.Path, split: str, limit: int | None = None) -> Columns:
    """Return the columns of a split (the first `limit` people), mapped; of several, as in `train+val`, in memory."""
    each: list[Any] = [
        {path.stem: np.asarray(np.load(path, mmap_mode="r")) for path in (folder / name).glob("*.npy")}
        for name in split.split("+")
    ]
    together = each[0] if len(each) == 1 else {name: np.concatenate([one[name] for one in each]) for name in each[0]}
    return {name: values[:limit] for name, values in together.items()}


def _observations(columns: Columns, along_ray: bool = False) -> Observation:
    """Return what is observed, as in the photographs or `along_ray`; no depths yet."""
    seen: Any = {name: columns[name] for name in _SEEN}
    pinhole = None
    if along_ray:
        seen |= {name: columns[f"ray_{name}"] for name in _TURNED}
        focal = columns["ray_focal"]
        pinhole = Pinhole(focal, np.broadcast_to(np.float32(0), (len(focal), 2)))
    no_depth = np.broadcast_to(np.float32(0), seen["keypoint_confidence"].shape)
    return Observation(
        **seen, depth=no_depth, depth_confidence=no_depth, pinhole=pinhole,
        keypoint_set=str(columns["keypoint_set"][0]),
    )  # fmt: skip


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
class CameraRig:
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
    rig: CameraRig | None = None

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
        observations=_observations(columns, asked["along_ray"]),
        images=pictures[:] if first.nbytes * count <= IMAGES_IN_MEMORY_BYTES else pictures,
        names=columns["name"],
        intrinsics_px=columns["intrinsics_px"],
        truth=_truth(builder, split, columns, asked["with_vertices"]) if asked["with_truth"] else None,
        rig=_rig(columns, asked["along_ray"]),
    )


def _rig(columns: Columns, along_ray: bool) -> CameraRig | None:
    moment = np.asarray(columns["moment"])
    if not (moment != "").any():
        return None
    alone = np.char.add("\n", np.arange(len(moment)).astype(str))  # no moment is called so
    number = np.unique(np.where(moment == "", alone, moment), return_inverse=True)[1]
    extrinsics = np.asarray(columns["extrinsics_m"], np.float64)
    if along_ray:
        turned = cameras.crop_rotations(columns["box_px"], columns["intrinsics_px"]).astype(np.float64)
        extrinsics = np.einsum("nji,njk->nik", turned, extrinsics)
    return CameraRig(number, extrinsics)


def _columns(builder: DatasetBuilder, split: str, limit: int | None) -> Columns:
    return read_columns(pathlib.Path(builder.data_dir) / COLUMNS, split, limit)


def _damage_named(place: object) -> contextlib.AbstractContextManager[None]:
    return damage_named(place, "data set", "; remove that folder, and the same command makes it again")


def load_truth(builder: DatasetBuilder, split: str, limit: int | None = None) -> Truth | None:
    """Return what is true of a split's people (the first `limit`), None unless known of all; for evaluation only."""
    with _damage_named(builder.data_dir):
        return _truth(builder, split, _columns(builder, split, limit), with_vertices=True)


def _truth(builder: DatasetBuilder, split: str, columns: Columns, with_vertices: bool) -> Truth | None:
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
