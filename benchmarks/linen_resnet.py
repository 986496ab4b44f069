"""ResNet50 v1.5 as one writes it in plain Linen, to measure ours against: nn.Conv, nn.BatchNorm, nn.max_pool."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from dal_jax.regressor import resnet

_PADDING_1, _PADDING_3 = ((1, 1), (1, 1)), ((3, 3), (3, 3))
# Kernels are drawn afterwards, by `layers.draw_kernels`: 53 generators in one program compile slowly
_convolution = functools.partial(nn.Conv, use_bias=False, kernel_init=nn.initializers.zeros)


class LinenResNet50(nn.Module):
    """The trunk; the same function as `resnet.ResNet50`, but for gradients where the pooling's values tie.

    width: channels of the first convolution. blocks: bottlenecks of each stage.
    """

    width: int = 64
    blocks: tuple[int, ...] = resnet.BLOCKS

    @nn.compact
    def __call__(self, x: Float[Array, "n h w 3"], train: bool) -> Float[Array, "n features"]:
        """Return the features of images."""
        normalise = _normalisation(train)
        x = _convolution(self.width, (7, 7), (2, 2), padding=_PADDING_3, name="conv1")(x)
        x = nn.relu(normalise(name="bn1")(x))
        x = nn.max_pool(x, (3, 3), (2, 2), padding=_PADDING_1)
        for stage, blocks in enumerate(self.blocks):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                x = _Bottleneck(self.width << stage, stride, name=f"layer{stage + 1}_{block}")(x, train)
        return jnp.mean(x, axis=(1, 2))


class _Bottleneck(nn.Module):
    width: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h2 w2 c2"]:
        features, strides = 4 * self.width, (self.stride, self.stride)
        normalise = _normalisation(train)
        y = nn.relu(normalise(name="bn1")(_convolution(self.width, (1, 1), name="conv1")(x)))
        y = _convolution(self.width, (3, 3), strides, padding=_PADDING_1, name="conv2")(y)
        y = nn.relu(normalise(name="bn2")(y))
        y = _convolution(features, (1, 1), name="conv3")(y)
        y = normalise(scale_init=nn.initializers.zeros, name="bn3")(y)
        if self.stride != 1 or x.shape[-1] != features:
            x = _convolution(features, (1, 1), strides, name="downsample_conv")(x)
            x = normalise(name="downsample_bn")(x)
        return nn.relu(x + y)


def _normalisation(train: bool) -> functools.partial:
    return functools.partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
