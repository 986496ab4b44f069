"""Stick people for the lifting's tests: 3D joints in Human3.6M's order, metres, x right, y down, z away."""

import numpy as np

STANDING = np.array([
    [0, 0, 0],  # hip
    [-0.13, 0, 0], [-0.14, 0.45, -0.03], [-0.14, 0.88, 0.05],  # right leg: facing the camera it is at x < 0
    [0.13, 0, 0], [0.14, 0.45, -0.06], [0.14, 0.88, 0.02],
    [0, -0.25, 0.03], [0, -0.5, 0.05], [0, -0.6, -0.08], [0, -0.75, 0.02],  # spine, thorax, nose, head
    [0.19, -0.48, 0.05], [0.26, -0.2, 0.02], [0.25, 0.04, -0.12],
    [-0.19, -0.48, 0.05], [-0.26, -0.2, 0.06], [-0.25, 0.04, -0.02],
])  # fmt: skip
"""Upright and facing the camera."""


def crowd(count: int, seed: int) -> np.ndarray:
    """Return (count, 17, 3): the same person at any azimuth with arms and legs moved a little, hip at the origin."""
    random = np.random.default_rng(seed)
    moved = STANDING[None] + random.normal(0, 0.04, (count, 17, 3)) * (np.arange(17) > 0)[None, :, None]
    return np.einsum("nab,njb->nja", rotations(random.uniform(0, 2 * np.pi, count)), moved)


def rotations(angle: np.ndarray) -> np.ndarray:
    """Return rotations about the vertical by angles in radians, (n, 3, 3)."""
    cos, sin, zero, one = np.cos(angle), np.sin(angle), np.zeros(len(angle)), np.ones(len(angle))
    return np.stack([cos, zero, sin, zero, one, zero, -sin, zero, cos], axis=-1).reshape(-1, 3, 3)
