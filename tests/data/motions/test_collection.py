"""Folders of motions to 2D poses: what a lifter reads, from any side, and one line for every damaged file."""

import codecs
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dal_jax.body import kinematics
from dal_jax.body.formats import load
from dal_jax.data.motions import collection, smpl_motion, tracks
from dal_jax.data.motions.collection import CameraSampling
from dal_jax.lifting import poses
from dal_jax.runtime.errors import InputError
from tests.body import smpl_files
from tests.data.motions import motion_files

FLOAT32_M = 2e-6
_RANDOM = np.random.default_rng(8)
_FRAMES = 24
_ROOT = Rotation.from_euler("x", 90, degrees=True).as_rotvec() + _RANDOM.normal(0, 0.1, (_FRAMES, 3))
_POSE = _RANDOM.normal(0, 0.2, (_FRAMES, 23, 3))


@pytest.mark.parametrize("width", [72, 156, 165])
def test_amass_is_read_whatever_its_model(tmp_path, width):
    read = smpl_motion.read(motion_files.write_amass(tmp_path / "a_poses.npz", _ROOT, _POSE, width=width))
    told = 23 if width == 72 else 21  # the others keep fingers in the place of the hands
    assert read.root == pytest.approx(_ROOT) and read.pose[:, :told] == pytest.approx(_POSE[:, :told])
    assert not read.pose[:, told:].any()
    assert read.rate == 120.0 and read.trans.shape == (_FRAMES, 3)


def test_mosh_of_python_2_is_read(tmp_path):
    """Text and bytes were one, NumPy's modules had other names."""
    content = {"poses": np.concatenate([_ROOT, _POSE.reshape(_FRAMES, -1)], axis=1), "betas": np.arange(10.0)}
    (tmp_path / "a.pkl").write_bytes(smpl_files.old_pickle(content | {"trans": np.ones((_FRAMES, 3))}))
    (tmp_path / "b.pkl").write_bytes(smpl_files.old_pickle({"new_poses": content["poses"]}))
    read, aligned = smpl_motion.read(tmp_path / "a.pkl"), smpl_motion.read(tmp_path / "b.pkl")
    assert read.pose == pytest.approx(_POSE) and read.betas.tolist() == list(range(10)) and read.rate is None
    assert aligned.trans is None and aligned.root == pytest.approx(_ROOT)


def test_joints_are_the_bodys_kinematics():
    """Knees and wrists of the 17 stand beside the joints that `kinematics` poses, as far as they do at rest."""
    body = load.load_body()
    joints = smpl_motion.h36m_joints(body, _ROOT, _POSE)
    rest = np.asarray(body.h36m_regressor, np.float64) @ np.asarray(body.vertices)
    pairs = ((5, 4), (2, 5), (12, 18), (15, 19))  # ours of the 17, SMPL's of the 24
    pose_skeleton = jax.jit(lambda root, pose: kinematics.pose_skeleton(body, root, pose, jnp.ones(24)))
    for frame in (0, 11, _FRAMES - 1):
        segments = pose_skeleton(Rotation.from_rotvec(_ROOT[frame]).as_matrix(), _POSE[frame])
        for ours, smpl in pairs:
            off = np.linalg.norm(joints[frame, ours] - np.asarray(segments.position[smpl]))
            assert off == pytest.approx(np.linalg.norm(rest[ours] - np.asarray(body.joints[smpl])), abs=0.01)


def test_a_folder_of_every_format_becomes_a_lifters_poses(tmp_path):
    """30 or 120 frames a second, taken at 15."""
    (tmp_path / "CMU" / "01").mkdir(parents=True)
    motion_files.write_amass(tmp_path / "CMU" / "01" / "01_01_poses.npz", _ROOT, _POSE)
    np.savez(tmp_path / "CMU" / "01" / "shape.npz", betas=np.zeros(16))
    motion_files.write_bvh(tmp_path / "walk.bvh", _RANDOM.uniform(-30, 30, (_FRAMES, 24, 3)))
    names = ["root", *(name for name, _, _ in motion_files.acclaim_bones())]
    motion = {name: _RANDOM.uniform(-20, 20, (_FRAMES, 3)) for name in names}
    motion["root"] = np.concatenate([np.zeros((_FRAMES, 3)), motion["root"]], axis=1)
    motion_files.write_acclaim(tmp_path, motion, {name: np.zeros(3) for name in names})
    views = CameraSampling(number=2, rate=15.0)
    done = collection.collect(tmp_path, tmp_path / "poses.npz", views)
    again = collection.collect(tmp_path, tmp_path / "poses.npz", views)  # what was made is no motion
    written, files, *lines = done
    assert files == 3 and lines == [[], []] and written == 2 * (_FRAMES // 8 + _FRAMES // 2 + _FRAMES // 8)
    read = poses.read(tmp_path / "poses.npz")
    assert again == done
    assert read.keypoints_px.shape == (written, 17, 2) and read.visible.all()
    assert np.abs(read.keypoints_px[:, 0] - 500).max() < 1e-3, "the hip is at the picture's middle"


def _standing(facing):
    """Return someone upright who looks along a direction of the ground: a head, feet, a nose."""
    joints = np.zeros((1, 17, 3))
    joints[:, 10, 1], joints[:, (3, 6), 1] = 0.7, -0.9
    joints[:, 9] = [0.1 * facing[0], 0.6, 0.1 * facing[1]]
    return joints


@pytest.mark.parametrize("camera", collection.CAMERAS)
def test_people_stand_upright_and_are_seen_from_all_sides(camera):
    seen = collection.look(np.repeat(_standing((0, 1)), 400, axis=0), CameraSampling(camera), np.random.default_rng(0))
    assert (seen[:, 10, 1] < 500).all() and (seen[:, 3, 1] > 500).all()
    nose = seen[:, 9, 0] - 500
    assert (nose > 5).mean() == pytest.approx((nose < -5).mean(), abs=0.1)
    height = seen[:, 3, 1] - seen[:, 10, 1]
    assert height.min() > 1146 * 1.6 / 7.0 * 0.9 and height.max() < 1146 * 1.6 / 3.5 * 1.2


def test_cameras_look_along_rays():
    """Perspective: points on a line through the camera fall together. Weak: a shift in depth changes nothing."""
    joints = _RANDOM.normal(0, 0.3, (1, 17, 3))
    joints[:, 0] = 0
    for camera in collection.CAMERAS:
        setting = CameraSampling(camera, elevation_deg=0.0, distance_m=(4.0, 4.0))
        turned = collection.look(joints, setting, np.random.default_rng(1))[0]
        heading = np.random.default_rng(1).uniform(0, 2 * np.pi, 1)[0]
        turn = Rotation.from_euler("y", heading).as_matrix()
        x, y, z = (joints[0] @ turn.T).T
        depth = 4.0 - z if camera == "perspective" else 4.0
        expected = 500 + 1146 * np.stack([x / depth, -y / depth], axis=-1)
        assert turned == pytest.approx(expected, abs=1e-6)


def _bvh(change):
    def make(folder):
        path = folder / "a.bvh"
        motion_files.write_bvh(path, np.zeros((3, 24, 3)))
        path.write_text(change(path.read_text()))
        return path

    return make


def _amc(change, name="07_01.amc"):
    def make(folder):
        names = ["root", *(one for one, _, _ in motion_files.acclaim_bones())]
        still = {one: np.zeros((2, 3)) for one in names} | {"root": np.zeros((2, 6))}
        path = motion_files.write_acclaim(folder, still, {one: np.zeros(3) for one in names})
        (folder / name).write_text(change((folder / name).read_text()))
        return path

    return make


@pytest.mark.parametrize(
    ("make", "name"),
    [(_bvh(str), "a.bvh"), (_amc(str), "07_01.amc"), (_amc(str), "07.asf")],
    ids=["bvh", "amc", "asf"],
)
def test_a_byte_order_mark_is_no_word(tmp_path, make, name):
    """Editors of Windows put one before UTF-8."""
    path = make(tmp_path)
    plain, _ = collection.read(path, 30.0)
    (tmp_path / name).write_bytes(codecs.BOM_UTF8 + (tmp_path / name).read_bytes())
    assert np.array_equal(collection.read(path, 30.0)[0], plain)


def _npz(**changes):
    def make(folder):
        entries = {"poses": np.zeros((4, 156)), "trans": np.zeros((4, 3)), "mocap_framerate": 60.0}
        np.savez(folder / "a.npz", **{name: value for name, value in (entries | changes).items() if value is not None})
        return folder / "a.npz"

    return make


def _content(name, content):
    def make(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return make


_NAN = np.zeros((4, 156))
_NAN[2, 7] = np.nan


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_content("a.bvh", b"\xff\xfe"), "a.bvh: is no text"),
        (_content("a.bvh", b""), "a.bvh: line 0: the file ends here"),
        (_bvh(lambda text: text.replace("ROOT", "BRANCH")), "a.bvh: line 2: 'BRANCH' where ROOT must be"),
        (_bvh(lambda text: text.replace("OFFSET 0.0", "OFFSET zero", 1)), "line 4: 'zero00000000' is not a number"),
        (_bvh(lambda text: text.replace("Zrotation", "Wrotation", 1)), "a.bvh: line 5: no channel 'Wrotation'"),
        (_bvh(lambda text: text.replace("Frames: 3", "Frames: 9")), "3 lines of motion follow, not 9"),
        (_bvh(lambda text: text[:-20]), "frame 2: 74 values, not 75 numbers"),
        (_bvh(lambda text: text.rstrip() + "x\n"), "frame 2: 75 values, not 75 numbers"),
        (_bvh(lambda text: text.rstrip() + "1e99\n"), "a.bvh: frame 2: value 74 is"),
        (_bvh(lambda text: text.replace("Frame Time: 0.033", "Frame Time: -0.033")), "3 frames of -0.033"),
        (_amc(lambda text: text.replace("lfemur", "lfoo", 1)), "07_01.amc: line 7: the skeleton has no bone 'lfoo'"),
        (_amc(lambda text: text.replace("\nlfemur 0.000000000", "\nlfemur", 1)), "are not 3 finite numbers"),
        (_amc(lambda text: text.replace("\n1\n", "\n", 1)), "line 4: bone 'root' before the first frame's number"),
        (_amc(lambda text: "#!OML:ASF\n"), "07_01.amc: holds no frame"),
        (_amc(lambda text: text[: text.rindex("thorax")]), "frame 2: no values of thorax, upperneck, lclavicle and 6"),
        (_amc(lambda text: text.replace(":FULLY-SPECIFIED\n", "").replace("\nroot", "\n#root", 1)),
         "07_01.amc: frame 1: no values of root;"),
        (_amc(lambda text: text.replace(":DEGREES", ":DEGREES\n:RADIANS")), "says both :DEGREES and :RADIANS"),
        (_amc(lambda text: text.replace("length 0.45", "length 0.45\n  angle turns"), "07.asf"), "angles is 'turns'"),
        (_amc(lambda text: text.replace("  XYZ", "  XY", 1), "07.asf"), "07.asf: line 21: axis is '0.000000"),
        (_amc(lambda text: text.replace("     name lfoot\n", ""), "07.asf"), "07.asf: line 58: a bone without name"),
        (_amc(lambda text: text.replace("    lfemur ltibia\n", "    lfemur lfemur\n"), "07.asf"), "hangs on two"),
        (_npz(poses=None), "a.npz: no 'poses'; it has trans, mocap_framerate"),
        (_npz(poses=np.zeros((4, 63))), "a.npz: poses has shape (4, 63), not (frames, 72, 156 or 165)"),
        (_npz(poses=_NAN), "a.npz: poses[2, 7] is nan"),
        (_npz(trans=np.zeros((5, 3))), "a.npz: trans has shape (5, 3), not (4, 3)"),
        (_npz(mocap_framerate=0.0), "a.npz: mocap_framerate is 0.0, not a number of frames a second"),
        (_npz(betas=np.array([None])), "a.npz: field 'betas': not a readable .npz: holds Python objects"),
        (_content("a.npz", b"PK\x03\x04"), "a.npz: not a readable .npz"),
        (_content("a.pkl", b"\x80\x04"), "a.pkl: not a readable file"),
        (_content("a.pkl", pickle.dumps([1])), "a.pkl: not a readable file: holds a list"),
        (_content("a.pkl", pickle.dumps({"poses": print})), "a.pkl: names '"),
        (_content("a.fbx", b""), "a.fbx: motions are .npz, .pkl, .bvh, .amc, not '.fbx'"),
        (_content("a.amc", b""), "a.amc: no skeleton .asf beside it, and 0 other .asf files"),
        (lambda folder: folder / "absent.npz", "absent.npz: no such file or folder"),
        (lambda folder: folder, "holds no motion"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_in_one_line(tmp_path, make, message):
    source = make(tmp_path)
    with pytest.raises(InputError) as caught:
        collection.collect(source, tmp_path / "out" / "poses.npz", CameraSampling())
    assert message in str(caught.value) and str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists(), "nothing half-written"


def test_the_binary_skips_what_it_is_told_to_and_overwrites_nothing(tmp_path):
    (tmp_path / "motions").mkdir()
    motion_files.write_bvh(tmp_path / "motions" / "a.bvh", np.zeros((3, 24, 3)), world=tracks.TO_Y_UP["z"].T)
    (tmp_path / "motions" / "b.bvh").write_text("HIERARCHY")

    def run(*flags):
        command = [sys.executable, "-m", "experiments.prepare_poses", f"--source={tmp_path / 'motions'}"]
        command += [f"--out={tmp_path / 'poses.npz'}", *flags]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = run("--skip_invalid", "--rate=30")
    assert done.returncode == 0 and "3 poses of 1 files, skipped 1 files" in done.stdout
    assert "skipped: " in done.stderr and "b.bvh" in done.stderr
    assert f"note: {tmp_path / 'motions' / 'a.bvh'}: z is up, not y as usual\n" in done.stderr
    again = run("--skip_invalid")
    assert again.returncode == 2 and "poses.npz: exists; --overwrite replaces it" in again.stderr
