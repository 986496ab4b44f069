"""One person's problem: its energy is that of its residuals, and the retraction of its unknowns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import transform

from dal_jax.observations.residuals import make_target
from dal_jax.registration import energy
from dal_jax.registration.energy import EnergyWeights, Objective, Unknowns
from dal_jax.registration.solvers import problem as problem_lib
from dal_jax.registration.solvers.problem import Problem
from tests.registration import small_problem

FLOAT32 = 1e-5


def _unknowns():
    rng = np.random.default_rng(4)
    numbers = Unknowns(
        pose=rng.normal(0, 0.6, (23, 3)),
        log_segment_scale=rng.normal(0, 0.2, 24),
        raw_rotation=transform.Rotation.random(random_state=5).as_matrix(),
        log_camera_scale=rng.normal(),
        translation=rng.normal(0, 0.2, 2),
    )
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), numbers)


@pytest.mark.parametrize("changes", [{}, {"limit": 30.0, "outlier": 0.2}], ids=["the paper's terms", "all terms"])
def test_energy_is_the_sum_of_squared_residuals(changes):
    template, people = small_problem.small_template(), small_problem.random_people(1, seed=1)
    target = make_target(template, small_problem.observe(people, seed=2, noise=0.1))
    target = jax.tree.map(lambda leaf: leaf[0], target)
    objective = Objective(EnergyWeights(**changes))
    problem = Problem(template, target, objective, _unknowns())

    def look(unknowns):
        at_unknowns = energy.energy(template, target, unknowns, objective)
        return at_unknowns, problem.energy(unknowns), problem.residuals(unknowns)

    expected, value, residuals = jax.jit(look)(problem.start)
    np.testing.assert_allclose(value, np.sum(np.asarray(residuals, np.float64) ** 2), rtol=FLOAT32)
    np.testing.assert_allclose(value, expected, rtol=FLOAT32)


# --- the retraction ---


@pytest.fixture(scope="module")
def move():
    return jax.jit(problem_lib.move)


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
        moved = problem_lib.move(_unknowns(), delta)
        return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(moved)])

    jacobian = np.asarray(jax.jit(jax.jacfwd(flat))(jnp.zeros(99)))
    assert np.all(np.isfinite(jacobian))
    assert np.linalg.svd(jacobian, compute_uv=False).min() > 0.5  # of a turn in axis-angle: at least sin(a/2) / (a/2)
