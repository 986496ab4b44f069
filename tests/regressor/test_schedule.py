"""How the weights move: the rate against its formula, the running mean against NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.regressor import model, training
from dal_jax.regressor.model import RegressorConfig

CONFIG = dataclasses.replace(
    RegressorConfig(), learning_rate=1e-2, warmup_share=0.1, last_rate_share=0.1, average_decay=0.9
)


def test_the_rate_rises_then_falls_along_a_cosine():
    rate = [float(training.learning_rate(CONFIG, jnp.asarray(step), jnp.asarray(100))) for step in range(101)]
    np.testing.assert_allclose(rate[:10], 1e-2 * np.arange(1, 11) / 10, rtol=1e-5)
    np.testing.assert_allclose(rate[55], 1e-2 * (0.1 + 0.9 / 2), rtol=1e-5)
    np.testing.assert_allclose(rate[100], 1e-3, rtol=1e-5)
    assert np.all(np.diff(rate[10:]) <= 0)
    constant = [float(training.learning_rate(model.paper(), jnp.asarray(s), jnp.asarray(100))) for s in (0, 50, 99)]
    np.testing.assert_allclose(constant, 1e-4, rtol=1e-6)


def test_the_running_mean_is_numpy_s():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(200, 3)).astype(np.float32)
    mean, expected = jnp.zeros(3), np.zeros(3)
    follow = jax.jit(lambda step, mean, new: training.running_mean(CONFIG, step, mean, new))
    for step, new in enumerate(weights):
        mean = follow(jnp.asarray(step, jnp.int32), mean, new)
        decay = min(0.9, (step + 1) / (step + 10))
        expected = decay * expected + (1 - decay) * new
    np.testing.assert_allclose(mean, expected, atol=1e-6)
    assert training.running_mean(CONFIG, jnp.asarray(0), None, weights[0]) is None


@pytest.mark.parametrize("decay", [0.0, 1e-4])
def test_only_kernels_decay(decay):
    optimizer = training.make_optimizer(dataclasses.replace(CONFIG, weight_decay=decay))
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], decay * np.ones((2, 3)), rtol=1e-6)
    np.testing.assert_array_equal(updates["bias"], np.zeros(3))
