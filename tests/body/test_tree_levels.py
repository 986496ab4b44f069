"""Levels of a tree: laws on SMPL's skeleton, a chain, a star and random trees."""

import random

import pytest

from dal_jax.body import kinematics, skeleton


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


@every_tree
def test_children_rows_invert_parent_rows(parents):
    levels = kinematics.nodes_by_depth(parents)
    for depth in range(1, len(levels)):
        children = kinematics.children_rows(parents, levels, depth)
        assert len(children) == len(levels[depth - 1])
        back = {child: row for row, rows in enumerate(children) for child in rows}
        assert sum(map(len, children)) == len(levels[depth])
        assert [back[row] for row in range(len(levels[depth]))] == kinematics.parent_rows(parents, levels, depth)


def test_depths_of_the_ends_of_smpl_limbs():
    levels = kinematics.nodes_by_depth(skeleton.SMPL_PARENTS)
    names = [{skeleton.SMPL_JOINT_NAMES[node] for node in level} for level in levels]
    assert names[1] == {"left_hip", "right_hip", "spine1"}
    assert names[-1] == {"left_hand", "right_hand"}
    assert len(levels) == 9
