"""Skinning: the loop-over-vertices reference, the laws of a rigged body, gradients through all of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.body import kinematics, rotations, skeleton, skinning
from dal_jax.body.skinning import SurfacePoints
from tests.body import reference
from tests.body.reference import Problem

SYMMETRY = 2e-5  # metres: the free body's weights and joints mirror to 1e-6, times lengths and a chain of nine
ROUNDING = 2e-6  # metres: float32 sums over 96 columns at a metre's size
FINITE_DIFFERENCE = 1e-8  # metres a unit; float64 central differences: third derivative x step^2 / 6, 1e-16 / step


@pytest.fixture
def skin_made_up(pose_made_up):
    return lambda *problem, **options: np.asarray(pose_made_up(*problem, **options)[1])


@pytest.fixture
def skin_free(pose_free):
    return lambda *problem, **options: np.asarray(pose_free(*problem, **options)[1])


@pytest.mark.parametrize("seed", range(6))
def test_made_up_body_equals_the_reference(made_up_body, skin_made_up, seed):
    problem = reference.random_problem(seed, pose_sd=0.5 + 0.3 * seed)
    found = skin_made_up(*problem.single())
    expected = reference.skin(made_up_body, problem)
    np.testing.assert_allclose(found, expected, atol=reference.MODEL)


@pytest.mark.parametrize("seed", [10, 11])
def test_free_body_equals_the_reference(free_body, skin_free, seed):
    problem = reference.random_problem(seed)
    found = skin_free(*problem.single())
    np.testing.assert_allclose(found, reference.skin(free_body, problem), atol=reference.MODEL)


def test_identity_gives_the_template(free_body, skin_free):
    found = skin_free(jnp.eye(3), jnp.zeros((23, 3)), jnp.ones(24))
    np.testing.assert_allclose(found, free_body.vertices, atol=ROUNDING)


def test_t_pose_stands_upright_and_faces_the_camera(free_body, skin_free):
    person = kinematics.t_pose()
    found = skin_free(person.rotation, person.pose, person.segment_scale)
    np.testing.assert_allclose(found, free_body.vertices * [1, -1, -1], atol=ROUNDING)


def test_a_global_rotation_commutes(skin_free):
    rotation, pose, scale = reference.random_problem(1).single()
    turn = reference.rotation([1.0, 0.5, -2.0]).astype(np.float32)
    turned_before = skin_free(turn @ rotation, pose, scale)
    turned_after = skin_free(rotation, pose, scale) @ turn.T
    np.testing.assert_allclose(turned_before, turned_after, atol=reference.MODEL)


def test_equal_scales_scale_the_body_about_the_pelvis(skin_made_up):
    rotation, pose, scale = reference.random_problem(3).single()
    enlarged = skin_made_up(rotation, pose, 1.7 * scale)
    np.testing.assert_allclose(enlarged, 1.7 * skin_made_up(rotation, pose, scale), atol=reference.MODEL)


def test_a_leaf_scales_its_own_flesh_about_its_joint(free_body, skin_free):
    """A head of twice the size: points that hang on the head alone double their distance to its joint."""
    head = skeleton.SMPL_JOINT_NAMES.index("head")
    found = skin_free(jnp.eye(3), jnp.zeros((23, 3)), jnp.ones(24).at[head].set(2.0))
    own = free_body.skin_weight[:, head]
    joint = free_body.joints[head : head + 1]
    assert (own == 1).sum() > 50
    np.testing.assert_allclose(found[own == 1] - joint, 2 * (free_body.vertices[own == 1] - joint), atol=ROUNDING)
    np.testing.assert_allclose(found[own == 0], free_body.vertices[own == 0], atol=ROUNDING)


def test_a_rigid_part_keeps_its_lengths(free_body, skin_free):
    """Bent limbs are turned, not sheared: distances among the head's own vertices stay."""
    rotation, pose, _ = reference.random_problem(4).single()
    own = free_body.skin_weight[:, skeleton.SMPL_JOINT_NAMES.index("head")] == 1
    posed, rest = skin_free(rotation, pose, jnp.ones(24))[own], free_body.vertices[own]
    np.testing.assert_allclose(
        np.linalg.norm(posed - posed[0], axis=1), np.linalg.norm(rest - rest[0], axis=1), atol=reference.MODEL
    )


def test_a_mirrored_pose_gives_the_mirrored_mesh(free_body, skin_free):
    """With M = diag(-1, 1, 1): swap the sides, G -> M G M, so that an axis-angle (x, y, z) becomes (x, -y, -z)."""
    problem, flip = reference.random_problem(5), np.diag([-1.0, 1.0, 1.0])
    swap = np.array(skeleton.SMPL_MIRROR)
    mirrored = Problem(
        rotation=flip @ problem.rotation @ flip,
        pose=problem.pose[swap[1:] - 1] * [1, -1, -1],
        segment_scale=problem.segment_scale[swap],
    )
    expected = skin_free(*problem.single())[np.asarray(free_body.mirror)] * [-1, 1, 1]
    np.testing.assert_allclose(skin_free(*mirrored.single()), expected, atol=SYMMETRY)


def test_a_batch_equals_a_loop(pose_made_up):
    problems = [reference.random_problem(seed).single() for seed in range(5)]
    together = jax.vmap(pose_made_up)(*(np.stack(parts) for parts in zip(*problems, strict=True)))
    for i, problem in enumerate(problems):
        alone = pose_made_up(*problem)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=ROUNDING), together, alone)


@pytest.fixture(scope="module")
def ten_bodies(pose_free):
    problems = [reference.random_problem(seed).single() for seed in range(10)]
    return jax.device_get(jax.vmap(pose_free)(*(np.stack(parts) for parts in zip(*problems, strict=True)))[0])


@pytest.mark.parametrize("bodies", [(1,), (3,), (8,), (2, 5)])
def test_many_bodies_equal_the_one_product(free_body, ten_bodies, bodies):
    """Blocks without the zeros, on CPU: the same vertices, whatever the number of bodies and of nested batches."""
    count = int(np.prod(bodies))
    stacked = jax.jit(jax.vmap(lambda one: skinning.stacked_transforms(free_body, one)))(ten_bodies)
    expected = np.einsum("nk,bkj->bnj", free_body.skinning_matrix, stacked[:count], dtype=np.float64)
    segments = jax.tree.map(lambda leaf: leaf[:count], ten_bodies)

    def skin(one):
        return skinning.skin_vertices(free_body, one)

    for _ in bodies:
        skin = jax.vmap(skin)
    found = jax.jit(skin)(jax.tree.map(lambda leaf: leaf.reshape(*bodies, *leaf.shape[1:]), segments))
    np.testing.assert_allclose(found.reshape(count, -1, 3), expected, atol=ROUNDING)


def test_the_gradient_of_many_bodies_is_that_of_the_one_product(free_body, ten_bodies):
    def one_product(segments):
        stacked = skinning.stacked_transforms(free_body, segments)
        return jnp.matmul(free_body.skinning_matrix, stacked, precision="highest")

    @jax.jit
    def gradients(segments):
        vertices, pull = jax.vjp(jax.vmap(lambda one: skinning.skin_vertices(free_body, one)), segments)
        _, pull_one = jax.vjp(jax.vmap(one_product), segments)
        return pull(vertices), pull_one(vertices)

    for found, expected in zip(*(jax.tree.leaves(each) for each in gradients(ten_bodies)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-3)  # sums over 7199 vertices


def test_named_points_equal_the_sum_over_segments(made_up_body, pose_made_up):
    """x = sum_k w_k (p_k + s_k G_k (v - J_k)) written out, for points that are no vertex."""
    rng = np.random.default_rng(6)
    segments, _ = pose_made_up(*reference.random_problem(6).single())
    rest, weight = rng.normal(size=(9, 3)).astype(np.float32), rng.dirichlet(np.ones(24), 9).astype(np.float32)
    found = jax.jit(skinning.skin_points)(made_up_body, segments, SurfacePoints(rest, weight))
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), segments)
    for point in range(9):
        local = rest[point : point + 1] - made_up_body.joints.astype(np.float64)
        carried = [exact.position[k] + exact.scale[k] * exact.rotation[k] @ local[k] for k in range(24)]
        np.testing.assert_allclose(found[point], weight[point] @ np.stack(carried), atol=reference.MODEL)


def test_h36m_joints_are_regressed_from_the_skinned_vertices(free_body, pose_free):
    regress = jax.jit(skinning.h36m_joints)
    for seed in (7, 8, 9):
        segments, vertices = pose_free(*reference.random_problem(seed).single())
        expected = free_body.h36m_regressor.astype(np.float64) @ np.asarray(vertices, np.float64)
        np.testing.assert_allclose(regress(free_body, segments), expected, atol=reference.MODEL)


def _turns(angle):
    """Return 23 axis-angles of one length, about axes of every kind."""
    axes = np.concatenate([np.eye(3), -np.eye(3), np.random.default_rng(0).normal(size=(17, 3))])
    return axes / np.linalg.norm(axes, axis=1, keepdims=True) * angle


@pytest.fixture(scope="module")
def jacobian(pose_made_up):
    """Return the exact Jacobians of the skinned vertices by rotation, pose and scales, compiled."""
    return jax.jit(jax.jacfwd(lambda *problem: pose_made_up(*problem)[1], argnums=(0, 1, 2)))


@pytest.mark.parametrize("angle", [0.0, 1e-3, 0.7, np.pi])
def test_gradients_equal_finite_differences(skin_made_up, jacobian, angle):
    """In random directions of all 102 parameters at once; at a = 0 and at half turns in every joint too."""
    rng, problem, step = np.random.default_rng(1), reference.random_problem(9), 1e-5
    at = problem.rotation, _turns(angle), problem.segment_scale
    with jax.enable_x64(True):
        exact = jacobian(*at)
        for _ in range(4):
            direction = [rng.normal(0, 0.1, x.shape) for x in at]  # of length 1, all in all
            ahead, behind = (
                skin_made_up(*(x + h * d for x, d in zip(at, direction, strict=True))) for h in (step, -step)
            )
            along = sum(np.tensordot(j, d, axes=d.ndim) for j, d in zip(exact, direction, strict=True))
            np.testing.assert_allclose(along, (ahead - behind) / (2 * step), rtol=0, atol=FINITE_DIFFERENCE)


@pytest.fixture(scope="module")
def gradient(pose_made_up):
    """Return the float32 gradient of the sum of squares of the skinned vertices: what Adam asks for."""
    return jax.jit(jax.grad(lambda *problem: jnp.sum(pose_made_up(*problem)[1] ** 2), argnums=(0, 1, 2)))


@pytest.mark.parametrize("angle", [0.0, np.pi])
def test_reverse_gradients_are_finite_at_the_singular_points(gradient, angle):
    rotation, _, scale = reference.random_problem(9).single()
    for leaf in gradient(rotation, _turns(angle).astype(np.float32), scale):
        assert np.all(np.isfinite(leaf))
        assert np.abs(leaf).max() > 1e-3


def test_products_ask_for_full_float32(made_up_body):
    """By default GPUs and TPUs round the factors to 10 or 7 bits of mantissa: millimetres at a metre's distance."""

    def everything(*problem):
        segments = kinematics.pose_skeleton(made_up_body, *problem)
        points = skinning.surface_points(made_up_body, jnp.arange(3), jnp.full((3, 3), 1 / 3))
        mesh, joints = skinning.skin_vertices(made_up_body, segments), skinning.h36m_joints(made_up_body, segments)
        named = skinning.skin_points(made_up_body, segments, points)
        return jnp.sum(mesh) + jnp.sum(joints) + jnp.sum(named) + jnp.sum(rotations.nearest_rotation(problem[0]))

    gradient = jax.jit(jax.value_and_grad(everything, argnums=(0, 1, 2)))
    lowered = gradient.lower(*reference.random_problem(0).single()).as_text()
    products = [line for line in lowered.splitlines() if "dot_general" in line]
    assert products
    assert not [line for line in products if "HIGHEST, HIGHEST" not in line]
