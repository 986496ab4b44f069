"""The convolutions against XLA's own, forward and backward; the draw of the kernels against its variance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dal_jax.regressor import layers
from dal_jax.regressor.layers import Convolution, PointwiseConvolution

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
    pointwise, square = PointwiseConvolution(12, stride), Convolution(12, size, stride)
    layer = pointwise if size == 1 else square
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
    layer = PointwiseConvolution(12) if size == 1 else Convolution(12, size)
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
