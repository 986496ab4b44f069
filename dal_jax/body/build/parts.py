"""Divide the skin into DensePose's 24 parts, by planes through the T-pose's skeleton.

The rule is the project's own; only the numbering is DensePose's. Left faces are labelled, right faces mirror them.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from scipy.sparse import csgraph

from dal_jax.body import skeleton

TORSO_BACK, TORSO_FRONT, HAND, FOOT, HEAD = 1, 2, 4, 5, 24  # the left one where there are two
_LIMBS = {"upper_leg": (8, 10), "lower_leg": (12, 14), "upper_arm": (17, 15), "lower_arm": (21, 19)}  # (behind, front)
# Where "front" points across the limb: the thigh faces a little outwards, the shin inwards, biceps and palm side down.
_FRONT = {"upper_leg": (0.15, 0, 0.99), "lower_leg": (-0.45, 0, 0.89), "upper_arm": (0, -0.47, 0.88)}
_FRONT |= {"lower_arm": (0, -0.94, 0.34)}
MIRROR_PART = np.array([0, 1, 2, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15, 18, 17, 20, 19, 22, 21, 24, 23])
"""Part number of the mirror image; entry 0 is the background."""


def label_faces(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"], joints: Float[np.ndarray, "24 3"]
) -> Int[np.ndarray, " m"]:
    """Part of each face. The second half of `faces` must be the mirror image of the first, the left half."""
    half = len(faces) // 2
    centre = vertices[faces].mean(axis=1)
    labels = _label_left(centre[:half], dict(zip(skeleton.SMPL_JOINT_NAMES, joints, strict=True)))
    labels = np.concatenate([labels, MIRROR_PART[labels]])
    neighbours = _adjacency(faces)
    for _ in range(4):
        labels = _merge_islands(_straighten(labels, neighbours), neighbours)
    labels = labels[:half]
    return np.concatenate([labels, MIRROR_PART[labels]]).astype(np.uint8)


def front_direction(part: int) -> tuple[str, Float[np.ndarray, "3"]] | None:
    """Limb and its front for a left limb part; None for torso, hand, foot and head."""
    for limb, numbers in _LIMBS.items():
        if part in numbers:
            return limb, np.array(_FRONT[limb], float)
    return None


def _label_left(c: np.ndarray, joint: dict[str, np.ndarray]) -> np.ndarray:
    x, y, z = c.T
    hip, knee, ankle = (joint[f"left_{k}"] for k in ("hip", "knee", "ankle"))
    shoulder, elbow, wrist = (joint[f"left_{k}"] for k in ("shoulder", "elbow", "wrist"))
    labels = np.where(z < joint["pelvis"][2], TORSO_BACK, TORSO_FRONT)

    groin = y < hip[1] - 0.04 + 0.6 * (x - hip[0])
    gluteal = y < hip[1] + 0.01
    leg = np.where(z < hip[2], gluteal, groin)
    along = (c - knee) @ (ankle - knee) / ((ankle - knee) @ (ankle - knee))
    _halve(labels, leg, c, "upper_leg", hip, knee)
    _halve(labels, leg & (y < knee[1]), c, "lower_leg", knee, ankle)
    labels[leg & (along > 0.94)] = FOOT

    arm = x > shoulder[0] + 0.015
    _halve(labels, arm, c, "upper_arm", shoulder, elbow)
    _halve(labels, arm & (x > elbow[0]), c, "lower_arm", elbow, wrist)
    labels[arm & (x > wrist[0] + 0.01)] = HAND

    labels[y > joint["neck"][1] - 0.005 - 0.3 * (z - joint["neck"][2])] = HEAD
    return labels


def _halve(labels: np.ndarray, where: np.ndarray, c: np.ndarray, limb: str, start: np.ndarray, end: np.ndarray):
    behind, front = _LIMBS[limb]
    axis = (end - start) / np.linalg.norm(end - start)
    across = (c - start) - ((c - start) @ axis)[:, None] * axis
    labels[where] = np.where(across @ np.array(_FRONT[limb]) < 0, behind, front)[where]


def _adjacency(faces: np.ndarray) -> Int[np.ndarray, "m 3"]:
    """The three faces across each face's edges of a closed mesh."""
    twin = {}
    for i, f in enumerate(faces.tolist()):
        for k in range(3):
            twin[f[k], f[(k + 1) % 3]] = i
    return np.array([[twin[f[(k + 1) % 3], f[k]] for k in range(3)] for f in faces.tolist()])


def _straighten(labels: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Give a face the label that two of its neighbours share: takes the teeth out of the boundaries."""
    near = labels[neighbours]
    same = (near == labels[:, None]).sum(axis=1)
    other = np.where(near[:, 0] == near[:, 1], near[:, 0], near[:, 2])
    agree = (near == other[:, None]).sum(axis=1) >= 2
    return np.where((same <= 1) & agree & (other != MIRROR_PART[labels]), other, labels)


def _merge_islands(labels: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Keep the largest piece of each part; smaller ones join the part they touch most."""
    rows = np.repeat(np.arange(len(labels)), 3)
    columns = neighbours.ravel()
    inside = labels[rows] == labels[columns]
    graph = sparse.coo_matrix((inside[inside], (rows[inside], columns[inside])), shape=(len(labels),) * 2)
    piece = csgraph.connected_components(graph, directed=False)[1]
    size = np.bincount(piece)
    labels = labels.copy()
    for part in np.unique(labels):
        pieces = np.unique(piece[labels == part])
        for small in pieces[pieces != pieces[np.argmax(size[pieces])]]:
            touching = labels[neighbours[piece == small]].ravel()
            touching = touching[touching != part]
            if len(touching):  # empty where a neighbour has just joined this part
                labels[piece == small] = np.bincount(touching).argmax()
    return labels
