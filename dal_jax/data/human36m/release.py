"""What an extracted Human3.6M release holds: sequences, joint positions, and beside them a network's pictures.

A sequence is an action of a subject, seen by one camera. Positions are .cdf files of 32 joints a frame, of which 17
move. Dense correspondences are, by one of the paper's two routes (6.1; `mosh` is the other), a DensePose network's
predictions: an IUV picture a video frame.
"""

import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dal_jax.observations import human36m_cameras as cameras, iuv
from dal_jax.observations.chart import Chart
from dal_jax.observations.person import AnnotatedPerson, Rejected
from dal_jax.runtime.errors import InputError, needs_extra
from dal_jax.viewing.raycast import Points

SPLITS = {"train": ("S1", "S5", "S6", "S7", "S8"), "test": ("S9", "S11")}
"""Protocol 1."""

ACTIONS = (
    "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Photo", "Posing", "Purchases", "Sitting",
    "SittingDown", "Smoking", "Waiting", "WalkDog", "Walking", "WalkTogether",
)  # fmt: skip

_RENAMED = {"TakingPhoto": "Photo", "WalkingDog": "WalkDog", "WalkingTogether": "WalkTogether"}
"""Two names of one action: the release's own lists say the first, most of its files the second."""

CORRUPT = {("S11", "Directions", "54138969"): "the video is damaged"}
"""(subject, sequence as its file is named, camera): left out in every protocol."""

DRIFTED = {
    ("S9", "Greeting"): "its 3D joints have drifted",
    ("S9", "SittingDown 1"): "its 3D joints have drifted",
    ("S9", "Waiting 1"): "its 3D joints have drifted",
}
"""Test sequences whose 3D positions lie tens of centimetres beside the person (Iskakov et al. 2019, sec. 4)."""


class CameraSequence(NamedTuple):
    """One sequence seen by one camera.

    root: the release's folder; subject: S1 to S11; stem: as its files are named, for instance 'Directions 1'; action:
    one of ACTIONS.
    """

    root: pathlib.Path
    subject: str
    stem: str
    action: str
    camera: str

    @property
    def name(self) -> str:
        """Subject, sequence and camera, as messages and examples name them."""
        return f"{self.subject}/{self.stem}.{self.camera}"

    @property
    def video(self) -> pathlib.Path:
        """The video file."""
        return self.root / self.subject / "Videos" / f"{self.stem}.{self.camera}.mp4"

    def positions(self, kind: str) -> pathlib.Path:
        """Return the .cdf of D2_Positions, D3_Positions_mono or, all cameras in one, D3_Positions."""
        camera = "" if kind == "D3_Positions" else f".{self.camera}"
        return self.root / self.subject / "MyPoseFeatures" / kind / f"{self.stem}{camera}.cdf"

    @property
    def fault(self) -> str | None:
        """Why this sequence is known to be bad, or None."""
        return CORRUPT.get((self.subject, self.stem, self.camera)) or DRIFTED.get((self.subject, self.stem))


def find_videos(root: pathlib.Path, split: str) -> list[CameraSequence]:
    """Return the sequences of a split that have a video, known bad ones (`CameraSequence.fault`) included, in order.

    Raises:
      errors.InputError: there is none, or a file's name is none of the release's.
    """
    found = []
    for subject in SPLITS[split]:
        for path in sorted((root / subject / "Videos").glob("*.mp4")):
            sequence = _sequence(root, subject, path)
            if sequence:
                found.append(sequence)
    return found


def _sequence(root: pathlib.Path, subject: str, path: pathlib.Path) -> CameraSequence | None:
    """Read a file's name; None for `_ALL`, the recordings that no positions belong to."""
    match = re.fullmatch(r"(([A-Za-z]+)(?: \d)?|_ALL(?: \d)?)\.(\d+)", path.stem)
    if match and match[1].startswith("_ALL"):
        return None
    action = _RENAMED.get(match[2], match[2]) if match else ""
    if not match or action not in ACTIONS or match[3] not in cameras.NAMES:
        raise InputError(f"{path}: is not named as a video of the release, ACTION[ NUMBER].CAMERA.mp4")
    return CameraSequence(root, subject, match[1], action, match[3])


# --- Joint positions ---

JOINTS = 32
MOVING = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
"""Which of the 32 are the 17 of `skeleton.H36M_JOINT_NAMES`, in their order; the others repeat or do not move."""

FRAMES_PER_SECOND = 50
"""Of videos and positions alike."""

_FARTHEST = 1e5  # mm or px; the laboratory is some metres wide


def read_joints(path: pathlib.Path, axes: int) -> Float[np.ndarray, "frames 17 axes"]:
    """Read the moving joints of a file: 2 axes in px (D2_Positions), 3 in mm (D3_Positions and its kin).

    The variable `Pose` has the shape (1, frames, 32 axes).

    Raises:
      errors.InputError: missing, no CDF, another shape, or a number that is none; one line that names file and entry.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with needs_extra("data"):
        import cdflib
    try:
        pose = np.asarray(cdflib.CDF(path).varget("Pose"))
    except Exception as error:  # cdflib raises a dozen types on files that are no CDF
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: 'Pose' cannot be read from this .cdf: {text}") from error
    if pose.ndim != 3 or pose.shape[0] != 1 or pose.shape[2] != JOINTS * axes or pose.dtype.kind != "f":
        raise InputError(
            f"{path}: 'Pose' is {pose.dtype} of shape {pose.shape}, not numbers of shape (1, frames, {JOINTS * axes})"
        )
    joints = pose[0].reshape(-1, JOINTS, axes)[:, MOVING].astype(np.float64)
    wrong = ~(np.abs(joints) <= _FARTHEST).all(axis=-1)
    if wrong.any():
        frame, joint = np.argwhere(wrong)[0]
        raise InputError(f"{path}: frame {frame}: joint {MOVING[joint]} is {joints[frame, joint].tolist()}")
    return joints


# --- Dense correspondences from a network's pictures ---

Dense = tuple[Float[np.ndarray, "4"], Points]
"""What either route says of a frame: the person's square crop, px, and annotated surface points, on the free body."""


def find_pictures(folder: pathlib.Path, sequence: CameraSequence) -> dict[int, pathlib.Path]:
    """Return a sequence's pictures by frame: `S1/Directions 1.54138969/ANYTHING_000005_IUV.png` is frame 5.

    The first frame is 0. Two pictures of one frame are refused, none at all too.

    Raises:
      errors.InputError: one line that names the folder or the file.
    """
    place = folder / sequence.subject / f"{sequence.stem}.{sequence.camera}"
    found: dict[int, pathlib.Path] = {}
    for path in sorted(place.glob("*_IUV.png")):
        match = re.search(r"(\d{1,9})_IUV\.png$", path.name)
        if not match:
            raise InputError(f"{path}: no number of a frame before _IUV.png")
        if int(match[1]) in found:
            raise InputError(f"{path}: is frame {int(match[1])}, as {found[int(match[1])].name} is")
        found[int(match[1])] = path
    if not found:
        raise InputError(f"{place}: no file is named NUMBER_IUV.png")
    return found


def annotate_by_pictures(
    folder: pathlib.Path,
    sequence: CameraSequence,
    chart: Chart,
    joints_px: Float[np.ndarray, "frames 17 2"],
    wanted: Int[np.ndarray, "k"],
) -> Iterator[Dense | Rejected | str]:
    """Yield for each wanted frame the points of its picture, on the chart's body.

    Raises:
      errors.InputError: there are no pictures, or two of one frame.
    """
    pictures = find_pictures(folder, sequence)
    for frame in wanted.tolist():
        if frame not in pictures:
            yield "frame without a prediction"
            continue
        try:
            found = read_picture(pictures[frame], joints_px[frame])
        except InputError as error:
            found = Rejected(sequence.name, frame, pictures[frame].name, "unreadable picture", str(error))
        if found is None:
            yield "frame in which the network found no person"
        elif isinstance(found, Rejected):
            yield found
        else:
            yield found.crop_px, Points(found.point_px, *chart.to_surface(found.part, found.uv))


def read_picture(path: pathlib.Path, joints_px: Float[np.ndarray, "17 2"]) -> AnnotatedPerson | Rejected | None:
    """Return the person of a picture (beside it NUMBER_INDS.png, if there are more) whose box holds most of the joints.

    None where the network found no person; where all are too small, one of them, rejected.

    Raises:
      errors.InputError: the picture, or that of ids, cannot be read.
    """
    inds = path.with_name(path.name.replace("_IUV.png", "_INDS.png"))
    entries = iuv.read_iuv(path, inds if inds.is_file() else None, file_name=path.name)
    if not entries.people:
        return entries.rejected[0] if entries.rejected else None
    best = max(entries.people, key=lambda one: _inside(one.bbox_px, joints_px))
    return best if _inside(best.bbox_px, joints_px) else None


def _inside(box_px: Float[np.ndarray, "4"], joints_px: Float[np.ndarray, "17 2"]) -> int:
    low, high = box_px[:2], box_px[:2] + box_px[2:]
    return int(((joints_px >= low) & (joints_px <= high)).all(axis=1).sum())
