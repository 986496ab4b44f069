"""ResNet50: its size, a bottleneck against float64 NumPy, the pooling against XLA's; and weights of others."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from jax import lax

from benchmarks import state_dict
from dal_jax.regressor import layers, model, resnet, training
from dal_jax.regressor.resnet import Bottleneck, ResNet50
from dal_jax.runtime.errors import InputError

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


CONFIG = dataclasses.replace(model.paper(), width=4, image_size=32)


@functools.cache
def _shapes():
    return {collection: leaves["trunk"] for collection, leaves in model.variable_shapes(CONFIG).items()}


def _shape(place):
    leaf = _shapes()
    for name in place:
        leaf = leaf[name]
    return tuple(leaf.shape[axis] for axis in (3, 2, 0, 1)) if len(leaf.shape) == 4 else leaf.shape


@pytest.fixture(scope="module")
def torchvision():
    """Random weights under torchvision's names, as a file of theirs has them: with counters and classifier."""
    names = resnet.names(resnet.torchvision)
    drawn = state_dict.random_state_dict({name: _shape(place) for name, place in names}, seed=0)
    counters = {f"{name.removesuffix('.running_mean')}.num_batches_tracked": np.array(7) for name in drawn
                if name.endswith(".running_mean")}  # fmt: skip
    return drawn | counters | {"fc.weight": np.ones((1000, 128), np.float32), "fc.bias": np.ones(1000, np.float32)}


@pytest.fixture(scope="module")
def hugging_face(torchvision):
    """The same weights under Hugging Face's names, written out by the rule of its conversion script."""
    renamed = {}
    for name, value in torchvision.items():
        parts = name.split(".")
        if parts[0] == "fc":
            renamed[f"classifier.1.{parts[1]}"] = value
            continue
        kind = "convolution" if value.ndim == 4 else "normalization"
        if parts[0] in ("conv1", "bn1"):
            place = "embedder.embedder"
        else:
            layer = "shortcut" if parts[2] == "downsample" else f"layer.{int(parts[2][-1]) - 1}"
            place = f"encoder.stages.{int(parts[0][-1]) - 1}.layers.{parts[1]}.{layer}"
        renamed[f"resnet.{place}.{kind}.{parts[-1]}"] = value
    return renamed


def _load(path, tensors):
    safetensors.numpy.save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, path)
    return resnet.load_trunk(path, _shapes())


def test_every_layout_gives_the_same_trunk(torchvision, hugging_face, tmp_path):
    ours = _load(tmp_path / "a.safetensors", torchvision)
    assert jax.tree.structure(ours) == jax.tree.structure(_shapes())
    assert jax.tree.map(np.shape, ours) == jax.tree.map(lambda leaf: leaf.shape, _shapes())
    timm = {name: value for name, value in torchvision.items() if not name.endswith("num_batches_tracked")}
    base = {name.removeprefix("resnet."): value for name, value in hugging_face.items()}
    for number, tensors in enumerate((timm, hugging_face, base)):
        jax.tree.map(np.testing.assert_array_equal, ours, _load(tmp_path / f"{number}.safetensors", tensors))
    half = _load(tmp_path / "half.safetensors", {name: v.astype(np.float16) for name, v in torchvision.items()})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), ours, half)


def test_a_network_starts_from_them_with_its_own_last_layer(torchvision, tmp_path):
    path = tmp_path / "a.safetensors"
    trunk = _load(path, torchvision)
    config = dataclasses.replace(CONFIG, pretrained=str(path), average_decay=0.9)
    model.check(config)
    state = training.initial_state(config, jax.random.key(0))
    for variables in (state.trained, state.learned.variables):
        for collection in ("params", "batch_stats"):
            jax.tree.map(np.testing.assert_array_equal, variables[collection]["trunk"], trunk[collection])
        assert not np.any(variables["params"]["theta"]["kernel"])


SPOILED = {
    "missing": (lambda t: t.pop("layer3.2.conv1.weight"), "tensor 'layer3.2.conv1.weight' is missing"),
    "several missing": (lambda t: [t.pop(f"layer4.{n}.bn2.bias") for n in range(3)], "(and 2 more)"),
    "another depth": (lambda t: t.update({"layer3.6.conv1.weight": np.ones(3)}), "'layer3.6.conv1.weight' belongs to"),
    "another width": (
        lambda t: t.update({"conv1.weight": np.ones((64, 3, 7, 7))}),
        "'conv1.weight' has shape (64, 3, 7, 7), config.regressor.width asks for (4, 3, 7, 7)",
    ),
    "not finite": (lambda t: t.update({"bn1.bias": np.full(4, np.inf)}), "tensor 'bn1.bias' holds inf"),
    "whole numbers": (lambda t: t.update({"bn1.bias": np.ones(4, np.int32)}), "'bn1.bias' is of type I32"),
    "another network": (lambda t: t.update({"conv1.0.weight": t.pop("conv1.weight")}), "is no ResNet50 of torchvision"),
    "nothing": (lambda t: t.clear(), "it is empty"),
}


@pytest.mark.parametrize("spoil", SPOILED)
def test_what_does_not_fit_is_named_in_one_line(torchvision, tmp_path, spoil):
    change, told = SPOILED[spoil]
    tensors = dict(torchvision)
    change(tensors)
    with pytest.raises(InputError) as caught:
        _load(tmp_path / "spoiled.safetensors", tensors)
    assert told in str(caught.value) and "spoiled.safetensors" in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_none_are_named(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"PK\x03\x04 a pickle, which is never opened")
    for path in (tmp_path / "weights.pth", tmp_path / "absent.safetensors", tmp_path):
        with pytest.raises(InputError, match=str(path)):
            resnet.load_trunk(path, _shapes())
