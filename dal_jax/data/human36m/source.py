"""Human3.6M as a data set: a video is a unit of work, a frame of it a person."""

import dataclasses
import hashlib
import itertools
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from dal_jax.data import schema
from dal_jax.data.files import Files
from dal_jax.data.human36m import mosh, release
from dal_jax.data.human36m.mosh import SubjectBodies
from dal_jax.data.human36m.release import CameraSequence, Dense
from dal_jax.data.schema import Example, Item
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


@dataclasses.dataclass(frozen=True)
class Human36m:
    """The extracted release under protocol 1, with dense points by one of the paper's two routes; a `Source`.

    files: the folder that docs/human36m.md describes. dense: 'mosh' or 'iuv'; '': the one whose folder is there.
    frame_step: every how many frames a person is taken (there are 50 a second). smpl: a model of SMPL, which takes the
    person's shape to be posed by MoSh's parameters; '': the body of `files` is posed.
    """

    files: Files
    dense: str = ""
    frame_step: int = 5
    smpl: str = ""

    name = "human36m"
    config = ""
    unit = "video"
    units_a_chunk = 1
    description = "Human3.6M, protocol 1: frames of its videos, projected joints, dense points; 3D joints as truth."

    def digest(self) -> str:
        """Return a short name of options, small files' contents, and the names and sizes of the others (100 GB)."""
        route, folder = self._route(), self.files.folder
        small = [path for path in (folder / _METADATA, pathlib.Path(self.smpl or ".")) if path.is_file()]
        own = self.files.digest(small, [folder / route])
        content = hashlib.sha256(json.dumps([own, VERSION, self.options()], sort_keys=True).encode())
        for subject in sorted(itertools.chain(*release.SPLITS.values())):
            for path in sorted(itertools.chain(*((folder / top / subject).rglob("*.*") for top in (".", "mosh")))):
                content.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode())
        return content.hexdigest()[:12]

    def options(self) -> dict[str, Any]:
        """Return what the people depend on besides the files."""
        shaped = pathlib.Path(self.smpl).name
        return {**self.files.options(), "dense": self._route(), "frame_step": self.frame_step, "smpl": shaped}

    def splits(self) -> Mapping[str, list[CameraSequence]]:
        """Return the videos of protocol 1's subjects, as far as they are there; checks all folders and options."""
        self._check()
        found = {split: release.find_videos(self.files.folder, split) for split in release.SPLITS}
        found = {split: videos for split, videos in found.items() if videos}
        if not found:
            raise InputError(f"{self.files.source}: no video S1/Videos/*.mp4, or of another subject of protocol 1")
        seen_by_camera = (one.positions("D3_Positions_mono") for one in itertools.chain(*found.values()))
        if not self._cameras()[1] and not any(path.is_file() for path in seen_by_camera):
            raise InputError(f"{self.files.source}: no D3_Positions_mono; D3_Positions need {_METADATA}")
        return found

    def read(self, sequence: CameraSequence) -> Iterator[Item]:
        """Yield a video's people; a damaged file takes with it what hangs on it, and is counted."""
        if sequence.fault:
            yield _rejected(sequence, "video known to be bad", f"{sequence.name}: left out: {sequence.fault}")
            return
        try:
            lens = self._cameras()[0][sequence.camera]
            joints_px, truth_mm = self._joints(sequence, lens)
            frames = np.arange(0, len(truth_mm), self.frame_step)
            annotated = self._annotated(sequence, lens, joints_px, truth_mm, frames)
            shown = itertools.chain(photographs.frames(sequence.video, self.frame_step), itertools.repeat(None))
            for frame, found, picture in zip(frames.tolist(), annotated, shown, strict=False):
                if picture is None:
                    yield "frame beyond the video's end"
                elif isinstance(found, tuple):
                    measured = {"truth_joints_h36m_mm": truth_mm[frame], "intrinsics_px": lens.intrinsics_px}
                    yield self._example(sequence, frame, picture[1], found, joints_px[frame], measured)
                else:
                    yield found
        except InputError as error:
            yield _rejected(sequence, "unreadable file", str(error))

    def _route(self) -> str:
        there = [route for route in ROUTES if (self.files.folder / route).is_dir()]
        if self.dense and self.dense not in ROUTES:
            raise InputError(f"--dense={self.dense}: one of {', '.join(ROUTES)}")
        if self.dense in there or (not self.dense and len(there) == 1):
            return self.dense or there[0]
        if self.dense or not there:
            raise InputError(f"{self.files.source}: no folder {self.dense or ' or '.join(ROUTES)} in it")
        raise InputError(f"{self.files.source}: has folders {' and '.join(there)}; name one by --dense")

    def _cameras(self) -> tuple[dict[str, Lens], dict[tuple[str, str], Extrinsics]]:
        metadata = self.files.folder / _METADATA
        return cameras.read_metadata(metadata) if metadata.exists() else (cameras.published(), {})

    def _check(self) -> None:
        """Refuse wrong options, and read now what every video needs: the run ends before it begins."""
        self._cameras()
        if self._route() == "iuv":
            self.files.load_chart()
        else:
            SubjectBodies(self.files.body, self.smpl).of(())

    def _joints(
        self, sequence: CameraSequence, lens: Lens
    ) -> tuple[Float[np.ndarray, "frames 17 2"], Float[np.ndarray, "frames 17 3"]]:
        """Return the projected joints, px, and the joints in the camera's frame, mm."""
        truth_mm = self._truth(sequence)
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

    def _truth(self, sequence: CameraSequence) -> Float[np.ndarray, "frames 17 3"]:
        mono = sequence.positions("D3_Positions_mono")
        if mono.is_file():
            return release.read_joints(mono, 3)
        extrinsics = self._cameras()[1].get((sequence.subject, sequence.camera))
        if extrinsics is None:
            raise InputError(f"{mono}: no such file; D3_Positions need {_METADATA}")
        return cameras.to_camera(extrinsics, release.read_joints(sequence.positions("D3_Positions"), 3))

    def _annotated(
        self,
        sequence: CameraSequence,
        lens: Lens,
        joints_px: Float[np.ndarray, "frames 17 2"],
        truth_mm: Float[np.ndarray, "frames 17 3"],
        frames: Int[np.ndarray, "k"],
    ) -> Iterator[Dense | Rejected | str]:
        folder = self.files.folder / self._route()
        if folder.name == "iuv":
            return release.annotate_by_pictures(folder, sequence, self.files.load_chart(), joints_px, frames)
        bodies = SubjectBodies(self.files.body, self.smpl)
        return mosh.annotate(mosh.find(folder, sequence), sequence, bodies, lens, truth_mm, frames)

    def _seen_from(self, sequence: CameraSequence, frame: int) -> dict[str, Any]:
        """Return where the camera stood, and the moment that four cameras share; only metadata tell."""
        extrinsics = self._cameras()[1].get((sequence.subject, sequence.camera))
        if extrinsics is None:
            return schema.unknown_camera()
        metres = extrinsics * [1.0, 1.0, 1.0, 1e-3]
        moment = f"{sequence.subject} {sequence.stem} {frame}"
        return schema.unknown_camera() | {"extrinsics_m": metres.astype(np.float32), "moment": moment}

    def _example(
        self,
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
            "image": photographs.jpeg(photographs.crop(picture, box_px, self.files.image_size)),
            "name": f"{sequence.subject}_{sequence.stem}.{sequence.camera}_{frame:06d}",
            "subject": sequence.subject,
            "action": sequence.action,
            "video": sequence.name,
            "frame": np.int32(frame),
            "box_px": box_px.astype(np.float32),
            **self._seen_from(sequence, frame),
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
