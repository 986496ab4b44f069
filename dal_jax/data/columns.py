"""What is known of a data set's people, as columns on disk: an .npy file a field and split, mapped into memory.

Opening them takes neither time nor memory, however many people there are; what is asked for is read. They lie beside
the array_record files, which hold the pictures. Observations are stored as they are used, in the crop's [-1, 1], and
once more as `observation.along_ray` sees them.
"""

import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from dal_jax.body import skeleton
from dal_jax.body.cameras import Pinhole
from dal_jax.observations import observation
from dal_jax.observations.observation import Observation
from dal_jax.runtime import files

FOLDER = "columns"
HIDDEN_CONFIDENCE = 0.5
"""Confidence of a key point that its annotator could not see and had to guess; a seen one has 1."""

NEEDED = (
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


def write(
    folder: pathlib.Path, splits: Mapping[str, Callable[[], Iterable[Columns]]], people: Mapping[str, int]
) -> None:
    """Write the columns of all splits, a piece of the people at a time.

    Args:
      folder: becomes that of the columns.
      splits: by name a function that yields the `NEEDED` features of some people after the others, in order; the same
        each time that it is called.
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
                made = _columns(piece, places) | {name: piece[name].astype(f"<U{width[name]}") for name in _TEXTS}
                for field, values in made.items():
                    if field not in written:
                        path, shape = building / split / f"{field}.npy", (people[split], *values.shape[1:])
                        written[field] = np.lib.format.open_memmap(path, "w+", values.dtype, shape)
                    written[field][done : done + len(values)] = values
                done += len(piece["name"])


def _columns(piece: Columns, places: int) -> Columns:
    seen = _observe(piece, places)
    turned = observation.along_ray(seen, piece["intrinsics_px"])
    assert turned.pinhole is not None
    keypoint_set = np.full(len(piece["name"]), seen.keypoint_set, "<U16")
    kept = {name: piece[name] for name in NEEDED if name.startswith(("truth_", "intrinsics_", "extrinsics_"))}
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


def read(folder: pathlib.Path, split: str, limit: int | None = None) -> Columns:
    """Return the columns of a split (the first `limit` people), mapped; of several, as in `train+val`, in memory."""
    each: list[Any] = [
        {path.stem: np.asarray(np.load(path, mmap_mode="r")) for path in (folder / name).glob("*.npy")}
        for name in split.split("+")
    ]
    together = each[0] if len(each) == 1 else {name: np.concatenate([one[name] for one in each]) for name in each[0]}
    return {name: values[:limit] for name, values in together.items()}


def observations(columns: Columns, along_ray: bool = False) -> Observation:
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
