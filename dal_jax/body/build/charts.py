"""Divide the skin into DensePose's 24 parts, by planes through the T-pose's skeleton.

The rule is the project's own; only the numbering is DensePose's. Left faces are labelled, right faces mirror them.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from scipy.sparse import csgraph, linalg

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


# --- A (u, v) chart for every part: a convex-combination map of the part's disc into a rounded unit square ---
#
# Tutte's theorem: with positive weights and a strictly convex boundary no triangle folds over, so each chart is
# injective without a seam. The weights start as Floater's mean values and are divided by the local stretch (Yoshizawa,
# Belyaev and Seidel, "A fast and simple stretch-minimizing mesh parameterization", 2004), which keeps fingers and toes
# readable. v runs along the limb, from the body's centre outwards (upwards on torso and head), u around it. A right
# part carries its left mirror image's (u, v); torso charts have u -> 1 - u under mirroring.

_BULGE = 0.05  # how far each side of the square swells, so that no three boundary points are collinear
_ROUNDS = 40
_STRETCH_POWER = 0.6
_BONE = {"upper_leg": ("hip", "knee"), "lower_leg": ("knee", "ankle"), "upper_arm": ("shoulder", "elbow")}
_BONE |= {"lower_arm": ("elbow", "wrist")}


def charts(
    vertices: Float[np.ndarray, "n 3"],
    faces: Int[np.ndarray, "m 3"],
    joints: Float[np.ndarray, "24 3"],
    part: Int[np.ndarray, " m"],
    mirror: Int[np.ndarray, " n"],
) -> Float[np.ndarray, "m 3 2"]:
    """(u, v) in [0, 1] of every face corner. The second half of `faces` must mirror the first."""
    uv = np.zeros((len(faces), 3, 2))
    half = len(faces) // 2
    for number in np.unique(part[:half]):
        own = np.flatnonzero(part == number)
        middle = MIRROR_PART[number] == number
        uv[own] = _chart(vertices, faces[own], _directions(int(number), joints), mirror if middle else None)
        if not middle:
            # The mirrored face lists its corners backwards.
            uv[half + own] = uv[own][:, ::-1]
    return uv


def _directions(number: int, joints: np.ndarray) -> Float[np.ndarray, "2 3"]:
    """Directions in which u and v grow, seen from outside the part."""
    x, y, z = np.eye(3)
    fixed = {TORSO_BACK: (x, y), TORSO_FRONT: (x, y), HEAD: (z, y)}
    fixed |= {HAND: (z, y), FOOT: (x, z)}
    if number in fixed:
        return np.stack(fixed[number])
    named = front_direction(number)
    if named is None:
        raise ValueError(f"part {number} has neither fixed directions nor a limb")
    limb, front = named
    start, end = (joints[skeleton.SMPL_JOINT_NAMES.index(f"left_{k}")] for k in _BONE[limb])
    along = (end - start) / np.linalg.norm(end - start)
    return np.stack([np.cross(front, along), along])


def _chart(
    vertices: np.ndarray, faces: np.ndarray, directions: np.ndarray, mirror: np.ndarray | None
) -> Float[np.ndarray, "faces 3 2"]:
    used, local = np.unique(faces, return_inverse=True)
    local = local.reshape(faces.shape)
    points = vertices[used]
    loop = _boundary(local)
    if len(used) - _edge_count(local) + len(local) != 1:
        raise ValueError("a part of the body is no disc: its chart would need a seam")
    twin = None if mirror is None else np.searchsorted(used, mirror[used])
    rim = _place_boundary(points, loop, directions, twin)
    weights = _mean_value_weights(points, local)
    best, best_stretch = np.zeros((len(points), 2)), np.inf
    for _ in range(_ROUNDS):
        uv = _solve(weights, loop, rim)
        stretch, total = _stretch(points, local, uv)
        if total < best_stretch:
            best, best_stretch = uv, total
        weights = weights @ sparse.diags(stretch**-_STRETCH_POWER)
    if twin is not None:
        best = (best + np.stack([1 - best[twin, 0], best[twin, 1]], axis=1)) / 2
    return best[local]


def _edge_count(faces: np.ndarray) -> int:
    edges = np.sort(np.concatenate([faces[:, :2], faces[:, 1:], faces[:, ::2]]), axis=1)
    return len(np.unique(edges, axis=0))


def _boundary(faces: np.ndarray) -> Int[np.ndarray, " b"]:
    half = {(a, b) for f in faces.tolist() for a, b in zip(f, f[1:] + f[:1], strict=True)}
    following = {a: b for a, b in half if (b, a) not in half}
    start = min(following)
    loop = [start]
    while (at := following.pop(loop[-1])) != start:
        loop.append(at)
    if following:
        raise ValueError("a part of the body has several boundary loops: its chart would need a seam")
    return np.array(loop)


def _place_boundary(
    points: np.ndarray, loop: np.ndarray, directions: np.ndarray, twin: np.ndarray | None
) -> Float[np.ndarray, "b 2"]:
    """Four corners of the boundary go to the square's, the rest by arc length between them, sides swelling."""
    flat = points[loop] @ directions.T
    flat = 2 * (flat - flat.min(axis=0)) / np.ptp(flat, axis=0) - 1
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    corner = [int(np.argmax(flat @ s)) for s in signs]
    if twin is not None:  # the two sides of a torso chart must not pick different vertices
        position = {int(v): i for i, v in enumerate(loop)}
        corner[0], corner[3] = (position[int(twin[loop[corner[i]]])] for i in (1, 2))
    order = np.argsort(corner)
    length = np.linalg.norm(np.roll(points[loop], -1, axis=0) - points[loop], axis=1)
    rim = np.zeros((len(loop), 2))
    low, high = _BULGE, 1 - _BULGE
    square = np.where(signs > 0, high, low).astype(float)
    for a, b in zip(order, np.roll(order, -1), strict=True):
        if (a - b) % 4 not in (1, 3):
            raise ValueError("the corners of a part's boundary are out of order")
        count = (corner[b] - corner[a]) % len(loop)
        side = (corner[a] + np.arange(count)) % len(loop)
        t = np.concatenate([[0.0], np.cumsum(length[side])[:-1]]) / length[side].sum()
        outward = (square[a] + square[b]) / 2 - 0.5
        outward /= np.linalg.norm(outward)
        rim[side] = (1 - t)[:, None] * square[a] + t[:, None] * square[b]
        rim[side] += (4 * _BULGE * t * (1 - t))[:, None] * outward
    return rim


def _mean_value_weights(points: np.ndarray, faces: np.ndarray) -> sparse.csr_matrix:
    """Floater's mean value coordinates: tan(angle / 2) / distance, always positive."""
    rows, columns, values = [], [], []
    for k in range(3):
        i, j, m = faces[:, k], faces[:, (k + 1) % 3], faces[:, (k + 2) % 3]
        a, b = points[j] - points[i], points[m] - points[i]
        na, nb = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
        tangent = np.linalg.norm(np.cross(a, b), axis=1) / (na * nb + (a * b).sum(axis=1))
        rows += [i, i]
        columns += [j, m]
        values += [tangent / na, tangent / nb]
    rows, columns, values = (np.concatenate(x) for x in (rows, columns, values))
    return sparse.csr_matrix((values, (rows, columns)), shape=(len(points),) * 2)


def _solve(weights: sparse.csr_matrix, loop: np.ndarray, rim: np.ndarray) -> Float[np.ndarray, "n 2"]:
    count = weights.get_shape()[0]
    inside = np.setdiff1d(np.arange(count), loop)
    uv = np.zeros((count, 2))
    uv[loop] = rim
    rows = weights[inside]
    rows = sparse.diags(1 / np.asarray(rows.sum(axis=1)).ravel()) @ rows
    matrix = sparse.identity(len(inside), format="csc") - rows[:, inside].tocsc()
    uv[inside] = linalg.splu(matrix).solve(rows[:, loop] @ rim)
    return uv


def _stretch(points: np.ndarray, faces: np.ndarray, uv: np.ndarray) -> tuple[Float[np.ndarray, " n"], float]:
    """Root mean square stretch from chart to surface (Sander et al. 2001): around each vertex, and in all."""
    q, p = points[faces], uv[faces]
    e1, e2, d1, d2 = q[:, 1] - q[:, 0], q[:, 2] - q[:, 0], p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]
    det = d1[:, 0] * d2[:, 1] - d1[:, 1] * d2[:, 0]
    det = np.where(np.abs(det) < 1e-14, 1e-14, det)
    by_u = (e1 * d2[:, 1:] - e2 * d1[:, 1:]) / det[:, None]
    by_v = (e2 * d1[:, :1] - e1 * d2[:, :1]) / det[:, None]
    squared = ((by_u**2).sum(axis=1) + (by_v**2).sum(axis=1)) / 2
    area = np.linalg.norm(np.cross(e1, e2), axis=1) / 2
    weighted, total = np.zeros(len(points)), np.zeros(len(points))
    for k in range(3):
        np.add.at(weighted, faces[:, k], area * squared)
        np.add.at(total, faces[:, k], area)
    return np.sqrt(weighted / total), float(np.sqrt((area * squared).sum() / area.sum()))
