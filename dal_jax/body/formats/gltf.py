"""A rigged glTF human as a body: its skin in our T-pose and frame, 24 joints by name, what else is needed by rule."""

import itertools
import pathlib

import numpy as np
import scipy.spatial
import trimesh
from jaxtyping import Float, Int
from scipy.spatial import transform

from dal_jax.body import skeleton, triangles
from dal_jax.body.formats import carry_over, gltf_file, rig
from dal_jax.body.formats.carry_over import Placement
from dal_jax.body.template import Fields
from dal_jax.runtime.errors import InputError

_SHORTEST_M = 0.01
_BONES = [("pelvis", "neck")] + [
    (f"{side}_{start}", f"{side}_{end}")
    for chain in (("hip", "knee", "ankle"), ("shoulder", "elbow", "wrist"))
    for start, end in itertools.pairwise(chain)
    for side in ("left", "right")
]
"""Bones by whose lengths others are measured."""


def read(path: pathlib.Path) -> Fields:
    """Read a rigged human as the fields of a body file.

    Bones become joints by name (`rig_names`), joints that the rig lacks by rule (`rig_joints`); the rest pose is turned
    into the T-pose and faces +z (`rig_pose`); of more than four segments a vertex the four largest weights are kept.
    `part`, `uv` and the regressors of key points are the free body's, carried over to the skin laid onto it; `mirror`
    is the vertex nearest to the mirror image. Corners at one place with one set of weights (seams of texture) become
    one vertex.

    Raises:
      errors.InputError: as `gltf_file.read` and `rig_names.find`; or it is no upright person in metres.
    """
    mesh = gltf_file.read(path)
    nodes = rig.find(path, mesh)
    weights = rig.segment_weights(mesh, nodes)
    vertices, faces, weights = _welded(mesh.vertices, mesh.faces, weights)
    forward = facing_forward(rig.joints(mesh.heads, nodes))
    joints = rig.joints(mesh.heads @ forward.T, nodes)
    vertices = vertices @ forward.T
    problem = _problem(vertices, joints, weights)
    if problem:
        raise InputError(f"{path}: {problem}")
    vertices, joints = t_pose(vertices, joints, weights)
    placement = place(vertices, faces, joints, weights)
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


def _problem(vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray) -> str | None:
    if not len(vertices):
        return "its skinned meshes have no triangle"
    _, height, depth = np.ptp(vertices, axis=0).tolist()
    if not 0.5 < height < 3:
        return f"the skin is {height:.3g} high, expected a person in metres with y up"
    if depth < _SHORTEST_M:
        return f"the skin has no depth ({depth:.3g})"
    at: dict[str, np.ndarray] = dict(zip(skeleton.SMPL_JOINT_NAMES, joints, strict=True))
    if at["head"][1] < at["pelvis"][1]:
        return "the head lies below the pelvis, expected a person who stands upright"
    for start, end in _BONES:
        if np.linalg.norm(at[end] - at[start]) < _SHORTEST_M:
            return f"joints '{start}' and '{end}' lie at one place"
    ahead = sum(_foot_ahead_m(vertices, joints, weights, side) for side in ("left", "right"))
    return "the feet point backwards: are left and right mixed up?" if ahead < 0 else None


def _foot_ahead_m(vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray, side: str) -> float:
    """Return how far a foot's skin lies ahead of its ankle on average: the rig may have no bone for the toes."""
    ankle, foot = (_NAMES.index(f"{side}_{joint}") for joint in ("ankle", "foot"))
    skin = weights[:, ankle] + weights[:, foot]
    return float(skin @ (vertices[:, 2] - joints[ankle, 2]) / max(skin.sum(), 1e-9))


# --- Turn a rig from its file's pose into the free body's T-pose, in our frame; and lay it onto the free body ---

_NAMES, _PARENTS = skeleton.SMPL_JOINT_NAMES, skeleton.SMPL_PARENTS
_LIMBS = {"hip": "knee", "knee": "ankle", "shoulder": "elbow", "elbow": "wrist", "wrist": "hand"}
_FEET = ("left_ankle", "right_ankle")
_SIZED_BY = {"hip": ("hip", "knee"), "knee": ("knee", "ankle"), "ankle": ("knee", "ankle"), "foot": ("knee", "ankle")}
_SIZED_BY |= {"shoulder": ("shoulder", "elbow"), "elbow": ("elbow", "wrist")}
_SIZED_BY |= {"wrist": ("elbow", "wrist"), "hand": ("elbow", "wrist")}
_NEIGHBOURS = 32  # faces, by nearness of their centres, that compete for a vertex
_WRONG_M = 0.03  # metres: the price of a side that faces the other way, and of another segment (as build/smpl_map)


def facing_forward(joints: Float[np.ndarray, "24 3"]) -> Float[np.ndarray, "3 3"]:
    """Return the turn about the vertical that puts the body's left (hips and shoulders) towards +x."""
    at = dict(zip(_NAMES, joints, strict=True))
    across = at["left_hip"] - at["right_hip"] + at["left_shoulder"] - at["right_shoulder"]
    return transform.Rotation.from_rotvec([0, np.arctan2(across[2], across[0]), 0]).as_matrix()


def t_pose(
    vertices: Float[np.ndarray, "n 3"], joints: Float[np.ndarray, "24 3"], weights: Float[np.ndarray, "n 24"]
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "24 3"]]:
    """Pose a body by its own skinning so that its arms and legs point as the free body's; the pelvis to the origin.

    Each limb turns by the smallest rotation that does it. Trunk, head and collars stay as they are, and so do feet,
    which stand flat in a rest pose.
    """
    free = carry_over.free_body()["joints"]
    turns, moved = np.tile(np.eye(3), (len(_NAMES), 1, 1)), np.zeros_like(joints)
    for joint, (name, parent) in enumerate(zip(_NAMES, _PARENTS, strict=True)):
        if parent >= 0:
            turns[joint] = turns[parent]
            moved[joint] = moved[parent] + turns[parent] @ (joints[joint] - joints[parent])
        side, _, kind = name.partition("_")
        if kind in _LIMBS:
            end = _NAMES.index(f"{side}_{_LIMBS[kind]}")
            turns[joint] = _align(turns[joint] @ (joints[end] - joints[joint]), free[end] - free[joint]) @ turns[joint]
        elif name in _FEET:
            turns[joint] = np.eye(3)
    return _blend(vertices, joints, weights, turns, moved), moved


def place(
    vertices: Float[np.ndarray, "n 3"],
    faces: Int[np.ndarray, "m 3"],
    joints: Float[np.ndarray, "24 3"],
    weights: Float[np.ndarray, "n 24"],
) -> Placement:
    """Find where the vertices of a body in T-pose lie on the free body.

    Its segments are moved to the free body's joints and scaled to its bones. The nearest point of the free body counts
    as farther by up to `_WRONG_M` where the skin faces the other way, and as much where it is of other segments.
    """
    body = carry_over.free_body()
    scales = np.stack([_size(k, body["joints"]) / _size(k, joints) * np.eye(3) for k in range(len(_NAMES))])
    laid = _blend(vertices, joints, weights, scales, body["joints"])
    normals = trimesh.Trimesh(laid, faces, process=False).vertex_normals
    corners = body["vertices"][body["faces"]]
    face_weights = _dense_weights(body)[body["faces"]].mean(axis=1)
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    face_normals /= np.linalg.norm(face_normals, axis=1, keepdims=True)
    near = np.asarray(scipy.spatial.KDTree(corners.mean(axis=1)).query(laid, k=_NEIGHBOURS)[1])
    weight, squared = triangles.closest(laid[:, None], corners[near])
    facing = (1 - np.einsum("nkx,nx->nk", face_normals[near], normals)) / 2
    foreign = np.stack([1 - np.minimum(face_weights[column], weights).sum(axis=1) for column in near.T], axis=1)
    cost = np.sqrt(squared) + _WRONG_M * (facing + foreign)
    row, best = np.arange(len(laid)), np.argmin(cost, axis=1)
    return Placement(near[row, best], weight[row, best])


def _blend(vertices, joints, weights, linear, moved) -> Float[np.ndarray, "n 3"]:
    """Skin: segment k takes a point v to `linear_k (v - joint_k) + moved_k`."""
    out = np.zeros_like(vertices)
    for k in range(len(_NAMES)):
        on = weights[:, k] > 0
        out[on] += weights[on, k, None] * ((vertices[on] - joints[k]) @ linear[k].T + moved[k])
    return out


def _size(joint: int, joints: Float[np.ndarray, "24 3"]) -> float:
    """Return the length of the bone that sizes a segment; trunk and head go by pelvis to neck."""
    side, _, kind = _NAMES[joint].partition("_")
    start, end = (f"{side}_{name}" for name in _SIZED_BY[kind]) if kind in _SIZED_BY else ("pelvis", "neck")
    return float(np.linalg.norm(joints[_NAMES.index(end)] - joints[_NAMES.index(start)]))


def _align(a: np.ndarray, b: np.ndarray) -> Float[np.ndarray, "3 3"]:
    """Return the smallest rotation that turns direction a into direction b."""
    axis = np.cross(a, b)
    angle = np.arctan2(np.linalg.norm(axis), a @ b)
    return transform.Rotation.from_rotvec(angle * axis / max(np.linalg.norm(axis), 1e-12)).as_matrix()


def _dense_weights(body: dict[str, np.ndarray]) -> Float[np.ndarray, "n 24"]:
    weights = np.zeros((len(body["vertices"]), len(_NAMES)))
    np.add.at(weights, (np.arange(len(weights))[:, None], body["skin_index"]), body["skin_weight"])
    return weights
