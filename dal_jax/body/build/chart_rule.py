"""A (u, v) chart for every part: a convex-combination map of the part's disc into a rounded unit square.

Tutte's theorem: with positive weights and a strictly convex boundary no triangle folds over, so each chart is
injective without a seam. The weights start as Floater's mean values and are divided by the local stretch
(Yoshizawa, Belyaev and Seidel, "A fast and simple stretch-minimizing mesh parameterization", 2004), which keeps
fingers and toes readable. v runs along the limb, from the body's centre outwards (upwards on torso and head),
u around it. A right part carries its left mirror image's (u, v); torso charts have u -> 1 - u under mirroring.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from scipy.sparse import linalg

from dal_jax.body import skeleton
from dal_jax.body.build import parts

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
        middle = parts.MIRROR_PART[number] == number
        uv[own] = _chart(vertices, faces[own], _directions(int(number), joints), mirror if middle else None)
        if not middle:
            # The mirrored face lists its corners backwards.
            uv[half + own] = uv[own][:, ::-1]
    return uv


def _directions(number: int, joints: np.ndarray) -> Float[np.ndarray, "2 3"]:
    """Directions in which u and v grow, seen from outside the part."""
    x, y, z = np.eye(3)
    fixed = {parts.TORSO_BACK: (x, y), parts.TORSO_FRONT: (x, y), parts.HEAD: (z, y)}
    fixed |= {parts.HAND: (z, y), parts.FOOT: (x, z)}
    if number in fixed:
        return np.stack(fixed[number])
    limb, front = parts.front_direction(number)
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
    best, best_stretch = None, np.inf
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
    count = weights.shape[0]
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
