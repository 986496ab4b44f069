"""What a camera sees of a posed body: for each pixel of the crop the face and the place on it; who hides whom."""

import functools

import numpy as np
import scipy.sparse
from jaxtyping import Float

from dal_jax.data.synthetic import cameras, shapes
from dal_jax.viewing import raycast

_KEYPOINT_DEPTH_M = np.array(
    [0.20, 0.17, 0.10, 0.10, 0.17, 0.10, 0.10, 0.22, 0.16, 0.06, 0.14, 0.12, 0.08, 0.07, 0.12, 0.08, 0.07]
)
"""How far behind the surface a joint (Human3.6M order) may lie and still count as seen: about its limb's radius."""


class View:
    """One body, ready to be looked at from the camera.

    Only the faces turned to the camera are kept: the surface is closed, so no other can be met first, and building the
    search tree, which is most of the cost, takes half the time.
    """

    def __init__(self, vertices: Float[np.ndarray, "n 3"], furniture: Float[np.ndarray, "b 8 3"]):
        """vertices: of the body, in the camera's frame, metres; furniture: the corners of boxes (`box_corners`)."""
        faces = shapes.surface().faces
        vertices = vertices.astype(np.float32)
        first, second, third = (vertices[faces[:, corner]] for corner in range(3))
        normal = _cross(second - first, third - first)
        self.normals = _faces_of_vertex() @ normal
        front = np.flatnonzero(np.einsum("fc,fc->f", normal, first) < 0)
        used = np.zeros(len(vertices), bool)
        used[faces[front]] = True
        renumbered = np.cumsum(used) - 1
        points, local = [vertices[used]], [renumbered[faces[front]]]
        for number, box in enumerate(furniture):
            points.append(box.astype(vertices.dtype))
            local.append(_BOX_FACES + len(points[0]) + 8 * number)
        self._number = np.concatenate([front, len(faces) + np.arange(12 * len(furniture))])
        self.body_faces = len(faces)
        self._scene = raycast.Scene(np.concatenate(points), np.concatenate(local))

    def cast(self, points_px: Float[np.ndarray, "*b 2"]) -> raycast.Hits:
        """Look along photograph pixels; `distance` is the depth z, metres; furniture's faces come after the body's."""
        directions = cameras.rays(points_px).reshape(-1, 3)
        hits = self._scene.cast(np.zeros_like(directions), directions)
        face = np.where(hits.mask, self._number[hits.face], raycast.MISS)
        shape = points_px.shape[:-1]
        return raycast.Hits(face.reshape(shape), hits.barycentric.reshape(*shape, 3), hits.distance.reshape(shape))

    def sees_keypoints(self, joints: Float[np.ndarray, "17 3"]) -> np.ndarray:
        """Return which joints, in the camera's frame, lie just behind the first surface met on the way to them."""
        hits = self.cast(cameras.project(joints))
        return joints[:, 2] - hits.distance < _KEYPOINT_DEPTH_M


def box_corners(low: Float[np.ndarray, "3"], high: Float[np.ndarray, "3"]) -> Float[np.ndarray, "8 3"]:
    """Return the corners of an upright box."""
    return np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])


_BOX_FACES = np.array(
    [
        [0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
        [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3],
    ]
)  # fmt: skip


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return row by row cross products; np.cross takes three times as long."""
    out = np.empty_like(a)
    for x, y, z in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        out[:, x] = a[:, y] * b[:, z] - a[:, z] * b[:, y]
    return out


@functools.cache
def _faces_of_vertex() -> scipy.sparse.csr_array:
    """Return the (n, m) matrix that sums the faces' normals at their corners; the area weighs them."""
    faces = shapes.surface().faces
    ones = np.ones(faces.size, np.float32)
    rows, columns = faces.ravel(), np.repeat(np.arange(len(faces)), 3)
    return scipy.sparse.csr_array((ones, (rows, columns)), (len(shapes.surface().vertices), len(faces)))
