"""ResNet50 v1.5 (He et al. 2016; the stride in the 3x3 convolution), any width and image size, NHWC."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from dal_jax.regressor.layers import BatchNorm, Convolution

BLOCKS = (3, 4, 6, 3)
"""Bottlenecks of each stage."""
DEPTHS = {50: BLOCKS, 26: (2, 2, 2, 2), 14: (1, 1, 1, 1)}
"""The same by the number of layers: the published network, and shallower ones of its kind."""
_EXPANSION = 4


class ResNet50(nn.Module):
    """The trunk, without the classifier: images to `32 * width` features, which are float32 or wider.

    width: channels of the first convolution and of the first stage's bottlenecks; 64 is the published network, with
    23,508,032 parameters. The image's dtype is that of all activations.
    blocks: bottlenecks of each stage; fewer than `BLOCKS` are a shallower network.
    """

    width: int = 64
    blocks: tuple[int, ...] = BLOCKS

    @nn.compact
    def __call__(self, x: Float[Array, "n h w 3"], train: bool) -> Float[Array, "n features"]:
        """Return the features of images."""
        x = Convolution(self.width, 7, 2, name="conv1")(x)
        x = BatchNorm(relu=True, name="bn1")(x, train)
        x = max_pool(x)
        for stage, blocks in enumerate(self.blocks):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                x = Bottleneck(self.width << stage, stride, name=f"layer{stage + 1}_{block}")(x, train)
        return jnp.mean(x, axis=(1, 2), dtype=jnp.promote_types(x.dtype, jnp.float32))


class Bottleneck(nn.Module):
    """1x1 to `width` channels, 3x3 with the stride, 1x1 to four times `width`; added to the input, then ReLU.

    The input is projected where its shape differs. The last normalisation's scale starts at zero (Goyal et al. 2017),
    so that a block starts as the identity: from random weights, 600 steps on 4,800 people of the demo then end at 140
    mm from held-out registrations instead of 166, and bear three times the learning rate (127 mm).
    """

    width: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h2 w2 c2"]:
        """Return the maps after the block."""
        features = _EXPANSION * self.width
        normalise = functools.partial(BatchNorm, relu=False)
        y = Convolution(self.width, 1, name="conv1")(x)
        y = normalise(relu=True, name="bn1")(y, train)
        y = Convolution(self.width, 3, self.stride, name="conv2")(y)
        y = normalise(relu=True, name="bn2")(y, train)
        y = Convolution(features, 1, name="conv3")(y)
        y = normalise(scale_init=nn.initializers.zeros, name="bn3")(y, train)
        if self.stride != 1 or x.shape[-1] != features:
            x = Convolution(features, 1, self.stride, name="downsample_conv")(x)
            x = normalise(name="downsample_bn")(x, train)
        return nn.relu(x + y)


def max_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
    """Return the maximum over 3x3 windows, stride 2, of values that are not negative (they come from a ReLU).

    Written as maxima of shifted copies, rows first, then columns: the gradient of XLA's `reduce_window` takes six times
    as long on a CPU. Where values tie, the gradient is shared between them.
    """
    _, height, width, _ = x.shape
    x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))  # zeros are no greater than any value
    return _max_of_three(_max_of_three(x, 1), 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_of_three(x, axis: int):
    """Return the maximum of rows (or columns) 2i-1, 2i, 2i+1.

    The gradient is written out: automatic differentiation, whose numbers are the same, spreads each half over the whole
    before it adds them, and takes 1.6 times as long.
    """
    even, odd = _halves(x, axis)
    return jnp.maximum(jnp.maximum(even, odd), _after(odd, axis))


def _max_forward(x, axis):
    return _max_of_three(x, axis), x


def _max_backward(axis, x, gradient):
    even, odd = _halves(x, axis)
    pair, before = jnp.maximum(even, odd), _after(odd, axis)
    to_pair = _share(gradient, pair, before)
    to_odd = _share(to_pair, odd, even) + _before(_share(gradient, before, pair), axis)
    return (jnp.stack([_share(to_pair, even, odd), to_odd], axis=axis + 1).reshape(x.shape),)


_max_of_three.defvjp(_max_forward, _max_backward)


def _share(gradient, one, other):
    """Return the part of a maximum's gradient that is due to `one`."""
    return jnp.where(one > other, gradient, jnp.where(one == other, 0.5 * gradient, 0.0))


def _halves(x, axis):
    pairs = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
    return (lax.index_in_dim(pairs, half, axis + 1, keepdims=False) for half in (0, 1))


def _after(x, axis):
    """Move everything one place on; the first place is 0."""
    around = [(int(other == axis), 0) for other in range(x.ndim)]
    return jnp.pad(lax.slice_in_dim(x, 0, x.shape[axis] - 1, axis=axis), around)


def _before(x, axis):
    """Move everything one place back; the last place is 0."""
    around = [(0, int(other == axis)) for other in range(x.ndim)]
    return jnp.pad(lax.slice_in_dim(x, 1, x.shape[axis], axis=axis), around)
