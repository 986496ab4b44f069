"""The tree solver against a dense solve of the same system in float64, autodiff, and the generic reference."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.body import rotations, skeleton
from dal_jax.observations import residuals
from dal_jax.observations.observation import with_turns
from dal_jax.registration import energy
from dal_jax.registration.energy import EnergyWeights, Objective
from dal_jax.registration.solvers.descent import SolverOptions
from dal_jax.registration.solvers.tree import elimination, evaluation, lm, points, quadratics
from dal_jax.registration.solvers.tree.state import (
    affine_maps,
    bone_offsets,
    build_model,
    from_parameters,
    levers,
    retract,
    to_parameters,
)
from tests.registration import small_problem

ENERGY_TOLERANCE = 1e-7  # relative, in float64, of sums over constants that the body has in float32
STEP_TOLERANCE = 1e-8  # relative, in float64: elimination against a dense factorisation
FLOAT32 = 2e-6
PARENTS = skeleton.SMPL_PARENTS
OBJECTIVES = {
    "paper's terms": Objective(EnergyWeights(1000.0, 3.0, 20.0, 7.0, 1.0)),
    "pose prior, limits": Objective(EnergyWeights(1000.0, 3.0, 20.0, 7.0, 1.0, limit=50.0), small_problem.pose_prior()),
    "shape prior, robust": Objective(
        EnergyWeights(1000.0, 3.0, 2.0, 7.0, 1.0, outlier=0.1, shape=3.0), shape=small_problem.shape_prior()
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


def _observe(people):
    """Return observations of people with noise and confidences of all sizes."""
    observed, rng = small_problem.observe(people, seed=2, noise=0.02), np.random.default_rng(3)
    return observed.replace(
        point_confidence=(rng.random(observed.point_confidence.shape) < 0.8).astype(np.float32),
        keypoint_confidence=rng.uniform(0, 1, observed.keypoint_confidence.shape).astype(np.float32),
        depth_confidence=rng.uniform(0, 1, observed.depth_confidence.shape).astype(np.float32),
    )


def _stacked(trees):
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *trees)


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


def _study(template, model, objective, observed, people):
    """Return all that the tests ask of one person at two bodies, the first near the optimum: one program an objective.

    The bodies are two starts: what is found has the axes (..., starts, 1).
    """
    target = residuals.make_target(template, observed)
    both = from_parameters(model, jax.tree.map(lambda leaf: leaf[:, None], people))
    swapped = jax.tree.map(lambda leaf: leaf[..., ::-1, :], both)
    weights, zero = objective.weights, jnp.zeros(_size(objective))
    problem = evaluation.make_problem(model, target, objective, both)
    moved = evaluation.recentre(model, problem, target, weights, swapped)
    asked = ((problem, both), (problem, swapped), (moved, swapped))
    values = jax.vmap(functools.partial(evaluation.evaluate, model))(*_stacked(asked))
    value, lever = jax.tree.map(lambda leaf: leaf[0], values), levers(model, both)

    def exact(flat):
        energies = evaluation.exact_energy(model, problem, target, weights, _move(both, flat))
        return energies[0, 0], energies

    def eq_2(parameters):
        one = jax.tree.map(lambda leaf: leaf[0], observed)
        return energy.parameter_energy(template, residuals.make_target(template, one), parameters, objective)

    def projected(flat):
        maps = affine_maps(model, _move(both, flat))[..., 0, 0]
        rest = target.points.rest[0]
        homogeneous = jnp.concatenate([rest, jnp.ones_like(rest[:, :1])], axis=1)
        place = jnp.einsum("pk,kci,pc->pi", target.points.weight[0], maps, homogeneous)[:, :2]
        return place, place

    jacobian, place = jax.jacfwd(projected, has_aux=True)(zero)
    distance = jnp.sum((place - target.observation.point_position[0]) ** 2, axis=1)
    gradient, energies = jax.grad(exact, has_aux=True)(zero)
    found = {
        "value": value,
        "shape": lm.information_of_shape(model, problem, both, value),
        "step": elimination.solve_step(model, problem, both, value, jnp.zeros_like(value.energy)),
        "quadratic": quadratics.segment_quadratic(problem, lever, value),
        "girth": quadratics.girth_quadratic(model, problem, both, value, lever),
        "stretch_weight": jnp.zeros(24) if problem.expected is None else problem.expected.stretch_weight[:, 0, 0],
        "offsets": bone_offsets(model, both),
        "about_itself": value.energy[:, 0],
        "about_the_other": values.energy[1, ::-1, 0],
        "recentred": values.energy[2, ::-1, 0],
        "exact": energies[:, 0],
        "equation_2": jax.vmap(eq_2)(people),
        "gradient": gradient / 2,
        "mass": weights.dense * target.observation.point_confidence[0] * residuals.robust(distance, weights.outlier)[1],
        "jacobian": jacobian,
    }
    if objective.prior is not None and objective.shape is None:
        found["prior_jacobian"] = jax.jacfwd(
            lambda flat: energy.joint_residual(to_parameters(model, _move(both, flat)).pose[0, 0], objective.prior)
        )(zero)
    if objective.scales == "anisotropic":
        found["segment_girth"] = quadratics.segment_girth_quadratic(model, problem, both, value, lever)
    if objective == OBJECTIVES["paper's terms"]:
        found["information"] = lm.information_of_segments(model, problem, both, value)
        maps = affine_maps(model, swapped)
        found["dense_gradient"] = points.evaluate(model, problem.dense, maps)[1]
        found["dense_slope"] = jax.grad(lambda maps: jnp.sum(points.exact_energy(target, weights, maps)))(maps) / 2
    return found


@pytest.fixture(scope="module", params=OBJECTIVES.values(), ids=OBJECTIVES.keys())
def system(request):
    """One person in float64: the objective, what is found, system matrix and gradient near the optimum."""
    objective = request.param
    people, other = small_problem.random_people(1, seed=1), small_problem.random_people(1, seed=4)
    nudge = np.random.default_rng(7).normal(0, 0.03, people.pose.shape).astype(np.float32)
    start = people.replace(pose=people.pose + nudge, translation=people.translation + 0.02)
    observed = _observe(people)
    if objective.weights.limit is not None:
        start, other = start.replace(pose=1.3 * start.pose), other.replace(pose=2.5 * other.pose)
        assert all(np.abs(skeleton.limit_excess(jnp.asarray(one.pose))).max() > 0.1 for one in (start, other))
    elif objective.prior is not None:
        start = start.replace(pose=0.6 * start.pose)
    start, other = (objective.start_from(one) for one in (start, other))
    if objective.prior is not None:  # lifted depths turn
        observed = with_turns(observed)
    if _size(objective) > 98:
        observed = observed.replace(expected=small_problem.expected(start))
    people = jax.tree.map(lambda *leaves: np.concatenate(leaves), start, other)
    with jax.enable_x64(True):
        template, observed, people = (_double(one) for one in (small_problem.small_template(), observed, people))
        people = people.replace(rotation=np.asarray(rotations.nearest_rotation(jnp.asarray(people.rotation))))
        objective = dataclasses.replace(objective, shape=_double(objective.shape))
        study = functools.partial(_study, template, build_model(template), objective)
        found = jax.device_get(jax.jit(study)(observed, people))
    return objective, found, *_dense_system(objective, found)


def _dense_system(objective, found):
    """Assemble the majorised system over the 24 x 4 controls and the root's translation as one matrix (one image).

    A prior on proportions enters by the inverse of its covariance, which knows no factors.
    """
    value, quadratic, offsets = found["value"], found["quadratic"][..., 0, 0], found["offsets"][..., 0, 0]
    pull, curvature = value.pull[..., 0, 0], np.array(value.curvature)[..., 0, 0]
    turned = np.zeros((24, 4, 4))
    if value.prior_curvature is not None:
        turned[:, :3, :3] = value.prior_curvature[..., 0, 0]
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
            curvature[node, 3] = objective.weights.scale + found["stretch_weight"][node]
            matrix += difference.T @ (np.diag(curvature[node]) + turned[node]) @ difference
            gradient += difference.T @ pull[node]
    if objective.shape is not None:
        stretch = np.stack([_control(node, size)[3] for node in range(1, 24)])
        stretch = np.concatenate([stretch, np.eye(size)[98:][: len(objective.shape.mean) - 23]])
        matrix += objective.weights.shape * stretch.T @ np.linalg.inv(objective.shape.covariance()) @ stretch
    if size > 99:
        rows, stiffness = (block[..., 0, 0] for block in found["segment_girth"])
        prior = objective.weights.shape / np.float64(objective.shape.variance)[23:].reshape(24, 2)
        for node in range(24):
            at = slice(98 + 2 * node, 100 + 2 * node)
            coupled = rows[node, :, :7] @ reach[node]
            matrix[at] += coupled
            matrix[:, at] += coupled.T
            matrix[at, at] += stiffness[node] - np.diag(prior[node])  # which the inverse of the covariance has
            gradient[at] += rows[node, :, 7]
    if size == 99:
        coupling, slope, stiffness = (block[..., 0, 0] for block in found["girth"])
        coupled = np.einsum("kru,kr->u", reach, coupling)
        matrix[98], matrix[:, 98] = coupled, coupled
        matrix[98, 98], gradient[98] = stiffness, slope
    return matrix, gradient


def test_energy_is_that_of_equation_2(system):
    _, found, _, _ = system
    for name in ("about_itself", "recentred", "exact"):
        np.testing.assert_allclose(found[name], found["equation_2"], rtol=ENERGY_TOLERANCE, err_msg=name)


def test_energy_away_from_the_reference_is_exact_or_a_majoriser_of_the_robust_loss(system):
    objective, found, _, _ = system
    if objective.weights.outlier is None:
        np.testing.assert_allclose(found["about_the_other"], found["equation_2"], rtol=ENERGY_TOLERANCE)
    else:
        assert np.all(found["about_the_other"] > found["equation_2"])


def test_step_solves_the_majorised_system(system):
    _, found, matrix, gradient = system
    size = len(gradient)
    step = np.concatenate([np.ravel(each[..., 0, 0]) for each in found["step"] if each is not None])
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
    np.testing.assert_allclose(step, expected, rtol=STEP_TOLERANCE, atol=STEP_TOLERANCE)


def test_information_is_what_elimination_leaves_of_the_system(system):
    """Of the pelvis: its block, all others eliminated. Of a hand: its own block and the pull of its joint."""
    _, found, matrix, _ = system
    if "information" not in found:
        return  # one compiled program is enough
    (segments, place), size = found["information"], len(matrix)
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


def test_a_shape_has_what_is_left_of_the_system(system):
    """Of stretches and girths, all else at its best: by the inverse of the whole system."""
    _, found, matrix, gradient = system
    size = len(matrix)
    damping = np.diag(np.arange(size) // 2 == 48).astype(float)  # of the place
    damping += sum(_control(node, size)[:3].T @ _control(node, size)[:3] for node in range(24))
    inverse = np.linalg.inv(matrix + elimination.ABSOLUTE_DAMPING * damping)
    shape = np.stack([_control(node, size)[3] for node in range(24)] + list(np.eye(size)[98:]))
    left = np.linalg.inv(shape @ inverse @ shape.T)
    slope, block = (each[..., 0, 0] for each in found["shape"])
    scale = np.abs(left).max()
    tolerance = 1e-7 * scale  # the root of a prior's inverse covariance was rounded to float32
    np.testing.assert_allclose(block, left, rtol=STEP_TOLERANCE, atol=tolerance)
    np.testing.assert_allclose(slope, left @ shape @ inverse @ gradient, rtol=STEP_TOLERANCE, atol=tolerance)


def test_gradient_is_exact(system):
    _, found, _, gradient = system
    by_autodiff = found["gradient"]
    np.testing.assert_allclose(gradient, by_autodiff, rtol=1e-7, atol=1e-7 * np.abs(by_autodiff).max())


def test_matrix_majorises_gauss_newton(system):
    _, found, matrix, _ = system
    jacobian = (np.sqrt(found["mass"])[:, None, None] * found["jacobian"]).reshape(-1, len(matrix))
    smallest = np.linalg.eigvalsh(matrix - jacobian.T @ jacobian).min()
    assert smallest > -1e-8 * np.linalg.norm(matrix)


def test_curvature_of_the_pose_prior_is_gauss_newtons(system):
    objective, found, matrix, _ = system
    curvature = found["value"].prior_curvature
    assert (curvature is None) == (objective.prior is None), "nobody pays for what nobody asked for"
    if "prior_jacobian" not in found:
        return  # one compiled program is enough
    jacobian = found["prior_jacobian"].reshape(-1, len(matrix))
    expected = objective.weights.joint * jacobian.T @ jacobian
    whole = np.zeros_like(matrix)
    for node in range(1, 24):
        turn = _control(node, len(matrix))[:3]
        whole += turn.T @ curvature[node, ..., 0, 0] @ turn
    np.testing.assert_allclose(whole, expected, atol=1e-6 * np.abs(expected).max())


def test_gradient_away_from_the_reference(system):
    """The Laplacian form of the dense term against autodiff, at another state than its reference."""
    _, found, _, _ = system
    if "dense_slope" not in found:
        return  # one compiled program is enough; a robust loss has its gradient at its reference alone
    exact = found["dense_slope"][:, :, :2]
    np.testing.assert_allclose(found["dense_gradient"], exact, rtol=1e-8, atol=1e-8 * np.abs(exact).max())


def test_parameters_survive_the_round_trip():
    start, model = small_problem.random_people(3, seed=4), build_model(small_problem.small_template())
    back = jax.jit(lambda people: to_parameters(model, from_parameters(model, people)))(start)
    pose = jax.jit(jax.vmap(jax.vmap(rotations.axis_angle_to_matrix)))
    np.testing.assert_allclose(pose(back.pose), pose(start.pose), atol=FLOAT32)
    np.testing.assert_allclose(back.rotation, start.rotation, atol=FLOAT32)
    size = np.asarray(back.camera_scale)[:, None] * np.asarray(back.segment_scale)
    np.testing.assert_allclose(size, start.camera_scale[:, None] * start.segment_scale, rtol=1e-5)
    np.testing.assert_allclose(np.log(back.segment_scale).mean(axis=1), 0, atol=1e-6)


def test_no_room_for_dense_points_is_points_that_nobody_believes():
    people, template = small_problem.random_people(2, seed=1), small_problem.small_template()
    observed, model, objective = _observe(people), build_model(template), OBJECTIVES["paper's terms"]
    doubted = observed.replace(point_confidence=np.zeros_like(observed.point_confidence))
    points_of = ("point_position", "point_face", "point_barycentric", "point_confidence")
    without = observed.replace(**{name: getattr(observed, name)[:, :0] for name in points_of})

    @jax.jit
    def step(observed, people):
        target = residuals.make_target(template, observed)
        state = from_parameters(model, jax.tree.map(lambda leaf: leaf[None], people))
        problem = evaluation.make_problem(model, target, objective, state)
        value = evaluation.evaluate(model, problem, state)
        exact = evaluation.exact_energy(model, problem, target, objective.weights, state)
        return value.energy, exact, elimination.solve_step(model, problem, state, value, jnp.zeros_like(value.energy))

    start = small_problem.random_people(2, seed=4)
    for one, other in zip(*(jax.tree.leaves(step(each, start)) for each in (doubted, without)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


# --- the whole minimisation: three people, two starts each, in float32 ---


@pytest.fixture(scope="module")
def minimise():
    """Return (rows of people, steps, tolerance) -> the solution from both starts; compiled once."""
    template = small_problem.small_template()
    model, people = build_model(template), small_problem.random_people(3, seed=1)
    observed, starts = _observe(people), (small_problem.random_people(3, seed=4), people)

    @jax.jit
    def solve(observed, starts, options):
        target = residuals.make_target(template, observed)
        return lm.minimise(
            model, target, from_parameters(model, _stacked(starts)), OBJECTIVES["paper's terms"], options
        )

    def solve_rows(rows, steps, tolerance=0.0):
        taken = jax.tree.map(lambda leaf: np.asarray(leaf)[rows], (observed, starts))
        return jax.device_get(solve(*taken, SolverOptions(steps, tolerance=tolerance)))

    return solve_rows


def test_a_fit_does_not_know_who_is_fitted_beside_it(minimise):
    together = minimise([0, 1, 2], 5).energy
    for person in range(3):
        alone = minimise([person] * 3, 5).energy
        # rounding is amplified by five damped steps
        np.testing.assert_allclose(np.tile(together[:, person : person + 1], 3), alone, rtol=1e-3)


def test_a_finished_fit_stays_put(minimise):
    early, late = minimise([0, 1, 2], 40, 0.02), minimise([0, 1, 2], 80, 0.02)
    assert np.all(early.steps < 40)
    np.testing.assert_array_equal(early.energy, late.energy)
    assert np.all(early.relative_decrease < 0.02)
    assert np.all(minimise([0, 1, 2], 40, 0.0).steps == 40)
