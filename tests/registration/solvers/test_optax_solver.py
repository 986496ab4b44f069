"""Optax's transformations: run as optax runs them, made by name, and one line for what cannot be made."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

from dal_jax.body.kinematics import t_pose
from dal_jax.registration import energy
from dal_jax.registration.solvers import optax_solver
from dal_jax.registration.solvers.descent import SolverOptions

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
            lambda start, rate: optax_solver.trajectory(_rosenbrock, start, optax.adam(rate), 30),
        )
        found = np.asarray(follow(jnp.asarray(START), 0.1))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, _adam(30, 0.1), rtol=FLOAT64)
    assert np.any(np.diff(found) > 0), "not monotone: the best is not the last"


@pytest.mark.parametrize("name", ["adam", "lbfgs"])
def test_what_is_returned_is_the_best_of_the_trajectory(name):
    """In float64: two programs round differently, and a line search on a curved valley amplifies that."""
    make = {"adam": lambda: optax.adam(0.1), "lbfgs": optax.lbfgs}[name]
    with jax.enable_x64(True):
        start = jnp.asarray(START)
        costs = np.asarray(optax_solver.trajectory(_rosenbrock, start, make(), 25))
        solve = jax.jit(lambda steps: optax_solver.minimise(_rosenbrock, start, make(), SolverOptions(steps)))
        for steps in (1, 7, 25):
            found = jax.device_get(solve(steps))
            np.testing.assert_allclose(found.energy, costs[: steps + 1].min(), rtol=1e-5, atol=1e-12)
            np.testing.assert_allclose(_rosenbrock(found.state), found.energy, rtol=1e-5, atol=1e-12)
            assert found.steps == steps


def test_line_search_is_followed_as_optax_would():
    """Value and gradient are taken over from the line search: the same iterates as by evaluating them anew."""
    with jax.enable_x64(True):
        transformation, x, costs = optax.lbfgs(), jnp.asarray(START), []
        state, update = transformation.init(x), jax.jit(functools.partial(transformation.update, value_fn=_rosenbrock))
        for _ in range(15):
            value, gradient = jax.value_and_grad(_rosenbrock)(x)
            costs.append(float(value))
            updates, state = update(gradient, state, x, value=value, grad=gradient)
            x = optax.apply_updates(x, updates)
        found = np.asarray(optax_solver.trajectory(_rosenbrock, jnp.asarray(START), optax.lbfgs(), 14))
    np.testing.assert_allclose(found, costs, rtol=1e-8, atol=1e-14)


def test_lbfgs_finds_scipys_minimum():
    rng = np.random.default_rng(0)
    matrix, goal = rng.normal(size=(30, 8)).astype(np.float32), rng.normal(size=30).astype(np.float32)

    def cost(x, xp):
        return xp.sum(xp.log1p((matrix @ x - goal) ** 2))

    expected = scipy.optimize.minimize(lambda x: cost(x, np), np.zeros(8), method="L-BFGS-B")
    found = jax.jit(
        lambda x: optax_solver.minimise(lambda x: cost(x, jnp), x, optax.lbfgs(), SolverOptions(60, tolerance=1e-6))
    )
    solution = found(jnp.zeros(8))
    np.testing.assert_allclose(solution.energy, expected.fun, rtol=1e-4)
    assert solution.steps < 60
    assert solution.relative_decrease < 1e-6


def test_a_learning_rate_that_is_far_too_large_is_survived():
    solve = jax.jit(
        lambda rate: optax_solver.minimise(_rosenbrock, jnp.asarray(START), optax.sgd(rate), SolverOptions(50))
    )
    found = solve(1.0)
    np.testing.assert_allclose(found.energy, _rosenbrock(START), rtol=1e-5)
    assert found.relative_decrease == np.inf
    assert found.steps < 50
    assert solve(1e-3).energy < found.energy


# --- by name ---

# The optimisers that optax has an alias for, and what literals cannot give some of them.
ALIASES = {"adam", "adamw", "adabelief", "nadam", "lion", "radam", "rmsprop", "sgd", "yogi", "lbfgs", "adafactor"}


def _updates(text, learning_rate):
    """Return the step from (0, 0) where the gradient is (1, -2)."""
    transformation = optax_solver.make(text, learning_rate)
    start = jnp.zeros(2)
    return transformation.update(jnp.array([1.0, -2.0]), transformation.init(start), start)[0]


def _refusal(function, text, *arguments):
    with pytest.raises(ValueError, match="^optimizer '") as caught:
        function(text, *arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_names_are_optax_s_own():
    names = optax_solver.names()
    assert {f"optax.{name}" for name in ALIASES} | {"optax.contrib.prodigy", "optax.contrib.muon"} <= set(names)
    assert not {"optax.GradientTransformation", "optax.apply_updates", "optax.l2_loss", "optax.global_norm"} & set(
        names
    )
    assert len(names) == len(set(names))
    for name in names:
        assert not name.rpartition(".")[2].startswith("_")


def test_arguments_reach_optax():
    np.testing.assert_allclose(_updates("optax.sgd(learning_rate=0.5)", 0.1), [-0.5, 1.0])
    np.testing.assert_allclose(_updates("optax.clip(max_delta=1.5)", 0.1), [1.0, -1.5])
    np.testing.assert_allclose(_updates("optax.adam(b1=0.5, eps=1.0)", 1.0), [-1 / 2, 2 / 3], rtol=1e-5)


def test_the_learning_rate_is_the_spec_s_or_else_the_caller_s():
    np.testing.assert_allclose(_updates("optax.sgd", 0.25), [-0.25, 0.5])
    np.testing.assert_allclose(_updates("optax.sgd(learning_rate=0.5)", 0.25), [-0.5, 1.0])
    np.testing.assert_allclose(jax.jit(functools.partial(_updates, "optax.sgd"))(0.25), [-0.25, 0.5])


def test_a_line_search_keeps_its_own_scale():
    """Optax's default for L-BFGS is None, the quasi-Newton step itself: no learning rate shortens it."""
    assert inspect.signature(optax.lbfgs).parameters["learning_rate"].default is None
    assert str(_trace("optax.lbfgs", 0.1)) == str(_trace("optax.lbfgs", 0.7))
    assert str(_trace("optax.lbfgs(learning_rate=0.1)", 0.7)) != str(_trace("optax.lbfgs", 0.7))


def _trace(text, learning_rate):
    bowl = lambda x: jnp.sum(x**2)  # noqa: E731

    def step(x):
        transformation = optax_solver.make(text, learning_rate)
        return transformation.update(2 * x, transformation.init(x), x, value=bowl(x), grad=2 * x, value_fn=bowl)[0]

    return jax.make_jaxpr(step)(jnp.ones(2))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("optax.adamm", "nearest: optax.adam"),
        ("optax.contrib.nadam", "nearest: optax.nadam"),
        ("optax.apply_updates", "no transformation 'optax.apply_updates'"),
        ("optax.GradientTransformation", "no transformation"),
        ("optax.contrib", "no transformation"),
        ("optax.os.system", "no transformation"),
        ("optax.__doc__", "no transformation"),
        ("optax.adam(beta=0.9)", "optax.adam has no argument 'beta'"),
        ("optax.adam(epss=0.9)", "nearest: eps"),
        ("optax.clip", "optax.clip needs max_delta"),
        ("optax.lookahead(sync_period=5)", "needs fast_optimizer, slow_step_size"),
        ("optax.adam(0.1)", "each argument by its name"),
        ("optax.adam(b1=x)", "argument=literal"),
        ("optax.adam(b1=print('called'))", "argument=literal"),
        ("optax.adam(**{'b1': 1})", "has no argument '**'"),
        ("optax.adam(b1=" + "-" * 400 + "1)", "argument=literal"),
        ("optax.adam(", "write NAME"),
        ("optax.adam()()", "write NAME"),
        ("optax.lbfgs(memory_size=-1)", "optax refuses: memory_size must be >= 1"),
    ],
)
def test_what_cannot_be_made_is_refused(text, told):
    assert told in _refusal(optax_solver.make, text, 0.1)


@pytest.mark.parametrize(
    "text",
    [
        "optax.adam(b1='x')", "optax.adam(learning_rate=(1, 2))", "optax.adam(mu_dtype='nope')",
        "optax.sm3",  # has no use for a number without axes
        "optax.contrib.sophia",  # needs an objective of its own
    ],
)  # fmt: skip
def test_what_fails_in_its_first_step_is_refused_before(text):
    assert "optax refuses: " in _refusal(optax_solver.check, text, _unknowns())


def _unknowns():
    return jax.eval_shape(lambda: energy.from_parameters(t_pose()))


@pytest.mark.filterwarnings("ignore:Specifying a key", "ignore:.*deprecated")
def test_nearly_every_one_that_needs_no_more_than_a_learning_rate_can_be_used():
    bare = [name for name in optax_solver.names() if _needs(name) <= {"learning_rate"}]
    refused = [name for name in bare if not _is_usable(name)]
    assert len(bare) > 80
    assert len(refused) < 10, refused
    assert not {f"optax.{name}" for name in ALIASES} & set(refused)


def _needs(name):
    prefix, _, word = name.rpartition(".")
    parameters = inspect.signature(getattr({"optax": optax, "optax.contrib": optax.contrib}[prefix], word)).parameters
    return {p.name for p in parameters.values() if p.default is p.empty}


def _is_usable(name):
    try:
        optax_solver.check(name, _unknowns())
    except ValueError:
        return False
    return True


def test_the_nearest_is_judged_by_the_last_word():
    known = ["lm", "adam", "optax.adam", "optax.nadam", "optax.contrib.prodigy"]
    assert optax_solver.nearest("nadam", known).startswith("nearest: optax.nadam, adam")
    assert optax_solver.nearest("optax.prodigi", known) == "nearest: optax.contrib.prodigy"
    assert optax_solver.nearest("wxyz", known, "look it up") == "look it up"
    assert optax_solver.nearest("wxyz", ["b", "a"]) == "there is b, a"
    assert optax_solver.nearest("wxyz", []) == "there is none"
