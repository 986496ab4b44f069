"""Which way is up: found whichever axis it is, told, and left as usual where people only lie."""

import pathlib

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dal_jax.data.motions import collection, smpl_motion, tracks
from dal_jax.data.motions.smpl_motion import SmplMotion
from tests.body import smpl_files
from tests.data.motions import motion_files

EXACT_M = 1e-6
_RANDOM = np.random.default_rng(5)
_FRAMES = 6
_ANGLES_DEG = _RANDOM.uniform(-20, 20, (_FRAMES, 24, 3))
_WALK_M = np.linspace(0, 2, _FRAMES)[:, None] * [0.6, 0.02, 0.8]


@pytest.mark.parametrize("up", tracks.TO_Y_UP)
def test_a_skeleton_stands_whichever_axis_is_up(tmp_path, up):
    """It stands on the spot, and so does its rest pose."""
    motion_files.write_bvh(tmp_path / "y.bvh", _ANGLES_DEG)
    motion_files.write_bvh(tmp_path / "a.bvh", _ANGLES_DEG, world=tracks.TO_Y_UP[up].T)
    wanted, _ = collection.read(tmp_path / "y.bvh", 30.0)
    found, note = collection.read(tmp_path / "a.bvh", 30.0)
    assert found == pytest.approx(wanted, abs=EXACT_M)
    assert note == ("" if up == "y" else f"{tmp_path / 'a.bvh'}: {up} is up, not y as usual")


def _amass(up, trans=_WALK_M, lying=False):
    """Return someone in a world whose `up` is up, who stands or lies there, the head towards +z of a world of y up."""
    world = Rotation.from_matrix(tracks.TO_Y_UP[up].T)
    own = Rotation.from_rotvec(_RANDOM.normal(0, 0.1, (_FRAMES, 3)))
    root = world * Rotation.from_euler("x", 90 * lying, degrees=True) * own
    places = None if trans is None else world.apply(trans)
    return SmplMotion(root.as_rotvec(), _RANDOM.normal(0, 0.1, (_FRAMES, 23, 3)), places, np.zeros(0), 30.0, "z")


@pytest.mark.parametrize("up", tracks.TO_Y_UP)
def test_people_who_walk_are_upright_whichever_axis_is_up(up):
    rotation, note = smpl_motion.y_up(pathlib.Path("a.npz"), _amass(up))
    assert np.array_equal(rotation, tracks.TO_Y_UP[up])
    assert note == ("" if up == "z" else f"a.npz: {up} is up, not z as usual")


@pytest.mark.parametrize("trans", [None, 0 * _WALK_M, _WALK_M[:, [1, 1, 2]]], ids=["unknown", "lies", "swims"])
def test_people_who_lie_or_swim_keep_the_usual_axis(tmp_path, trans):
    rotation, note = smpl_motion.y_up(pathlib.Path("a.npz"), _amass("z", trans, lying=True))
    assert np.array_equal(rotation, tracks.TO_Y_UP["z"]) and "a.npz: z is taken for up as usual, though people" in note
    lying = _ANGLES_DEG.copy()
    lying[:, 0] = [0, 90, 0]
    motion_files.write_bvh(tmp_path / "a.bvh", lying, root=None if trans is None else 100 * trans)
    joints, note = collection.read(tmp_path / "a.bvh", 30.0)
    assert "a.bvh: y is taken for up as usual, though people" in note
    trunk = joints[:, 8] - joints[:, 0]
    assert (trunk[:, 2] > 0.7 * np.linalg.norm(trunk, axis=-1)).all()


def test_mosh_in_a_cameras_frame_stands_upright(tmp_path):
    """`new_poses` are in a camera's frame: y down, and no place that would show a walk."""
    world, camera = _amass("z"), tracks.TO_Y_UP["-y"].T @ tracks.TO_Y_UP["z"]
    root = (Rotation.from_matrix(camera) * Rotation.from_rotvec(world.root)).as_rotvec()
    for name, entry, vectors in (("world", "poses", world.root), ("cam0_aligned", "new_poses", root)):
        poses = np.concatenate([vectors, world.pose.reshape(_FRAMES, -1)], axis=1)
        (tmp_path / f"{name}.pkl").write_bytes(smpl_files.old_pickle({entry: poses}))
    wanted, found = (collection.read(tmp_path / f"{name}.pkl", 30.0) for name in ("world", "cam0_aligned"))
    assert found[0] == pytest.approx(wanted[0], abs=EXACT_M) and wanted[1] == found[1] == ""


def test_people_who_bend_and_rise_need_no_note():
    lean_deg = np.array([[0], [5], [80], [100], [30], [10]])
    trunk = Rotation.from_euler("x", lean_deg, degrees=True).apply([0.0, 1.0, 0.0])
    assert tracks.find_up(pathlib.Path("a.bvh"), trunk, "y")[1] == ""
    assert "is taken for up" in tracks.find_up(pathlib.Path("a.bvh"), trunk[2:4], "y")[1]
