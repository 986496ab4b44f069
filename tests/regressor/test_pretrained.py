"""Pretrained weights: every layout gives the same network; what does not fit is named in one line."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import safetensors.numpy

from benchmarks import state_dict
from dal_jax.regressor import model, pretrained, training
from dal_jax.runtime.errors import InputError

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
    names = pretrained.names(pretrained.torchvision)
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
    return pretrained.load_trunk(path, _shapes())


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
            pretrained.load_trunk(path, _shapes())
