"""Every solver reaches the same low energy from a near start, and hands back finished parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import transform

from dal_jax.registration import energy, optimizers, tree_evaluation
from tests.registration import small_problem

FLOAT32 = 1e-5
ENERGY_FLOAT32 = 1e-4  # relative: rotations by products against rotations by exponentials
LM_MARGIN = 1.01  # both are converged; they stop within a percent of each other
ADAM_MARGIN = 1.10  # first order, 500 steps: measured 1.02 to 1.05
STEPS = {"lm": 30, "dense_lm": 15, "adam": 500}
LEARNING_RATE = 0.03
WEIGHTS = energy.EnergyWeights(keypoint=100.0, scale=10.0, joint=1.0)  # stiff enough for one minimum nearby
every_solver = pytest.mark.parametrize("name", sorted(optimizers.SOLVERS))


def _near(people, seed=3):
    """Return a start beside the truth: other joint angles, no segment scales, a camera that is off by a tenth."""
    rng = np.random.default_rng(seed)
    return people.replace(
        pose=people.pose + rng.normal(0, 0.1, people.pose.shape).astype(np.float32),
        translation=people.translation + np.float32(0.05),
        camera_scale=people.camera_scale * np.float32(1.1),
        segment_scale=np.ones_like(people.segment_scale),
    )


def _quickly(function):
    """Jit without LLVM's optimisations: compiling, most of this file's time, takes half as long."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(scope="module")
def problem():
    """Return the targets and a near start of four people."""
    people = small_problem.random_people(4, seed=1, pose_sd=0.2, turn=0.5)
    target = energy.make_target(small_problem.small_template(), small_problem.observe(people, seed=2))
    return target, _near(people)


@pytest.fixture(scope="module")
def solved(problem):
    template = small_problem.small_template()
    moments = tree_evaluation.keypoint_moments(template)

    def solve(name):
        def run(target, start):
            settings = {"steps": STEPS[name], "learning_rate": LEARNING_RATE}
            return optimizers.solve(name, template, target, start, WEIGHTS, moments, **settings)

        return _quickly(run)(*problem)

    return {name: solve(name) for name in STEPS}


@pytest.fixture(scope="module")
def score(problem):
    """Return eq. 2 of the four people as a function of their parameters."""

    def one(target, parameters):
        return energy.parameter_energy(small_problem.small_template(), target, parameters, WEIGHTS)

    score_all = _quickly(jax.vmap(one))
    return lambda parameters: np.asarray(score_all(problem[0], parameters))


def test_every_solver_is_tried_here():
    assert STEPS.keys() == optimizers.SOLVERS.keys()


@every_solver
def test_reaches_the_low_energy_of_the_best(problem, solved, score, name):
    lowest = np.min([solution.energy for solution in solved.values()], axis=0)
    assert np.all(lowest < 0.01 * score(problem[1])), "there is a long way down"
    assert np.all(solved[name].energy < (ADAM_MARGIN if name == "adam" else LM_MARGIN) * lowest)
    assert np.all(solved[name].relative_decrease < 0.01)


@every_solver
def test_energy_is_that_of_the_returned_parameters(solved, score, name):
    np.testing.assert_allclose(solved[name].energy, score(solved[name].parameters), rtol=ENERGY_FLOAT32)


@every_solver
def test_parameters_are_finished(solved, name):
    parameters = solved[name].parameters
    rotation = np.asarray(parameters.rotation, np.float64)
    np.testing.assert_allclose(rotation @ np.swapaxes(rotation, 1, 2), np.tile(np.eye(3), (4, 1, 1)), atol=FLOAT32)
    np.testing.assert_allclose(np.linalg.det(rotation), 1.0, atol=FLOAT32)
    np.testing.assert_allclose(np.log(parameters.segment_scale).mean(axis=1), 0.0, atol=FLOAT32)
    assert np.all(parameters.camera_scale > 0)


# --- the retraction of the dense solver ---


def _unknowns():
    rng = np.random.default_rng(4)
    numbers = energy.Unknowns(
        pose=rng.normal(0, 0.6, (23, 3)),
        log_segment_scale=rng.normal(0, 0.2, 24),
        raw_rotation=transform.Rotation.random(random_state=5).as_matrix(),
        log_camera_scale=rng.normal(),
        translation=rng.normal(0, 0.2, 2),
    )
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), numbers)


@pytest.fixture(scope="module")
def move():
    return jax.jit(optimizers.move)


def _delta(seed=6, size=0.2):
    return jnp.asarray(np.random.default_rng(seed).normal(0, size, 99), jnp.float32)


def _assert_same(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=FLOAT32), found, expected)


def test_moving_by_zero_is_the_identity(move):
    _assert_same(move(_unknowns(), jnp.zeros(99)), _unknowns())


def test_moving_there_and_back_is_the_identity(move):
    there = move(_unknowns(), _delta())
    assert np.abs(there.pose - _unknowns().pose).max() > 0.1
    _assert_same(move(there, -_delta()), _unknowns())


def test_move_turns_from_the_left_and_adds_the_rest(move):
    unknowns, delta = _unknowns(), np.asarray(_delta())
    found = move(unknowns, _delta())
    turn = transform.Rotation.from_rotvec
    pose = (turn(delta[:69].reshape(23, 3)) * turn(np.asarray(unknowns.pose))).as_rotvec()
    np.testing.assert_allclose(found.pose, pose, atol=FLOAT32)
    root = turn(delta[93:96]).as_matrix() @ np.asarray(unknowns.raw_rotation)
    np.testing.assert_allclose(found.raw_rotation, root, atol=FLOAT32)
    np.testing.assert_allclose(found.log_segment_scale, unknowns.log_segment_scale + delta[69:93], atol=FLOAT32)
    np.testing.assert_allclose(found.log_camera_scale, unknowns.log_camera_scale + delta[96], atol=FLOAT32)
    np.testing.assert_allclose(found.translation, unknowns.translation + delta[97:], atol=FLOAT32)


def test_no_direction_is_lost_at_zero():
    """Every one of the 99 numbers moves the state at first order: the Jacobian is finite and of full rank."""

    def flat(delta):
        moved = optimizers.move(_unknowns(), delta)
        return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(moved)])

    jacobian = np.asarray(jax.jit(jax.jacfwd(flat))(jnp.zeros(99)))
    assert np.all(np.isfinite(jacobian))
    assert np.linalg.svd(jacobian, compute_uv=False).min() > 0.5  # of a turn in axis-angle: at least sin(a/2) / (a/2)
