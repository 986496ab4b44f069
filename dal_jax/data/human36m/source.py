"""Human3.6M as a data set that can be recorded: a video is a unit of work, a frame of it a person."""

import dataclasses
import functools
import hashlib
import itertools
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from dal_jax.body import template as template_lib
from dal_jax.correspondences import chart as chart_lib, person as person_lib
from dal_jax.data import pictures, schema
from dal_jax.data.human36m import (
    cameras as cameras_lib,
    dense as dense_lib,
    densepose,
    mosh,
    positions,
    sequences,
    video,
)
from dal_jax.data.recording import source as source_lib
from dal_jax.runtime import errors

ROUTES = ("mosh", "iuv")
VERSION = "1"
"""Of this reader: what it records depends on it."""

_DISAGREEMENT_PX = 10.0  # median, of D2_Positions from the projected D3_Positions; the release's own agree far better


@dataclasses.dataclass(frozen=True)
class Human36m:
    """The extracted release under protocol 1, with dense points by one of the paper's two routes; a `Source`.

    root: the folder of S1, S5 and so on. dense: 'mosh' or 'iuv'; dense_root: the folder of SMPL parameters, or of IUV
    pictures. frame_step: every how many frames a person is taken (50 a second). image_size: px, of the square crop.
    metadata: the release's metadata.xml; without it the published lenses are used, and D3_Positions_mono is needed.
    body: that poses MoSh's parameters, by default the free body. chart: DensePose's UV_Processed.mat, of the IUV route.
    """

    root: str
    dense: str
    dense_root: str
    frame_step: int = 5
    image_size: int = 224
    metadata: str = ""
    body: str = ""
    chart: str = ""

    name = "human36m"
    unit = "video"
    units_a_chunk = 1
    description = "Human3.6M, protocol 1: frames of its videos, projected joints, dense points; 3D joints as truth."

    @property
    def config(self) -> str:
        """The route."""
        return self.dense

    def digest(self) -> str:
        """Return a short name of the options and of the input files' names and sizes (there are 100 GB of them)."""
        content = hashlib.sha256(json.dumps(self.options(), sort_keys=True).encode())
        for folder in (pathlib.Path(self.root), pathlib.Path(self.dense_root)):
            for subject in sorted(itertools.chain(*sequences.SPLITS.values())):
                for path in sorted((folder / subject).rglob("*.*")):
                    content.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode())
        for file in (self.metadata, self.body, self.chart):
            content.update(pathlib.Path(file).read_bytes() if file else b"-")
        return content.hexdigest()[:12]

    def options(self) -> dict[str, Any]:
        """Return what the people depend on besides the files."""
        return {
            "version": VERSION,
            "dense": self.dense,
            "frame_step": self.frame_step,
            "image_size": self.image_size,
            "free_body": not self.body,
        }

    def splits(self) -> Mapping[str, list[sequences.Sequence]]:
        """Return the videos of protocol 1's subjects, as far as they are there; checks all folders and options."""
        self._check()
        found = {split: sequences.find(pathlib.Path(self.root), split) for split in sequences.SPLITS}
        found = {split: videos for split, videos in found.items() if videos}
        if not found:
            raise errors.InputError(f"{self.root}: no video S1/Videos/*.mp4, or of another subject of protocol 1")
        seen_by_camera = (one.positions("D3_Positions_mono") for one in itertools.chain(*found.values()))
        if not self.metadata and not any(path.is_file() for path in seen_by_camera):
            raise errors.InputError(f"{self.root}: no D3_Positions_mono; D3_Positions need --metadata=metadata.xml")
        return found

    def read(
        self, sequence: sequences.Sequence
    ) -> Iterator[source_lib.Example | person_lib.Rejected | source_lib.Noted]:
        """Yield a video's people; a damaged file takes with it what hangs on it, and is counted."""
        if sequence.fault:
            yield _rejected(sequence, "video known to be bad", f"{sequence.name}: left out: {sequence.fault}")
            return
        try:
            lens = _cameras(self.metadata).lenses[sequence.camera]
            joints_px, truth_mm = self._joints(sequence, lens)
            frames = np.arange(0, len(truth_mm), self.frame_step)
            annotated = self._annotated(sequence, lens, joints_px, truth_mm, frames)
            shown = itertools.chain(video.frames(sequence.video, self.frame_step), itertools.repeat(None))
            for frame, found, picture in zip(frames.tolist(), annotated, shown, strict=False):
                if picture is None:
                    yield source_lib.Noted("frame beyond the video's end")
                elif isinstance(found, dense_lib.Dense):
                    truth = {"truth_joints_h36m_mm": truth_mm[frame], "truth_intrinsics_px": lens.intrinsics_px}
                    yield self._example(sequence, frame, picture[1], found, joints_px[frame], truth)
                else:
                    yield found
        except errors.InputError as error:
            yield _rejected(sequence, "unreadable file", str(error))

    @property
    def _body(self) -> str:
        return self.body or str(template_lib.FREE_BODY)

    def _check(self) -> None:
        """Refuse wrong options, and read now what every video needs: the run ends before it begins."""
        if self.dense not in ROUTES:
            raise errors.InputError(f"--dense={self.dense}: one of {', '.join(ROUTES)}")
        for folder in (self.root, self.dense_root):
            if not folder or not pathlib.Path(folder).is_dir():
                raise errors.InputError(f"{folder or 'the folder of dense annotation'}: no such folder")
        _cameras(self.metadata)
        if self.dense == "iuv":
            _chart(self.chart)
        else:
            template_lib.load_template(self._body)

    def _joints(
        self, sequence: sequences.Sequence, lens: cameras_lib.Lens
    ) -> tuple[Float[np.ndarray, "frames 17 2"], Float[np.ndarray, "frames 17 3"]]:
        """Return the projected joints, px, and the joints in the camera's frame, mm."""
        truth_mm = self._truth(sequence)
        behind = np.argwhere(truth_mm[..., 2] <= 0)
        if len(behind):
            raise errors.InputError(f"{sequence.name}: frame {behind[0, 0]}: a joint is behind the camera")
        joints_px = lens.project(truth_mm)
        told = sequence.positions("D2_Positions")
        if told.is_file():
            own = positions.read(told, 2)
            count = min(len(own), len(truth_mm))
            joints_px, truth_mm, projected = own[:count], truth_mm[:count], joints_px[:count]
            apart = float(np.median(np.linalg.norm(joints_px - projected, axis=-1)))
            if not apart < _DISAGREEMENT_PX:
                raise errors.InputError(f"{told}: {apart:.0f} px from the 3D joints that camera {sequence.camera} sees")
        return joints_px, truth_mm

    def _truth(self, sequence: sequences.Sequence) -> Float[np.ndarray, "frames 17 3"]:
        mono = sequence.positions("D3_Positions_mono")
        if mono.is_file():
            return positions.read(mono, 3)
        placement = _cameras(self.metadata).placements.get((sequence.subject, sequence.camera))
        if placement is None:
            raise errors.InputError(f"{mono}: no such file; D3_Positions need --metadata=metadata.xml")
        return placement.to_camera(positions.read(sequence.positions("D3_Positions"), 3))

    def _annotated(
        self,
        sequence: sequences.Sequence,
        lens: cameras_lib.Lens,
        joints_px: Float[np.ndarray, "frames 17 2"],
        truth_mm: Float[np.ndarray, "frames 17 3"],
        frames: Int[np.ndarray, "k"],
    ) -> Iterator[dense_lib.Dense | person_lib.Rejected | source_lib.Noted]:
        folder = pathlib.Path(self.dense_root)
        if self.dense == "iuv":
            return densepose.annotate(folder, sequence, _chart(self.chart), joints_px, frames)
        return mosh.annotate(mosh.find(folder, sequence), sequence, self._body, lens, truth_mm, frames)

    def _example(
        self,
        sequence: sequences.Sequence,
        frame: int,
        picture: UInt8[np.ndarray, "h w 3"],
        found: dense_lib.Dense,
        joints_px: Float[np.ndarray, "17 2"],
        truth: dict[str, np.ndarray],
    ) -> source_lib.Example:
        height, width = picture.shape[:2]
        inside = ((found.point_px >= 0) & (found.point_px < (width, height))).all(axis=1)
        return {
            **schema.unknown_truth(),
            "image": pictures.jpeg(pictures.crop(picture, found.box_px, self.image_size)),
            "name": f"{sequence.subject}_{sequence.stem}.{sequence.camera}_{frame:06d}",
            "subject": sequence.subject,
            "action": sequence.action,
            "video": sequence.name,
            "frame": np.int32(frame),
            "box_px": found.box_px.astype(np.float32),
            "keypoints_px": joints_px.astype(np.float32),
            # hidden ones too have been measured, not guessed
            "keypoint_visible": np.full(17, schema.SEEN, np.uint8),
            "keypoint_derived": np.zeros(17, np.uint8),
            **schema.point_features(found.point_px[inside], found.face[inside], found.barycentric[inside]),
            "iuv": b"",
            "mask": b"",
            "truth_joints_known": np.uint8(1),
            **{name: values.astype(np.float32) for name, values in truth.items()},
        }


def _rejected(sequence: sequences.Sequence, kind: str, message: str) -> person_lib.Rejected:
    return person_lib.Rejected(sequence.name, -1, sequence.video.name, kind, message)


@functools.cache
def _cameras(metadata: str) -> cameras_lib.Cameras:
    return cameras_lib.read_metadata(pathlib.Path(metadata)) if metadata else cameras_lib.published()


@functools.cache
def _chart(chart: str) -> chart_lib.Chart:
    free = template_lib.load_template()
    return chart_lib.load_densepose_chart(chart, free) if chart else chart_lib.body_chart(free)
