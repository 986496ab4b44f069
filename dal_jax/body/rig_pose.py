"""Turn a rig from its file's pose into the free body's T-pose, in our frame; and lay it onto the free body."""

import numpy as np
import scipy.spatial
import trimesh
from jaxtyping import Float, Int
from scipy.spatial import transform

from dal_jax.body import carry_over, skeleton

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
) -> carry_over.Placement:
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
    _, near = scipy.spatial.cKDTree(corners.mean(axis=1)).query(laid, k=_NEIGHBOURS)
    closest = carry_over.closest_points(corners[near], laid[:, None])
    facing = (1 - np.einsum("nkx,nx->nk", face_normals[near], normals)) / 2
    foreign = np.stack([1 - np.minimum(face_weights[column], weights).sum(axis=1) for column in near.T], axis=1)
    cost = np.linalg.norm(closest - laid[:, None], axis=2) + _WRONG_M * (facing + foreign)
    row, best = np.arange(len(laid)), np.argmin(cost, axis=1)
    face = near[row, best]
    return carry_over.Placement(face, carry_over.barycentric(corners[face], closest[row, best]))


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
