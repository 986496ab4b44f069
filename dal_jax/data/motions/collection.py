"""Cameras sampled around moving people: 2D poses as photographs would show them."""

import dataclasses
import functools
import pathlib

import numpy as np
from jaxtyping import Float

from dal_jax.body import skeleton
from dal_jax.body.formats import load
from dal_jax.data.motions import acclaim, bvh, smpl_motion, tracks
from dal_jax.runtime import progress
from dal_jax.runtime.errors import InputError
from dal_jax.runtime.files import savez

CAMERAS = ("perspective", "weak")
_PHOTOGRAPH_PX = 1000
_FOCAL_PX = 1146.0  # Human3.6M's cameras


@dataclasses.dataclass(frozen=True)
class CameraSampling:
    """Which moments of motions are taken, and how people are looked at.

    camera: 'perspective', or 'weak': as if from far away, with the size that the distance gives.
    number: of cameras a pose. elevation_deg: standard deviation of a camera's height over the horizon; Kudo et al.
    assume 0. distance_m: nearest and farthest from the hip.
    rate: poses taken of a second of motion, at most: neighbouring frames of a recording teach little more.
    seed: of the cameras.
    """

    camera: str = "perspective"
    number: int = 1
    elevation_deg: float = 10.0
    distance_m: tuple[float, float] = (3.5, 7.0)
    rate: float = 5.0
    seed: int = 0


def look(
    joints: Float[np.ndarray, "n 17 3"], views: CameraSampling, random: np.random.Generator
) -> Float[np.ndarray, "n*views 17 2"]:
    """Return key points (px, y down) of people (metres, y up) seen from any side, each by its own upright cameras.

    A pose's views follow one another. The hip is at the photograph's middle.
    """
    joints = np.repeat(joints - joints[:, :1], views.number, axis=0)
    count = len(joints)
    azimuth = random.uniform(0, 2 * np.pi, count)
    elevation = np.radians(random.normal(0, views.elevation_deg, count))
    distance = random.uniform(*views.distance_m, count)
    camera = np.einsum("nij,nkj->nki", _rotation(azimuth, elevation), joints)
    depth = distance[:, None]
    if views.camera == "perspective":
        depth = np.maximum(depth + camera[..., 2], 0.5)  # no limb reaches through the lens
    return _FOCAL_PX * camera[..., :2] / depth[..., None] + _PHOTOGRAPH_PX / 2


def _rotation(azimuth: np.ndarray, elevation: np.ndarray) -> Float[np.ndarray, "n 3 3"]:
    """Return world (y up) to camera (x right, y down, z away): about the vertical, then tilted from above."""
    zero, one = np.zeros_like(azimuth), np.ones_like(azimuth)
    ca, sa, ce, se = np.cos(azimuth), np.sin(azimuth), np.cos(elevation), np.sin(elevation)
    rotation = np.stack([ca, zero, sa, zero, one, zero, -sa, zero, ca], axis=-1).reshape(-1, 3, 3)
    tilt = np.stack([one, zero, zero, zero, -ce, se, zero, -se, -ce], axis=-1).reshape(-1, 3, 3)
    return tilt @ rotation


# --- A folder of motions to one file of 2D poses, which a lifter learns from ---

ENDINGS = (".npz", ".pkl", ".bvh", ".amc")


def collect(
    source: pathlib.Path, out: pathlib.Path, views: CameraSampling, skip_invalid: bool = False
) -> tuple[int, int, list[str], list[str]]:
    """Write `keypoints` (n, 17, 2) px, `visible` and `track_id`, the number of the file, of motions of any format.

    Args:
      source: a folder of AMASS's or MoSh's .npz and .pkl, of .bvh, of .amc beside their .asf; or one such file.
      out: the .npz to write, whole or not at all.
      views: cameras and rate.
      skip_invalid: leave out files that cannot be read, instead of ending at the first.

    Returns:
      how many poses were written and files read; a line for each file that was left out, and for each whose up is not
      the usual one.

    Raises:
      errors.InputError: a file cannot be read, or there is none; one line that names file and entry.
    """
    paths = find(source, out)
    random = np.random.default_rng(views.seed)
    keypoints, skipped, notes = [], [], []
    for path in progress.bar("reading motions", paths, unit="file"):
        try:
            joints, note = read(path, views.rate)
        except InputError as error:
            if not skip_invalid:
                raise
            skipped.append(str(error))
            continue
        notes += [note] * bool(note)
        keypoints.append(look(joints, views, random).astype(np.float32))
    if not keypoints:
        raise InputError(skipped[0])
    every = np.concatenate(keypoints)
    track_id = np.repeat(np.arange(len(keypoints)), [len(one) for one in keypoints])
    savez(out, keypoints=every, visible=np.ones(every.shape[:2], bool), track_id=track_id)
    return len(every), len(keypoints), skipped, notes


def find(source: pathlib.Path, out: pathlib.Path | None = None) -> list[pathlib.Path]:
    """Return the motion files of a folder and those below it, in order, but for what was made of them before.

    AMASS keeps a `shape.npz` beside a subject's motions, which is none.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise InputError(f"{source}: no such file or folder")
    found = [path for path in sorted(source.rglob("*")) if path.suffix.lower() in ENDINGS and path.is_file()]
    made = out and out.resolve()
    found = [path for path in found if path.name not in _NO_MOTION and path.resolve() != made]
    if not found:
        raise InputError(f"{source}: holds no motion ({', '.join(ENDINGS)})")
    return found


def read(path: pathlib.Path, rate: float) -> tuple[Float[np.ndarray, "frames 17 3"], str]:
    """Return Human3.6M's joints of a motion at no more than `rate` frames a second, metres, y up; and `find_up`'s note.

    Other skeletons than SMPL's are scaled to the free body's length of bones, file by file, because few formats tell
    their unit.
    """
    ending = path.suffix.lower()
    if ending in (".npz", ".pkl"):
        return _smpl(path, rate)
    if ending == ".bvh":
        posed = bvh.read(path, rate)
        h36m_joints = functools.partial(tracks.h36m_joints, names=tracks.BVH, file_name=str(path))
    elif ending == ".amc":
        skeleton_file = _skeleton_of(path)
        acclaim_skeleton = acclaim.read_skeleton(skeleton_file)
        motion = acclaim.read_motion(path, acclaim_skeleton)[:: tracks.frame_step(acclaim.RATE, rate)]
        posed = acclaim.pose(acclaim_skeleton, motion)
        names, file_name = tracks.ACCLAIM, str(skeleton_file)
        h36m_joints = functools.partial(tracks.h36m_joints, names=names, file_name=file_name, bones_end=True)
    else:
        raise InputError(f"{path}: motions are {', '.join(ENDINGS)}, not '{path.suffix}'")
    joints, rest = h36m_joints(posed), h36m_joints(tracks.at_rest(posed))[0]
    length = tracks.bone_sum(joints).mean()
    if not length > 0:
        raise InputError(f"{path}: the skeleton's bones have no length")
    legs = rest[_HIP] - rest[_FEET].mean(axis=0)
    standing = np.stack([rest[_THORAX] - rest[_HIP], legs])
    rotation, note = tracks.find_up(path, joints[:, _THORAX] - joints[:, _HIP], "y", joints[:, _HIP], standing)
    return joints @ rotation.T * (_body_bone_sum() / length), note


_HIP, _THORAX = (skeleton.H36M_JOINT_NAMES.index(name) for name in ("hip", "thorax"))
_FEET = [skeleton.H36M_JOINT_NAMES.index(name) for name in ("right_foot", "left_foot")]
_NO_MOTION = ("shape.npz", "neutral_stagei.npz", "male_stagei.npz", "female_stagei.npz")


def _smpl(path: pathlib.Path, rate: float) -> tuple[Float[np.ndarray, "frames 17 3"], str]:
    motion = smpl_motion.read(path)
    step = tracks.frame_step(motion.rate or rate, rate)
    joints = smpl_motion.h36m_joints(load.load_body(), motion.root[::step], motion.pose[::step])
    rotation, note = smpl_motion.y_up(path, motion)
    return joints @ rotation.T, note


def _skeleton_of(path: pathlib.Path) -> pathlib.Path:
    """Return the .asf of an .amc: of SUBJECT_TRIAL.amc SUBJECT.asf, else the only one in the folder."""
    own = path.with_name(path.stem.rpartition("_")[0] + ".asf")
    there = sorted(path.parent.glob("*.asf"))
    if own in there:
        return own
    if len(there) != 1:
        raise InputError(f"{path}: no skeleton {own.name} beside it, and {len(there)} other .asf files")
    return there[0]


def _body_bone_sum() -> float:
    body = load.load_body()
    return float(tracks.bone_sum(np.asarray(body.h36m_regressor) @ np.asarray(body.vertices)))
