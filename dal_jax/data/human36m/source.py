"""Human3.6M as a data set: a video is a unit of work, a frame of it a person."""

import functools
import hashlib
import itertools
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from dal_jax.data import schema
from dal_jax.data.files import Files
from dal_jax.data.human36m import mosh, release
from dal_jax.data.human36m.mosh import SubjectBodies
from dal_jax.data.human36m.release import CameraSequence, Dense
from dal_jax.data.schema import Example, Item, Source
from dal_jax.observations import human36m_cameras as cameras, photographs
from dal_jax.observations.human36m_cameras import Extrinsics, Lens
from dal_jax.observations.person import Rejected
from dal_jax.runtime.errors import InputError

ROUTES = ("mosh", "iuv")
"""MoSh's parameters, or a network's IUV pictures; each is the name of the folder beside the subjects'."""

VERSION = "1"
"""Of this reader: the examples depend on it."""

_METADATA = "metadata.xml"
_PHOTOGRAPH_PX, _SIZE_SLACK_PX = 1000, 10  # two cameras' pictures are 1002 high
_DISAGREEMENT_PX = 10.0  # median, of D2_Positions from the projected D3_Positions; the release's own agree far better


def human36m(files: Files, dense: str = "", frame_step: int = 5, smpl: str = "") -> Source:
    """Return the source of the extracted release under protocol 1, with dense points by one of the paper's two routes.

    Args:
      files: the folder that docs/human36m.md describes.
      dense: 'mosh' or 'iuv'; '': the one whose folder is there.
      frame_step: every how many frames a person is taken (there are 50 a second).
      smpl: a model of SMPL, which takes the person's shape to be posed by MoSh's parameters; '': the body of `files` is
        posed.
    """
    return Source(
        name="human36m",
        description="Human3.6M, protocol 1: frames of its videos, projected joints, dense points; 3D joints as truth.",
        unit="video",
        units_a_chunk=1,
        digest=functools.partial(_digest, files, dense, frame_step, smpl),
        options=functools.partial(_options, files, dense, frame_step, smpl),
        splits=functools.partial(_splits, files, dense, smpl),
        read=functools.partial(_read, files, dense, frame_step, smpl),
    )


def _digest(files: Files, dense: str, frame_step: int, smpl: str) -> str:
    """Return a short name of options, small files' contents, and the names and sizes of the others (100 GB)."""
    route, folder, options = _route(files, dense), files.folder, _options(files, dense, frame_step, smpl)
    small = [path for path in (folder / _METADATA, pathlib.Path(smpl or ".")) if path.is_file()]
    own = files.digest(small, [folder / route])
    content = hashlib.sha256(json.dumps([own, VERSION, options], sort_keys=True).encode())
    for subject in sorted(itertools.chain(*release.SPLITS.values())):
        for path in sorted(itertools.chain(*((folder / top / subject).rglob("*.*") for top in (".", "mosh")))):
            content.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode())
    return content.hexdigest()[:12]


def _options(files: Files, dense: str, frame_step: int, smpl: str) -> dict[str, Any]:
    """Return what the people depend on besides the files."""
    shaped = pathlib.Path(smpl).name
    return {**files.options(), "dense": _route(files, dense), "frame_step": frame_step, "smpl": shaped}


def _splits(files: Files, dense: str, smpl: str) -> Mapping[str, list[CameraSequence]]:
    """Return the videos of protocol 1's subjects, as far as they are there; checks all folders and options."""
    _check(files, dense, smpl)
    found = {split: release.find_videos(files.folder, split) for split in release.SPLITS}
    found = {split: videos for split, videos in found.items() if videos}
    if not found:
        raise InputError(f"{files.source}: no video S1/Videos/*.mp4, or of another subject of protocol 1")
    seen_by_camera = (one.positions("D3_Positions_mono") for one in itertools.chain(*found.values()))
    if not _cameras(files)[1] and not any(path.is_file() for path in seen_by_camera):
        raise InputError(f"{files.source}: no D3_Positions_mono; D3_Positions need {_METADATA}")
    return found


def _read(files: Files, dense: str, frame_step: int, smpl: str, sequence: CameraSequence) -> Iterator[Item]:
    """Yield a video's people; a damaged file takes with it what hangs on it, and is counted."""
    if sequence.fault:
        yield _rejected(sequence, "video known to be bad", f"{sequence.name}: left out: {sequence.fault}")
        return
    try:
        lens, folder = _cameras(files)[0][sequence.camera], files.folder / _route(files, dense)
        joints_px, truth_mm = _joints(files, sequence, lens)
        frames = np.arange(0, len(truth_mm), frame_step)
        if folder.name == "iuv":
            annotated = release.annotate_by_pictures(folder, sequence, files.load_chart(), joints_px, frames)
        else:
            parameters, bodies = mosh.find(folder, sequence), SubjectBodies(files.body, smpl)
            annotated = mosh.annotate(parameters, sequence, bodies, lens, truth_mm, frames)
        shown = itertools.chain(photographs.frames(sequence.video, frame_step), itertools.repeat(None))
        for frame, found, picture in zip(frames.tolist(), annotated, shown, strict=False):
            if picture is None:
                yield "frame beyond the video's end"
            elif isinstance(found, tuple):
                measured = {"truth_joints_h36m_mm": truth_mm[frame], "intrinsics_px": lens.intrinsics_px}
                yield _example(files, sequence, frame, picture[1], found, joints_px[frame], measured)
            else:
                yield found
    except InputError as error:
        yield _rejected(sequence, "unreadable file", str(error))


def _route(files: Files, dense: str) -> str:
    there = [route for route in ROUTES if (files.folder / route).is_dir()]
    if dense and dense not in ROUTES:
        raise InputError(f"--dense={dense}: one of {', '.join(ROUTES)}")
    if dense in there or (not dense and len(there) == 1):
        return dense or there[0]
    if dense or not there:
        raise InputError(f"{files.source}: no folder {dense or ' or '.join(ROUTES)} in it")
    raise InputError(f"{files.source}: has folders {' and '.join(there)}; name one by --dense")


def _cameras(files: Files) -> tuple[dict[str, Lens], dict[tuple[str, str], Extrinsics]]:
    metadata = files.folder / _METADATA
    return cameras.read_metadata(metadata) if metadata.exists() else (cameras.published(), {})


def _check(files: Files, dense: str, smpl: str) -> None:
    """Refuse wrong options, and read now what every video needs: the run ends before it begins."""
    _cameras(files)
    if _route(files, dense) == "iuv":
        files.load_chart()
    else:
        SubjectBodies(files.body, smpl).of(())


def _joints(
    files: Files, sequence: CameraSequence, lens: Lens
) -> tuple[Float[np.ndarray, "frames 17 2"], Float[np.ndarray, "frames 17 3"]]:
    """Return the projected joints, px, and the joints in the camera's frame, mm."""
    truth_mm = _truth(files, sequence)
    behind = np.argwhere(truth_mm[..., 2] <= 0)
    if len(behind):
        raise InputError(f"{sequence.name}: frame {behind[0, 0]}: a joint is behind the camera")
    joints_px = lens.project(truth_mm)
    path = sequence.positions("D2_Positions")
    if path.is_file():
        own = release.read_joints(path, 2)
        count = min(len(own), len(truth_mm))
        joints_px, truth_mm, projected = own[:count], truth_mm[:count], joints_px[:count]
        apart = float(np.median(np.linalg.norm(joints_px - projected, axis=-1)))
        if not apart < _DISAGREEMENT_PX:
            raise InputError(f"{path}: {apart:.0f} px from the 3D joints that camera {sequence.camera} sees")
    return joints_px, truth_mm


def _truth(files: Files, sequence: CameraSequence) -> Float[np.ndarray, "frames 17 3"]:
    mono = sequence.positions("D3_Positions_mono")
    if mono.is_file():
        return release.read_joints(mono, 3)
    extrinsics = _cameras(files)[1].get((sequence.subject, sequence.camera))
    if extrinsics is None:
        raise InputError(f"{mono}: no such file; D3_Positions need {_METADATA}")
    return cameras.to_camera(extrinsics, release.read_joints(sequence.positions("D3_Positions"), 3))


def _seen_from(files: Files, sequence: CameraSequence, frame: int) -> dict[str, Any]:
    """Return where the camera stood, and the moment that four cameras share; only metadata tell."""
    extrinsics = _cameras(files)[1].get((sequence.subject, sequence.camera))
    if extrinsics is None:
        return schema.unknown_camera()
    metres = extrinsics * [1.0, 1.0, 1.0, 1e-3]
    moment = f"{sequence.subject} {sequence.stem} {frame}"
    return schema.unknown_camera() | {"extrinsics_m": metres.astype(np.float32), "moment": moment}


def _example(
    files: Files,
    sequence: CameraSequence,
    frame: int,
    picture: UInt8[np.ndarray, "h w 3"],
    found: Dense,
    joints_px: Float[np.ndarray, "17 2"],
    measured: dict[str, np.ndarray],
) -> Example:
    height, width = picture.shape[:2]
    if abs(width - _PHOTOGRAPH_PX) > _SIZE_SLACK_PX or abs(height - _PHOTOGRAPH_PX) > _SIZE_SLACK_PX:
        raise InputError(f"{sequence.video}: {width}x{height} px, but the cameras' pictures have about 1000")
    box_px, points = found
    inside = ((points.px >= 0) & (points.px < (width, height))).all(axis=1)
    return {
        **schema.unknown_truth(),
        "image": photographs.jpeg(photographs.crop(picture, box_px, files.image_size)),
        "name": f"{sequence.subject}_{sequence.stem}.{sequence.camera}_{frame:06d}",
        "subject": sequence.subject,
        "action": sequence.action,
        "video": sequence.name,
        "frame": np.int32(frame),
        "box_px": box_px.astype(np.float32),
        **_seen_from(files, sequence, frame),
        # hidden ones too have been measured, not guessed
        **schema.keypoint_features("h36m", joints_px, np.full(len(joints_px), schema.SEEN)),
        **schema.point_features(*(values[inside] for values in points)),
        "iuv": b"",
        "mask": b"",
        "truth_joints_known": np.uint8(1),
        **{name: values.astype(np.float32) for name, values in measured.items()},
    }


def _rejected(sequence: CameraSequence, kind: str, message: str) -> Rejected:
    return Rejected(sequence.name, -1, sequence.video.name, kind, message)
