"""Forward kinematics: an independent reference, an analytic bend, and what segment scales may and may not move."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dal_jax.body import kinematics, rotations, skeleton, skinning, template
from dal_jax.body.formats import load
from dal_jax.body.kinematics import t_pose
from tests.body import made_up, reference
from tests.body.reference import Problem

ROUNDING = 1e-6  # metres and matrix entries: float32 down a chain of nine joints
SMPL = {name: index for index, name in enumerate(skeleton.SMPL_JOINT_NAMES)}


@pytest.fixture
def walk(pose_made_up):
    """Return `pose_skeleton` of the made-up body on a `reference.Problem`."""
    return lambda problem, **options: pose_made_up(*problem.single(), **options)[0]


def _problem(rotation=None, bends=None, scales=None):
    """Return a rest pose but for the named bends and scales."""
    pose, scale = np.zeros((23, 3)), np.ones(24)
    for name, axis_angle in (bends or {}).items():
        pose[SMPL[name] - 1] = axis_angle
    for name, value in (scales or {}).items():
        scale[SMPL[name]] = value
    return Problem(np.eye(3) if rotation is None else rotation, pose, scale)


def _below(name):
    """Return the joints below one, itself left out."""
    found = set()
    for child, parent in enumerate(skeleton.SMPL_PARENTS):
        if parent == SMPL[name] or parent in found:
            found.add(child)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_segments_equal_the_homogeneous_reference(walk, seed):
    problem = reference.random_problem(seed)
    segments = walk(problem)
    bones = reference.bones(made_up.JOINTS, skeleton.SMPL_PARENTS, problem)
    np.testing.assert_allclose(segments.rotation, bones[:, :3, :3], atol=2 * ROUNDING)
    np.testing.assert_allclose(segments.position, bones[:, :3, 3], atol=reference.MODEL)
    np.testing.assert_allclose(segments.scale, problem.segment_scale, rtol=ROUNDING)


def test_rest_pose_is_the_rest_skeleton(walk):
    segments = walk(_problem())
    np.testing.assert_array_equal(segments.rotation, np.tile(np.eye(3), (24, 1, 1)))
    np.testing.assert_allclose(segments.position, made_up.JOINTS, atol=ROUNDING)


def test_every_segment_rotation_is_proper(walk):
    rotation = np.asarray(walk(reference.random_problem(1, pose_sd=2.0)).rotation, np.float64)
    gram = np.swapaxes(rotation, -1, -2) @ rotation
    np.testing.assert_allclose(gram, np.tile(np.eye(3), (24, 1, 1)), atol=5 * ROUNDING)
    np.testing.assert_allclose(np.linalg.det(rotation), 1.0, atol=5 * ROUNDING)


def test_a_quarter_turn_of_the_left_shoulder_lays_the_arm_forwards(walk):
    """-90 degrees about the body's y takes +x to +z; the upper arm's own start stays where it was."""
    segments = walk(_problem(bends={"left_shoulder": [0, -np.pi / 2, 0]}))
    shoulder, rest = made_up.JOINTS[SMPL["left_shoulder"]], made_up.JOINTS
    for name in ("left_elbow", "left_wrist", "left_hand"):
        x, y, z = rest[SMPL[name]] - shoulder
        np.testing.assert_allclose(segments.position[SMPL[name]], shoulder + [-z, y, x], atol=ROUNDING)
    others = [j for j in range(24) if j not in _below("left_shoulder")]
    np.testing.assert_allclose(segments.position[np.array(others)], rest[others], atol=ROUNDING)


def test_bends_compose_from_the_trunk_outwards(walk):
    """The elbow's bend is relative to the upper arm: G_elbow = A_shoulder A_elbow, in that order."""
    shoulder, elbow = np.array([0.3, -1.0, 0.2]), np.array([-0.7, 0.1, 0.9])
    segments = walk(_problem(bends={"left_shoulder": shoulder, "left_elbow": elbow}))
    expected = reference.rotation(shoulder) @ reference.rotation(elbow)
    for name in ("left_elbow", "left_wrist", "left_hand"):
        np.testing.assert_allclose(segments.rotation[SMPL[name]], expected, atol=ROUNDING)


@pytest.mark.parametrize("name", ["left_hip", "spine2", "neck", "right_elbow", "left_hand"])
def test_a_bend_moves_only_the_joints_below(walk, name):
    problem = reference.random_problem(2)
    pose = problem.pose.copy()
    pose[SMPL[name] - 1] += 0.5
    before = np.asarray(walk(problem).position)
    after = np.asarray(walk(Problem(problem.rotation, pose, problem.segment_scale)).position)
    moved = np.flatnonzero(np.abs(after - before).max(axis=1) > 1e-3)
    assert set(moved) == _below(name)


def test_a_global_rotation_commutes(walk):
    problem, turn = reference.random_problem(3), reference.rotation([0.4, -2.0, 1.0])
    before = walk(problem)
    after = walk(Problem(turn @ problem.rotation, problem.pose, problem.segment_scale))
    np.testing.assert_allclose(after.position, np.asarray(before.position) @ turn.T, atol=reference.MODEL)
    np.testing.assert_allclose(after.rotation, turn @ np.asarray(before.rotation), atol=5 * ROUNDING)


def test_a_scale_lengthens_exactly_the_bones_to_its_children(walk):
    problem = reference.random_problem(4)
    position = np.asarray(walk(problem).position, np.float64)
    for child, parent in enumerate(skeleton.SMPL_PARENTS[1:], start=1):
        rest = np.linalg.norm(made_up.JOINTS[child] - made_up.JOINTS[parent])
        length = np.linalg.norm(position[child] - position[parent])
        assert length == pytest.approx(problem.segment_scale[parent] * rest, abs=reference.MODEL)


def test_a_scale_does_not_compound_down_the_chain(walk):
    """A thigh of twice the length: the knee moves away, the shank and foot only follow."""
    rest = made_up.JOINTS
    position = np.asarray(walk(_problem(scales={"left_hip": 2.0})).position)
    thigh = rest[SMPL["left_knee"]] - rest[SMPL["left_hip"]]
    expected = rest + np.where(np.isin(np.arange(24), list(_below("left_hip")))[:, None], thigh, 0.0)
    np.testing.assert_allclose(position, expected, atol=ROUNDING)


def test_pelvis_is_the_origin(walk):
    segments = walk(reference.random_problem(6))
    np.testing.assert_array_equal(segments.position[0], np.zeros(3))


@pytest.mark.parametrize("parents", [skeleton.SMPL_PARENTS, skeleton.H36M_PARENTS], ids=["smpl", "h36m"])
def test_a_parent_comes_before_its_children(parents):
    assert parents[0] == -1
    assert all(0 <= parent < child for child, parent in enumerate(parents[1:], start=1))


@pytest.mark.parametrize(
    ("names", "parents", "mirror"),
    [
        (skeleton.SMPL_JOINT_NAMES, skeleton.SMPL_PARENTS, skeleton.SMPL_MIRROR),
        (skeleton.H36M_JOINT_NAMES, skeleton.H36M_PARENTS, skeleton.H36M_MIRROR),
    ],
    ids=["smpl", "h36m"],
)
def test_the_mirror_swaps_the_sides_of_the_tree(names, parents, mirror):
    assert len(names) == len(parents) == len(set(names))
    assert [mirror[mirror[joint]] for joint in range(len(names))] == list(range(len(names)))
    assert [mirror[parents[joint]] for joint in range(1, len(names))] == [parents[m] for m in mirror[1:]]
    swapped = [names[m] for m in mirror]
    assert swapped != list(names)
    assert [s.replace("left", "?").replace("right", "?") for s in swapped] == [
        n.replace("left", "?").replace("right", "?") for n in names
    ]


def test_axis_angles_reach_the_joint_of_their_row(walk):
    """Row j - 1 of the pose belongs to joint j, the pelvis having none."""
    problem = reference.random_problem(7)
    rotation = np.asarray(walk(problem).rotation)
    relative = np.asarray(rotations.axis_angle_to_matrix(jnp.asarray(problem.pose, jnp.float32)))
    for child, parent in enumerate(skeleton.SMPL_PARENTS[1:], start=1):
        np.testing.assert_allclose(rotation[parent].T @ rotation[child], relative[child - 1], atol=5 * ROUNDING)


def test_rotation_matrices_pose_as_their_axis_angles_do(made_up_body, walk):
    """Matrices from the independent reference, so that none of 180 degrees needs an axis-angle."""
    problem = reference.random_problem(8, pose_sd=2.0)
    joint_rotation = reference.rotation(problem.pose).astype(np.float32)
    rotation, _, segment_scale = problem.single()
    segments = jax.jit(kinematics.turn_skeleton)(made_up_body, rotation, joint_rotation, segment_scale)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=reference.MODEL), segments, walk(problem))


# --- the tree by depth: SMPL's skeleton, a chain, a star and random trees ---


def _random_tree(seed, nodes=30):
    draw = random.Random(seed)
    return (-1, *(draw.randrange(node) for node in range(1, nodes)))


TREES = {
    "smpl": skeleton.SMPL_PARENTS,
    "chain": (-1, 0, 1, 2, 3),
    "star": (-1, 0, 0, 0, 0),
    "root": (-1,),
    "random 0": _random_tree(0),
    "random 1": _random_tree(1),
}
every_tree = pytest.mark.parametrize("parents", TREES.values(), ids=TREES.keys())


@every_tree
def test_every_node_stands_once_and_one_below_its_parent(parents):
    levels = kinematics.nodes_by_depth(parents)
    assert levels[0] == (0,)
    assert sorted(node for level in levels for node in level) == list(range(len(parents)))
    depth = {node: number for number, level in enumerate(levels) for node in level}
    assert all(depth[node] == depth[parents[node]] + 1 for node in range(1, len(parents)))


@every_tree
def test_parent_rows_point_to_parents(parents):
    levels = kinematics.nodes_by_depth(parents)
    for depth in range(1, len(levels)):
        rows = kinematics.parent_rows(parents, levels, depth)
        assert [levels[depth - 1][row] for row in rows] == [parents[node] for node in levels[depth]]


def test_depths_of_the_ends_of_smpl_limbs():
    levels = kinematics.nodes_by_depth(skeleton.SMPL_PARENTS)
    names = [{skeleton.SMPL_JOINT_NAMES[node] for node in level} for level in levels]
    assert names[1] == {"left_hip", "right_hip", "spine1"}
    assert names[-1] == {"left_hand", "right_hand"}
    assert len(levels) == 9


def test_a_girth_widens_trunk_and_limbs_across_their_bones():
    """Of vertices on one segment alone: the distance from the bone grows by it, the place along the bone stays."""
    body = load.load_body()
    pose = np.random.default_rng(0).normal(0, 0.3, (23, 3)).astype(np.float32)
    plain = t_pose().replace(pose=pose)
    wide = plain.replace(girth=jnp.float32(1.2))
    before, after = (kinematics.pose_segments(body, one) for one in (plain, wide))
    np.testing.assert_array_equal(before.position, after.position)
    moved = [np.asarray(skinning.skin_vertices(body, one), np.float64) for one in (before, after)]
    for name, child, growth in (
        ("left_hip", "left_knee", 1.2),
        ("right_elbow", "right_wrist", 1.2),
        ("head", "neck", 1),
    ):
        segment, end = (skeleton.SMPL_JOINT_NAMES.index(each) for each in (name, child))
        rows = np.asarray(body.skin_weight)[:, segment] > 1 - 1e-6
        bone = np.asarray(before.position[end] - before.position[segment], np.float64)
        bone /= np.linalg.norm(bone)
        lever = [each[rows] - np.asarray(before.position[segment]) for each in moved]
        along = [each @ bone for each in lever]
        across = [each - np.outer(each @ bone, bone) for each in lever]
        np.testing.assert_allclose(along[1], along[0], atol=1e-5)
        np.testing.assert_allclose(across[1], growth * across[0], atol=1e-5)


def _bent_and_wide():
    """Return a body whose segments are wide and deep each in its own way, in a pose."""
    rng = np.random.default_rng(1)
    return t_pose().replace(
        pose=rng.normal(0, 0.4, (23, 3)).astype(np.float32),
        segment_scale=np.exp(rng.normal(0, 0.1, 24)).astype(np.float32),
        segment_girth=np.exp(rng.normal(0.1, 0.2, (24, 2))).astype(np.float32),
    )


def test_anisotropic_scales_are_those_of_numpy():
    """Vertex by vertex and segment by segment: x = sum_k w_k (p_k + G_k E_k diag(s, s b1, s b2) E_k' (v - J_k))."""
    body, person = load.load_body(), _bent_and_wide()
    joints, vertices = np.asarray(body.joints, np.float64), np.asarray(body.vertices, np.float64)
    world, place, expected = [np.asarray(person.rotation, np.float64)], [np.zeros(3)], 0.0
    for joint in range(1, 24):
        parent = skeleton.SMPL_PARENTS[joint]
        world.append(world[parent] @ Rotation.from_rotvec(person.pose[joint - 1]).as_matrix())
        place.append(place[parent] + world[parent] @ (person.segment_scale[parent] * (joints[joint] - joints[parent])))
    ends = {"pelvis": "spine1", "spine3": "neck", "left_foot": None, "right_foot": None, "left_hand": None,
            "right_hand": None, "head": None}  # fmt: skip
    for joint, name in enumerate(skeleton.SMPL_JOINT_NAMES):
        parent = skeleton.SMPL_PARENTS[joint]
        if ends.get(name, "") is None:
            bone = joints[joint] - joints[parent]
        else:
            end = ends.get(name)
            child = skeleton.SMPL_JOINT_NAMES.index(end) if end else skeleton.SMPL_PARENTS.index(joint)
            bone = joints[child] - joints[joint]
        bone = bone / np.linalg.norm(bone)
        of_arm = any(part in name for part in ("collar", "shoulder", "elbow", "wrist", "hand"))
        second = np.cross(bone, np.eye(3)[1 if of_arm else 0])
        second /= np.linalg.norm(second)
        axes = np.stack([bone, np.cross(second, bone), second], axis=1)
        size = person.segment_scale[joint] * np.append(1.0, person.segment_girth[joint])
        carried = place[joint] + (vertices - joints[joint]) @ (world[joint] @ axes @ np.diag(size) @ axes.T).T
        expected = expected + np.asarray(body.skin_weight, np.float64)[:, joint, None] * carried
    segments = kinematics.pose_segments(body, person)
    np.testing.assert_allclose(segments.position, place, atol=1e-5)
    np.testing.assert_allclose(skinning.skin_vertices(body, segments), expected, atol=1e-5)


def test_a_girth_is_two_equal_segment_girths():
    body, plain = load.load_body(), _bent_and_wide().replace(segment_girth=None)
    girth = np.where(template.WIDENED[:, None], 1.2, 1.0).astype(np.float32).repeat(2, axis=1)
    both = plain.replace(girth=jnp.float32(1.2)), plain.replace(segment_girth=girth)
    one, other = (skinning.skin_vertices(body, kinematics.pose_segments(body, each)) for each in both)
    np.testing.assert_allclose(one, other, atol=1e-5)
