"""Undamped Gauss-Newton: exact where it must be, and honest where it fails."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.registration.solvers import dense

FLOAT32 = 1e-5


def _add(state, delta):
    return state + delta


def _solve(residual, start, steps, tolerance=0.0):
    solve = jax.jit(
        lambda start: dense.gauss_newton(residual, _add, start, unknowns=len(start), steps=steps, tolerance=tolerance)
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
    np.testing.assert_allclose(found.cost, cost[0], rtol=FLOAT32)


def test_rosenbrock_takes_two_steps_over_a_hill():
    """The first step solves 1 - x = 0 and lands high up the valley's wall: a method that rejects would crawl."""
    residual = lambda x: jnp.stack([10.0 * (x[1] - x[0] ** 2), 1.0 - x[0]])  # noqa: E731
    assert _solve(residual, [-1.2, 1.0], steps=1).cost == pytest.approx(24.2, rel=FLOAT32)  # the start's: a hill after
    found = _solve(residual, [-1.2, 1.0], steps=3)
    np.testing.assert_allclose(found.state, [1.0, 1.0], atol=1e-4)


def test_a_direction_that_no_residual_sees_stays_finite():
    found = _solve(lambda x: (x[0] + x[1] - 2.0)[None], [5.0, -1.0, 7.0], steps=5)
    assert np.all(np.isfinite(found.state))
    assert found.cost < 1e-6
    assert found.state[2] == 7.0


def test_divergence_returns_the_start_and_says_so():
    found = _solve(jnp.arctan, [3.0], steps=20)
    assert found.state == 3.0
    assert found.cost == pytest.approx(np.arctan(3.0) ** 2, rel=FLOAT32)
    assert not found.relative_decrease < 0.01
    damped = dense.levenberg_marquardt(jnp.arctan, _add, jnp.array([3.0]), unknowns=1, steps=20)
    assert damped.cost < 1e-6


def test_stops_after_a_step_that_changes_next_to_nothing():
    matrix, goal = _linear()
    found = _solve(lambda x: matrix @ x - goal, np.ones(3), steps=30, tolerance=1e-4)
    assert found.steps == 2  # the first arrives, the second stays
    assert found.relative_decrease < 1e-4
