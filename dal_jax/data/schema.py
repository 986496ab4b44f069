"""The one example that every data set of this project stores: what is observed, and, named apart, what is true.

Training reads no feature whose name starts with `truth_`; evaluation reads nothing else but the names. Photograph
pixels: x right, y down, the first pixel covers [0, 1] x [0, 1]. What is not known of the truth is not a number (NaN),
never 0, so that nothing can be scored against it; nor is an unknown camera.

A `Source` gives such examples: a data set in its owner's files, with its units of work, the people in each, and their
counts.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from dal_jax.observations.person import Rejected
from dal_jax.runtime.errors import InputError, needs_extra

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder
else:
    DatasetBuilder = Any  # annotations alone name it: tensorflow-datasets is loaded where a data set is

VERSION = "1.5.0"
"""Of this layout; data sets of another version are prepared anew beside the old ones."""

POINTS = 200
"""Places for surface points (DensePose-COCO has at most 196); those not used have confidence 0."""

KEYPOINTS = 25
"""Places for key points: those of the largest set."""

HIDDEN, SEEN = 1, 2
"""COCO's flags of an annotated key point (0: not annotated)."""


def features() -> Any:
    """Return the features, each with its meaning, shape and unit.

    Pictures are encoded bytes, not `Image` features, because those need TensorFlow.

    Returns:
      A `tfds.features.FeaturesDict`.

    Raises:
      errors.InputError: tensorflow-datasets is not installed.
    """
    with needs_extra("data"):
        import tensorflow_datasets as tfds

    def floats(shape: tuple[int, ...], doc: str) -> tfds.features.Tensor:
        return tfds.features.Tensor(shape=shape, dtype=np.float32, doc=doc)

    def integers(shape: tuple[int | None, ...], kind: type, doc: str) -> tfds.features.Tensor:
        return tfds.features.Tensor(shape=shape, dtype=kind, doc=doc)

    def picture(doc: str) -> tfds.features.Tensor:
        return tfds.features.Tensor(shape=(), dtype=np.object_, doc=doc)

    return tfds.features.FeaturesDict(
        {
            "image": picture("The person's square crop, RGB, as PNG or JPEG."),
            "name": tfds.features.Text(doc="Unique in the data set."),
            "subject": tfds.features.Text(doc="Whose body it is; people of one subject look alike."),
            "action": tfds.features.Text(doc="What is being done; empty where unknown."),
            "video": tfds.features.Text(doc="Which video; empty for a photograph. A track is a subject in a video."),
            "frame": integers((), np.int32, "Which frame of the video; -1 for a photograph."),
            "box_px": floats((4,), "x, y, width, height of the square crop in the photograph."),
            "intrinsics_px": floats((4,), "The camera's focal lengths and principal point, fx, fy, cx, cy; or NaN."),
            "extrinsics_m": floats((3, 4), "[R | t]: world, metres, to the camera's frame, R x + t; or NaN."),
            "moment": tfds.features.Text(doc="One for all pictures of a person at one moment; empty of a single view."),
            "keypoint_set": tfds.features.Text(doc="Which key points: h36m (the first 17 places) or body_25b."),
            "keypoints_px": floats((KEYPOINTS, 2), "Key points as annotated, in the photograph; order of the set."),
            "keypoint_visible": integers((KEYPOINTS,), np.uint8, "0 not annotated, 1 annotated but hidden, 2 seen."),
            "point_px": floats((POINTS, 2), "Annotated surface points, in the photograph."),
            "point_face": integers((POINTS,), np.int32, "The free body's face that each shows."),
            "point_barycentric": floats((POINTS, 3), "The place on that face; sums to 1."),
            "point_confidence": floats((POINTS,), "1 for an annotated point, 0 for an unused place."),
            "iuv": picture("PNG of the crop: part, u * 255, v * 255 of each pixel, 0 off the body; may be empty."),
            "mask": picture("PNG: 0 off the person, 1 to 14 DensePose's coarse part, 255 part unknown; may be empty."),
            "truth_joints_known": integers((), np.uint8, "1 where Human3.6M's joints are known, 0: they are NaN."),
            "truth_body_known": integers((), np.uint8, "1 where SMPL's joints, rotation and pose are known."),
            "truth_joints_mm": floats((24, 3), "SMPL's 24 joints in the camera's frame: x right, y down, z away."),
            "truth_joints_h36m_mm": floats((17, 3), "Human3.6M's 17 joints in the camera's frame."),
            "truth_rotation": floats((3, 3), "Rotation of the pelvis: body (y up, facing +z) to camera."),
            "truth_pose": floats((23, 3), "Rotation vectors of the other joints in their parents' frames, radians."),
            "truth_vertices_tenth_mm": integers(
                (None, 3), np.int16, "Vertices less the pelvis, camera's axes, tenths of a millimetre; may be empty."
            ),
        }
    )


def unknown_truth() -> dict[str, object]:
    """Return the truth_ features of a person without any 3D truth; update with what is known."""
    return {name: value.copy() for name, value in _unknown().items()}


@functools.cache
def _unknown() -> dict[str, np.ndarray]:
    return {
        name: np.zeros((0, 3), np.int16) if is_ragged(name) else _nothing(feature)
        for name, feature in features().items()
        if name.startswith("truth_")
    }


def unknown_camera() -> dict[str, Any]:
    """Return the features of a camera of which nothing is known."""
    return {
        "intrinsics_px": np.full(4, np.nan, np.float32), "extrinsics_m": np.full((3, 4), np.nan, np.float32),
        "moment": "",
    }  # fmt: skip


def point_features(
    point_px: Float[np.ndarray, "p 2"], face: Int[np.ndarray, "p"], barycentric: Float[np.ndarray, "p 3"]
) -> dict[str, np.ndarray]:
    """Return the point_ features of at most `POINTS` annotated points."""

    def pad(values: np.ndarray, kind: type) -> np.ndarray:
        return np.concatenate([values, np.zeros((POINTS - len(face), *values.shape[1:]))]).astype(kind)

    return {
        "point_px": pad(point_px, np.float32),
        "point_face": pad(face, np.int32),
        "point_barycentric": pad(barycentric, np.float32),
        "point_confidence": pad(np.ones(len(face)), np.float32),
    }


def keypoint_features(
    keypoint_set: str, position_px: Float[np.ndarray, "k 2"], visible: Int[np.ndarray, "k"]
) -> dict[str, object]:
    """Return the keypoint features of annotated key points; `visible` are flags as in the schema."""
    more = KEYPOINTS - len(position_px)
    return {
        "keypoint_set": keypoint_set,
        "keypoints_px": np.pad(position_px, [(0, more), (0, 0)]).astype(np.float32),
        "keypoint_visible": np.pad(visible, (0, more)).astype(np.uint8),
    }


def is_bytes(name: str) -> bool:
    """Tell whether a feature is an encoded picture."""
    feature = _features()[name]
    import tensorflow_datasets as tfds  # there, or `features` would have said so

    return feature.np_dtype == np.object_ and not isinstance(feature, tfds.features.Text)


def is_ragged(name: str) -> bool:
    """Tell whether a feature's length varies."""
    shape: Any = _features()[name].shape
    return is_bytes(name) or None in shape


_features = functools.cache(features)


def _nothing(feature: Any) -> np.ndarray:
    return np.full(feature.shape, np.nan if feature.np_dtype == np.float32 else 0, feature.np_dtype)


Example = dict[str, object]
"""One person, a value for each of `features()`."""

Item = Example | Rejected | str
"""A person, a rejected one, or the kind of something else to count: a grey photograph, a box over the border."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set in its owner's files; it is sent to other processes, so it holds paths and options, not contents.

    name: how tensorflow-datasets calls it. description: a sentence or two.
    unit: what a unit of work is called, as in '12.3 photograph/s'.
    units_a_chunk: how many are read and kept together; a killed run loses the chunks that were under way.
    digest: returns a short name of everything the people depend on: input files, options, versions of code.
    options: returns what is worth knowing later, as JSON: kept in the data set's metadata.
    splits: returns each split's units of work, in order, the same whenever they are listed; a unit can be pickled. It
      raises errors.InputError where the files are not those of this data set, one line.
    read: yields a unit's people, what is wrong with those who are left out, and what else is worth counting; the same
      whenever and in whatever process it is read.
    config: which of its configurations it is; empty where there is only one.
    """

    name: str
    description: str
    unit: str
    units_a_chunk: int
    digest: Callable[[], str]
    options: Callable[[], dict[str, Any]]
    splits: Callable[[], Mapping[str, Sequence[Any]]]
    read: Callable[[Any], Iterator[Item]]
    config: str = ""


def check_choices(dataset: str, choices: Iterable[str], known: Iterable[str]) -> None:
    """Refuse options that a data set does not have, by an `errors.InputError` that names the flag."""
    for name in choices:
        if name not in known:
            raise InputError(f"--{name}: --dataset={dataset} has no such choice")


# --- How many people were prepared, and how many were left out, by kind ---


@dataclasses.dataclass(frozen=True)
class Summary:
    """Counts over a data set, or a part of it.

    prepared: people by split. skipped: rejected ones by kind. noted: other things by kind.
    first: one whole line for each kind that was skipped.
    """

    prepared: dict[str, int]
    skipped: dict[str, int]
    noted: dict[str, int]
    first: dict[str, str]

    def __str__(self) -> str:
        """Return one line: `prepared 1234, skipped 17: 9 without points, 8 box outside; noted 2 grey picture`."""
        line = f"prepared {sum(self.prepared.values())}, skipped {sum(self.skipped.values())}"
        if self.skipped:
            line += ": " + _listed(self.skipped)
        if self.noted:
            line += "; noted " + _listed(self.noted)
        return line

    def to_json(self) -> dict[str, Any]:
        """Return the counts for the data set's metadata; the lines, which name places, are left out."""
        return {name: dict(sorted(getattr(self, name).items())) for name in ("prepared", "skipped", "noted")}


def from_json(counts: dict[str, Any]) -> Summary:
    """Return the summary that `to_json` was made of, without its lines."""
    return Summary(counts["prepared"], counts["skipped"], counts["noted"], {})


def count(split: str, items: Iterable[Item]) -> Summary:
    """Count what a source has yielded."""
    prepared, first = 0, {}
    skipped, noted = collections.Counter(), collections.Counter()
    for item in items:
        if isinstance(item, Rejected):
            skipped[item.kind] += 1
            first.setdefault(item.kind, item.message)
        elif isinstance(item, str):
            noted[item] += 1
        else:
            prepared += 1
    return Summary({split: prepared}, dict(skipped), dict(noted), first)


def total(parts: Iterable[Summary]) -> Summary:
    """Add the counts of parts; of the lines the first of each kind stays."""
    prepared, skipped, noted = collections.Counter(), collections.Counter(), collections.Counter()
    first: dict[str, str] = {}
    for part in parts:
        prepared.update(part.prepared)
        skipped.update(part.skipped)
        noted.update(part.noted)
        first = part.first | first
    return Summary(dict(prepared), dict(skipped), dict(noted), first)


def _listed(counts: dict[str, int]) -> str:
    """List kinds, the most frequent first."""
    return ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items(), key=lambda one: (-one[1], one[0])))
