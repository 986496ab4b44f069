"""A folder of motions to one file of 2D poses, which a lifter learns from."""

import dataclasses
import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dal_jax.body import template as template_lib
from dal_jax.data.poses import acclaim, bvh, smpl_motion, tracks, views as views_lib
from dal_jax.runtime import atomic, errors, progress

ENDINGS = (".npz", ".pkl", ".bvh", ".amc")


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Which moments are taken, and how they are looked at.

    rate: frames a second, at most; neighbouring frames of a recording teach little more. seed: of the cameras.
    """

    views: views_lib.Views = dataclasses.field(default_factory=views_lib.Views)
    rate: float = 5.0
    seed: int = 0


class Collected(NamedTuple):
    """How much a folder gave: poses written, files read, and the files that could not be, with the reason of each."""

    poses: int
    files: int
    skipped: list[str]


def collect(source: pathlib.Path, out: pathlib.Path, sampling: Sampling, skip_invalid: bool = False) -> Collected:
    """Write `keypoints` (n, 17, 2) px and `visible` of every motion under a folder, whatever its format.

    Args:
      source: a folder of AMASS's or MoSh's .npz and .pkl, of .bvh, of .amc beside their .asf; or one such file.
      out: the .npz to write, whole or not at all.
      skip_invalid: leave a file that cannot be read out, and say so, instead of ending there.

    Raises:
      errors.InputError: a file cannot be read, or there is none; one line that names file and entry.
    """
    paths = find(source, out)
    random = np.random.default_rng(sampling.seed)
    keypoints, skipped = [], []
    for path in progress.bar("reading motions", paths, unit="file"):
        try:
            joints = read(path, sampling.rate)
        except errors.InputError as error:
            if not skip_invalid:
                raise
            skipped.append(str(error))
            continue
        keypoints.append(views_lib.look(joints, sampling.views, random).astype(np.float32))
    if not keypoints:
        raise errors.InputError(skipped[0])
    every = np.concatenate(keypoints)
    atomic.savez(out, keypoints=every, visible=np.ones(every.shape[:2], bool))
    return Collected(len(every), len(keypoints), skipped)


def find(source: pathlib.Path, out: pathlib.Path | None = None) -> list[pathlib.Path]:
    """Return the motion files of a folder and those below it, in order, but for what was made of them before.

    AMASS keeps a `shape.npz` beside a subject's motions, which is none.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise errors.InputError(f"{source}: no such file or folder")
    found = [path for path in sorted(source.rglob("*")) if path.suffix.lower() in ENDINGS and path.is_file()]
    made = out and out.resolve()
    found = [path for path in found if path.name not in _NO_MOTION and path.resolve() != made]
    if not found:
        raise errors.InputError(f"{source}: holds no motion ({', '.join(ENDINGS)})")
    return found


def read(path: pathlib.Path, rate: float) -> Float[np.ndarray, "frames 17 3"]:
    """Return Human3.6M's joints of a motion at no more than `rate` frames a second: metres, y up.

    Other skeletons than SMPL's are scaled to the free body's length of bones, file by file, because few formats tell
    their unit.
    """
    ending = path.suffix.lower()
    if ending in (".npz", ".pkl"):
        return _smpl(path, rate)
    if ending == ".bvh":
        content = bvh.read(path)
        joints = tracks.h36m_joints(bvh.pose(content, _step(content.rate, rate)), tracks.BVH, str(path))
    elif ending == ".amc":
        skeleton_file = _skeleton_of(path)
        skeleton = acclaim.read_skeleton(skeleton_file)
        motion = acclaim.read_motion(path, skeleton)[:: _step(acclaim.RATE, rate)]
        joints = tracks.h36m_joints(acclaim.pose(skeleton, motion), tracks.ACCLAIM, str(skeleton_file))
    else:
        raise errors.InputError(f"{path}: motions are {', '.join(ENDINGS)}, not '{path.suffix}'")
    length = tracks.bone_sum(joints).mean()
    if not length > 0:
        raise errors.InputError(f"{path}: the skeleton's bones have no length")
    return joints * (_body_bone_sum() / length)


_NO_MOTION = ("shape.npz", "neutral_stagei.npz", "male_stagei.npz", "female_stagei.npz")
_Y_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])  # of a world whose z is up, as AMASS's is


def _smpl(path: pathlib.Path, rate: float) -> Float[np.ndarray, "frames 17 3"]:
    motion = smpl_motion.read(path)
    step = _step(motion.rate or rate, rate)
    joints = smpl_motion.h36m_joints(template_lib.load_template(), motion.root[::step], motion.pose[::step])
    return joints @ _Y_UP.T


def _step(recorded: float, wanted: float) -> int:
    return max(1, round(recorded / wanted))


def _skeleton_of(path: pathlib.Path) -> pathlib.Path:
    """Return the .asf of an .amc: of SUBJECT_TRIAL.amc SUBJECT.asf, else the only one in the folder."""
    own = path.with_name(path.stem.rpartition("_")[0] + ".asf")
    there = sorted(path.parent.glob("*.asf"))
    if own in there:
        return own
    if len(there) != 1:
        raise errors.InputError(f"{path}: no skeleton {own.name} beside it, and {len(there)} other .asf files")
    return there[0]


def _body_bone_sum() -> float:
    body = template_lib.load_template()
    return float(tracks.bone_sum(np.asarray(body.h36m_regressor) @ np.asarray(body.vertices)))
