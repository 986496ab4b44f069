"""The tree solver against a dense solve of the same system in float64, autodiff, and the generic reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.body import kinematics, rotations, skeleton
from dal_jax.registration import energy, register, tree_evaluation, tree_lm
from tests.registration import small_problem

ENERGY_TOLERANCE = 1e-5  # relative: two float32 orders of summation
STEP_TOLERANCE = 1e-8  # relative, in float64: elimination against a dense factorisation
PARENTS = skeleton.SMPL_PARENTS


def _problem(count=3, noise=0.02, weights=None):
    template = small_problem.small_template()
    people = small_problem.random_people(count, seed=1)
    observed = small_problem.observe(people, seed=2, noise=noise)
    rng = np.random.default_rng(3)
    observed = observed.replace(
        point_confidence=(rng.random(observed.point_confidence.shape) < 0.8).astype(np.float32),
        keypoint_confidence=rng.uniform(0, 1, observed.keypoint_confidence.shape).astype(np.float32),
        depth_confidence=rng.uniform(0, 1, observed.depth_confidence.shape).astype(np.float32),
    )
    start = small_problem.random_people(count, seed=4)
    return template, people, observed, start, weights or energy.EnergyWeights(1000.0, 3.0, 20.0, 7.0, 1.0)


def _tree(template, observed, start, weights):
    target = energy.make_target(template, observed)
    moments = tree_evaluation.keypoint_moments(template)
    state = tree_evaluation.from_parameters(template, jax.tree.map(jnp.asarray, start))
    problem = tree_evaluation.make_problem(template, target, weights, jnp.asarray(moments))
    return target, state, problem


def test_energy_is_that_of_equation_2():
    template, _, observed, start, weights = _problem()
    _, state, problem = _tree(template, observed, start, weights)
    value = jax.jit(tree_evaluation.evaluate)(template, problem, state)
    expected = register.score(template, observed, start, weights)
    np.testing.assert_allclose(value.energy, expected, rtol=ENERGY_TOLERANCE)


def test_parameters_survive_the_round_trip():
    template, _, _, start, _ = _problem()
    state = tree_evaluation.from_parameters(template, jax.tree.map(jnp.asarray, start))
    back = tree_evaluation.to_parameters(template, state)
    pose = jax.vmap(jax.vmap(rotations.axis_angle_to_matrix))
    np.testing.assert_allclose(pose(back.pose), pose(jnp.asarray(start.pose)), atol=2e-6)
    np.testing.assert_allclose(back.rotation, start.rotation, atol=2e-6)
    size = np.asarray(back.camera_scale)[:, None] * np.asarray(back.segment_scale)
    np.testing.assert_allclose(size, start.camera_scale[:, None] * start.segment_scale, rtol=1e-5)
    np.testing.assert_allclose(np.log(back.segment_scale).mean(axis=1), 0, atol=1e-6)


def _flat_increments(flat, batch):
    return tree_evaluation.Increments(
        rotation=flat[:72].reshape(3, 24, batch),
        log_scale=flat[72:96].reshape(24, batch),
        translation=flat[96:].reshape(2, batch),
    )


def _gradient_and_step(template, observed, start, weights):
    """Return the step of the tree solver without damping, its system's matrix and gradient, all float64."""
    _, state, problem = _tree(template, observed, start, weights)
    value = jax.jit(tree_evaluation.evaluate)(template, problem, state)
    step = jax.jit(tree_lm.solve_step)(template, problem, state, value, jnp.zeros_like(value.energy))
    matrix, gradient = _dense_system(template, problem, state, value)
    return state, problem, step, matrix, gradient


def _dense_system(template, problem, state, value):
    """Assemble the majorised system over the 24 x 4 controls and the root's translation as one matrix (one image)."""
    quadratic = jax.jit(tree_evaluation.segment_quadratic)(template, problem, state, value)
    pull = tree_evaluation.pull_gradient(template, problem, state, value)
    offsets = np.asarray(tree_evaluation.bone_offsets(template, state))[..., 0]
    size = 98
    # rows of `reach[k]`: (dp_k, w_k, q_k) as linear functions of all unknowns
    reach = np.zeros((24, 7, size))
    reach[0, 0, 96] = reach[0, 1, 97] = 1.0
    for node in range(24):
        reach[node, 3:, 4 * node : 4 * node + 4] = np.eye(4)
        if node:
            parent, (x, y, z) = PARENTS[node], offsets[:, node]
            motion = np.array([[0, z, -y, x], [-z, 0, x, y], [y, -x, 0, z]])
            reach[node, :3] = reach[parent, :3] + motion @ reach[parent, 3:]
    matrix, gradient = np.zeros((size, size)), np.zeros(size)
    curvature = np.array([float(problem.joint_weight)] * 3 + [float(problem.scale_weight)])
    for node in range(24):
        block, force = np.split(np.asarray(quadratic)[:7, :, node, 0], [7], axis=1)
        matrix += reach[node].T @ block @ reach[node]
        gradient += reach[node].T @ force[:, 0]
        if node:
            difference = _control(node)
            matrix += difference.T @ np.diag(curvature) @ difference
            gradient += difference.T @ np.asarray(pull)[:, node, 0]
    return matrix, gradient


def _double(tree):
    """Return a tree with its floats in float64."""

    def widen(leaf):
        leaf = np.asarray(leaf)
        return leaf.astype(np.float64) if np.issubdtype(leaf.dtype, np.floating) else leaf

    return jax.tree.map(widen, tree)


def _control(node):
    """Return u_node - u_parent as rows over all unknowns (for the root: u itself)."""
    rows = np.zeros((4, 98))
    rows[:, 4 * node : 4 * node + 4] = np.eye(4)
    if node:
        rows[:, 4 * PARENTS[node] : 4 * PARENTS[node] + 4] -= np.eye(4)
    return rows


@pytest.fixture(scope="module")
def system():
    with jax.enable_x64(True):
        template, people, observed, _, weights = _problem(count=1)
        nudge = np.random.default_rng(7).normal(0, 0.03, people.pose.shape).astype(np.float32)
        start = people.replace(pose=people.pose + nudge, translation=people.translation + 0.02)
        template, observed, start = _double(template), _double(observed), _double(start)
        start = start.replace(rotation=np.asarray(rotations.nearest_rotation(jnp.asarray(start.rotation))))
        return template, *_gradient_and_step(template, observed, start, weights)


def test_step_solves_the_majorised_system(system):
    _, _, _, step, matrix, gradient = system
    found = np.concatenate(
        [np.concatenate([np.asarray(step.rotation)[:, :, 0], np.asarray(step.log_scale).T], axis=0).T.ravel(),
         np.asarray(step.translation)[:, 0]]
    )  # fmt: skip
    damping = np.zeros((98, 98))  # acts on the root's unknowns and on every node's turn relative to its parent
    damping[96:, 96:] = np.eye(2)
    for node in range(24):
        relative = _control(node)
        damping += relative.T @ relative
    expected = -np.linalg.solve(matrix + tree_lm.ABSOLUTE_DAMPING * damping, gradient)
    assert np.linalg.norm(expected[:96].reshape(24, 4)[:, :3], axis=1).max() < 1.0, "beyond the limit on a turn"
    np.testing.assert_allclose(found, expected, rtol=STEP_TOLERANCE, atol=STEP_TOLERANCE)


def test_gradient_is_exact(system):
    template, state, problem, _, _, gradient = system
    with jax.enable_x64(True):

        def along(flat):
            moved = tree_evaluation.retract(state, _flat_increments(flat, 1))
            return tree_evaluation.evaluate(template, problem, moved).energy[0]

        by_autodiff = np.asarray(jax.jit(jax.grad(along))(jnp.zeros(98))) / 2
    turns, scales = by_autodiff[:72].reshape(3, 24), by_autodiff[72:96]
    expected = np.concatenate([np.concatenate([turns, scales[None]]).T.ravel(), by_autodiff[96:]])
    np.testing.assert_allclose(gradient, expected, rtol=1e-7, atol=1e-7 * np.abs(expected).max())


def test_matrix_majorises_gauss_newton(system):
    template, state, problem, _, matrix, _ = system
    with jax.enable_x64(True):
        weights = np.asarray(problem.target.points.weight)[0]

        def residual(flat):
            moved = tree_evaluation.retract(state, _flat_increments(flat, 1))
            affine = tree_evaluation._affine_maps(template, moved)[..., 0]
            rest = jnp.asarray(problem.target.points.rest)[0]
            homogeneous = jnp.concatenate([rest, jnp.ones_like(rest[:, :1])], axis=1)
            points = jnp.einsum("pk,kci,pc->pi", weights, affine, homogeneous)[:, :2]
            mass = jnp.sqrt(problem.dense_weight * problem.target.point_confidence[0])
            return (mass[:, None] * points).ravel()

        jacobian = np.asarray(jax.jit(jax.jacfwd(residual))(jnp.zeros(98)))
    order = np.concatenate([np.arange(96).reshape(4, 24).T.ravel(), [96, 97]])
    gauss_newton = (jacobian.T @ jacobian)[np.ix_(order, order)]
    smallest = np.linalg.eigvalsh(matrix - gauss_newton).min()
    assert smallest > -1e-8 * np.linalg.norm(matrix)


def test_batch_equals_one_at_a_time():
    template, _, observed, start, weights = _problem(count=3)
    target, state, _ = _tree(template, observed, start, weights)
    moments = jnp.asarray(tree_evaluation.keypoint_moments(template))
    solve = jax.jit(lambda t, s: tree_lm.minimise(template, t, s, weights, moments, steps=5).energy)
    together = np.asarray(solve(target, state))
    alone = [
        float(solve(jax.tree.map(lambda a, i=i: a[i : i + 1], target),
                    jax.tree.map(lambda a, i=i: a[..., i : i + 1], state))[0])
        for i in range(3)
    ]  # fmt: skip
    np.testing.assert_allclose(together, alone, rtol=1e-3)  # rounding is amplified by five damped steps


def test_recovers_noiseless_people():
    template, _, _, _, _ = _problem()
    people = small_problem.random_people(8, seed=5, pose_sd=0.2, turn=0.5)
    observed = small_problem.observe(people, seed=6, points=120)
    config = register.RegistrationConfig(optimizer="lm", steps=60, starts="closed_form", batch=8)
    weights = energy.EnergyWeights(keypoint=100.0, scale=0.01, joint=1e-4)
    fit = register.register(template, observed, config, weights)
    assert np.median(fit.energy) < 0.05, "a perfect explanation exists"
    segments = jax.vmap(lambda p: kinematics.pose_skeleton(template, p.rotation, p.pose, p.segment_scale).position)
    scale = np.asarray(fit.parameters.camera_scale / people.camera_scale)[:, None, None]
    error_m = np.linalg.norm(scale * segments(fit.parameters) - segments(people), axis=-1)
    assert np.median(error_m) < 0.01
