"""What the tree solver knows of a body before it sees an image: constants, built once on the host."""

import numpy as np
from jaxtyping import Array, Float

from dal_jax.body.template import Template, keypoint_rows
from dal_jax.runtime import struct


@struct.dataclass
class TreeModel:
    """Constants of a template.

    joints, bones: J_k and J_k - J_parent (zero for the root), metres.
    parent_of: one-hot rows that pick a segment's parent (the root: itself).
    path_to: row k marks the bones between the root and joint k, so that joint positions are one matrix product.
    incidence: row e is +1 at segment k and -1 at segment l of the edge e = (k, l).
    across_bones: P_k of `Template.across_bones`.
    girth_axes: [e, -e' J] of the two girth axes: a homogeneous rest point's coordinate along each, from the joint.
    keypoint_matrix: the key points as a linear function of the stacked affine maps of the segments.
    keypoint_moments: sums of v v' a segment over what makes up each key point.
    edges: pairs of segments that share a triangle of the skin.
    """

    joints: Float[Array | np.ndarray, "24 3"]
    bones: Float[Array | np.ndarray, "24 3"]
    parent_of: Float[Array | np.ndarray, "24 24"]
    path_to: Float[Array | np.ndarray, "24 24"]
    incidence: Float[Array | np.ndarray, "edges 24"]
    across_bones: Float[Array | np.ndarray, "24 3 3"]
    girth_axes: Float[Array | np.ndarray, "24 2 4"]
    keypoint_matrix: Float[Array | np.ndarray, "k 96"]
    keypoint_moments: Float[Array | np.ndarray, "k 24 4 4"]
    parents: tuple[int, ...] = struct.static()
    edges: tuple[tuple[int, int], ...] = struct.static()


def build(template: Template, keypoint_set: str = "h36m") -> TreeModel:
    """Return the constants of a template (concrete arrays) and of a set of key points, in the template's precision."""
    parents = np.maximum(template.parents, 0)
    joints = np.asarray(template.joints)
    kind = joints.dtype
    parent_of = np.eye(len(parents))[parents]
    path_to = np.zeros_like(parent_of)
    for node in range(1, len(parents)):
        path_to[node] = path_to[parents[node]] + np.eye(len(parents))[node]
    axes = np.swapaxes(np.asarray(template.bone_axes, np.float64)[:, :, 1:], 1, 2)
    edges = _edges(template)
    incidence = np.array([np.eye(len(parents))[k] - np.eye(len(parents))[m] for k, m in edges]).reshape(
        -1, len(parents)
    )
    return TreeModel(
        joints=joints,
        bones=joints - joints[parents],
        parent_of=parent_of.astype(kind),
        path_to=path_to.astype(kind),
        incidence=incidence.astype(kind),
        across_bones=np.asarray(template.across_bones),
        girth_axes=np.concatenate([axes, -axes @ joints.astype(float)[:, :, None]], axis=2).astype(kind),
        keypoint_matrix=np.asarray(template.keypoint_matrix)[keypoint_rows(keypoint_set)],
        keypoint_moments=_keypoint_moments(template, keypoint_set).astype(kind),
        parents=template.parents,
        edges=edges,
    )


def _edges(template: Template) -> tuple[tuple[int, int], ...]:
    """Return the pairs of segments that move some point of the skin together."""
    moves = (np.asarray(template.skin_weight) > 0) @ (1 << np.arange(24, dtype=np.int32))  # a bit a segment
    of_faces = np.unique(np.bitwise_or.reduce(moves[np.asarray(template.faces)], axis=1))  # a few hundred kinds
    moved = of_faces[:, None] >> np.arange(24) & 1
    together = np.triu(moved.T @ moved, k=1)
    return tuple((int(k), int(m)) for k, m in np.argwhere(together))


def _keypoint_moments(template: Template, keypoint_set: str) -> Float[np.ndarray, "k 24 4 4"]:
    """Return each key point's moments v v' a segment, v homogeneous, as if its vertices were points.

    Weights enter by magnitude, times their sum, which keeps the majoriser one for signed regressors too.
    """
    magnitude = np.abs(np.asarray(template.regressor(keypoint_set), np.float64))
    used = magnitude.any(axis=0)  # a few hundred vertices of thousands
    magnitude = magnitude[:, used] * magnitude.sum(axis=1, keepdims=True)
    vertices = np.asarray(template.vertices, np.float64)[used]
    rest = np.concatenate([vertices, np.ones_like(vertices[:, :1])], axis=1)
    squares = (rest[:, :, None] * rest[:, None]).reshape(len(rest), 1, 16)
    spread = (np.asarray(template.skin_weight)[used][:, :, None] * squares).reshape(len(rest), -1)
    return (magnitude @ spread).reshape(len(magnitude), -1, 4, 4)
