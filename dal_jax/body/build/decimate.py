"""Decimate a mirror-symmetric closed mesh by quadric half-edge collapses, both sides at once.

Garland and Heckbert, "Surface Simplification Using Quadric Error Metrics" (1997), with two choices: a collapse
moves one vertex ONTO its neighbour, so the survivors are vertices of the input (weights and other people's shapes
carry over by indexing), and only the left half is collapsed, its middle line along itself, then mirrored.
Several shapes of the same mesh share one decimation: their errors add, and no face may flip in any of them.
"""

import heapq

import numpy as np
from jaxtyping import Float, Int

# Weight of the squared edge length beside the quadric error: keeps flat skin evenly sampled.
_LENGTH_COST = 2e-3
_FLIP_COSINE = 0.35  # a collapse may rotate no face by more than about 70 degrees
_SLIVER = 0.12  # smallest allowed 4 sqrt(3) area / sum of squared edges (1 = equilateral)
_MIDDLE_WEIGHT = 10.0  # planes that hold the middle line's silhouette


def decimate(
    shapes: Float[np.ndarray, "k v 3"],
    faces: Int[np.ndarray, "f 3"],
    mirror: Int[np.ndarray, " v"],
    importance: Float[np.ndarray, " v"],
    target: int,
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, "m 3"]]:
    """Collapse down to about `target` vertices.

    Returns:
      kept: input index of every surviving vertex, left side and middle first in input order.
      faces: triangles of the survivors, as positions in `kept`.
    """
    middle = mirror == np.arange(len(mirror))
    side = np.where(middle, 0.0, np.sign(shapes[0, :, 0]))
    half = faces[side[faces].sum(axis=1) > 0]
    left = np.unique(half)
    surplus = 2 * len(left) - middle[left].sum() - target
    mesh = _HalfMesh(shapes, half, middle, importance)
    while surplus > 0:
        removed = mesh.collapse_cheapest()
        surplus -= 1 if middle[removed] else 2
    return _glue(mesh.faces(), mirror)


def _glue(half: np.ndarray, mirror: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    faces = np.concatenate([half, mirror[half][:, ::-1]])
    left = np.unique(half)
    right = mirror[left[mirror[left] != left]]
    kept = np.concatenate([left, right])
    position = np.full(len(mirror), -1)
    position[kept] = np.arange(len(kept))
    return kept, position[faces].astype(np.int32)


class _HalfMesh:
    """The left half with its middle line as boundary, and a heap of candidate collapses (from, onto)."""

    def __init__(self, shapes: np.ndarray, faces: np.ndarray, middle: np.ndarray, importance: np.ndarray):
        self._x = np.ascontiguousarray(np.moveaxis(shapes, 0, 1))  # (v, k, 3)
        self._middle = middle
        self._importance = importance
        self._face = {i: tuple(f) for i, f in enumerate(faces.tolist())}
        self._around: dict[int, set[int]] = {}
        for i, f in self._face.items():
            for vertex in f:
                self._around.setdefault(vertex, set()).add(i)
        self._quadric = self._first_quadrics(faces)
        self._stamp = dict.fromkeys(self._around, 0)
        self._heap: list[tuple[float, int, int, int, int]] = []
        for vertex in self._around:
            self._push_from(vertex)

    def faces(self) -> np.ndarray:
        return np.array([self._face[i] for i in sorted(self._face)])

    def collapse_cheapest(self) -> int:
        """Do the cheapest allowed collapse and return the removed vertex."""
        while True:
            _, u, v, stamp_u, stamp_v = heapq.heappop(self._heap)
            if self._stamp.get(u) == stamp_u and self._stamp.get(v) == stamp_v and self._allowed(u, v):
                self._collapse(u, v)
                return u

    def _first_quadrics(self, faces: np.ndarray) -> dict[int, np.ndarray]:
        a, b, c = (self._x[faces[:, i]] for i in range(3))
        normal = np.cross(b - a, c - a)
        double_area = np.linalg.norm(normal, axis=-1, keepdims=True)
        normal = normal / np.maximum(double_area, 1e-20)
        plane = np.concatenate([normal, -(normal * a).sum(axis=-1, keepdims=True)], axis=-1)
        q = plane[..., :, None] * plane[..., None, :] * (double_area[..., None] / 6)
        total = np.zeros((len(self._x), q.shape[1], 4, 4))
        for i in range(3):
            np.add.at(total, faces[:, i], q)
        for a, b, c in faces.tolist():
            for u, v, w in ((a, b, c), (b, c, a), (c, a, b)):
                if self._middle[u] and self._middle[v]:
                    edge_quadric = self._silhouette_quadric(u, v, w)
                    total[u] += edge_quadric
                    total[v] += edge_quadric
        return {v: total[v] * self._importance[v] for v in self._around}

    def _silhouette_quadric(self, u: int, v: int, w: int) -> np.ndarray:
        """Plane through a middle edge, perpendicular to its face."""
        edge = self._x[v] - self._x[u]
        normal = np.cross(edge, np.cross(edge, self._x[w] - self._x[u]))
        normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-20)
        plane = np.concatenate([normal, -(normal * self._x[u]).sum(axis=-1, keepdims=True)], axis=-1)
        weight = _MIDDLE_WEIGHT * (edge**2).sum(axis=-1)[..., None, None] / 6
        return weight * plane[..., :, None] * plane[..., None, :]

    def _neighbours(self, u: int) -> set[int]:
        return {v for i in self._around[u] for v in self._face[i]} - {u}

    def _push_from(self, u: int) -> None:
        for v in self._neighbours(u):
            if self._middle[u] and not self._middle[v]:
                continue
            heapq.heappush(self._heap, (self._cost(u, v), u, v, self._stamp[u], self._stamp[v]))

    def _cost(self, u: int, v: int) -> float:
        x = np.append(self._x[v], np.ones((len(self._x[v]), 1)), axis=1)
        q = self._quadric[u] + self._quadric[v]
        error = np.einsum("ki,kij,kj->", x, q, x)
        length = ((self._x[v] - self._x[u]) ** 2).sum(axis=-1)
        return float(error + _LENGTH_COST * self._importance[u] * (length**2).sum())

    def _allowed(self, u: int, v: int) -> bool:
        shared = self._around[u] & self._around[v]
        on_middle_line = self._middle[u] and self._middle[v]
        if len(shared) != (1 if on_middle_line else 2):
            return False
        opposite = {w for i in shared for w in self._face[i]} - {u, v}
        near_u, near_v = self._neighbours(u), self._neighbours(v)
        if (near_u & near_v) != opposite or len(near_v | near_u) < 6:
            return False
        # A new edge between two middle vertices inside the half would coincide with its mirror image.
        if self._middle[v] and not on_middle_line and any(self._middle[w] for w in near_u - {v}):
            return False
        return self._shape_kept(u, v, self._around[u] - shared)

    def _shape_kept(self, u: int, v: int, changed: set[int]) -> bool:
        if not changed:
            return False
        old = np.array([self._face[i] for i in changed])
        new = np.where(old == u, v, old)
        before, after = (np.moveaxis(self._x[t], 1, 0) for t in (old, new))  # (faces, 3 corners, k, 3)
        before, after = (np.moveaxis(t, 0, 1) for t in (before, after))
        n_old, n_new = (np.cross(t[:, 1] - t[:, 0], t[:, 2] - t[:, 0]) for t in (before, after))
        a_old, a_new = (np.linalg.norm(n, axis=-1) for n in (n_old, n_new))
        if np.any((n_old * n_new).sum(axis=-1) < _FLIP_COSINE * a_old * a_new):
            return False
        edges = ((after - np.roll(after, 1, axis=1)) ** 2).sum(axis=(1, -1))
        return bool(np.all(2 * np.sqrt(3) * a_new > _SLIVER * edges))

    def _collapse(self, u: int, v: int) -> None:
        for i in self._around.pop(u):
            f = self._face[i]
            if v in f:
                del self._face[i]
                for w in f:
                    if w != u:
                        self._around[w].discard(i)
            else:
                self._face[i] = tuple(v if w == u else w for w in f)
                self._around[v].add(i)
        self._quadric[v] = self._quadric[v] + self._quadric.pop(u)
        del self._stamp[u]
        ring = self._neighbours(v)
        for w in ring | {v}:
            self._stamp[w] += 1
        for w in ring | {v}:
            self._push_from(w)
        outer = {x for w in ring for x in self._neighbours(w)} - ring - {v}
        for x in outer:
            for w in self._neighbours(x) & ring:
                if not (self._middle[x] and not self._middle[w]):
                    heapq.heappush(self._heap, (self._cost(x, w), x, w, self._stamp[x], self._stamp[w]))
