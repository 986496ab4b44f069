"""Batch normalisation, y = scale (x - mean) / sqrt(var + eps) + bias, with its gradient written out; ReLU included.

What comes in half precision goes out in it, and is widened in between: sums and statistics are float32's at least.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

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
        channels = x.shape[-1:]
        scale = self.param("scale", self.scale_init, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels)
        rows = x.reshape(-1, x.shape[-1])
        if not train:
            y = _normalise(_wide(rows), *_affine(running_mean.value, running_var.value, scale, bias), self.relu)
            return y.astype(x.dtype).reshape(x.shape)
        y, mean, var = _normalise_batch(self.relu, rows, scale, bias)
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
