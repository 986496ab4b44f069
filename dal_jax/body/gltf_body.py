"""A rigged glTF human as a body: its skin in our T-pose and frame, 24 joints by name, what else is needed by rule."""

import itertools
import pathlib

import numpy as np
from jaxtyping import Float, Int

from dal_jax.body import body_file, carry_over, gltf_file, rig_joints, rig_names, rig_pose, skeleton
from dal_jax.runtime import errors

_SHORTEST_M = 0.01
_BONES = [("pelvis", "neck")] + [
    (f"{side}_{start}", f"{side}_{end}")
    for chain in (("hip", "knee", "ankle"), ("shoulder", "elbow", "wrist"))
    for start, end in itertools.pairwise(chain)
    for side in ("left", "right")
]
"""Bones by whose lengths others are measured."""


def read(path: pathlib.Path) -> body_file.Fields:
    """Read a rigged human as the fields of a body file.

    Bones become joints by name (`rig_names`), joints that the rig lacks by rule (`rig_joints`); the rest pose is turned
    into the T-pose and faces +z (`rig_pose`); of more than four segments a vertex the four largest weights are kept.
    `part`, `uv` and `h36m_regressor` are the free body's, carried over to the skin laid onto it; `mirror` is the vertex
    nearest to the mirror image. Corners at one place with one set of weights (seams of texture) become one vertex.

    Raises:
      errors.InputError: as `gltf_file.read` and `rig_names.find`; or it is no upright person in metres.
    """
    mesh = gltf_file.read(path)
    nodes = rig_names.find(path, mesh)
    weights = rig_joints.segment_weights(mesh, nodes)
    vertices, faces, weights = _welded(mesh.vertices, mesh.faces, weights)
    forward = rig_pose.facing_forward(rig_joints.joints(mesh.heads, nodes))
    joints = rig_joints.joints(mesh.heads @ forward.T, nodes)
    vertices = vertices @ forward.T
    problem = _problem(vertices, joints, "left_foot" in nodes)
    if problem:
        raise errors.InputError(f"{path}: {problem}")
    vertices, joints = rig_pose.t_pose(vertices, joints, weights)
    placement = rig_pose.place(vertices, faces, joints, weights)
    return carry_over.body_fields(vertices, faces, joints, weights, placement)


def _welded(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"], weights: Float[np.ndarray, "n 24"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make one vertex of equal ones, drop those of no face, and faces that had only an edge."""
    used = np.unique(faces)
    rows = np.concatenate([vertices[used], weights[used]], axis=1)
    _, first, inverse = np.unique(rows.round(7), axis=0, return_index=True, return_inverse=True)
    faces = inverse.ravel()[np.searchsorted(used, faces)]
    solid = (faces != np.roll(faces, 1, axis=1)).all(axis=1)
    kept = np.unique(faces[solid])
    return vertices[used[first[kept]]], np.searchsorted(kept, faces[solid]), weights[used[first[kept]]]


def _problem(vertices: np.ndarray, joints: np.ndarray, has_feet: bool) -> str | None:
    if not len(vertices):
        return "its skinned meshes have no triangle"
    _, height, depth = np.ptp(vertices, axis=0).tolist()
    if not 0.5 < height < 3:
        return f"the skin is {height:.3g} high, expected a person in metres with y up"
    if depth < _SHORTEST_M:
        return f"the skin has no depth ({depth:.3g})"
    at = dict(zip(skeleton.SMPL_JOINT_NAMES, joints, strict=True))
    if at["head"][1] < at["pelvis"][1]:
        return "the head lies below the pelvis, expected a person who stands upright"
    for start, end in _BONES:
        if np.linalg.norm(at[end] - at[start]) < _SHORTEST_M:
            return f"joints '{start}' and '{end}' lie at one place"
    ahead = sum(at[f"{side}_foot"][2] - at[f"{side}_ankle"][2] for side in ("left", "right"))
    return "the feet point backwards: are left and right mixed up?" if has_feet and ahead < 0 else None
