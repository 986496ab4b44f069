"""Points inside triangles: exact at vertices, and how far blended weights stray from blended corners."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.body import skeleton, skinning
from tests.body import reference

ROUNDING = 2e-6  # metres: two summation orders of the same float32 products
INSIDE_MEAN, INSIDE = 1e-4, 3e-3  # metres: what `surface.surface_points` promises; measured 0.075 and 2.8 mm


@pytest.fixture(scope="module")
def place_free(free_body):
    """Return posed positions of (face, barycentric), compiled."""

    def place(segments, face, barycentric):
        return skinning.skin_points(free_body, segments, skinning.surface_points(free_body, face, barycentric))

    return jax.jit(place)


def _bend(**bends):
    pose = np.zeros((23, 3))
    for name, axis_angle in bends.items():
        pose[skeleton.SMPL_JOINT_NAMES.index(name) - 1] = axis_angle
    return pose


NATURAL = {
    "arms down": _bend(left_shoulder=[0, 0, -1.2], right_shoulder=[0, 0, 1.2]),
    "walking": _bend(
        left_hip=[-0.5, 0, 0], right_hip=[0.4, 0, 0], left_knee=[0.3, 0, 0], right_knee=[0.9, 0, 0],
        left_shoulder=[0.3, 0, -1.2], right_shoulder=[-0.3, 0, 1.2], left_elbow=[0, -0.5, 0], right_elbow=[0, 0.5, 0],
    ),
    "sitting": _bend(left_hip=[-1.5, 0, 0.1], right_hip=[-1.5, 0, -0.1], left_knee=[1.5, 0, 0], right_knee=[1.5, 0, 0]),
    "phoning": _bend(right_shoulder=[0, 0.3, 1.0], right_elbow=[0, 2.3, 0], neck=[0.2, 0, 0.2], head=[0.1, 0.4, 0.1]),
    "bowing": _bend(spine1=[0.3, 0, 0], spine2=[0.3, 0, 0], spine3=[0.2, 0, 0], neck=[0.4, 0, 0]),
    "on tiptoe": _bend(left_ankle=[0.5, 0, 0], right_ankle=[0.5, 0, 0], left_foot=[-0.4, 0, 0]),
}  # fmt: skip


def _samples(template, count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, len(template.faces), count), rng.dirichlet(np.ones(3), count).astype(np.float32)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("corner", range(3))
def test_vertices_are_exact_at_any_bend_and_scale(free_body, pose_free, place_free, corner, seed):
    """The paper's case: barycentric (1, 0, 0) and its two fellows."""
    segments, vertices = pose_free(*reference.random_problem(seed).single())
    face, _ = _samples(free_body, 400, seed)
    barycentric = np.tile(np.eye(3, dtype=np.float32)[corner], (400, 1))
    expected = np.asarray(vertices)[np.asarray(free_body.faces)[face, corner]]
    np.testing.assert_allclose(place_free(segments, face, barycentric), expected, atol=ROUNDING)


@pytest.mark.parametrize("name", NATURAL)
def test_inside_triangles_within_millimetres_at_natural_bends(free_body, pose_free, place_free, name):
    """At every triangle's centre, where three blended corners are furthest from one blended point."""
    segments, vertices = pose_free(jnp.eye(3), jnp.asarray(NATURAL[name], jnp.float32), jnp.ones(24))
    face = np.arange(len(free_body.faces))
    barycentric = np.full((len(face), 3), 1 / 3, np.float32)
    on_the_mesh = np.asarray(vertices)[np.asarray(free_body.faces)].mean(axis=1)
    apart = np.linalg.norm(place_free(segments, face, barycentric) - on_the_mesh, axis=1)
    assert apart.mean() < INSIDE_MEAN
    assert apart.max() < INSIDE


def test_at_rest_inside_triangles_is_exact_at_any_heading(free_body, pose_free, place_free):
    segments, vertices = pose_free(
        reference.random_problem(2).rotation.astype(np.float32), jnp.zeros((23, 3)), jnp.ones(24)
    )
    face, barycentric = _samples(free_body, 1000)
    corners = np.asarray(vertices)[np.asarray(free_body.faces)[face]]
    expected = np.einsum("pc,pci->pi", barycentric, corners)
    np.testing.assert_allclose(place_free(segments, face, barycentric), expected, atol=ROUNDING)


def test_points_blend_rest_positions_and_weights(made_up_body):
    face, barycentric = _samples(made_up_body, 50)
    points = skinning.surface_points(made_up_body, face, barycentric)
    for i in range(50):
        corners = made_up_body.faces[face[i]]
        np.testing.assert_allclose(points.rest[i], barycentric[i] @ made_up_body.vertices[corners], atol=ROUNDING)
        np.testing.assert_allclose(points.weight[i], barycentric[i] @ made_up_body.skin_weight[corners], atol=ROUNDING)
    np.testing.assert_allclose(np.sum(points.weight, axis=-1), 1.0, atol=ROUNDING)


def test_leading_axes_batch(made_up_body):
    face, barycentric = _samples(made_up_body, 24)
    flat = skinning.surface_points(made_up_body, face, barycentric)
    batched = skinning.surface_points(made_up_body, face.reshape(2, 3, 4), barycentric.reshape(2, 3, 4, 3))
    np.testing.assert_array_equal(batched.rest, flat.rest.reshape(2, 3, 4, 3))
    np.testing.assert_array_equal(batched.weight, flat.weight.reshape(2, 3, 4, 24))


def test_a_batch_of_people_equals_a_loop(made_up_body, pose_made_up):
    """Each with a pose and points of their own."""

    def place(segments, face, barycentric):
        return skinning.skin_points(made_up_body, segments, skinning.surface_points(made_up_body, face, barycentric))

    people = [
        (pose_made_up(*reference.random_problem(seed).single())[0], *_samples(made_up_body, 10, seed))
        for seed in range(3)
    ]
    together = jax.jit(jax.vmap(place))(*jax.tree.map(lambda *leaves: jnp.stack(leaves), *people))
    alone = jax.jit(place)
    for i, person in enumerate(people):
        np.testing.assert_allclose(together[i], alone(*person), atol=ROUNDING)
