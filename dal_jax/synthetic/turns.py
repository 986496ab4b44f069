"""Small rotations in NumPy: turns about the axes, frames from two directions, rotation vectors."""

import numpy as np
from jaxtyping import Float


def about(axis: str, angle: float) -> Float[np.ndarray, "3 3"]:
    """Return the right-handed turn by `angle` radians about the axis 'x', 'y' or 'z'."""
    c, s = np.cos(angle), np.sin(angle)
    if axis == "x":
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    if axis == "y":
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def cross(a: Float[np.ndarray, "3"], b: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    """Return the cross product of two vectors (np.cross takes ten times as long for one pair)."""
    (a0, a1, a2), (b0, b1, b2) = a, b
    return np.array([a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0])


def unit(vector: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    """Return the vector at length 1 (a zero vector stays zero)."""
    return vector / max(np.sqrt(vector @ vector), 1e-9)


def align(
    first: Float[np.ndarray, "3"],
    second: Float[np.ndarray, "3"],
    to_first: Float[np.ndarray, "3"],
    to_second: Float[np.ndarray, "3"],
) -> Float[np.ndarray, "3 3"]:
    """Return the rotation that takes `first` onto `to_first`, and `second` as near `to_second` as that allows."""
    return _frame(to_first, to_second) @ _frame(first, second).T


def _frame(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    x = unit(first)
    z = cross(x, second)
    if z @ z < 1e-12:  # parallel: any perpendicular will do, as long as it is always the same one
        z = cross(x, np.eye(3)[np.argmin(np.abs(x))])
    z = unit(z)
    return np.stack([x, cross(z, x), z], axis=1)


def rotation_vector(rotation: Float[np.ndarray, "*batch 3 3"]) -> Float[np.ndarray, "*batch 3"]:
    """Return axis times angle (radians, at most pi) of rotation matrices."""
    skew = np.stack(
        [
            rotation[..., 2, 1] - rotation[..., 1, 2],
            rotation[..., 0, 2] - rotation[..., 2, 0],
            rotation[..., 1, 0] - rotation[..., 0, 1],
        ],
        axis=-1,
    )
    sine = np.linalg.norm(skew, axis=-1) / 2
    cosine = (np.trace(rotation, axis1=-2, axis2=-1) - 1) / 2
    angle = np.arctan2(sine, cosine)
    # A joint never turns by pi, so the ratio is regular except at rest, where it is 1.
    ratio = np.where(sine > 1e-9, angle / np.maximum(2 * sine, 1e-12), 0.5)
    return skew * ratio[..., None]


def matrix(vector: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """Return the rotation matrix of a rotation vector (Rodrigues)."""
    angle = np.sqrt(vector @ vector)
    x, y, z = vector / max(angle, 1e-12)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
