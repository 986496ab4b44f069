"""Convolutions and batch normalisation against XLA's own and the textbook, forward and backward."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dal_jax.regressor import layers
from dal_jax.regressor.layers import BatchNorm, Convolution

ROUNDING = 2e-5  # sums of up to 144 products of unit normals in float32, in another order


def _lax(x, kernel, stride):
    around = [(kernel.shape[0] // 2, kernel.shape[0] // 2)] * 2
    return lax.conv_general_dilated(x, kernel, (stride, stride), around, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _normal(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize(("pixels", "size", "stride"), [
    (5, 1, 1), (5, 1, 2), (8, 3, 1), (7, 3, 2), (8, 7, 2), (4, 3, 2), (2, 3, 1), (1, 3, 2),
])  # fmt: skip
def test_equals_xla_and_so_do_the_gradients(pixels, size, stride):
    kernel, x = _normal(0, (size, size, 16, 12)), _normal(1, (2, pixels, pixels + 1, 16))
    layer = Convolution(12, size, stride)
    gradient = _normal(2, (2, -(-pixels // stride), -(-(pixels + 1) // stride), 12))

    @jax.jit
    def both(x, kernel):
        ours, ours_backward = jax.vjp(lambda x, kernel: layer.apply({"params": {"kernel": kernel}}, x), x, kernel)
        theirs, theirs_backward = jax.vjp(lambda x, kernel: _lax(x, kernel, stride), x, kernel)
        return (ours, *ours_backward(gradient)), (theirs, *theirs_backward(gradient))

    for ours, theirs in zip(*both(x, kernel), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=ROUNDING * np.sqrt(size * size * 16))


HALF = 2.0**-7  # relative to the largest value: the roundings of kernel and result to bfloat16


@pytest.mark.parametrize(("pixels", "size"), [(5, 1), (8, 3), (2, 3)])
def test_in_half_precision_only_the_kernel_and_its_gradient_stay_wide(pixels, size):
    kernel, x = _normal(0, (size, size, 16, 12)), _normal(1, (2, pixels, pixels, 16)).astype(jnp.bfloat16)
    layer = Convolution(12, size)
    gradient = _normal(2, (2, pixels, pixels, 12)).astype(jnp.bfloat16)

    @jax.jit
    def run(x, kernel, gradient):
        y, backward = jax.vjp(lambda x, kernel: layer.apply({"params": {"kernel": kernel}}, x), x, kernel)
        return (y, *backward(gradient))

    found = run(x, kernel, gradient)
    assert [values.dtype for values in found] == [jnp.bfloat16, jnp.bfloat16, jnp.float32]
    expected = run(x.astype(jnp.float32), kernel, gradient.astype(jnp.float32))
    for ours, wide in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.astype(jnp.float32), wide, rtol=0, atol=HALF * np.abs(wide).max())


def test_drawn_kernels_keep_the_gradient_s_variance_and_nothing_else_is_drawn():
    zeros = {"a": jnp.zeros((3, 3, 40, 50)), "b": {"kernel": jnp.zeros((1, 1, 200, 100)), "scale": jnp.ones(7)}}
    drawn = layers.draw_kernels(zeros, jax.random.key(0))
    for kernel, fan_out in ((drawn["a"], 9 * 50), (drawn["b"]["kernel"], 100)):
        sampling = 5 / np.sqrt(2 * kernel.size)  # five standard errors of a standard deviation
        np.testing.assert_allclose(np.std(kernel), np.sqrt(2 / fan_out), rtol=sampling)
    np.testing.assert_array_equal(drawn["b"]["scale"], 1.0)
    assert abs(np.corrcoef(np.ravel(drawn["a"])[:18000], np.ravel(drawn["b"]["kernel"])[:18000])[0, 1]) < 0.05


FLOAT32 = 2e-5  # values of order 1, a few hundred terms a sum
ROWS, CHANNELS = (3, 5, 4), 6


@pytest.fixture
def variables():
    rng = np.random.default_rng(0)
    return {
        "params": {"scale": _float32(rng.uniform(0.5, 2, CHANNELS)), "bias": _float32(rng.normal(0, 0.5, CHANNELS))},
        "batch_stats": {"mean": _float32(rng.normal(0, 1, CHANNELS)), "var": _float32(rng.uniform(0.5, 2, CHANNELS))},
    }


@pytest.fixture
def x():
    return _float32(np.random.default_rng(1).normal(1.0, 2.0, (*ROWS, CHANNELS)))


def _float32(values):
    return jnp.asarray(values, jnp.float32)


def _textbook(x, params, mean, var):
    scale, bias = np.asarray(params["scale"]), np.asarray(params["bias"])
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias


@functools.partial(jax.jit, static_argnums=0)
def _train(relu, variables, x):
    return BatchNorm(relu).apply(variables, x, True, mutable=["batch_stats"])


@pytest.mark.parametrize("relu", [False, True])
def test_training_normalises_by_the_batch_and_moves_the_running_statistics(variables, x, relu):
    y, updated = _train(relu, variables, x)
    rows = np.asarray(x, np.float64).reshape(-1, CHANNELS)
    expected = _textbook(rows, variables["params"], rows.mean(0), rows.var(0))
    expected = np.maximum(expected, 0) if relu else expected
    np.testing.assert_allclose(y.reshape(rows.shape), expected, atol=FLOAT32)
    before, after = jax.device_get((variables["batch_stats"], updated["batch_stats"]))
    np.testing.assert_allclose(after["mean"], 0.9 * before["mean"] + 0.1 * rows.mean(0), atol=FLOAT32)
    np.testing.assert_allclose(after["var"], 0.9 * before["var"] + 0.1 * rows.var(0, ddof=1), atol=FLOAT32)


def test_evaluation_normalises_by_the_running_statistics(variables, x):
    y = BatchNorm().apply(variables, x, False)
    statistics = jax.device_get(variables["batch_stats"])
    expected = _textbook(np.asarray(x, np.float64), variables["params"], statistics["mean"], statistics["var"])
    np.testing.assert_allclose(y, expected, atol=FLOAT32)


@pytest.mark.parametrize("relu", [False, True])
def test_gradients_are_those_of_automatic_differentiation(variables, x, relu):
    weight = _float32(np.random.default_rng(2).normal(size=x.shape))

    def ours(params, x):
        return jnp.sum(weight * _train(relu, {**variables, "params": params}, x)[0])

    def plain(params, x):
        mean, var = jnp.mean(x, axis=(0, 1, 2), keepdims=True), jnp.var(x, axis=(0, 1, 2), keepdims=True)
        factor = params["scale"].reshape(1, 1, 1, -1) / jnp.sqrt(var + 1e-5)
        y = (x - mean) * factor + params["bias"].reshape(1, 1, 1, -1)
        return jnp.sum(weight * (jax.nn.relu(y) if relu else y))

    mine = jax.jit(jax.grad(ours, argnums=(0, 1)))(variables["params"], x)
    its = jax.jit(jax.grad(plain, argnums=(0, 1)))(variables["params"], x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=10 * FLOAT32), mine, its)


ONE_ROUNDING = 2.0**-8  # relative: one rounding to bfloat16


@pytest.mark.parametrize("train", [True, False])
def test_half_precision_is_widened_before_anything_is_added_up(variables, x, train):
    """As in float32 but for the rounding of what comes out, though the mean is a hundred deviations from zero."""
    half = (200.0 + x).astype(jnp.bfloat16)

    @jax.jit
    def run(params, x, gradient):
        def apply(params, x):
            return BatchNorm().apply({**variables, "params": params}, x, train=train, mutable=["batch_stats"])

        y, backward, updated = jax.vjp(apply, params, x, has_aux=True)
        return (y, backward(gradient)[1]), (backward(gradient)[0], updated)

    gradient = _float32(np.random.default_rng(2).normal(size=x.shape)).astype(jnp.bfloat16)
    rows, others = run(variables["params"], half, gradient)
    expected_rows, expected_others = run(variables["params"], half.astype(jnp.float32), gradient.astype(jnp.float32))
    for found, expected in zip(rows, expected_rows, strict=True):
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(found.astype(jnp.float32), expected, rtol=ONE_ROUNDING, atol=ONE_ROUNDING)
    for found, expected in zip(jax.tree.leaves(others), jax.tree.leaves(expected_others), strict=True):
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, expected, rtol=FLOAT32, atol=10 * FLOAT32)


def test_a_constant_channel_has_finite_gradients(variables):
    constant = jnp.full((4, 2, 2, CHANNELS), 1000.1)  # mean(x^2) - mean(x)^2 rounds to something below zero

    def total(x):
        return jnp.sum(_train(True, variables, x)[0] ** 2)

    value, gradient = jax.jit(jax.value_and_grad(total))(constant)
    assert np.isfinite(value) and np.all(np.isfinite(gradient))
