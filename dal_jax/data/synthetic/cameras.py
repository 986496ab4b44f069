"""Four perspective cameras around the scene, as in Human3.6M's laboratory, and the square crop of a person."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

PHOTOGRAPH_PX = 1000
FOCAL_PX = 1146.0  # Human3.6M's cameras
_AZIMUTHS_DEG = (45.0, 135.0, -135.0, -45.0)


class Camera(NamedTuple):
    """World (y up, floor at 0) to camera (x right, y down, z away): `rotation @ (x - position)`; metres."""

    rotation: Float[np.ndarray, "3 3"]
    position: Float[np.ndarray, "3"]

    @property
    def intrinsics_px(self) -> Float[np.ndarray, "4"]:
        """Focal lengths and principal point: fx, fy, cx, cy."""
        return np.array([FOCAL_PX, FOCAL_PX, PHOTOGRAPH_PX / 2, PHOTOGRAPH_PX / 2])

    def to_camera(self, world: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 3"]:
        """Return world points in the camera's frame."""
        return (world - self.position) @ self.rotation.T


def place(number: int, random: np.random.Generator) -> Camera:
    """Return camera 0 to 3, about 5 m from the middle of the scene at eye height, a little differently every time."""
    azimuth = np.radians(_AZIMUTHS_DEG[number] + random.normal(0, 4.0))
    distance, height = random.uniform(4.6, 5.6), random.uniform(1.3, 1.75)
    position = np.array([distance * np.sin(azimuth), height, distance * np.cos(azimuth)])
    forward = np.array([random.normal(0, 0.1), random.uniform(0.75, 1.05), random.normal(0, 0.1)]) - position
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right = right / np.linalg.norm(right)
    return Camera(np.stack([right, np.cross(forward, right), forward]), position)


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


def pixel_grid_px(box_px: Float[np.ndarray, "4"], size: int) -> Float[np.ndarray, "size size 2"]:
    """Return where the centres of a crop's pixels lie in the photograph."""
    step = (np.arange(size) + 0.5) / size * box_px[2]
    x, y = np.meshgrid(box_px[0] + step, box_px[1] + step)
    return np.stack([x, y], axis=-1)
