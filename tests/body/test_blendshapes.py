"""Pose blendshapes against loops in NumPy; off by default, and then as if they were not in the file."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.body import kinematics, skinning
from dal_jax.body.formats import load
from dal_jax.runtime.errors import InputError
from tests.body import made_up, reference

MODEL = 3e-5  # metres: as the reference's tolerance, for offsets of up to a decimetre from sums over 207 numbers
ROUNDING = 2e-6  # metres


def _basis(seed=1):
    """Return corrections of some centimetres a radian."""
    return np.random.default_rng(seed).normal(0, 0.01, (96, 3, 207)).astype(np.float32)


@pytest.fixture(scope="module")
def body_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("blendshapes") / "body.npz"
    np.savez(path, **made_up.fields(), pose_blendshapes=_basis())
    return path


@pytest.fixture(scope="module")
def body(body_file):
    return load.load_body(body_file, pose_blendshapes=True)


@pytest.fixture(scope="module")
def pose(body):
    """Return (rotation, pose, scale) -> (segments, vertices, joints) with blendshapes, compiled."""

    def posed(*problem):
        segments = kinematics.pose_skeleton(body, *problem)
        return segments, skinning.skin_vertices(body, segments), skinning.h36m_joints(body, segments)

    return jax.jit(posed)


def _corrected_rest(body, problem):
    """Return v + B vec(R_j - I) as SMPL's files mean it: joints in order, each matrix row by row."""
    feature = []
    for turn in reference.rotation(problem.pose):
        for row in range(3):
            for column in range(3):
                feature.append(turn[row, column] - (row == column))
    corrected = np.asarray(body.vertices, np.float64).copy()
    for vertex, basis in enumerate(_basis().astype(np.float64)):
        corrected[vertex] += basis @ np.array(feature)
    return corrected


@pytest.mark.parametrize("seed", range(4))
def test_vertices_equal_the_reference_on_a_corrected_rest_shape(body, pose, seed):
    problem = reference.random_problem(seed)
    corrected = _corrected_rest(body, problem)
    assert np.abs(corrected - body.vertices).max() > 0.05, "the corrections are put to the test"
    expected = reference.skin(body.replace(vertices=corrected), problem)
    np.testing.assert_allclose(pose(*problem.single())[1], expected, atol=MODEL)


def test_joints_are_regressed_from_the_corrected_vertices(body, pose):
    for seed in (5, 6):
        _, vertices, joints = pose(*reference.random_problem(seed).single())
        expected = body.h36m_regressor.astype(np.float64) @ np.asarray(vertices, np.float64)
        np.testing.assert_allclose(joints, expected, atol=MODEL)


def test_points_inside_triangles_blend_the_basis_of_their_corners(body, pose):
    problem = reference.random_problem(7)
    segments, vertices, _ = pose(*problem.single())
    corners = np.asarray(body.faces)
    barycentric = np.random.default_rng(8).dirichlet(np.ones(3), len(corners)).astype(np.float32)
    points = skinning.surface_points(body, np.arange(len(corners)), barycentric)
    expected = np.einsum("pc,pcif->pif", barycentric, _basis()[corners])
    np.testing.assert_allclose(points.pose_blendshapes, expected, atol=ROUNDING)
    at_corner = np.tile(np.eye(3, dtype=np.float32)[1], (len(corners), 1))
    points = skinning.surface_points(body, np.arange(len(corners)), at_corner)
    np.testing.assert_allclose(skinning.skin_points(body, segments, points), vertices[corners[:, 1]], atol=MODEL)


def test_feature_is_the_joints_own_turn_whatever_the_heading(body, pose):
    problem = reference.random_problem(9)
    turned = dataclasses.replace(problem, rotation=reference.rotation([0.2, 2.0, -1.0]) @ problem.rotation)
    expected = (reference.rotation(problem.pose) - np.eye(3)).ravel()
    for one in (problem, turned):
        np.testing.assert_allclose(skinning.pose_feature(body, pose(*one.single())[0]), expected, atol=MODEL)


def test_the_rest_pose_needs_no_correction(body, pose):
    _, vertices, _ = pose(jnp.eye(3), jnp.zeros((23, 3)), jnp.ones(24))
    np.testing.assert_allclose(vertices, body.vertices, atol=ROUNDING)


def test_gradients_by_the_pose_are_finite_and_those_of_finite_differences(body, pose):
    problem, step = reference.random_problem(10), 1e-5
    direction = np.random.default_rng(11).normal(size=(23, 3))
    for at in (np.zeros((23, 3)), problem.pose):
        with jax.enable_x64(True):
            of_pose = lambda a: pose(problem.rotation, a, problem.segment_scale)[1:]  # noqa: E731
            _, exact = jax.jvp(of_pose, (at,), (direction,))
            ahead, behind = of_pose(at + step * direction), of_pose(at - step * direction)
        difference = jax.tree.map(lambda a, b: (np.asarray(a) - np.asarray(b)) / (2 * step), ahead, behind)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), exact, difference)


# --- off by default ---


def test_unasked_they_are_not_even_loaded(body_file, made_up_body):
    plain = load.load_body(body_file)
    assert jax.tree.structure(plain) == jax.tree.structure(made_up_body)
    jax.tree.map(np.testing.assert_array_equal, plain, made_up_body)
    points = skinning.surface_points(plain, np.zeros(2, int), np.ones((2, 3), np.float32) / 3)
    assert points.pose_blendshapes is None


def test_asked_for_and_absent_is_one_line(tmp_path):
    np.savez(tmp_path / "plain.npz", **made_up.fields())
    with pytest.raises(InputError) as caught:
        load.load_body(tmp_path / "plain.npz", pose_blendshapes=True)
    assert str(caught.value) == f"{tmp_path}/plain.npz: field 'pose_blendshapes' is missing"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda basis: basis[:-1], "shape"),
        (lambda basis: basis[..., :-9], "shape"),
        (lambda basis: basis.reshape(96, -1), "shape"),
        (lambda basis: np.where(np.arange(207) == 5, np.nan, basis), "finite"),
    ],
    ids=["a vertex less", "a joint less", "flat", "nan"],
)
def test_wrong_ones_are_named(tmp_path, change, told):
    np.savez(tmp_path / "wrong.npz", **made_up.fields(), pose_blendshapes=change(_basis()))
    with pytest.raises(InputError, match="field 'pose_blendshapes'") as caught:
        load.load_body(tmp_path / "wrong.npz", pose_blendshapes=True)
    assert told in str(caught.value)
    load.load_body(tmp_path / "wrong.npz")  # nobody asked for them
