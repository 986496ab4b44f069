"""Our ResNet50 is PyTorch's, in both modes and with its gradients: a golden comparison on the same random weights.

`python -m benchmarks.torch_resnet_parity` made the file, with a network written in PyTorch in torchvision's layout. The
weights are drawn anew here and go through a .safetensors file, so the loader's names and axes are compared too.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from benchmarks import state_dict
from dal_jax.regressor import model, resnet
from dal_jax.regressor.model import RegressorConfig
from dal_jax.regressor.resnet import ResNet50

GOLDEN = pathlib.Path(__file__).with_name("resnet_parity.npz")
FLOAT64 = 1e-9  # relative to the largest value; measured 1e-12: 53 normalised layers in another order of summation
FLOAT32 = 1e-4  # the same, as promised; measured 7e-7 in evaluation, 7e-5 in training, where PyTorch's own is 4e-5 off
FLOAT32_GRADIENT = 1e-3  # measured 4e-4; PyTorch's float32 gradients are up to 3e-4 from its float64 ones here


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


@functools.cache
def _shapes(width: int):
    config = RegressorConfig(width=width, image_size=64)
    return {collection: leaves["trunk"] for collection, leaves in model.variable_shapes(config).items()}


def _names() -> dict[str, tuple[str, ...]]:
    """Return {torchvision's name of a tensor: its place in our variables}."""
    return dict(resnet.names(resnet.torchvision))


def _at(tree, place):
    return functools.reduce(lambda branch, name: branch[name], place, tree)


def _in_torch_order(leaf):
    return np.asarray(leaf).transpose(3, 2, 0, 1) if np.ndim(leaf) == 4 else np.asarray(leaf)


def _draw(golden, case: str, width: int, folder: pathlib.Path):
    """Return (variables, images in our order of axes, cotangent, generator of what follows)."""
    placed = {name: _at(_shapes(width), place).shape for name, place in _names().items()}
    theirs = {name: tuple(np.array(s)[[3, 2, 0, 1]]) if len(s) == 4 else s for name, s in placed.items()}
    drawn = state_dict.random_state_dict(theirs, seed=int(golden[f"{case}_seed"]))
    safetensors.numpy.save_file(drawn, folder / "weights.safetensors")
    variables = resnet.load_trunk(folder / "weights.safetensors", _shapes(width))
    random = np.random.RandomState(width + 1)
    images, pixels = len(golden[f"{case}_evaluation"]), int(golden[f"{case}_pixels"])
    image = random.normal(size=(images, 3, pixels, pixels)).transpose(0, 2, 3, 1)
    return variables, image, random.normal(size=(images, 32 * width)), random


def _near(found, wanted, tolerance):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


@functools.partial(jax.jit, static_argnums=0)
def _train(width, variables, image, cotangent):
    """Return features, new running statistics, gradients by the weights and by the image."""

    def objective(params, image):
        features, updated = ResNet50(width).apply(
            {"params": params, "batch_stats": variables["batch_stats"]}, image, True, mutable=["batch_stats"]
        )
        return jnp.sum(features * cotangent), (features, updated["batch_stats"])

    gradient, (features, running) = jax.grad(objective, (0, 1), has_aux=True)(variables["params"], image)
    return features, running, gradient


@pytest.mark.parametrize(
    ("bits", "tolerance", "gradient_tolerance"), [(64, FLOAT64, FLOAT64), (32, FLOAT32, FLOAT32_GRADIENT)]
)
def test_the_narrow_network_answers_and_learns_as_pytorch_s(golden, tmp_path, bits, tolerance, gradient_tolerance):
    with jax.enable_x64(bits == 64):
        variables, image, cotangent, random = _draw(golden, "narrow", 4, tmp_path)
        real = np.float64 if bits == 64 else np.float32
        variables, image, cotangent = jax.tree.map(lambda leaf: np.asarray(leaf, real), (variables, image, cotangent))
        evaluate = jax.jit(functools.partial(ResNet50(4).apply, train=False))
        _near(evaluate(variables, image), golden["narrow_evaluation"], tolerance)
        features, running, (gradient, image_gradient) = _train(4, variables, image, cotangent)
        assert features.dtype == real
    _near(features, golden["narrow_training"], tolerance)
    places = _names()
    found = [_in_torch_order(_at({"batch_stats": running}, places[name])) for name in golden["narrow_running_names"]]
    _near(np.concatenate(found), golden["narrow_running"], tolerance)
    for row, name in enumerate(golden["narrow_names"].tolist()):
        ours = (
            np.asarray(image_gradient).transpose(0, 3, 1, 2)
            if name == "image"
            else _in_torch_order(_at({"params": gradient}, places[name]))
        )
        length = golden["narrow_length"][row]
        direction = random.normal(size=ours.shape)
        assert abs(np.linalg.norm(ours.astype(np.float64)) / length - 1) < gradient_tolerance, name
        assert abs(np.sum(ours * direction) - golden["narrow_projection"][row]) < gradient_tolerance * length, name
        if f"narrow_gradient_{name}" in golden:
            _near(ours, golden[f"narrow_gradient_{name}"], gradient_tolerance)


def test_the_published_width_answers_as_pytorch_s(golden, tmp_path):
    variables, image, _, _ = _draw(golden, "published", 64, tmp_path)
    apply = jax.jit(functools.partial(ResNet50(64).apply, mutable=["batch_stats"]), static_argnames="train")
    for train, mode in ((False, "evaluation"), (True, "training")):
        features, _ = apply(variables, jnp.asarray(image, jnp.float32), train=train)
        _near(features, golden[f"published_{mode}"], FLOAT32)
