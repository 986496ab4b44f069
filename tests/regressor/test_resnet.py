"""ResNet50: its size, a bottleneck against float64 NumPy, and the pooling against XLA's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dal_jax.regressor import layers, resnet
from dal_jax.regressor.resnet import Bottleneck, ResNet50

FLOAT32 = 2e-4  # three layers of unit variance, up to 72 products a sum


def test_the_published_network_has_torchvision_s_number_of_parameters():
    image = jnp.zeros((1, 224, 224, 3))
    shapes = jax.eval_shape(lambda: ResNet50(64).init(jax.random.key(0), image, False))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 23_508_032
    convolutions = [leaf for leaf in jax.tree.leaves(shapes["params"]) if leaf.ndim == 4]
    assert len(convolutions) == 53


@pytest.mark.parametrize("size", [32, 40, 64])
def test_any_image_size_gives_the_same_features(size):
    image = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    network = ResNet50(4)
    variables = jax.eval_shape(lambda image: network.init(jax.random.key(0), image, False), image)
    features = jax.eval_shape(lambda variables, image: network.apply(variables, image, False), variables, image)
    assert features.shape == (2, 32 * 4)


@pytest.mark.parametrize(("channels", "stride"), [(8, 2), (8, 1), (16, 1)])
def test_a_bottleneck_is_what_he_et_al_describe(channels, stride):
    rng = np.random.default_rng(0)
    block = Bottleneck(4, stride)
    x = rng.normal(size=(2, 6, 6, channels))
    initialise = functools.partial(block.init, train=False)
    zeros = jax.jit(initialise)(jax.random.key(0), jnp.asarray(x, jnp.float32))
    variables = layers.draw_kernels(zeros, jax.random.key(1))
    variables = jax.tree.map(
        lambda leaf: np.asarray(leaf) + rng.uniform(0, 0.3, leaf.shape).astype(np.float32), variables
    )
    assert ("downsample_conv" in variables["params"]) == (stride != 1 or channels != 16)
    actual = jax.jit(functools.partial(block.apply, train=False))(variables, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(actual, _bottleneck(variables, x, stride), atol=FLOAT32)


def _bottleneck(variables, x, stride):
    """Loops over output pixels, float64; the stride sits in the 3x3 convolution (v1.5)."""
    params, statistics = jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float64), (variables["params"], variables["batch_stats"])
    )

    def convolve(name, x, stride=1):
        kernel = params[name]["kernel"]
        around = kernel.shape[0] // 2
        padded = np.pad(x, ((0, 0), (around, around), (around, around), (0, 0)))
        side = -(-x.shape[1] // stride)
        y = np.zeros((len(x), side, side, kernel.shape[3]))
        for i in range(side):
            for j in range(side):
                window = padded[:, i * stride : i * stride + kernel.shape[0], j * stride : j * stride + kernel.shape[1]]
                y[:, i, j] = np.tensordot(window, kernel, 3)
        return y

    def normalise(name, x):
        centred = (x - statistics[name]["mean"]) / np.sqrt(statistics[name]["var"] + 1e-5)
        return centred * params[name]["scale"] + params[name]["bias"]

    y = np.maximum(normalise("bn1", convolve("conv1", x)), 0)
    y = np.maximum(normalise("bn2", convolve("conv2", y, stride)), 0)
    y = normalise("bn3", convolve("conv3", y))
    if "downsample_conv" in params:
        x = normalise("downsample_bn", convolve("downsample_conv", x, stride))
    return np.maximum(x + y, 0)


@pytest.mark.parametrize(("train", "tolerance"), [(False, 1e-2), (True, 3e-2)])
def test_half_precision_changes_features_by_its_rounding(train, tolerance):
    """As drawn: measured 0.004 of their length in evaluation, 0.010 in training, where the batch's statistics move too.

    Their dtype, and that of the running statistics, is float32's.
    """
    rng = np.random.default_rng(0)
    image = np.kron(rng.normal(size=(8, 4, 4, 3)), np.ones((1, 8, 8, 1))) + rng.normal(0, 0.1, (8, 32, 32, 3))
    image = jnp.asarray(image, jnp.float32)
    network = ResNet50(4)
    zeros = jax.jit(functools.partial(network.init, train=False))(jax.random.key(0), image)
    variables = layers.draw_kernels(zeros, jax.random.key(1))
    apply = jax.jit(functools.partial(network.apply, train=train, mutable=["batch_stats"]))
    wide, _ = apply(variables, image)
    half, running = apply(variables, image.astype(jnp.bfloat16))
    assert 0 < np.linalg.norm(half - wide) < tolerance * np.linalg.norm(wide)
    assert {leaf.dtype.name for leaf in (half, *jax.tree.leaves(running))} == {"float32"}


@pytest.mark.parametrize("pixels", [8, 7])
def test_pooling_is_xla_s_and_so_is_its_gradient(pixels):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.permutation(2 * pixels * pixels * 3).reshape(2, pixels, pixels, 3), jnp.float32)  # no ties

    def reduce_window(x):
        around = ((0, 0), (1, 1), (1, 1), (0, 0))
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), around)

    side = -(-pixels // 2)
    gradient = jnp.asarray(rng.integers(-9, 9, (2, side, side, 3)), jnp.float32)  # small integers add exactly

    @functools.partial(jax.jit, static_argnums=0)
    def pooled(pool, x):
        y, backward = jax.vjp(pool, x)
        return y, backward(gradient)[0]

    for ours, theirs in zip(pooled(resnet.max_pool, x), pooled(reduce_window, x), strict=True):
        np.testing.assert_array_equal(ours, theirs)
