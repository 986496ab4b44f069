"""A tiny Human3.6M in its true formats: .cdf, .mp4, metadata.xml, and SMPL's parameters as MoSh writes them."""

import dataclasses
import pathlib

import av
import numpy as np
from cdflib import cdfwrite
from scipy.spatial.transform import Rotation

from dal_jax.body.formats import load
from dal_jax.data.human36m import release
from dal_jax.data.motions import smpl_motion
from dal_jax.observations import human36m_cameras as cameras

FRAMES = 11
SIZE = (1000, 1002)  # width, height of camera 54138969's videos
CAMERA = "54138969"


@dataclasses.dataclass(frozen=True)
class Recorded:
    """What is true of the one motion that every sequence of the release shows."""

    root: np.ndarray
    pose: np.ndarray
    trans: np.ndarray
    joints_world_mm: np.ndarray


def motion(seed=0) -> Recorded:
    """Return a person who stands in the laboratory (z up) and slowly moves."""
    random = np.random.default_rng(seed)
    swing = np.sin(np.linspace(0, 1, FRAMES))[:, None, None]
    pose = random.normal(0, 0.15, (1, 23, 3)) + swing * random.normal(0, 0.15, (1, 23, 3))
    upright = Rotation.from_euler("xz", [90, 40], degrees=True)
    root = (Rotation.from_euler("z", np.linspace(0, 10, FRAMES)[:, None], degrees=True) * upright).as_rotvec()
    trans = np.array([0.2, 0.1, 0.95]) + np.linspace(0, 0.1, FRAMES)[:, None] * [1.0, 0.5, 0.0]
    joints = smpl_motion.h36m_joints(load.load_body(), root, pose)
    return Recorded(root, pose, trans, 1000 * (joints + trans[:, None]))


def camera_numbers() -> tuple[np.ndarray, np.ndarray]:
    """Return (camera, subject, 6) angles and places, and (camera, 9) lenses: four cameras around the laboratory."""
    random = np.random.default_rng(5)
    poses = np.zeros((4, cameras.SUBJECTS, 6))
    for row, azimuth in enumerate((70, -70, 110, -110)):
        place = 5000 * np.array([np.cos(np.radians(azimuth)), np.sin(np.radians(azimuth)), 0.3])
        forward = np.array([0, 0, 900]) - place
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0, 0, 1])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        poses[row, :, :3] = Rotation.from_matrix(rotation).as_euler("XYZ")
        poses[row, :, 3:] = place + random.normal(0, 20, (cameras.SUBJECTS, 3))
    lenses = [
        np.concatenate([lens.focal_px, lens.centre_px, lens.radial, lens.tangential])
        for lens in cameras.published().values()
    ]
    return poses, np.array(lenses)


def write_metadata(path: pathlib.Path, poses=None, lenses=None, names=cameras.NAMES) -> pathlib.Path:
    """Write the parts of the release's metadata.xml that tell of cameras, and some of its others."""
    made_poses, made_lenses = camera_numbers()
    numbers = np.concatenate([np.ravel(made_poses if poses is None else poses), np.ravel(made_lenses)])
    index = "".join(f"<item>{name}</item>" for name in names)
    path.write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n<metadata>\n<mapping><tr><td></td><td></td><td>S1</td></tr>'
        "<tr><td>2</td><td>1</td><td>Directions 1</td></tr></mapping>\n"
        "<actionnames><item>_ALL</item><item>Directions</item></actionnames>\n"
        f"<dbcameras><index2id>{index}</index2id></dbcameras>\n"
        f"<w0>[{' '.join(repr(float(x)) for x in numbers)}]</w0>\n</metadata>\n"
    )
    return path


def write_cdf(path: pathlib.Path, joints: np.ndarray) -> pathlib.Path:
    """Write (frames, 17, axes) as the release does: one record of all frames, 32 joints, float32, compressed."""
    every = np.zeros((len(joints), release.JOINTS, joints.shape[2]))
    every[:] = joints[:, :1]
    every[:, release.MOVING] = joints
    path.parent.mkdir(parents=True, exist_ok=True)
    flat = every.reshape(1, len(joints), -1).astype(np.float32)
    file = cdfwrite.CDF(path, delete=True)
    about = {"Variable": "Pose", "Data_Type": 44, "Num_Elements": 1, "Rec_Vary": True, "Compress": 6}
    file.write_var({**about, "Dim_Sizes": list(flat.shape[1:])}, var_data=flat)
    file.close()
    return path


def grey_of(frame: int) -> int:
    """Return the grey that frame `frame` of every video is filled with."""
    return 30 + 15 * frame


def write_video(path: pathlib.Path, frames=FRAMES, size=SIZE) -> pathlib.Path:
    """Encode frames that are each of one grey (`grey_of`), H.264, 50 a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=50, options={"preset": "ultrafast", "bf": "2"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for number in range(frames):
            pixels = np.full((size[1], size[0], 3), grey_of(number), np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def write_sequence(root: pathlib.Path, subject: str, stem: str, recorded: Recorded, mono=True) -> None:
    """Write one sequence as one camera sees it: video, D3_Positions, D2_Positions and, if `mono`, D3_Positions_mono."""
    folder = root / subject / "MyPoseFeatures"
    poses, _ = camera_numbers()
    placed = poses[cameras.NAMES.index(CAMERA), int(subject[1:]) - 1]
    seen = (recorded.joints_world_mm - placed[3:]) @ Rotation.from_euler("XYZ", placed[:3]).as_matrix().T
    write_cdf(folder / "D3_Positions" / f"{stem}.cdf", recorded.joints_world_mm)
    write_cdf(folder / "D2_Positions" / f"{stem}.{CAMERA}.cdf", cameras.published()[CAMERA].project(seen))
    if mono:
        write_cdf(folder / "D3_Positions_mono" / f"{stem}.{CAMERA}.cdf", seen)
    write_video(root / subject / "Videos" / f"{stem}.{CAMERA}.mp4")


def write_parameters(path: pathlib.Path, recorded: Recorded, repeat=1) -> pathlib.Path:
    """Write the motion in SMPL's parameters, `repeat` times as many a second as frames of the video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    poses = np.concatenate([recorded.root, recorded.pose.reshape(FRAMES, -1)], axis=1)
    rows = np.repeat(np.arange(FRAMES), repeat)
    np.savez(path, poses=poses[rows], trans=recorded.trans[rows], betas=np.zeros(10), mocap_framerate=50.0 * repeat)
    return path


def write(root: pathlib.Path) -> Recorded:
    """Write a release of three sequences, S1's, S9's and a corrupt one of S11, with MoSh's parameters."""
    recorded = motion()
    for subject, stem in (("S1", "Photo 1"), ("S9", "Directions"), ("S11", "Directions")):
        write_sequence(root, subject, stem, recorded)
        write_parameters(root / "mosh" / subject / f"{stem}.npz", recorded)
    return recorded
