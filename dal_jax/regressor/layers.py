"""Convolutions, NHWC, that are fast on a CPU too: matrix products wherever XLA's own convolution is slow there.

Training step of the width 16, 64 px, batch 32 ResNet50, ms of CPU time on two x86-64 cores with jax 0.10: Linen's
convolutions 272; 1x1 as a matrix product 238; also 2x2 maps as patches, the fused normalisation of `batch_norm` and
pooling without select-and-scatter 167; also the matrix product's gradient as it is written here 117.

Kernels are kept in float32; they are rounded to the dtype of what they are applied to, so that the image's dtype is
that of a whole network's products.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

_INITIALIZER = nn.initializers.zeros


def draw_kernels(variables: Any, key: PRNGKeyArray) -> Any:
    """Return variables whose convolution kernels (all leaves of four axes) are drawn: N(0, 2 / fan_out) (He et al.).

    The layers themselves start at zero: one draw for a whole network compiles in half a second, where 53 generators in
    one program take 13.
    """
    leaves, tree = jax.tree.flatten(variables)
    kernels = [index for index, leaf in enumerate(leaves) if leaf.ndim == 4]
    ends = np.cumsum([leaves[index].size for index in kernels])
    drawn = np.split(np.asarray(jax.random.normal(key, (int(ends[-1]),))), ends[:-1])
    for index, values in zip(kernels, drawn, strict=True):
        height, width, _, features = leaves[index].shape
        sd = np.float32(np.sqrt(2.0 / (height * width * features)))  # He et al. 2015
        leaves[index] = jnp.asarray(sd * values.reshape(leaves[index].shape))
    return jax.tree.unflatten(tree, leaves)


class Convolution(nn.Module):
    """A square convolution without bias, zeros around the image: output pixels = ceil(input pixels / stride)."""

    features: int
    size: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 features"]:
        """Return the convolved maps."""
        kernel = self.param("kernel", _INITIALIZER, (self.size, self.size, x.shape[-1], self.features))
        kernel = kernel.astype(x.dtype)
        if self.size == 1 or min(x.shape[1:3]) <= _SMALL_MAP * self.stride:
            return _product(_patches(x, self.size, self.stride), kernel.reshape(-1, self.features))
        around = (self.size // 2, self.size // 2)
        return lax.conv_general_dilated(
            x, kernel, (self.stride, self.stride), (around, around), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )


_SMALL_MAP = 2  # output maps up to 2x2: XLA's CPU convolution leaves its fast path there (4 ms where patches take 0.5)


def _patches(x: Float[Array, "n h w c"], size: int, stride: int) -> Float[Array, "n h2 w2 patch"]:
    """Return each output pixel's window, rows before columns before channels, as a kernel's axes are flattened."""
    _, height, width, _ = x.shape
    around = (size // 2, size // 2)
    padded = jnp.pad(x, ((0, 0), around, around, (0, 0)))
    shifted = [
        padded[:, row : row + height : stride, column : column + width : stride]
        for row in range(size)
        for column in range(size)
    ]
    return jnp.concatenate(shifted, axis=-1)


@jax.custom_vjp
def _product(x: Float[Array, "*batch a"], kernel: Float[Array, "a b"]) -> Float[Array, "*batch b"]:
    """Return x @ kernel.

    JAX's own kernel gradient is (gradient^T x)^T, for which XLA's CPU backend writes the gradient transposed, one
    strided float at a time: a third of a training step. x^T gradient is the same numbers without that.
    """
    return x @ kernel


def _product_forward(x, kernel):
    return x @ kernel, (x, kernel)


def _product_backward(saved, gradient):
    x, kernel = saved
    rows = lax.dot_general(_rows(x), _rows(gradient), (((0,), (0,)), ((), ())))
    return lax.dot_general(gradient, kernel, (((gradient.ndim - 1,), (1,)), ((), ()))), rows


def _rows(x):
    return x.reshape(-1, x.shape[-1])


_product.defvjp(_product_forward, _product_backward)


# Batch normalisation, y = scale (x - mean) / sqrt(var + eps) + bias, with its gradient written out; ReLU included.
#
# What comes in half precision goes out in it, and is widened in between: sums and statistics are float32's at least.

_EPSILON = 1e-5
_MOMENTUM = 0.9  # of the running statistics; torchvision calls it 0.1


class BatchNorm(nn.Module):
    """Normalise over everything but channels: by the batch while training, by the running statistics otherwise.

    The running variance is the unbiased one, as in torchvision, whose pretrained weights carry it.
    """

    relu: bool = False
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, "*batch c"], train: bool) -> Float[Array, "*batch c"]:
        """Return the normalised values."""
        channels = x.shape[-1:]
        scale = self.param("scale", self.scale_init, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels)
        rows = x.reshape(-1, x.shape[-1])
        if not train:
            y = _normalise(_wide(rows), *_affine(running_mean.value, running_var.value, scale, bias), self.relu)
            return y.astype(x.dtype).reshape(x.shape)
        normalised: Any = _normalise_batch(self.relu, rows, scale, bias)
        y, mean, var = normalised
        if not self.is_initializing():
            count = len(rows)
            running_mean.value = _MOMENTUM * running_mean.value + (1 - _MOMENTUM) * mean
            running_var.value = _MOMENTUM * running_var.value + (1 - _MOMENTUM) * var * (count / max(count - 1, 1))
        return y.reshape(x.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _normalise_batch(relu: bool, x: Float[Array, "n c"], scale: Float[Array, "c"], bias: Float[Array, "c"]):
    """Return the normalised rows, their mean and their (biased) variance; the last two only feed running statistics.

    The gradient is written out because automatic differentiation passes over the rows about twice as often:

        g' = g where y > 0;  dbias = sum g';  dscale = sum g' x_hat;  dx = scale / sd (g' - dbias/n - x_hat dscale/n)
    """
    return _forward(relu, x, scale, bias)[0]


def _forward(relu, x, scale, bias):
    wide = _wide(x)
    mean = jnp.mean(wide, axis=0)
    var = jnp.maximum(jnp.mean(wide * wide, axis=0) - mean * mean, 0.0)  # one pass over x; rounding must not go below 0
    y = _normalise(wide, *_affine(mean, var, scale, bias), relu).astype(x.dtype)
    return (y, mean, var), (x, mean, var, scale, bias)


def _backward(relu, saved, gradients):
    narrow, mean, var, scale, bias = saved
    x, gradient = _wide(narrow), _wide(gradients[0])
    factor, offset = _affine(mean, var, scale, bias)
    if relu:
        gradient = jnp.where(x * factor[None] + offset[None] > 0, gradient, 0.0)
    bias_gradient = jnp.sum(gradient, axis=0)
    inverse_sd = lax.rsqrt(var + _EPSILON)
    scale_gradient = (jnp.sum(gradient * x, axis=0) - mean * bias_gradient) * inverse_sd
    slope = factor * inverse_sd * scale_gradient / len(x)
    level = factor * bias_gradient / len(x) - mean * slope
    x_gradient = gradient * factor[None] - x * slope[None] - level[None]
    return x_gradient.astype(narrow.dtype), scale_gradient, bias_gradient


_normalise_batch.defvjp(_forward, _backward)


def _wide(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _affine(mean, var, scale, bias):
    """Return (factor, offset) of y = factor x + offset."""
    factor = scale * lax.rsqrt(var + _EPSILON)
    return factor, bias - mean * factor


def _normalise(x, factor, offset, relu):
    y = x * factor[None] + offset[None]
    return jnp.maximum(y, 0.0) if relu else y
