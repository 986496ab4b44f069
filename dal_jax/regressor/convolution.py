"""Convolutions, NHWC, that are fast on a CPU too: matrix products wherever XLA's own convolution is slow there.

Training step of the width 16, 64 px, batch 32 ResNet50, ms of CPU time on two x86-64 cores with jax 0.10: Linen's
convolutions 272; 1x1 as a matrix product 238; also 2x2 maps as patches, the fused normalisation of `batch_norm` and
pooling without select-and-scatter 167; also the matrix product's gradient as it is written here 117.

Kernels are kept in float32; they are rounded to the dtype of what they are applied to, so that the image's dtype is
that of a whole network's products.
"""

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


class PointwiseConvolution(nn.Module):
    """A 1x1 convolution without bias; a stride drops rows and columns before the product."""

    features: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 features"]:
        kernel = self.param("kernel", _INITIALIZER, (1, 1, x.shape[-1], self.features))
        return _product(x[:, :: self.stride, :: self.stride], kernel[0, 0].astype(x.dtype))


class Convolution(nn.Module):
    """A square convolution without bias, zeros around the image: output pixels = ceil(input pixels / stride)."""

    features: int
    size: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 features"]:
        kernel = self.param("kernel", _INITIALIZER, (self.size, self.size, x.shape[-1], self.features))
        kernel = kernel.astype(x.dtype)
        if min(x.shape[1:3]) <= _SMALL_MAP * self.stride:
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
