"""Levenberg-Marquardt and Gauss-Newton against NumPy, SciPy and a textbook loop; every problem is compiled once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from jax import sharding
from scipy.spatial import transform

from dal_jax.body import rotations
from dal_jax.registration.solvers import descent
from dal_jax.registration.solvers.descent import SolverOptions

FLOAT32 = 1e-5  # relative: a solve of a well-conditioned system of a few unknowns
FLAT_FLOOR = 1e-3  # unknowns: a float32 cost does not see changes below the root of its rounding, 3e-4
STEPS = 40


def _add(state, delta):
    return state + delta


def _path(residual, start, steps=STEPS, retract=_add, unknowns=None):
    """Return the solutions after 0, 1, ..., `steps` steps, stacked: the number of steps is a traced value."""
    size = unknowns or len(start)

    def solve(count):
        return descent.levenberg_marquardt(residual, retract, start, size, SolverOptions(count))

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(solve))(jnp.arange(steps + 1)))


def _rosenbrock(x):
    return jnp.stack([10.0 * (x[1] - x[0] ** 2), 1.0 - x[0]])


@pytest.fixture(scope="module")
def rosenbrock():
    return _path(_rosenbrock, jnp.array([-1.2, 1.0]))


@pytest.fixture(scope="module")
def linear():
    rng = np.random.default_rng(0)
    matrix, goal = rng.normal(size=(8, 3)), rng.normal(size=8)
    residual = lambda x: jnp.asarray(matrix, jnp.float32) @ x - jnp.asarray(goal, jnp.float32)  # noqa: E731
    return matrix, goal, _path(residual, jnp.zeros(3), steps=8)


def test_one_step_solves_the_damped_linear_system(linear):
    matrix, goal, path = linear
    normal = matrix.T @ matrix
    damped = normal + descent.INITIAL_DAMPING * np.diag(np.diag(normal)) + 1e-6 * np.eye(3)
    np.testing.assert_allclose(path.state[1], np.linalg.solve(damped, matrix.T @ goal), rtol=FLOAT32)


def test_linear_problem_ends_at_least_squares(linear):
    matrix, goal, path = linear
    expected, cost, _, _ = np.linalg.lstsq(matrix, goal, rcond=None)
    np.testing.assert_allclose(path.state[1], expected, atol=0.02)  # the first step is damped by 1%
    np.testing.assert_allclose(path.state[-1], expected, atol=FLAT_FLOOR)
    np.testing.assert_allclose(path.energy[-1], cost[0], rtol=FLOAT32)


def test_rosenbrock_ends_at_its_minimum(rosenbrock):
    np.testing.assert_allclose(rosenbrock.state[-1], [1.0, 1.0], rtol=FLOAT32)
    assert rosenbrock.energy[-1] < 1e-10


def test_cost_never_rises_and_is_that_of_the_state(rosenbrock):
    assert np.all(np.diff(rosenbrock.energy) <= 0)
    assert np.any(np.diff(rosenbrock.energy[:10]) == 0), "this start rejects a step: the law is put to the test"
    x = rosenbrock.state.astype(np.float64)
    expected = 100 * (x[:, 1] - x[:, 0] ** 2) ** 2 + (1 - x[:, 0]) ** 2
    np.testing.assert_allclose(rosenbrock.energy, expected, rtol=1e-4, atol=1e-11)  # differences of numbers near 1


def test_relative_decrease_is_that_of_the_last_accepted_step(rosenbrock):
    cost, last = rosenbrock.energy.astype(np.float64), np.inf
    for step in range(10):
        assert rosenbrock.relative_decrease[step] == pytest.approx(last, rel=1e-4)
        if cost[step + 1] < cost[step]:
            last = (cost[step] - cost[step + 1]) / cost[step]


def test_rejected_steps_raise_the_damping_until_one_is_accepted():
    path = _path(lambda x: jnp.arctan(x), jnp.array([3.0]), steps=12)
    expected = _textbook(np.arctan, lambda x: 1 / (1 + x**2), 3.0, steps=12)
    assert np.count_nonzero(expected == 3.0) > 3, "Gauss-Newton diverges from here"
    np.testing.assert_allclose(path.state[:, 0], expected, rtol=1e-3, atol=1e-6)  # cubic convergence shrinks to 0


def _textbook(residual, slope, x, steps):
    """Return the iterates of one unknown: damping x 4 after a step that does not help, x 0.3 after one that does."""
    found, damping = [x], 1e-2
    for _ in range(steps):
        curvature = slope(x) ** 2
        candidate = x - slope(x) * residual(x) / (curvature * (1 + damping) + 1e-6)
        better = residual(candidate) ** 2 < residual(x) ** 2
        x, damping = (candidate, damping * 0.3) if better else (x, damping * 4.0)
        found.append(x)
    return np.array(found)


def test_singular_jacobian_stays_finite():
    path = _path(lambda x: (x[0] + x[1] - 2.0)[None], jnp.array([5.0, -1.0, 7.0]), steps=10)
    assert np.all(np.isfinite(path.state))
    assert path.energy[-1] < 1e-10
    np.testing.assert_allclose(path.state[-1][2], 7.0, err_msg="no residual sees it, so it stays")
    np.testing.assert_allclose(path.state[-1][0] - path.state[-1][1], 6.0, rtol=FLOAT32)


def test_steps_out_of_the_domain_are_rejected():
    path = _path(lambda x: jnp.log(x) + 2.0, jnp.array([2.0]), steps=20)  # the first step lands at 2 - 5.4 < 0
    assert np.all(np.isfinite(path.state))
    np.testing.assert_array_equal(path.state[1], path.state[0])
    np.testing.assert_allclose(path.state[-1], np.exp(-2.0), rtol=FLOAT32)


def test_agrees_with_scipy_on_a_decay_curve():
    times = np.linspace(0, 4, 15)
    seen = 2.0 * np.exp(-1.3 * times) + 0.5 + np.random.default_rng(1).normal(0, 0.05, 15)

    def residual(x, xp):
        return x[0] * xp.exp(-x[1] * xp.asarray(times, np.float32)) + x[2] - xp.asarray(seen, np.float32)

    expected = scipy.optimize.least_squares(functools.partial(residual, xp=np), [1.0, 1.0, 0.0])
    path = _path(functools.partial(residual, xp=jnp), jnp.array([1.0, 1.0, 0.0]), steps=20)
    np.testing.assert_allclose(path.energy[-1], 2 * expected.cost, rtol=FLOAT32)
    np.testing.assert_allclose(path.state[-1], expected.x, atol=FLAT_FLOOR)


def test_state_may_be_a_manifold_and_problems_a_batch():
    rng = np.random.default_rng(2)
    truth = transform.Rotation.random(4, random_state=3)
    body = rng.normal(size=(10, 3))
    seen = np.stack([turn.apply(body) for turn in truth]) + rng.normal(0, 0.05, (4, 10, 3))
    body, seen = jnp.asarray(body, jnp.float32), jnp.asarray(seen, jnp.float32)

    def solve(goal):
        return descent.levenberg_marquardt(
            lambda turn: (body @ turn.T - goal).ravel(),
            lambda turn, delta: rotations.axis_angle_to_matrix(delta) @ turn,
            jnp.eye(3),
            3,
            SolverOptions(30),
        )

    found = jax.jit(jax.vmap(solve))(seen).state
    expected = [transform.Rotation.align_vectors(goal, body)[0].as_matrix() for goal in np.asarray(seen, np.float64)]
    np.testing.assert_allclose(found, expected, atol=FLAT_FLOOR)


# --- stopping ---


def test_stops_after_an_accepted_step_that_gains_little(rosenbrock):
    """Rejected steps gain nothing and stop nobody; the state is that of running as many steps without a tolerance."""
    found = descent.levenberg_marquardt(
        _rosenbrock, _add, jnp.array([-1.2, 1.0]), 2, SolverOptions(STEPS, tolerance=0.05)
    )
    cost = rosenbrock.energy
    gains = (cost[:-1] - cost[1:]) / np.maximum(cost[:-1], 1e-12)
    expected = 1 + int(np.flatnonzero((gains > 0) & (gains < 0.05))[0])
    assert np.any(gains[:expected] == 0), "this start rejects a step before"
    assert found.steps == expected
    np.testing.assert_allclose(found.state, rosenbrock.state[expected], rtol=1e-3)
    assert found.relative_decrease < 0.05


def test_without_a_tolerance_all_steps_are_taken(rosenbrock):
    np.testing.assert_array_equal(rosenbrock.steps, np.arange(STEPS + 1))


def test_devices_change_nothing():
    """Every device runs its own loop, as long as its own problems take."""
    starts = np.array([[-1.2, 1.0], [0.9, 0.8], [2.0, 2.0], [0.0, 0.0]], np.float32)
    floor = lambda x: jnp.append(_rosenbrock(x), 1.0)  # noqa: E731
    solve = jax.vmap(
        lambda start: descent.levenberg_marquardt(floor, _add, start, 2, SolverOptions(STEPS, tolerance=1e-3))
    )
    mesh, people = sharding.Mesh(np.array(jax.devices()), ("people",)), sharding.PartitionSpec("people")
    split = jax.shard_map(solve, mesh=mesh, in_specs=people, out_specs=people)
    together, apart = jax.jit(solve)(starts), jax.jit(split)(starts)
    np.testing.assert_array_equal(apart.steps, together.steps)
    assert len(set(np.asarray(apart.steps).tolist())) > 1
    np.testing.assert_allclose(apart.state, together.state, rtol=1e-3)


# --- Gauss-Newton: exact where it must be, and honest where it fails ---


def _solve(residual, start, steps, tolerance=0.0):
    solve = jax.jit(
        lambda start: descent.gauss_newton(residual, _add, start, len(start), SolverOptions(steps, tolerance=tolerance))
    )
    return jax.tree.map(np.asarray, solve(jnp.asarray(start, jnp.float32)))


def _linear(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(8, 3)).astype(np.float32), rng.normal(size=8).astype(np.float32)


def test_one_step_solves_least_squares():
    matrix, goal = _linear()
    found = _solve(lambda x: matrix @ x - goal, np.zeros(3), steps=1)
    expected, cost, _, _ = np.linalg.lstsq(matrix, goal, rcond=None)
    np.testing.assert_allclose(found.state, expected, rtol=FLOAT32)
    np.testing.assert_allclose(found.energy, cost[0], rtol=FLOAT32)


def test_rosenbrock_takes_two_steps_over_a_hill():
    """The first step solves 1 - x = 0 and lands high up the valley's wall: a method that rejects would crawl."""
    residual = lambda x: jnp.stack([10.0 * (x[1] - x[0] ** 2), 1.0 - x[0]])  # noqa: E731
    assert _solve(residual, [-1.2, 1.0], steps=1).energy == pytest.approx(24.2, rel=FLOAT32)  # the start's: uphill
    found = _solve(residual, [-1.2, 1.0], steps=3)
    np.testing.assert_allclose(found.state, [1.0, 1.0], atol=1e-4)


def test_a_direction_that_no_residual_sees_stays_finite():
    found = _solve(lambda x: (x[0] + x[1] - 2.0)[None], [5.0, -1.0, 7.0], steps=5)
    assert np.all(np.isfinite(found.state))
    assert found.energy < 1e-6
    assert found.state[2] == 7.0


def test_divergence_returns_the_start_and_says_so():
    found = _solve(jnp.arctan, [3.0], steps=20)
    assert found.state == 3.0
    assert found.energy == pytest.approx(np.arctan(3.0) ** 2, rel=FLOAT32)
    assert not found.relative_decrease < 0.01
    damped = descent.levenberg_marquardt(jnp.arctan, _add, jnp.array([3.0]), 1, SolverOptions(20))
    assert damped.energy < 1e-6


def test_stops_after_a_step_that_changes_next_to_nothing():
    matrix, goal = _linear()
    found = _solve(lambda x: matrix @ x - goal, np.ones(3), steps=30, tolerance=1e-4)
    assert found.steps == 2  # the first arrives, the second stays
    assert found.relative_decrease < 1e-4
