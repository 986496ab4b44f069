"""Four perspective cameras around the scene, as in Human3.6M's laboratory, and the square crop of a person."""

import functools

import numpy as np
import scipy.sparse
from jaxtyping import Float

from dal_jax.observations.human36m_cameras import Extrinsics
from dal_jax.synthetic import actors
from dal_jax.viewing import raycast
from dal_jax.viewing.raycast import Hits, Scene

PHOTOGRAPH_PX = 1000
FOCAL_PX = 1146.0  # Human3.6M's cameras
_AZIMUTHS_DEG = (45.0, 135.0, -135.0, -45.0)


INTRINSICS_PX = np.array([FOCAL_PX, FOCAL_PX, PHOTOGRAPH_PX / 2, PHOTOGRAPH_PX / 2])
"""Focal lengths and principal point of all cameras: fx, fy, cx, cy."""


def place(number: int, random: np.random.Generator) -> Extrinsics:
    """Return camera 0 to 3, about 5 m from the middle of the scene at eye height, a little differently every time.

    From the world (metres, y up, floor at 0) to the camera (x right, y down, z away).
    """
    azimuth = np.radians(_AZIMUTHS_DEG[number] + random.normal(0, 4.0))
    distance, height = random.uniform(4.6, 5.6), random.uniform(1.3, 1.75)
    position = np.array([distance * np.sin(azimuth), height, distance * np.cos(azimuth)])
    forward = np.array([random.normal(0, 0.1), random.uniform(0.75, 1.05), random.normal(0, 0.1)]) - position
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right = right / np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return np.column_stack([rotation, -rotation @ position])


def position_of(camera: Extrinsics) -> Float[np.ndarray, "3"]:
    """Return where a camera stands in the world."""
    return -camera[:, :3].T @ camera[:, 3]


def project(points: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 2"]:
    """Return the photograph's pixels of points in the camera's frame."""
    return FOCAL_PX * points[..., :2] / points[..., 2:] + PHOTOGRAPH_PX / 2


def rays(points_px: Float[np.ndarray, "*b 2"]) -> Float[np.ndarray, "*b 3"]:
    """Return the directions, with z = 1, that the photograph's pixels look along."""
    ahead = np.ones((*points_px.shape[:-1], 1))
    return np.concatenate([(points_px - PHOTOGRAPH_PX / 2) / FOCAL_PX, ahead], axis=-1)


def square_box(points_px: Float[np.ndarray, "p 2"], random: np.random.Generator) -> Float[np.ndarray, "4"]:
    """Return x, y, width, height of a square around points, as loose and off-centre as a detector's box."""
    low, high = points_px.min(axis=0), points_px.max(axis=0)
    side = (high - low).max() * random.uniform(1.12, 1.35)
    centre = (low + high) / 2 + np.clip(random.normal(0, 0.02, 2), -0.04, 0.04) * side
    return np.array([*(centre - side / 2), side, side])


# --- What a camera sees of a posed body: for each pixel of the crop the face and the place on it; what hides what ---

_KEYPOINT_DEPTH_M = np.array(
    [0.20, 0.17, 0.10, 0.10, 0.17, 0.10, 0.10, 0.22, 0.16, 0.06, 0.14, 0.12, 0.08, 0.07, 0.12, 0.08, 0.07]
)
"""How far behind the surface a joint (Human3.6M order) may lie and still count as seen: about its limb's radius."""


class View:
    """One body, ready to be looked at from the camera.

    Only the faces towards the camera are kept: the surface is closed, so no other can be met first, and building the
    search tree, which is most of the cost, takes half the time.
    """

    def __init__(self, vertices: Float[np.ndarray, "n 3"], furniture: Float[np.ndarray, "b 8 3"]):
        """vertices: of the body, in the camera's frame, metres; furniture: the corners of boxes (`box_corners`)."""
        faces = actors.surface().faces
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
        self._scene = Scene(np.concatenate(points), np.concatenate(local))

    def cast(self, points_px: Float[np.ndarray, "*b 2"]) -> Hits:
        """Look along photograph pixels; `distance` is the depth z, metres; furniture's faces come after the body's."""
        directions = rays(points_px)
        hits = self._scene.cast(np.zeros_like(directions), directions)
        return hits._replace(face=np.where(hits.mask, self._number[hits.face], raycast.MISS))

    def sees_keypoints(self, joints: Float[np.ndarray, "17 3"]) -> np.ndarray:
        """Return which joints, in the camera's frame, lie just behind the first surface met on the way to them."""
        hits = self.cast(project(joints))
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
    faces = actors.surface().faces
    ones = np.ones(faces.size, np.float32)
    rows, columns = faces.ravel(), np.repeat(np.arange(len(faces)), 3)
    return scipy.sparse.csr_array((ones, (rows, columns)), (len(actors.surface().vertices), len(faces)))
