"""Optax by name: all that can be made from literals, with whose learning rate, and one line for the rest."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dal_jax.body.parameters import t_pose
from dal_jax.registration import energy
from dal_jax.registration.solvers import optax_solver, spec

# The optimisers that optax has an alias for, and what literals cannot give some of them.
ALIASES = {"adam", "adamw", "adabelief", "nadam", "lion", "radam", "rmsprop", "sgd", "yogi", "lbfgs", "adafactor"}


def _updates(text, learning_rate):
    """Return the step from (0, 0) where the gradient is (1, -2)."""
    transformation = optax_solver.make(spec.parse(text), learning_rate)
    start = jnp.zeros(2)
    return transformation.update(jnp.array([1.0, -2.0]), transformation.init(start), start)[0]


def _refusal(function, text, *arguments):
    with pytest.raises(ValueError, match="^optimizer '") as caught:
        function(spec.parse(text), *arguments)
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
        transformation = optax_solver.make(spec.parse(text), learning_rate)
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
        optax_solver.check(spec.parse(name), _unknowns())
    except ValueError:
        return False
    return True
