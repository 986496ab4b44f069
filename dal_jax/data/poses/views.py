"""Cameras sampled around moving people: 2D poses as photographs would show them."""

import dataclasses

import numpy as np
from jaxtyping import Float

CAMERAS = ("perspective", "weak")
_PHOTOGRAPH_PX = 1000
_FOCAL_PX = 1146.0  # Human3.6M's cameras


@dataclasses.dataclass(frozen=True)
class Views:
    """How people are looked at.

    camera: 'perspective', or 'weak': as if from far away, with the size that the distance gives.
    number: of cameras a pose. elevation_deg: standard deviation of a camera's height over the horizon; Kudo et al.
    assume 0. distance_m: nearest and farthest from the hip.
    """

    camera: str = "perspective"
    number: int = 1
    elevation_deg: float = 10.0
    distance_m: tuple[float, float] = (3.5, 7.0)


def look(
    joints: Float[np.ndarray, "n 17 3"], views: Views, random: np.random.Generator
) -> Float[np.ndarray, "n*views 17 2"]:
    """Return key points (px, y down) of people (metres, y up) seen from any side, each by its own upright cameras.

    A pose's views follow one another. The hip is at the photograph's middle.
    """
    joints = np.repeat(joints - joints[:, :1], views.number, axis=0)
    count = len(joints)
    heading = random.uniform(0, 2 * np.pi, count)
    elevation = np.radians(random.normal(0, views.elevation_deg, count))
    distance = random.uniform(*views.distance_m, count)
    camera = np.einsum("nij,nkj->nki", _rotation(heading, elevation), joints)
    depth = distance[:, None]
    if views.camera == "perspective":
        depth = np.maximum(depth + camera[..., 2], 0.5)  # nobody reaches through the lens
    return _FOCAL_PX * camera[..., :2] / depth[..., None] + _PHOTOGRAPH_PX / 2


def _rotation(heading: np.ndarray, elevation: np.ndarray) -> Float[np.ndarray, "n 3 3"]:
    """Return world (y up) to camera (x right, y down, z away): turned about the vertical, then looked at from above."""
    zero, one = np.zeros_like(heading), np.ones_like(heading)
    ch, sh, ce, se = np.cos(heading), np.sin(heading), np.cos(elevation), np.sin(elevation)
    turn = np.stack([ch, zero, sh, zero, one, zero, -sh, zero, ch], axis=-1).reshape(-1, 3, 3)
    tilt = np.stack([one, zero, zero, zero, -ce, se, zero, -se, -ce], axis=-1).reshape(-1, 3, 3)
    return tilt @ turn
