"""Optax's transformations run as optax runs them: against a textbook Adam, SciPy, and optax's own loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

from dal_jax.registration.solvers import optax_solver

FLOAT64 = 1e-10  # relative: 30 steps of products of order one
START = np.array([-1.2, 1.0])


def _rosenbrock(x):
    return 100.0 * (x[1] - x[0] ** 2) ** 2 + (1.0 - x[0]) ** 2


def _slope(x):
    return np.array([-400 * x[0] * (x[1] - x[0] ** 2) - 2 * (1 - x[0]), 200 * (x[1] - x[0] ** 2)])


def _adam(steps, learning_rate):
    """Return the costs of Adam as its paper writes it (algorithm 1), from the start on."""
    x, first, second, costs = START.copy(), 0.0, 0.0, [_rosenbrock(START)]
    for step in range(1, steps + 1):
        gradient = _slope(x)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        x = x - learning_rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        costs.append(_rosenbrock(x))
    return np.array(costs)


def test_adam_is_adam():
    with jax.enable_x64(True):
        follow = jax.jit(
            lambda start, rate: optax_solver.trajectory(_rosenbrock, start, optax.adam(rate), steps=30),
        )
        found = np.asarray(follow(jnp.asarray(START), 0.1))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, _adam(30, 0.1), rtol=FLOAT64)
    assert np.any(np.diff(found) > 0), "not monotone: the best is not the last"


@pytest.mark.parametrize("name", ["adam", "lbfgs"])
def test_what_is_returned_is_the_best_of_the_trajectory(name):
    make = {"adam": lambda: optax.adam(0.1), "lbfgs": optax.lbfgs}[name]
    costs = np.asarray(optax_solver.trajectory(_rosenbrock, jnp.asarray(START), make(), steps=25))
    solve = jax.jit(lambda steps: optax_solver.minimise(_rosenbrock, jnp.asarray(START), make(), steps=steps))
    for steps in (1, 7, 25):
        found = solve(steps)
        np.testing.assert_allclose(found.cost, costs[: steps + 1].min(), rtol=1e-5, atol=1e-12)
        np.testing.assert_allclose(_rosenbrock(found.state), found.cost, rtol=1e-5, atol=1e-12)
        assert found.steps == steps


def test_line_search_is_followed_as_optax_would():
    """Value and gradient are taken over from the line search: the same iterates as by evaluating them anew."""
    with jax.enable_x64(True):
        transformation, x, costs = optax.lbfgs(), jnp.asarray(START), []
        state, update = transformation.init(x), jax.jit(functools.partial(transformation.update, value_fn=_rosenbrock))
        for _ in range(15):
            value, gradient = jax.value_and_grad(_rosenbrock)(x)
            costs.append(value)
            updates, state = update(gradient, state, x, value=value, grad=gradient)
            x = optax.apply_updates(x, updates)
        found = optax_solver.trajectory(_rosenbrock, jnp.asarray(START), optax.lbfgs(), steps=14)
    np.testing.assert_allclose(found, costs, rtol=1e-8, atol=1e-14)


def test_lbfgs_finds_scipys_minimum():
    rng = np.random.default_rng(0)
    matrix, goal = rng.normal(size=(30, 8)).astype(np.float32), rng.normal(size=30).astype(np.float32)

    def cost(x, xp):
        return xp.sum(xp.log1p((matrix @ x - goal) ** 2))

    expected = scipy.optimize.minimize(lambda x: cost(x, np), np.zeros(8), method="L-BFGS-B")
    found = jax.jit(lambda x: optax_solver.minimise(lambda x: cost(x, jnp), x, optax.lbfgs(), steps=60, tolerance=1e-6))
    solution = found(jnp.zeros(8))
    np.testing.assert_allclose(solution.cost, expected.fun, rtol=1e-4)
    assert solution.steps < 60
    assert solution.relative_decrease < 1e-6


def test_a_learning_rate_that_is_far_too_large_is_survived():
    solve = jax.jit(lambda rate: optax_solver.minimise(_rosenbrock, jnp.asarray(START), optax.sgd(rate), steps=50))
    found = solve(1.0)
    np.testing.assert_allclose(found.cost, _rosenbrock(START), rtol=1e-5)
    assert found.relative_decrease == np.inf
    assert found.steps < 50
    assert solve(1e-3).cost < found.cost
