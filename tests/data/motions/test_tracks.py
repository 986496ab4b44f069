"""Motion files: posed as an independent reference poses them, and mapped to Human3.6M's joints by name."""

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dal_jax.body import skeleton
from dal_jax.body.formats import load
from dal_jax.data.motions import acclaim, bvh, collection, smpl_motion, tracks
from dal_jax.runtime.errors import InputError
from tests.data.motions import motion_files

EXACT = 1e-6  # of the numbers' nine decimals in the text, in centimetres
FLOAT32_M = 2e-6
NEAR_M = 0.05  # where the free body's regressor and a skeleton of its joints may put one and the same joint

_RANDOM = np.random.default_rng(3)
_FRAMES = 4
_ANGLES_DEG = _RANDOM.uniform(-60, 60, (_FRAMES, 24, 3))


def _homogeneous(rotation, translation):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, translation
    return matrix


@pytest.mark.parametrize("order", ["ZXY", "XYZ", "ZYX"])
def test_bvh_is_posed_as_homogeneous_matrices_pose_it(tmp_path, order):
    root = _RANDOM.uniform(-100, 100, (_FRAMES, 3))
    columns = motion_files.write_bvh(tmp_path / "a.bvh", _ANGLES_DEG, order, root=root)
    posed = bvh.read(tmp_path / "a.bvh")
    offsets = 100 * motion_files.free_body_offsets()
    for frame in range(_FRAMES):
        to_world = {}
        for row in columns:  # intrinsic turns, in the order of the channels: capital letters
            turn = Rotation.from_euler(order, _ANGLES_DEG[frame, row], degrees=True).as_matrix()
            parent = skeleton.SMPL_PARENTS[row]
            above = np.eye(4) if parent < 0 else to_world[parent]
            to_world[row] = above @ _homogeneous(turn, root[frame] if parent < 0 else offsets[row])
            place = posed.names.index("mixamorig:" + motion_files.MIXAMO[skeleton.SMPL_JOINT_NAMES[row]])
            assert posed.positions[frame, place] == pytest.approx(to_world[row][:3, 3], abs=EXACT)
            assert posed.rotations[frame, place] == pytest.approx(to_world[row][:3, :3], abs=EXACT)
    assert sum(name.endswith("_end") for name in posed.names) == 5


@jax.jit
def _segments(vectors):
    return smpl_motion.segments_of(load.load_body(), vectors[0], vectors[1:])


def test_a_bvh_of_smpls_angles_stands_as_the_body_does(tmp_path):
    vectors = _RANDOM.normal(0, 0.4, (24, 3))
    angles = Rotation.from_rotvec(vectors).as_euler("ZXY", degrees=True)
    motion_files.write_bvh(tmp_path / "a.bvh", angles[None], unit=1.0)
    posed = bvh.read(tmp_path / "a.bvh")
    segments = _segments(vectors)
    rows = [posed.names.index("mixamorig:" + motion_files.MIXAMO[name]) for name in skeleton.SMPL_JOINT_NAMES]
    assert posed.positions[0, rows] == pytest.approx(np.asarray(segments.position), abs=FLOAT32_M)
    assert posed.rotations[0, rows] == pytest.approx(np.asarray(segments.rotation), abs=FLOAT32_M)


def _acclaim_motion():
    names = ["root", *(name for name, _, _ in motion_files.acclaim_bones())]
    axes = {name: _RANDOM.uniform(-90, 90, 3) for name in names}
    motion = {name: _RANDOM.uniform(-50, 50, (_FRAMES, 3)) for name in names}
    motion["root"] = np.concatenate([_RANDOM.uniform(-20, 20, (_FRAMES, 3)), motion["root"]], axis=1)
    return motion, axes


def test_acclaim_is_posed_as_homogeneous_matrices_pose_it(tmp_path):
    """Each bone: to its own axes, turned about fixed x, y, z, back again, then along the bone."""
    motion, axes = _acclaim_motion()
    path = motion_files.write_acclaim(tmp_path, motion, axes)
    skeleton_file = acclaim.read_skeleton(tmp_path / "07.asf")
    posed = acclaim.pose(skeleton_file, acclaim.read_motion(path, skeleton_file))
    unit = 0.45 / 0.0254
    for frame in range(_FRAMES):
        turn = Rotation.from_euler("xyz", motion["root"][frame, 3:], degrees=True)
        to_world = {"root": _homogeneous(turn.as_matrix(), motion["root"][frame, :3])}
        for name, parent, offset in motion_files.acclaim_bones():
            own = Rotation.from_euler("xyz", axes[name], degrees=True)
            local = own * Rotation.from_euler("xyz", motion[name][frame], degrees=True) * own.inv()
            along = _homogeneous(np.eye(3), unit * offset)
            to_world[name] = to_world[parent] @ _homogeneous(local.as_matrix(), np.zeros(3)) @ along
            place = posed.names.index(name)
            assert posed.positions[frame, place] == pytest.approx(to_world[name][:3, 3], abs=1e-4)


def test_the_amc_says_what_its_angles_are(tmp_path):
    """CMU's .asf counts degrees; an .amc in radians beside it poses the same bones."""
    motion, axes = _acclaim_motion()
    for name, unit in (("degrees", ":DEGREES"), ("radians", ":RADIANS"), ("unsaid", "")):
        (tmp_path / name).mkdir()
        angles = {bone: values.copy() for bone, values in motion.items()}
        for values in angles.values():
            values[:, -3:] *= np.pi / 180 if name == "radians" else 1
        path = motion_files.write_acclaim(tmp_path / name, angles, axes)
        path.write_text(path.read_text().replace(":DEGREES", unit))
    skeleton_file = acclaim.read_skeleton(tmp_path / "degrees" / "07.asf")
    read = [acclaim.read_motion(tmp_path / name / "07_01.amc", skeleton_file) for name in ("radians", "unsaid")]
    wanted = acclaim.read_motion(tmp_path / "degrees" / "07_01.amc", skeleton_file)
    assert wanted[:, 0, 3:] == pytest.approx(np.radians(motion["root"][:, 3:]))
    assert read[0] == pytest.approx(wanted, abs=1e-8) and np.array_equal(read[1], wanted)


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (motion_files.MIXAMO, "mixamorig:"),
        (motion_files.MIXAMO, ""),
        (motion_files.STYLE100, ""),
        ({}, "m_avg_"),
        (motion_files.MIXAMO, "Character1_"),
    ],
    ids=["mixamo", "lafan", "100style", "smpl", "motionbuilder"],
)
def test_joints_are_found_by_any_of_their_names(tmp_path, names, prefix):
    vectors = _RANDOM.normal(0, 0.3, (24, 3))
    angles = Rotation.from_rotvec(vectors).as_euler("ZXY", degrees=True)
    motion_files.write_bvh(tmp_path / "a.bvh", angles[None], names=names, prefix=prefix)
    posed = bvh.read(tmp_path / "a.bvh")
    joints = tracks.h36m_joints(posed, tracks.BVH, "a.bvh")[0] / 100
    truth = np.asarray(_segments(vectors).position)
    index = {name: truth[row] for row, name in enumerate(skeleton.SMPL_JOINT_NAMES)}
    index |= {"right_foot": index["right_ankle"], "left_foot": index["left_ankle"]}
    body = load.load_body()
    rest = dict(zip(skeleton.SMPL_JOINT_NAMES, body.joints, strict=True))
    rest |= {"right_foot": rest["right_ankle"], "left_foot": rest["left_ankle"]}
    places = zip(skeleton.H36M_JOINT_NAMES, body.h36m_regressor @ body.vertices, strict=True)
    rest_distance = {name: np.linalg.norm(place - rest[name]) for name, place in places if name in rest}
    for row, name in enumerate(skeleton.H36M_JOINT_NAMES):
        if name in index and name != "head":
            beside = np.linalg.norm(joints[row] - index[name])
            assert beside == pytest.approx(rest_distance[name], abs=NEAR_M / 2), name
    assert joints[0] == pytest.approx((joints[1] + joints[4]) / 2, abs=EXACT)


def test_a_skeletons_joints_are_where_the_bodys_regressor_puts_them(tmp_path):
    """One pose as AMASS, as .bvh and, with all bones' axes the world's, as .amc: the same seventeen joints."""
    vectors = np.zeros((24, 3))
    vectors[[4, 5, 15, 16, 17, 18, 19]] = _RANDOM.normal(0, 0.5, (7, 3))
    turned = Rotation.from_euler("x", 90, degrees=True).as_rotvec()  # AMASS: z up
    amass = motion_files.write_amass(tmp_path / "a_poses.npz", turned[None], vectors[None, 1:])
    angles = Rotation.from_rotvec(vectors).as_euler("ZXY", degrees=True)
    motion_files.write_bvh(tmp_path / "b.bvh", angles[None])
    body, other = (collection.read(path, 30.0)[0][0] for path in (amass, tmp_path / "b.bvh"))
    apart = np.linalg.norm((body - body[0]) - (other - other[0]), axis=1)
    assert apart.max() < NEAR_M, dict(zip(skeleton.H36M_JOINT_NAMES, apart.round(3), strict=True))


def test_acclaim_stands_as_the_body_does_at_rest(tmp_path):
    names = ["root", *(name for name, _, _ in motion_files.acclaim_bones())]
    still = {name: np.zeros((1, 3)) for name in names} | {"root": np.zeros((1, 6))}
    path = motion_files.write_acclaim(tmp_path, still, {name: np.array([10.0, 20.0, 30.0]) for name in names})
    joints = collection.read(path, 30.0)[0][0]
    body = load.load_body()
    rest = np.asarray(body.h36m_regressor) @ np.asarray(body.vertices)
    apart = np.linalg.norm((joints - joints[0]) - (rest - rest[0]), axis=1)
    assert apart.max() < NEAR_M, dict(zip(skeleton.H36M_JOINT_NAMES, apart.round(3), strict=True))


def test_a_missing_joint_is_named(tmp_path):
    motion_files.write_bvh(tmp_path / "a.bvh", _ANGLES_DEG, names={**motion_files.MIXAMO, "left_knee": "Stump"})
    with pytest.raises(InputError, match="a.bvh: no joint is named leftleg or lleg or leftshin .*Stump"):
        collection.read(tmp_path / "a.bvh", 30.0)
