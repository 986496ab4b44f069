"""Rotations: the exponential map of SO(3), its inverse, the paper's nine-number rotation, and one of six.

Every singular point is passed with a double `where`: the branch that is not taken gets a harmless argument, because
`0 * nan` would otherwise reach the gradient. Products ask for full float32: the default of a GPU or TPU keeps 10 or 7
bits of mantissa, which is a millimetre and more at the end of an arm.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_SMALL_SQUARED_ANGLE = 1e-6  # below it the series are exact to float64 rounding (next term: angle^4 / 120 < 1e-14)
_LEAST_SQUARED_LENGTH = 1e-12  # of a column; those of rotations have length 1
_LEAST_SQUARED_SINE = 1e-6  # between two columns; float32 keeps 4 digits of their difference at 1e-3 rad


def skew(vector: Float[Array | np.ndarray, "*batch 3"]) -> Float[Array, "*batch 3 3"]:
    """Return the matrix of the cross product: `skew(a) @ b = a x b`."""
    x, y, z = vector[..., 0], vector[..., 1], vector[..., 2]
    zero = jnp.zeros_like(x)
    rows = [zero, -z, y, z, zero, -x, -y, x, zero]
    return jnp.stack(rows, axis=-1).reshape(*vector.shape[:-1], 3, 3)


def axis_angle_to_matrix(axis_angle: Float[Array | np.ndarray, "*batch 3"]) -> Float[Array, "*batch 3 3"]:
    """Return exp(skew(a)) by Rodrigues' formula (radians); smooth at a = 0."""
    squared = jnp.sum(axis_angle**2, axis=-1)[..., None, None]
    small = squared < _SMALL_SQUARED_ANGLE
    safe = jnp.where(small, jnp.ones_like(squared), squared)
    angle = jnp.sqrt(safe)
    sine = jnp.where(small, 1.0 - squared / 6.0, jnp.sin(angle) / angle)
    cosine = jnp.where(small, 0.5 - squared / 24.0, (1.0 - jnp.cos(angle)) / safe)
    cross = skew(axis_angle)
    identity = jnp.broadcast_to(jnp.eye(3, dtype=axis_angle.dtype), cross.shape)
    return identity + sine * cross + cosine * jnp.matmul(cross, cross, precision="highest")


def matrix_to_quaternion(matrix: Float[Array | np.ndarray, "*batch 3 3"]) -> Float[Array, "*batch 4"]:
    """Return the unit quaternion (w, x, y, z), w >= 0, of a rotation.

    Shepperd's method: of four algebraically equal formulas the one with the largest pivot is taken, so that no
    rotation, one by 180 degrees included, divides by a small number.
    """
    m = [[matrix[..., i, j] for j in range(3)] for i in range(3)]
    w = 1.0 + m[0][0] + m[1][1] + m[2][2]
    x = 1.0 + m[0][0] - m[1][1] - m[2][2]
    y = 1.0 - m[0][0] + m[1][1] - m[2][2]
    z = 1.0 - m[0][0] - m[1][1] + m[2][2]
    wx, wy, wz = m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]
    xy, xz, yz = m[1][0] + m[0][1], m[0][2] + m[2][0], m[2][1] + m[1][2]
    rows = jnp.stack([
        jnp.stack([w, wx, wy, wz], axis=-1),
        jnp.stack([wx, x, xy, xz], axis=-1),
        jnp.stack([wy, xy, y, yz], axis=-1),
        jnp.stack([wz, xz, yz, z], axis=-1),
    ], axis=-2)  # fmt: skip
    pivot = jnp.stack([w, x, y, z], axis=-1)
    best = jnp.argmax(pivot, axis=-1)[..., None]
    row = jnp.take_along_axis(rows, best[..., None], axis=-2)[..., 0, :]
    quaternion = row / (2.0 * jnp.sqrt(jnp.take_along_axis(pivot, best, axis=-1)))
    return quaternion * jnp.where(quaternion[..., :1] < 0, -1.0, 1.0)


def matrix_to_axis_angle(matrix: Float[Array | np.ndarray, "*batch 3 3"]) -> Float[Array, "*batch 3"]:
    """Return the axis-angle vector (radians, length at most pi) of a rotation; finite gradients at 0 and at pi."""
    quaternion = matrix_to_quaternion(matrix)
    w, axis = quaternion[..., :1], quaternion[..., 1:]
    squared = jnp.sum(axis**2, axis=-1, keepdims=True)
    small = squared < _SMALL_SQUARED_ANGLE
    sine = jnp.sqrt(jnp.where(small, jnp.ones_like(squared), squared))
    # angle / sin(angle / 2), with w = cos(angle / 2); the series has error 3/20 sin^4 < 2e-13
    factor = jnp.where(small, 2.0 + squared / 3.0, 2.0 * jnp.arctan2(sine, w) / sine)
    return axis * factor


def gram_schmidt(matrix: Float[Array | np.ndarray, "*batch 3 3"]) -> Float[Array, "*batch 3 3"]:
    """Orthonormalise the rows of nine free numbers (paper, section 3).

    Note: all three rows go through Gram-Schmidt, as the paper says, so the result is a reflection where the
    determinant of the input is negative; L_det (`registration.energy`) exists to keep it positive.
    Rows must be linearly independent.
    """
    first = _normalise(matrix[..., 0, :])
    second = matrix[..., 1, :]
    second = _normalise(second - _dot(second, first) * first)
    third = matrix[..., 2, :]
    third = _normalise(third - _dot(third, first) * first - _dot(third, second) * second)
    return jnp.stack([first, second, third], axis=-2)


def two_columns(matrix: Float[Array | np.ndarray, "*batch 3 3"]) -> Float[Array, "*batch 6"]:
    """Return the first column of a rotation, then the second: six numbers that determine it (Zhou et al. 2019)."""
    columns = jnp.swapaxes(matrix[..., :2], -1, -2)
    return columns.reshape(*columns.shape[:-2], 6)


def from_two_columns(six: Float[Array | np.ndarray, "*batch 6"]) -> Float[Array, "*batch 3 3"]:
    """Return the proper rotation that Gram-Schmidt makes of six free numbers (Zhou et al. 2019, section 4.2).

    The third column is the cross product of the others, so no input gives a reflection. It is continuous but where the
    first column vanishes or the second is parallel to it. There a fixed axis, or one at right angles to the first
    column, stands in: the result is a rotation even so, and its gradient is finite.
    """
    first, second = six[..., :3], six[..., 3:]
    long = _dot(first, first) > _LEAST_SQUARED_LENGTH
    first = _normalise(jnp.where(long, first, jnp.broadcast_to(jnp.eye(3, dtype=six.dtype)[0], first.shape)))
    residual = second - _dot(second, first) * first
    apart = _dot(residual, residual) > jnp.maximum(_LEAST_SQUARED_SINE * _dot(second, second), _LEAST_SQUARED_LENGTH)
    second = _normalise(jnp.where(apart, residual, jnp.cross(first, _farthest_axis(first))))
    return jnp.stack([first, second, jnp.cross(first, second)], axis=-1)


def nearest_rotation(matrix: Float[Array | np.ndarray, "*batch 3 3"]) -> Float[Array, "*batch 3 3"]:
    """Return the proper rotation (determinant +1) nearest to a matrix in the Frobenius norm."""
    u, _, vt = jnp.linalg.svd(matrix, full_matrices=False)
    sign = jnp.sign(jnp.linalg.det(jnp.matmul(u, vt, precision="highest")))[..., None]
    u = jnp.concatenate([u[..., :2], u[..., 2:] * sign[..., None]], axis=-1)
    return jnp.matmul(u, vt, precision="highest")


def _farthest_axis(direction):
    """Return the axis of coordinates that is least parallel to a direction."""
    nearest_to_zero = jnp.argmin(jnp.abs(direction), axis=-1)
    return jnp.eye(3, dtype=direction.dtype)[nearest_to_zero]


def _dot(a, b):
    return jnp.sum(a * b, axis=-1, keepdims=True)


def _normalise(vector):
    return vector / jnp.sqrt(_dot(vector, vector))
