"""The tree solver against a dense solve of the same system in float64, autodiff, and the generic reference."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.body import joint_limits, kinematics, rotations, skeleton
from dal_jax.observations import residuals
from dal_jax.registration import energy, register
from dal_jax.registration.energy import EnergyWeights, Objective
from dal_jax.registration.register import RegistrationConfig
from dal_jax.registration.solvers.descent import SolverOptions
from dal_jax.registration.solvers.tree import elimination, evaluation, lm, points, quadratics
from dal_jax.registration.solvers.tree.model import build
from dal_jax.registration.solvers.tree.state import (
    affine_maps,
    bone_offsets,
    from_parameters,
    levers,
    retract,
    to_parameters,
)
from tests.registration import small_problem

ENERGY_TOLERANCE = 1e-5  # relative: two float32 orders of summation
STEP_TOLERANCE = 1e-8  # relative, in float64: elimination against a dense factorisation
PARENTS = skeleton.SMPL_PARENTS


def _problem(count=3, noise=0.02, objective=None):
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
    return template, people, observed, start, objective or OBJECTIVES["paper's terms"]


def _followed(observed, start, objective):
    """Return observations as those of tracks, of the objective that has all other terms."""
    if objective.shape is None or objective.shape.girth is None:
        return observed
    return observed.replace(expected=small_problem.expected(start))


def _tree(template, observed, start, objective):
    """Return the constants, the targets, a state with one start, and the problem about it."""
    model = build(template)
    target = residuals.make_target(template, observed)
    state = _with_starts(from_parameters(model, objective.start_from(jax.tree.map(jnp.asarray, start))))
    problem = jax.jit(evaluation.make_problem)(model, target, objective, state)
    return model, target, state, problem


def _with_starts(state):
    return jax.tree.map(lambda leaf: leaf[..., None, :], state)


def _energy(template, observed, start, objective):
    return np.asarray(
        jax.vmap(lambda o, p: energy.parameter_energy(template, residuals.make_target(template, o), p, objective))(
            jax.tree.map(jnp.asarray, observed), jax.tree.map(jnp.asarray, start)
        )
    )


OBJECTIVES = {
    "paper's terms": Objective(EnergyWeights(1000.0, 3.0, 20.0, 7.0, 1.0)),
    "joint limits": Objective(EnergyWeights(1000.0, 3.0, 20.0, 7.0, 1.0, limit=50.0)),
    "robust": Objective(EnergyWeights(1000.0, 3.0, 20.0, 7.0, 1.0, outlier=0.1)),
    "pose prior": Objective(EnergyWeights(1000.0, 3.0, 20.0, 7.0, 1.0, limit=50.0), small_problem.pose_prior()),
    "shape prior": Objective(
        EnergyWeights(1000.0, 3.0, 2.0, 7.0, 1.0, shape=3.0), small_problem.pose_prior(), small_problem.shape_prior()
    ),
    "girth, in a track": Objective(
        EnergyWeights(1000.0, 3.0, 2.0, 7.0, 1.0, outlier=0.1, shape=3.0),
        small_problem.pose_prior(),
        small_problem.shape_prior().replace(girth=np.array([0.1, 0.2], np.float32)),
    ),
    "anisotropic": Objective(
        EnergyWeights(1000.0, 3.0, 2.0, 7.0, 1.0, shape=3.0),
        small_problem.pose_prior(),
        small_problem.shape_prior(sizes=71),
        scales="anisotropic",
    ),
}


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES.keys())
def test_energy_is_that_of_equation_2(objective):
    template, _people, observed, start, _ = _problem()
    start = objective.start_from(start.replace(pose=2.5 * start.pose))  # some joints beyond their limits
    observed = _followed(observed, start, objective)
    expected = _energy(template, observed, start, objective)
    model, target, state, problem = _tree(template, observed, start, objective)
    value = jax.jit(evaluation.evaluate)(model, problem, state)
    np.testing.assert_allclose(value.energy[0], expected, rtol=ENERGY_TOLERANCE)
    exact = jax.jit(evaluation.exact_energy)(model, problem, target, objective.weights, state)
    np.testing.assert_allclose(exact[0], expected, rtol=ENERGY_TOLERANCE)
    if objective.weights.limit is not None:
        assert np.abs(joint_limits.excess(jnp.asarray(start.pose))).max() > 0.1


def test_energy_away_from_the_reference():
    template, people, observed, start, objective = _problem()
    model, _, _, problem = _tree(template, observed, start, objective)
    elsewhere = _with_starts(from_parameters(model, jax.tree.map(jnp.asarray, people)))
    value = jax.jit(evaluation.evaluate)(model, problem, elsewhere)
    # the difference of two numbers of the reference's size
    scale = np.asarray(problem.dense.energy[0])
    expected = _energy(template, observed, people, objective)
    assert np.all(np.abs(np.asarray(value.energy[0]) - expected) < ENERGY_TOLERANCE * scale)


def test_robust_energy_is_majorised():
    """About a reference the tangent quadratic touches the robust loss, and lies above it elsewhere."""
    template, people, observed, start, _ = _problem()
    objective = OBJECTIVES["robust"]
    model, target, _state, problem = _tree(template, observed, start, objective)
    elsewhere = _with_starts(from_parameters(model, jax.tree.map(jnp.asarray, people)))
    above = np.asarray(jax.jit(evaluation.evaluate)(model, problem, elsewhere).energy)
    exact = np.asarray(jax.jit(evaluation.exact_energy)(model, problem, target, objective.weights, elsewhere))
    assert np.all(above > exact)
    moved = jax.jit(evaluation.recentre)(model, problem, target, objective.weights, elsewhere)
    touching = np.asarray(jax.jit(evaluation.evaluate)(model, moved, elsewhere).energy)
    np.testing.assert_allclose(touching, exact, rtol=ENERGY_TOLERANCE)


def test_parameters_survive_the_round_trip():
    template, _, _, start, _ = _problem()
    model = build(template)
    state = from_parameters(model, jax.tree.map(jnp.asarray, start))
    back = to_parameters(model, state)
    pose = jax.vmap(jax.vmap(rotations.axis_angle_to_matrix))
    np.testing.assert_allclose(pose(back.pose), pose(jnp.asarray(start.pose)), atol=2e-6)
    np.testing.assert_allclose(back.rotation, start.rotation, atol=2e-6)
    size = np.asarray(back.camera_scale)[:, None] * np.asarray(back.segment_scale)
    np.testing.assert_allclose(size, start.camera_scale[:, None] * start.segment_scale, rtol=1e-5)
    np.testing.assert_allclose(np.log(back.segment_scale).mean(axis=1), 0, atol=1e-6)


def _move(state, flat):
    """Move one image by 98 numbers: a node's turn and log scale after the other, then the translation; then girths."""
    control = flat[:96].reshape(24, 4, 1, 1)
    girth = None if state.log_girth is None else flat[98].reshape(1, 1)
    girths = None if state.log_segment_girth is None else flat[98:].reshape(24, 2, 1, 1)
    return retract(state, control, flat[96:98].reshape(2, 1, 1), girth, girths)


def _size(objective):
    if objective.scales == "anisotropic":
        return 146
    return 98 if objective.shape is None or objective.shape.girth is None else 99


def _dense_system(model, problem, state, value, objective):
    """Assemble the majorised system over the 24 x 4 controls and the root's translation as one matrix (one image).

    A prior on proportions enters by the inverse of its covariance, which knows no factors.
    """
    lever = levers(model, state)
    quadratic = np.asarray(jax.jit(quadratics.segment_quadratic)(problem, lever, value))[..., 0, 0]
    pull, curvature = np.asarray(value.pull)[..., 0, 0], np.array(value.curvature)[..., 0, 0]
    turned = np.zeros((24, 4, 4))
    if value.prior_curvature is not None:
        turned[:, :3, :3] = np.asarray(value.prior_curvature)[..., 0, 0]
    offsets = np.asarray(bone_offsets(model, state))[..., 0, 0]
    size = _size(objective)
    # rows of `reach[k]`: (dp_k, w_k, q_k) as linear functions of all unknowns
    reach = np.zeros((24, 7, size))
    reach[0, 0, 96] = reach[0, 1, 97] = 1.0
    for node in range(24):
        reach[node, 3:, 4 * node : 4 * node + 4] = np.eye(4)
        if node:
            parent, (x, y, z) = PARENTS[node], offsets[node]
            motion = np.array([[0, z, -y, x], [-z, 0, x, y], [y, -x, 0, z]])
            reach[node, :3] = reach[parent, :3] + motion @ reach[parent, 3:]
    matrix, gradient = np.zeros((size, size)), np.zeros(size)
    for node in range(24):
        block, force = np.split(quadratic[node], [7], axis=1)
        matrix += reach[node].T @ block @ reach[node]
        gradient += reach[node].T @ force[:, 0]
        if node:
            difference = _control(node, size)
            curvature[node, 3] = objective.weights.scale
            if problem.expected is not None:
                curvature[node, 3] += problem.expected.stretch_weight[node, 0, 0]
            matrix += difference.T @ (np.diag(curvature[node]) + turned[node]) @ difference
            gradient += difference.T @ pull[node]
    if objective.shape is not None:
        stretch = np.stack([_control(node, size)[3] for node in range(1, 24)])
        stretch = np.concatenate([stretch, np.eye(size)[98:][: len(objective.shape.mean) - 23]])
        matrix += objective.weights.shape * stretch.T @ np.linalg.inv(objective.shape.covariance()) @ stretch
    if size > 99:
        rows, stiffness = (np.asarray(block)[..., 0, 0] for block in jax.jit(quadratics.segment_girth_quadratic)(
            model, problem, state, value, lever))  # fmt: skip
        prior = objective.weights.shape / np.float64(objective.shape.variance)[23:].reshape(24, 2)
        for node in range(24):
            at = slice(98 + 2 * node, 100 + 2 * node)
            coupled = rows[node, :, :7] @ reach[node]
            matrix[at] += coupled
            matrix[:, at] += coupled.T
            matrix[at, at] += stiffness[node] - np.diag(prior[node])  # which the inverse of the covariance has
            gradient[at] += rows[node, :, 7]
    if size == 99:
        blocks = jax.jit(quadratics.girth_quadratic)(model, problem, state, value, lever)
        coupling, slope, stiffness = (np.asarray(block)[..., 0, 0] for block in blocks)
        coupled = np.einsum("kru,kr->u", reach, coupling)
        matrix[98], matrix[:, 98] = coupled, coupled
        matrix[98, 98], gradient[98] = stiffness, slope
    return matrix, gradient


def _double(tree):
    """Return a tree with its floats in float64."""

    def widen(leaf):
        leaf = np.asarray(leaf)
        return leaf.astype(np.float64) if np.issubdtype(leaf.dtype, np.floating) else leaf

    return jax.tree.map(widen, tree)


def _control(node, size):
    """Return u_node - u_parent as rows over all unknowns (for the root: u itself)."""
    rows = np.zeros((4, size))
    rows[:, 4 * node : 4 * node + 4] = np.eye(4)
    if node:
        rows[:, 4 * PARENTS[node] : 4 * PARENTS[node] + 4] -= np.eye(4)
    return rows


@pytest.fixture(scope="module", params=OBJECTIVES.values(), ids=OBJECTIVES.keys())
def system(request):
    """One person near the optimum, in float64: constants, problem, undamped step, system matrix and gradient."""
    with jax.enable_x64(True):
        template, people, observed, _, _ = _problem(count=1)
        nudge = np.random.default_rng(7).normal(0, 0.03, people.pose.shape).astype(np.float32)
        start = people.replace(pose=people.pose + nudge, translation=people.translation + 0.02)
        if request.param.weights.limit is not None:
            start = start.replace(pose=1.6 * start.pose)
        if request.param.prior is not None:
            start = start.replace(pose=0.6 * start.pose)
        observed = _followed(observed, start, request.param)
        template, observed, start = _double(template), _double(observed), _double(start)
        objective = dataclasses.replace(request.param, shape=_double(request.param.shape))
        start = start.replace(rotation=np.asarray(rotations.nearest_rotation(jnp.asarray(start.rotation))))
        model, target, state, problem = _tree(template, observed, start, objective)
        value = jax.jit(evaluation.evaluate)(model, problem, state)
        step = jax.jit(elimination.solve_step)(model, problem, state, value, jnp.zeros_like(value.energy))
        system = _dense_system(model, problem, state, value, objective)
        return objective, model, target, state, problem, step, *system


def test_step_solves_the_majorised_system(system):
    _, _, _, _, _, step, matrix, gradient = system
    size = len(gradient)
    found = np.concatenate([np.ravel(each) for each in step if each is not None])
    damping = np.zeros((size, size))  # acts on the root's own unknowns and on every node's turn relative to its parent
    damping[96:98, 96:98] = np.eye(2)
    if size == 146:
        damping[98:, 98:] = np.eye(48)
    for node in range(24):
        relative = _control(node, size)
        damping += relative.T @ relative
    expected = -np.linalg.solve(matrix + elimination.ABSOLUTE_DAMPING * damping, gradient)
    controls = np.stack([_control(node, size) @ expected for node in range(24)])
    assert np.linalg.norm(controls[:, :3], axis=1).max() < 1.0, "beyond the limit on a turn"
    np.testing.assert_allclose(found, expected, rtol=STEP_TOLERANCE, atol=STEP_TOLERANCE)


def test_information_is_what_elimination_leaves_of_the_system(system):
    """Of the pelvis: its block, all others eliminated. Of a hand: its own block and the pull of its joint."""
    objective, model, _, state, problem, _, matrix, _ = system
    if objective.weights != OBJECTIVES["paper's terms"].weights:
        return  # one compiled program is enough
    with jax.enable_x64(True):
        value = jax.jit(evaluation.evaluate)(model, problem, state)
        segments, place = jax.jit(elimination.information)(model, problem, state, value)
    size = len(matrix)
    relative = [_control(node, size) for node in range(1, 24)]
    matrix = matrix + elimination.ABSOLUTE_DAMPING * sum(rows.T @ rows for rows in relative)
    root, rest = [0, 1, 2, 3, 96, 97], list(range(4, 96))
    left = matrix[np.ix_(root, root)] - matrix[np.ix_(root, rest)] @ np.linalg.solve(
        matrix[np.ix_(rest, rest)], matrix[np.ix_(rest, root)]
    )
    np.testing.assert_allclose(segments[0, ..., 0, 0], left[:4, :4], rtol=STEP_TOLERANCE, atol=STEP_TOLERANCE)
    np.testing.assert_allclose(place[:, 0, 0], left[[4, 5, 3], [4, 5, 3]], rtol=STEP_TOLERANCE)
    hand = slice(4 * 23, 4 * 24)
    np.testing.assert_allclose(segments[23, ..., 0, 0], matrix[hand, hand], rtol=STEP_TOLERANCE, atol=STEP_TOLERANCE)


def test_gradient_is_exact(system):
    objective, model, target, state, problem, _, _, gradient = system
    with jax.enable_x64(True):

        def along(flat):
            return evaluation.exact_energy(model, problem, target, objective.weights, _move(state, flat))[0, 0]

        by_autodiff = np.asarray(jax.jit(jax.grad(along))(jnp.zeros(_size(objective)))) / 2
    np.testing.assert_allclose(gradient, by_autodiff, rtol=1e-7, atol=1e-7 * np.abs(by_autodiff).max())


def test_matrix_majorises_gauss_newton(system):
    objective, model, target, state, _, _, matrix, _ = system
    with jax.enable_x64(True):

        def projected(flat):
            maps = affine_maps(model, _move(state, flat))[..., 0, 0]
            rest = target.points.rest[0]
            homogeneous = jnp.concatenate([rest, jnp.ones_like(rest[:, :1])], axis=1)
            return jnp.einsum("pk,kci,pc->pi", target.points.weight[0], maps, homogeneous)[:, :2]

        distance = jnp.sum((projected(jnp.zeros(len(matrix))) - target.observation.point_position[0]) ** 2, axis=1)
        weights = objective.weights
        mass = weights.dense * target.observation.point_confidence[0] * residuals.robust(distance, weights.outlier)[1]
        jacobian = jax.jit(jax.jacfwd(lambda flat: (jnp.sqrt(mass)[:, None] * projected(flat)).ravel()))(
            jnp.zeros(len(matrix))
        )
        gauss_newton = np.asarray(jacobian.T @ jacobian)
    smallest = np.linalg.eigvalsh(matrix - gauss_newton).min()
    assert smallest > -1e-8 * np.linalg.norm(matrix)


def test_curvature_of_the_pose_prior_is_gauss_newtons(system):
    objective, model, target, state, _, _, _, _ = system
    with jax.enable_x64(True):
        problem = evaluation.make_problem(model, target, objective, state)
        value = jax.jit(evaluation.evaluate)(model, problem, state)
        if objective.prior is None:
            assert value.prior_curvature is None, "nobody pays for what nobody asked for"
            return
        prior = _double(objective.prior)

        def residual(flat):
            pose = to_parameters(model, _move(state, flat)).pose[0, 0]
            return jnp.sqrt(objective.weights.joint) * energy.joint_residual(pose, prior).ravel()

        jacobian = jax.jit(jax.jacfwd(residual))(jnp.zeros(_size(objective)))
        expected = np.asarray(jacobian.T @ jacobian)
    found = np.zeros_like(expected)
    for node in range(1, 24):
        turn = _control(node, len(found))[:3]
        found += turn.T @ np.asarray(value.prior_curvature)[node, ..., 0, 0] @ turn
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())


def test_gradient_away_from_the_reference(system):
    """The Laplacian form of the dense term against autodiff, at another state than its reference."""
    objective, model, target, state, problem, _, _, _ = system
    with jax.enable_x64(True):
        flat = jnp.asarray(np.random.default_rng(3).normal(0, 0.1, _size(objective)))
        maps = affine_maps(model, _move(state, flat))
        # the tangent quadratic of a robust loss has the loss's gradient at its reference alone
        robust = objective.weights.outlier is not None
        term = points.dense_term(model, target, objective.weights, maps) if robust else problem.dense
        _, found = jax.jit(points.evaluate)(model, term, maps)
        exact = jax.jit(jax.grad(lambda m: points.exact_energy(target, objective.weights, m)[0, 0]))(maps)
    np.testing.assert_allclose(found, np.asarray(exact)[:, :, :2] / 2, rtol=1e-8, atol=1e-8 * np.abs(exact).max())


def test_batch_and_starts_equal_one_at_a_time():
    template, people, observed, start, objective = _problem(count=3)
    model, target, first, _ = _tree(template, observed, start, objective)
    second = _with_starts(from_parameters(model, jax.tree.map(jnp.asarray, people)))
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=-2), first, second)
    solve = jax.jit(lambda t, s: lm.minimise(model, t, s, objective, SolverOptions(5)).energy)
    together = np.asarray(solve(target, both))
    for row, state in enumerate((first, second)):
        alone = [
            float(solve(jax.tree.map(lambda a, i=i: a[i : i + 1], target),
                        jax.tree.map(lambda a, i=i: a[..., i : i + 1], state))[0, 0])
            for i in range(3)
        ]  # fmt: skip
        np.testing.assert_allclose(together[row], alone, rtol=1e-3)  # rounding is amplified by five damped steps


def test_a_finished_fit_stays_put():
    template, _people, observed, start, objective = _problem(count=3)
    model, target, state, _ = _tree(template, observed, start, objective)
    solve = jax.jit(
        lambda steps, tolerance: lm.minimise(model, target, state, objective, SolverOptions(steps, tolerance=tolerance))
    )
    early, late = solve(40, 0.02), solve(80, 0.02)
    assert np.all(np.asarray(early.steps) < 40)
    np.testing.assert_array_equal(early.energy, late.energy)
    assert np.all(np.asarray(early.relative_decrease) < 0.02)
    assert np.all(np.asarray(solve(40, 0.0).steps) == 40)


def test_recovers_noiseless_people():
    template, _, _, _, _ = _problem()
    people = small_problem.random_people(8, seed=5, pose_sd=0.2, turn=0.5)
    observed = small_problem.observe(people, seed=6, points=120)
    config = RegistrationConfig(optimizer="lm", steps=60, starts="closed_form", batch=8, devices=1)
    objective = Objective(EnergyWeights(keypoint=100.0, scale=0.01, joint=1e-4))
    fit = register.register(template, observed, config, objective)
    assert np.median(fit.energy) < 0.05, "a perfect explanation exists"
    segments = jax.vmap(lambda p: kinematics.pose_skeleton(template, p.rotation, p.pose, p.segment_scale).position)
    scale = np.asarray(fit.parameters.camera_scale / people.camera_scale)[:, None, None]
    error_m = np.linalg.norm(scale * segments(fit.parameters) - segments(people), axis=-1)
    assert np.median(error_m) < 0.01


def test_robust_loss_forgets_wrong_correspondences():
    """A tenth of the points put anywhere: graduated robust fits stay near those without, squared ones do not."""
    template = small_problem.small_template()
    people = small_problem.random_people(8, seed=5, pose_sd=0.2, turn=0.5)
    clean = small_problem.observe(people, seed=6, points=120, noise=0.005)
    rng = np.random.default_rng(0)
    wrong = rng.random(clean.point_confidence.shape) < 0.1
    position = np.where(wrong[..., None], rng.uniform(-1, 1, clean.point_position.shape), clean.point_position)
    spoiled = clean.replace(point_position=position.astype(np.float32))
    objective = Objective(EnergyWeights(keypoint=10.0))

    def error_m(observed, schedule):
        config = RegistrationConfig("lm", 20, starts="closed_form", batch=8, devices=1, schedule=schedule)
        found = register.register(template, observed, config, objective).parameters
        joints = jax.vmap(
            lambda p: p.camera_scale * kinematics.pose_skeleton(template, p.rotation, p.pose, p.segment_scale).position
        )
        return np.median(np.linalg.norm(joints(found) - joints(jax.tree.map(jnp.asarray, people)), axis=-1))

    without = error_m(clean, "constant")
    assert error_m(spoiled, "graduated") < 1.3 * without
    assert error_m(spoiled, "constant") > 2.0 * without
