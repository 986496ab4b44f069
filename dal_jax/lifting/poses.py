"""2D poses as lifters read them: Human3.6M's 17 joints, of key points of any set and back, and of files.

Some joints are another set's own, some are midpoints of others, some stay unknown. Files are .npz, .npy, or what
detectors write; they are read into one array, checked.
"""

import dataclasses
import os
import pathlib
import reprlib
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dal_jax.body import skeleton
from dal_jax.observations import coco, following, keypoints as keypoints_lib
from dal_jax.observations.coco import BadEntry
from dal_jax.observations.keypoints import Keypoints
from dal_jax.observations.observation import Observation
from dal_jax.runtime import door
from dal_jax.runtime.errors import InputError

DERIVED_CONFIDENCE = 0.5
"""Confidence of a Human3.6M joint that is computed from others. Note: our choice."""

_SAME = {
    "right_hip": "right_hip", "right_knee": "right_knee", "right_foot": "right_ankle", "left_hip": "left_hip",
    "left_knee": "left_knee", "left_foot": "left_ankle", "neck_nose": "nose", "head": "head_top",
    "left_shoulder": "left_shoulder", "left_elbow": "left_elbow", "left_wrist": "left_wrist",
    "right_shoulder": "right_shoulder", "right_elbow": "right_elbow", "right_wrist": "right_wrist",
}  # fmt: skip
_MEAN = {
    "hip": ("left_hip", "right_hip"),
    "thorax": ("left_shoulder", "right_shoulder"),
    "spine": ("left_hip", "right_hip", "left_shoulder", "right_shoulder"),
}


def _h36m_shares() -> Float[np.ndarray, "17 25"]:
    shares = np.zeros((len(skeleton.H36M_JOINT_NAMES), len(skeleton.BODY_25B_NAMES)), np.float32)
    for joint, name in enumerate(skeleton.H36M_JOINT_NAMES):
        sources = _MEAN.get(name) or (_SAME[name],)
        shares[joint, [skeleton.BODY_25B_NAMES.index(source) for source in sources]] = 1.0 / len(sources)
    return shares


_SHARES = _h36m_shares()
_DERIVED = np.array([name in _MEAN for name in skeleton.H36M_JOINT_NAMES])


def to_h36m(observed: Observation) -> tuple[Float[Array, "*batch 17 2"], Float[Array, "*batch 17"]]:
    """Return Human3.6M's 17 joints of an observation's key points, crop units, and the confidence in each.

    Hip, thorax and spine are midpoints of hips and shoulders where all of them are known, the nose stands for the
    joint between neck and nose. They are near Human3.6M's places, not on them.
    """
    position, confidence = jnp.asarray(observed.keypoint_position), jnp.asarray(observed.keypoint_confidence)
    if observed.keypoint_set == "h36m":
        return position, confidence
    return h36m_places(position, confidence)


def h36m_places(
    position: Float[Array | np.ndarray, "*batch 25 2"], confidence: Float[Array | np.ndarray, "*batch 25"]
) -> tuple[Float[Array, "*batch 17 2"], Float[Array, "*batch 17"]]:
    """Return the same of BODY_25B's key points in any unit."""
    position, confidence = jnp.asarray(position), jnp.asarray(confidence)
    used = _SHARES > 0
    lowest = jnp.min(jnp.where(used, confidence[..., None, :], jnp.inf), axis=-1)
    shares = jnp.broadcast_to(jnp.asarray(_SHARES), (*position.shape[:-2], *_SHARES.shape))
    known = jnp.where(confidence[..., None] > 0, position, 0.0)
    return jnp.matmul(shares, known, precision="highest"), jnp.where(_DERIVED, DERIVED_CONFIDENCE * lowest, lowest)


def from_h36m(
    keypoint_set: str, depth: Float[Array | np.ndarray, "*batch 17"], confidence: Float[Array | np.ndarray, "*batch 17"]
) -> tuple[Float[Array, "*batch k"], Float[Array, "*batch k"]]:
    """Return the depths, with confidences, of a set's key points from those of Human3.6M's joints.

    A key point that is no joint of Human3.6M's (eyes, ears, toes, heels) has confidence 0, and so has the nose, which
    stood for another place.
    """
    depth, confidence = jnp.asarray(depth), jnp.asarray(confidence)
    if keypoint_set == "h36m":
        return depth, confidence
    row = {name: joint for joint, name in enumerate(skeleton.H36M_JOINT_NAMES)}
    source = [row.get(_H36M_NAME.get(name, "")) for name in skeleton.BODY_25B_NAMES]
    known = np.array([joint is not None for joint in source])
    rows = np.array([joint or 0 for joint in source])
    return jnp.where(known, depth[..., rows], 0.0), jnp.where(known, confidence[..., rows], 0.0)


_H36M_NAME = {name: joint for joint, name in _SAME.items() if joint not in ("neck_nose", "head")}


_LARGEST_NUMBER = 2**31 - 1  # of a track or a frame
_LARGEST = 1e6  # px; beyond, squares lose their digits in float32, and no photograph is that large


@dataclasses.dataclass(frozen=True)
class Poses2D:
    """2D poses in Human3.6M's order: x right, y down, px.

    visible: which joints are annotated; the others are 0. entry: the annotation's id (COCO), else the row. skipped:
    COCO annotations without two known joints. notes: lines on what of the file is not used. intrinsics_px: fx, fy, cx,
    cy of each camera, None where they are not known. track_id: whose each pose is, -1: nobody's; frame: its number in
    the video; None where the file does not say.
    """

    keypoints_px: Float[np.ndarray, "n 17 2"]
    visible: Bool[np.ndarray, "n 17"]
    entry: Int[np.ndarray, "n"]
    skipped: int = 0
    notes: Sequence[str] = ()
    intrinsics_px: Float[np.ndarray, "n 4"] | None = None
    track_id: Int[np.ndarray, "n"] | None = None
    frame: Int[np.ndarray, "n"] | None = None


def read(
    path: str | os.PathLike[str], intrinsics_px: Sequence[str] | None = None, assume_camera: bool = False
) -> Poses2D:
    """Read a file of 2D poses: x right, y down, px; Human3.6M order but for COCO.

    .npz: `keypoints` (n, 17, 2) and, if some are missing, `visible` (n, 17), and, if cameras are known, `intrinsics_px`
    (n, 4) or (4,): fx, fy, cx, cy, and, if they are people of videos, `track_id` and `frame` (n,); .npy: (n, 34) or
    (n, 17, 2);
    .json, .txt, or a folder of them: COCO's `annotations` with `keypoints`, in the order that `categories` names, if it
    does, or what a detector writes (docs/formats.md). Without a top of the head that joint is missing; hip, thorax and
    spine are midpoints. A key point that was labelled though hidden (v = 1) is used like a visible one.

    Args:
      path: the file.
      intrinsics_px: fx, fy, cx, cy as text, of the camera of all poses, instead of what the file says.
      assume_camera: where the file gives the photographs' sizes (COCO's `images`): a focal length as long as the longer
        side, as `register --camera=assumed` has it, and the principal point in the middle.

    Raises:
      errors.InputError: one line that names file, entry and value.
    """
    poses = _read(pathlib.Path(path), assume_camera)
    if intrinsics_px is None:
        return poses
    try:
        values = np.array([float(text) for text in intrinsics_px])
    except ValueError:
        raise InputError(f"intrinsics_px is {','.join(intrinsics_px)}: four numbers fx,fy,cx,cy") from None
    return dataclasses.replace(poses, intrinsics_px=intrinsics("intrinsics_px", values, len(poses.entry)))


def _read(path: pathlib.Path, assume_camera: bool) -> Poses2D:
    readers = {".npz": _read_npz, ".npy": _read_npy, ".json": _read_coco, ".txt": _read_coco}
    if path.suffix.lower() not in readers and not path.is_dir():
        raise InputError(f"{path}: 2D poses are .npz, .npy or what an annotator or a detector writes (docs/formats.md)")
    reader = _read_coco if path.is_dir() else readers[path.suffix.lower()]
    if assume_camera and reader is not _read_coco:
        raise InputError(f"{path}: does not say how large its photographs are; give intrinsics_px")
    poses = _read_coco(path, assume_camera) if reader is _read_coco else reader(path)
    if len(poses.entry) == 0:
        skipped = f", {poses.skipped} were skipped" * bool(poses.skipped)
        raise InputError("; ".join([f"{path}: holds no pose{skipped}", *poses.notes]))
    return poses


def of_both_sets(h36m_px: Float[np.ndarray, "n 17 2"], body25b_px: Float[np.ndarray, "n 25 2"]) -> Poses2D:
    """Return every other person with Human3.6M's joints, the rest with those that BODY_25B's key points stand for.

    A lifter that has seen both sets is at home in both: one of Human3.6M's joints alone has a quarter more error with
    COCO's key points, which lie at other places of the body.
    """
    places, _ = h36m_places(body25b_px, np.ones(body25b_px.shape[:2], np.float32))
    odd = np.arange(len(h36m_px)) % 2 == 1
    keypoints = np.where(odd[:, None, None], np.asarray(places), h36m_px)
    return checked("keypoints_px", keypoints, np.ones(keypoints.shape[:2], bool))


def checked(name: str, keypoints: np.ndarray, visible: np.ndarray) -> Poses2D:
    """Return poses from arrays, (n, 17, 2) of any real type and (n, 17) bool, refusing what cannot be lifted.

    Raises:
      errors.InputError: a visible joint is not finite or beyond 10^6, or a pose has no size; begins with `name` and
        the indices.
    """
    if not np.issubdtype(keypoints.dtype, np.number) or np.iscomplexobj(keypoints):
        raise InputError(f"{name} has type {keypoints.dtype}, not a real number")
    keypoints = np.where(visible[..., None], keypoints, 0)
    keypoints = keypoints.astype(np.promote_types(keypoints.dtype, np.float32), copy=False)  # float16 ends below 10^6
    with np.errstate(invalid="ignore"):
        wrong = ~(np.abs(keypoints) <= _LARGEST).all(axis=-1)
    if wrong.any():
        pose, joint = np.argwhere(wrong)[0]
        raise InputError(f"{name}[{pose}, {joint}] is {keypoints[pose, joint].tolist()}")
    keypoints = keypoints.astype(np.float32)
    sizeless = ~_has_size(keypoints, visible)
    if sizeless.any():
        pose = int(np.argmax(sizeless))
        raise InputError(f"{name}[{pose}] has no size: its visible joints are all at one place, or none")
    return Poses2D(keypoints, visible, np.arange(len(keypoints)))


def intrinsics(name: str, values: np.ndarray, count: int) -> Float[np.ndarray, "n 4"]:
    """Return intrinsics of `count` cameras from one for all or one each.

    Raises:
      errors.InputError: a shape or a type is wrong, a value is not finite or beyond 10^6, or a focal length not
        positive; begins with `name`.
    """
    values = np.asarray(values)
    if values.shape not in ((4,), (count, 4)) or values.dtype.kind not in "fiu":
        raise InputError(f"{name} has shape {values.shape} of {values.dtype}, not ({count}, 4) numbers")
    values = np.broadcast_to(values, (count, 4)).astype(np.float32)
    wrong = ~((np.abs(values) <= _LARGEST).all(axis=1) & (values[:, :2] > 0).all(axis=1))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(f"{name}[{row}] is {values[row].tolist()}: fx, fy, cx, cy in px")
    return values


def _read_npz(path: pathlib.Path) -> Poses2D:
    fields = door.read_npz(path)
    if "keypoints" not in fields:
        raise InputError(f"{path}: no field 'keypoints'; it has {', '.join(fields) or 'none'}")
    keypoints = fields["keypoints"]
    if keypoints.ndim != 3 or keypoints.shape[1:] != (17, 2):
        raise InputError(f"{path}: keypoints has shape {keypoints.shape}, not (n, 17, 2)")
    visible = fields.get("visible", np.ones(keypoints.shape[:2], bool))
    if visible.shape != keypoints.shape[:2]:
        raise InputError(f"{path}: visible has shape {visible.shape}, not {keypoints.shape[:2]}")
    if not np.isin(visible, (0, 1)).all():
        pose, joint = np.argwhere(~np.isin(visible, (0, 1)))[0]
        raise InputError(f"{path}: visible[{pose}, {joint}] is {visible[pose, joint]}, not 0 or 1")
    poses = checked(f"{path}: keypoints", keypoints, visible.astype(bool))
    numbers = {
        name: _whole_numbers(f"{path}: {name}", fields.get(name), len(keypoints)) for name in ("track_id", "frame")
    }
    poses = dataclasses.replace(poses, **numbers)
    if "intrinsics_px" not in fields:
        return poses
    camera = intrinsics(f"{path}: intrinsics_px", fields["intrinsics_px"], len(keypoints))
    return dataclasses.replace(poses, intrinsics_px=camera)


def _whole_numbers(name: str, values: np.ndarray | None, count: int) -> Int[np.ndarray, "n"] | None:
    if values is None:
        return None
    if values.shape != (count,) or values.dtype.kind not in "iu":
        raise InputError(f"{name} has shape {values.shape} of {values.dtype}, not ({count},) whole numbers")
    if (wrong := ~((values >= -1) & (values <= _LARGEST_NUMBER))).any():
        row = int(np.argmax(wrong))
        raise InputError(f"{name}[{row}] is {values[row]}: from -1 to {_LARGEST_NUMBER}")
    return values.astype(np.int64)


def _read_npy(path: pathlib.Path) -> Poses2D:
    keypoints = door.read_npy(path)
    if keypoints.ndim not in (2, 3) or keypoints.shape[1:] not in ((34,), (17, 2)):
        raise InputError(f"{path}: has shape {keypoints.shape}, not (n, 34) or (n, 17, 2)")
    keypoints = keypoints.reshape(-1, 17, 2)
    return checked(f"{path}: pose", keypoints, np.ones(keypoints.shape[:2], bool))


def _has_size(keypoints: np.ndarray, visible: np.ndarray) -> np.ndarray:
    seen = visible[..., None]
    high = np.max(keypoints, axis=1, where=seen, initial=-np.inf)
    low = np.min(keypoints, axis=1, where=seen, initial=np.inf)
    return (high > low).any(axis=-1)


def _read_coco(path: pathlib.Path, assume_camera: bool = False) -> Poses2D:
    content = coco.read(path, needs_pictures=assume_camera)
    people = [
        _one_coco(where, number, entry, content.labels)
        for number, (where, entry) in enumerate(zip(content.where, content.entries, strict=True))
    ]
    entry = np.array([number for number, _ in people], np.int64)
    names = skeleton.KEYPOINT_SETS[keypoints_lib.set_of(content.labels.names)]
    position = np.array([one.position_px for _, one in people], np.float32).reshape(-1, len(names), 2)
    labelled = np.array([one.flag > 0 for _, one in people], np.float32).reshape(-1, len(names))
    is_h36m = names is skeleton.H36M_JOINT_NAMES
    keypoints, confidence = (position, labelled) if is_h36m else map(np.asarray, h36m_places(position, labelled))
    visible = confidence > 0
    good = _has_size(keypoints, visible)
    notes = keypoints_lib.notes((where, one) for where, (_, one) in zip(content.where, people, strict=True))
    poses = Poses2D(keypoints[good], visible[good], entry[good], len(people) - int(good.sum()), notes)
    if (of_videos := _of_videos(content)) is not None:
        track, frame = (each[good] for each in of_videos)
        poses = dataclasses.replace(poses, track_id=track, frame=frame)
    return dataclasses.replace(poses, intrinsics_px=_assumed(content)[good]) if assume_camera else poses


def _of_videos(content: coco.Content) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]] | None:
    """Return whose each annotation is, numbered, and its frame (`following`); None where one does not say whose."""
    ids = [entry.get("track_id") for entry in content.entries]
    if not all(isinstance(one, int | str) for one in ids):
        return None
    images = [entry.get("image_id", 0) for entry in content.entries]
    pictures = [coco.picture_of(content.pictures, entry) or {} for entry in content.entries]
    video, frame = following.frame_numbers([str(one.get("file_name", "")) for one in pictures], images)
    return following.numbered(video, ids), frame


def _assumed(content: coco.Content) -> Float[np.ndarray, "n 4"]:
    cameras = []
    for where, entry in zip(content.where, content.entries, strict=True):
        size = coco.picture_size(coco.picture_of(content.pictures, entry) or {})
        if size is None:
            raise InputError(f"{where}: the size of its photograph is not known, which its camera needs")
        cameras.append([max(size), max(size), size[0] / 2, size[1] / 2])
    return np.array(cameras, np.float32).reshape(-1, 4)


def _one_coco(where: str, number: int, entry: Any, labels: coco.Labelling) -> tuple[int, Keypoints]:
    """Return id and key points of one annotation."""
    if not isinstance(entry, dict):
        raise InputError(f"{where}: is no object")
    name = entry.get("id", number)
    if not isinstance(name, int):
        raise InputError(f"{where}: id is {reprlib.repr(name)}, not a whole number")
    try:
        return name, coco.parse(entry, labels)
    except BadEntry as bad:
        raise InputError(f"{where}: {bad.detail}") from bad
