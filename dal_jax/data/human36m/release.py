"""Human3.6M's joint positions: .cdf files of 32 joints a frame, of which 17 move."""

import pathlib
import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dal_jax.observations import human36m_cameras as cameras
from dal_jax.runtime.errors import InputError, needs_extra

JOINTS = 32
MOVING = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
"""Which of the 32 are the 17 of `skeleton.H36M_JOINT_NAMES`, in their order; the others repeat or do not move."""

FRAMES_PER_SECOND = 50
"""Of videos and positions alike."""

_FARTHEST = 1e5  # mm or px; the laboratory is some metres wide


def read(path: pathlib.Path, axes: int) -> Float[np.ndarray, "frames 17 axes"]:
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


# What an extracted Human3.6M release holds: sequences by subject, action and camera; protocol 1; what is left out.

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


class Sequence(NamedTuple):
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


def find(root: pathlib.Path, split: str) -> list[Sequence]:
    """Return the sequences of a split that have a video, known bad ones (`Sequence.fault`) included, in order.

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


def _sequence(root: pathlib.Path, subject: str, path: pathlib.Path) -> Sequence | None:
    """Read a file's name; None for `_ALL`, the recordings that no positions belong to."""
    match = re.fullmatch(r"(([A-Za-z]+)(?: \d)?|_ALL(?: \d)?)\.(\d+)", path.stem)
    if match and match[1].startswith("_ALL"):
        return None
    action = _RENAMED.get(match[2], match[2]) if match else ""
    if not match or action not in ACTIONS or match[3] not in cameras.NAMES:
        raise InputError(f"{path}: is not named as a video of the release, ACTION[ NUMBER].CAMERA.mp4")
    return Sequence(root, subject, match[1], action, match[3])
