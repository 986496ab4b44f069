"""Rotations: group laws, independent float64 references, and both singular points with their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import transform

from dal_jax.body import rotations
from tests.body import reference

FLOAT32 = 1e-6  # entries of size 1 after some ten roundings of 6e-8
FLOAT64 = 2e-14  # some ten roundings of 1e-16, and as many in the matrix exponential
NEAR_PI = 3e-6  # radians at an angle of pi: half a unit in the last place of pi is 1.2e-7, then the same roundings
FLOAT32_GRADIENT = 5e-5  # 1 - cos cancels where the series ends, at 1e-3 rad: 6e-8 / 1e-3, measured 2.6e-5
FINITE_DIFFERENCE = 1e-8  # float64 central differences with step 1e-5: step^2 / 6 and 1e-16 / step
ROUNDTRIP_GRADIENT = 1e-9  # float64; 1 - cos cancels at 1e-3 rad: 1e-16 / 1e-6
ANGLES = (0.0, 1e-12, 1e-6, 0.9e-3, 1.1e-3, 1e-2, 0.5, 1.5, 3.0, np.pi - 1e-3)
AXES = np.concatenate([
    np.eye(3), -np.eye(3), [[1, 1, 0], [0, -1, 1], [1, 0, -1], [1, 1, 1], [-1, 1, -1]],
    [[4, 3, 0], [1e-4, -1, 1e-4], [1, 2, -3]],
])  # fmt: skip

_exp = jax.jit(rotations.axis_angle_to_matrix)
_log = jax.jit(rotations.matrix_to_axis_angle)
_quaternion = jax.jit(rotations.matrix_to_quaternion)
_gram_schmidt = jax.jit(rotations.gram_schmidt)
_nearest = jax.jit(rotations.nearest_rotation)
_two_columns = jax.jit(rotations.two_columns)
_from_two_columns = jax.jit(rotations.from_two_columns)
_from_two_columns_gradient = jax.jit(jax.vmap(jax.jacrev(rotations.from_two_columns)))
_exp_gradient = jax.jit(jax.vmap(jax.jacrev(rotations.axis_angle_to_matrix)))
_log_gradient = jax.jit(jax.vmap(jax.jacrev(rotations.matrix_to_axis_angle)))


def _axis_angles(angle):
    return AXES / np.linalg.norm(AXES, axis=1, keepdims=True) * angle


def _transpose_product(matrix):
    return np.swapaxes(matrix, -1, -2) @ matrix


def _central_differences(function, batch, step=1e-5):
    """Return the Jacobian at every point of a batch, one pair of evaluations for every entry of a point."""
    batch, shape = np.asarray(batch), batch.shape[1:]
    columns = []
    for index in np.ndindex(shape):
        offset = np.zeros((1, *shape))
        offset[(0, *index)] = step
        columns.append((np.asarray(function(batch + offset)) - np.asarray(function(batch - offset))) / (2 * step))
    return np.stack(columns, axis=-1).reshape(*columns[0].shape, *shape)


def test_skew_is_the_cross_product():
    a, b = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    product = np.einsum("nij,nj->ni", rotations.skew(jnp.asarray(a)), b)
    np.testing.assert_allclose(product, np.cross(a, b), atol=FLOAT32)


@pytest.mark.parametrize("angle", [*ANGLES, np.pi, 5.0, 2 * np.pi])
def test_exp_equals_the_matrix_exponential(angle):
    axis_angle = _axis_angles(angle).astype(np.float32)
    np.testing.assert_allclose(_exp(axis_angle), reference.rotation(axis_angle), atol=FLOAT32)


@pytest.mark.parametrize("angle", ANGLES)
def test_the_series_are_exact_in_float64(angle):
    """On both sides of the place where the series take over, far more closely than float32 could tell."""
    axis_angle = _axis_angles(angle)
    with jax.enable_x64(True):
        matrix = np.asarray(_exp(axis_angle))
        back = np.asarray(_log(matrix))
    np.testing.assert_allclose(matrix, reference.rotation(axis_angle), rtol=0, atol=FLOAT64)
    np.testing.assert_allclose(back, axis_angle, rtol=0, atol=FLOAT64)


def test_exp_of_zero_is_exactly_the_identity():
    np.testing.assert_array_equal(_exp(jnp.zeros((2, 3))), np.tile(np.eye(3), (2, 1, 1)))


def test_exp_is_a_proper_rotation():
    matrix = np.asarray(_exp(np.random.default_rng(1).normal(0, 2, (100, 3)).astype(np.float32)), np.float64)
    np.testing.assert_allclose(_transpose_product(matrix), np.tile(np.eye(3), (100, 1, 1)), atol=FLOAT32)
    np.testing.assert_allclose(np.linalg.det(matrix), 1.0, atol=FLOAT32)


def test_opposite_turns_cancel_and_turns_about_one_axis_add():
    axis_angle = np.random.default_rng(2).normal(0, 1, (50, 3)).astype(np.float32)
    matrix = np.asarray(_exp(axis_angle))
    np.testing.assert_allclose(_exp(-axis_angle), np.swapaxes(matrix, -1, -2), atol=FLOAT32)
    np.testing.assert_allclose(_exp(2 * axis_angle), matrix @ matrix, atol=FLOAT32)


@pytest.mark.parametrize("angle", ANGLES)
def test_log_inverts_exp(angle):
    axis_angle = _axis_angles(angle).astype(np.float32)
    np.testing.assert_allclose(_log(_exp(axis_angle)), axis_angle, atol=FLOAT32 if angle < 1 else NEAR_PI)


@pytest.mark.parametrize("beyond", [0.0, 1e-6, 1e-3])
def test_log_of_a_half_turn_is_one_of_its_two_vectors(beyond):
    """At pi both ends of the axis are right; past it the shorter way round is."""
    axis_angle = _axis_angles(np.pi + beyond)
    found = np.asarray(_log(reference.rotation(axis_angle).astype(np.float32)))
    other = _axis_angles(beyond - np.pi)
    error = np.minimum(np.abs(found - axis_angle).max(axis=1), np.abs(found - other).max(axis=1))
    assert error.max() < NEAR_PI
    assert np.linalg.norm(found, axis=1).max() <= np.pi + NEAR_PI
    if beyond > NEAR_PI:
        np.testing.assert_allclose(found, other, atol=NEAR_PI)


def test_exp_inverts_log_on_random_rotations():
    matrix = transform.Rotation.random(200, random_state=3).as_matrix().astype(np.float32)
    np.testing.assert_allclose(_exp(_log(matrix)), matrix, atol=NEAR_PI)


@pytest.mark.parametrize("angle", [*ANGLES, np.pi - 1e-6, np.pi, np.pi + 1e-6, np.pi + 1e-2])
def test_quaternion_equals_scipys_up_to_sign(angle):
    """Half turns about every axis included: there w and up to two more entries are next to nothing."""
    matrix = reference.rotation(_axis_angles(angle)).astype(np.float32)
    found = np.asarray(_quaternion(matrix))
    expected = transform.Rotation.from_matrix(matrix.astype(np.float64)).as_quat()[:, [3, 0, 1, 2]]
    expected *= np.sign(np.sum(found * expected, axis=1, keepdims=True))
    np.testing.assert_allclose(found, expected, atol=FLOAT32)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=FLOAT32)
    assert found[:, 0].min() >= 0


def test_quaternion_turns_the_right_way():
    quarter = np.asarray(_quaternion(reference.rotation(_axis_angles(np.pi / 2)).astype(np.float32)))
    np.testing.assert_allclose(quarter[:, 0], np.sqrt(0.5), atol=FLOAT32)
    np.testing.assert_allclose(quarter[:, 1:], _axis_angles(np.sqrt(0.5)), atol=FLOAT32)


@pytest.mark.parametrize("angle", [*ANGLES, np.pi, 4.0])
def test_gradient_of_exp_equals_finite_differences(angle):
    with jax.enable_x64(True):
        points = jnp.asarray(_axis_angles(angle))
        exact, numeric = _exp_gradient(points), _central_differences(_exp, points)
    np.testing.assert_allclose(exact, numeric, rtol=0, atol=FINITE_DIFFERENCE)


def test_gradient_of_exp_at_zero_is_the_generators():
    """Column by column, d exp(skew(a)) / d a_k = skew(e_k): what turns b into e_k x b."""
    found = np.asarray(_exp_gradient(jnp.zeros((len(AXES), 3))))[0]
    for k, axis in enumerate(np.eye(3)):
        np.testing.assert_array_equal(found[..., k], np.cross(axis, np.eye(3)).T)


@pytest.mark.parametrize("angle", [*ANGLES, np.pi])
def test_float32_gradient_of_exp_keeps_its_digits(angle):
    points = _axis_angles(angle).astype(np.float32)
    single = _exp_gradient(jnp.asarray(points))
    with jax.enable_x64(True):
        double = _exp_gradient(jnp.asarray(points.astype(np.float64)))
    np.testing.assert_allclose(single, double, atol=FLOAT32_GRADIENT)


@pytest.mark.parametrize("angle", [0.0, 1e-6, 0.9e-3, 1.1e-3, 0.5, 2.0, 3.0, np.pi - 1e-4])
def test_gradient_of_log_equals_finite_differences(angle):
    with jax.enable_x64(True):
        matrices = jnp.asarray(reference.rotation(_axis_angles(angle)))
        exact, numeric = _log_gradient(matrices), _central_differences(_log, matrices)
    assert np.all(np.isfinite(exact))
    settled = _pivot_is_settled(np.asarray(matrices))
    assert settled.sum() >= 4
    np.testing.assert_allclose(np.asarray(exact)[settled], np.asarray(numeric)[settled], rtol=0, atol=1e-6)


def _pivot_is_settled(matrices):
    """Off SO(3) the four formulas of the quaternion differ: differences must not step from one to another."""
    quaternions = np.sort(np.abs(np.asarray(transform.Rotation.from_matrix(matrices).as_quat())), axis=1)
    return quaternions[:, -1] - quaternions[:, -2] > 1e-3


@pytest.mark.parametrize("angle", ANGLES)
def test_gradient_of_log_after_exp_is_the_identity(angle):
    """On SO(3) itself every formula agrees, whichever pivot was taken."""
    with jax.enable_x64(True):
        points = jnp.asarray(_axis_angles(angle))
        both = np.einsum("naij,nijb->nab", _log_gradient(_exp(points)), _exp_gradient(points))
    np.testing.assert_allclose(both, np.tile(np.eye(3), (len(points), 1, 1)), rtol=0, atol=ROUNDTRIP_GRADIENT)


def test_gradients_are_finite_at_both_singular_points_in_float32():
    turns = _axis_angles(np.pi).astype(np.float32)
    turns[-1] = 0.0
    exponential, logarithm = _exp_gradient(turns), _log_gradient(reference.rotation(turns).astype(np.float32))
    assert np.all(np.isfinite(exponential))
    assert np.all(np.isfinite(logarithm))
    assert np.abs(logarithm).max() < 10.0  # d angle / d entry is at most pi / 2 a pivot and its neighbours


def test_gram_schmidt_spans_what_the_rows_span():
    """It is the Q of NumPy's QR, with the signs that make the diagonal of R positive."""
    matrix = np.random.default_rng(4).normal(size=(100, 3, 3)).astype(np.float32)
    matrix = matrix[np.linalg.cond(matrix) < 20]
    q, r = np.linalg.qr(np.swapaxes(matrix.astype(np.float64), -1, -2))
    q = q * np.sign(np.diagonal(r, axis1=-2, axis2=-1))[:, None, :]
    np.testing.assert_allclose(_gram_schmidt(matrix), np.swapaxes(q, -1, -2), atol=20 * FLOAT32)


def test_gram_schmidt_is_orthonormal_idempotent_and_keeps_the_sign_of_the_determinant():
    matrix = np.random.default_rng(5).normal(size=(100, 3, 3)).astype(np.float32)
    matrix = matrix[np.linalg.cond(matrix) < 20]
    once = np.asarray(_gram_schmidt(matrix))
    sign = np.sign(np.linalg.det(matrix))
    assert set(sign) == {-1.0, 1.0}
    np.testing.assert_allclose(_transpose_product(once), np.tile(np.eye(3), (len(once), 1, 1)), atol=20 * FLOAT32)
    np.testing.assert_allclose(_gram_schmidt(once), once, atol=20 * FLOAT32)
    np.testing.assert_allclose(np.linalg.det(once), sign, atol=20 * FLOAT32)
    np.testing.assert_allclose(_gram_schmidt(3.0 * matrix), once, atol=20 * FLOAT32)


def test_gram_schmidt_leaves_rotations_alone():
    matrix = transform.Rotation.random(50, random_state=6).as_matrix().astype(np.float32)
    np.testing.assert_allclose(_gram_schmidt(matrix), matrix, atol=FLOAT32)


def test_gradient_of_gram_schmidt_equals_finite_differences():
    with jax.enable_x64(True):
        matrix = jnp.asarray(np.random.default_rng(7).normal(size=(5, 3, 3)))
        exact = jax.jit(jax.vmap(jax.jacrev(rotations.gram_schmidt)))(matrix)
        numeric = _central_differences(_gram_schmidt, matrix)
    np.testing.assert_allclose(exact, numeric, rtol=0, atol=1e-7)


def test_nearest_rotation_is_davenports():
    """The largest eigenvector of Davenport's 4 x 4 matrix is the quaternion that maximises trace(R^T M)."""
    matrix = np.random.default_rng(8).normal(size=(60, 3, 3)).astype(np.float32)
    found = np.asarray(_nearest(matrix), np.float64)
    np.testing.assert_allclose(np.linalg.det(found), 1.0, atol=FLOAT32)
    np.testing.assert_allclose(_transpose_product(found), np.tile(np.eye(3), (60, 1, 1)), atol=FLOAT32)
    assert (np.linalg.det(matrix) < 0).any()
    attained = np.einsum("nij,nij->n", found, matrix)
    best = np.array([np.linalg.eigvalsh(_davenport(m.astype(np.float64)))[-1] for m in matrix])
    np.testing.assert_allclose(attained, best, atol=1e-5)  # sums of nine products of size 3


def _davenport(m):
    axial = np.array([m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]])
    corner = np.array([[np.trace(m)]])
    return np.block([[corner, axial[None]], [axial[:, None], m + m.T - np.trace(m) * np.eye(3)]])


def test_nearest_rotation_leaves_rotations_alone_and_turns_reflections_proper():
    matrix = transform.Rotation.random(50, random_state=9).as_matrix().astype(np.float32)
    np.testing.assert_allclose(_nearest(matrix), matrix, atol=5 * FLOAT32)
    mirrored = np.asarray(_nearest(matrix * np.float32([1, 1, -1])), np.float64)
    np.testing.assert_allclose(np.linalg.det(mirrored), 1.0, atol=FLOAT32)


@pytest.mark.parametrize("angle", [0.0, 1e-6, 0.5, 3.0, np.pi - 1e-6, np.pi])
def test_two_columns_determine_a_rotation(angle):
    """Half turns too: no angle is special to them."""
    matrix = reference.rotation(_axis_angles(angle)).astype(np.float32)
    six = np.asarray(_two_columns(matrix))
    np.testing.assert_array_equal(six, np.concatenate([matrix[..., 0], matrix[..., 1]], axis=-1))
    np.testing.assert_allclose(_from_two_columns(six), matrix, atol=2 * FLOAT32)


def test_six_numbers_give_the_proper_q_of_numpys_qr():
    """Columns 1 and 2 of Q with the signs that make R's diagonal positive, whatever the columns' lengths."""
    six = np.random.default_rng(12).normal(size=(100, 2, 3)).astype(np.float32)
    q, r = np.linalg.qr(np.swapaxes(six.astype(np.float64), 1, 2))
    q = q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None]
    found = np.asarray(_from_two_columns(six.reshape(-1, 6)))
    np.testing.assert_allclose(found[..., :2], q, atol=1e-4)  # the columns are within 1 degree of parallel at times
    np.testing.assert_allclose(np.linalg.det(found), 1.0, atol=2 * FLOAT32)


@pytest.mark.parametrize("angle", [0.0, 0.5, np.pi - 1e-6, np.pi])
def test_gradient_of_six_numbers_equals_finite_differences(angle):
    """Also at half turns, where an axis-angle's would jump, and off the rotations."""
    with jax.enable_x64(True):
        six = np.asarray(_two_columns(reference.rotation(_axis_angles(angle))))
        six = six + 0.2 * np.random.default_rng(13).normal(size=six.shape)
        exact, numeric = _from_two_columns_gradient(six), _central_differences(_from_two_columns, six)
    np.testing.assert_allclose(exact, numeric, rtol=0, atol=1e-7)


_NO_ROTATION = np.float32([
    [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 0, 1, 0, 0], [1, 0, 0, 0, 0, 0], [1, 0, 0, 2, 0, 0],
    [1, 2, 3, -1, -2, -3], [0, 1, 0, 0, 1, 1e-6], [1e-9, 0, 0, 0, 1e-9, 0], [1, 1, 1, 1, 1, 1.0005],
])  # fmt: skip


def test_six_numbers_that_span_no_plane_still_give_a_rotation_with_a_finite_gradient():
    found = np.asarray(_from_two_columns(_NO_ROTATION))
    near = 6e-8 / 1e-3  # rounding of a second column of length 1, beside what is left of it at the least angle
    np.testing.assert_allclose(_transpose_product(found), np.tile(np.eye(3), (len(found), 1, 1)), atol=2 * near)
    np.testing.assert_allclose(np.linalg.det(found), 1.0, atol=2 * near)
    assert np.all(np.isfinite(_from_two_columns_gradient(_NO_ROTATION)))


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (_exp, (3,)),
        (_log, (3, 3)),
        (_quaternion, (3, 3)),
        (_gram_schmidt, (3, 3)),
        (_nearest, (3, 3)),
        (_two_columns, (3, 3)),
        (_from_two_columns, (6,)),
    ],
    ids=["exp", "log", "quaternion", "gram_schmidt", "nearest", "two_columns", "from_two_columns"],
)
def test_leading_axes_batch(function, shape):
    """A (2, 3) batch equals six single calls."""
    values = transform.Rotation.random(6, random_state=10)
    values = values.as_rotvec() if shape == (3,) else values.as_matrix()
    values = values.reshape(6, -1)[:, : np.prod(shape)].astype(np.float32).reshape(2, 3, *shape)
    batched = np.asarray(function(values))
    for i in range(2):
        for j in range(3):
            np.testing.assert_allclose(batched[i, j], function(values[i, j]), atol=FLOAT32)
