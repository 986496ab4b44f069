"""Write the golden file of tests/benchmarks/test_resnet_parity.py: ResNet50 in PyTorch, random weights, float64.

  python -m benchmarks.torch_resnet_parity --out=tests/benchmarks/resnet_parity.npz

A narrow network (`torch_resnet.py`), of width 4, answers in evaluation and in training mode, with its new running
statistics and its gradients; the published width answers in both modes. Of a gradient the file holds its projection on
random numbers and its length, tensor by tensor, and three tensors whole.
"""

import pathlib

import numpy as np
import torch
from absl import flags

from benchmarks import state_dict
from benchmarks.torch_resnet import ResNet50
from dal_jax.runtime import cli, files
from dal_jax.runtime.errors import InputError

_OUT = flags.DEFINE_string("out", None, "The golden file, .npz.", required=True)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the file of --out.")

_WHOLE = ("conv1.weight", "layer2.0.downsample.0.weight", "layer4.2.bn3.weight")


def main(_: list[str]) -> None:
    """Draw, run, write."""
    if pathlib.Path(_OUT.value).exists() and not _OVERWRITE.value:
        raise InputError(f"--out={_OUT.value} exists; --overwrite replaces it")
    narrow, published = _answers(4, 3, 64, gradients=True), _answers(64, 3, 96, gradients=False)
    fields = {f"narrow_{name}": value for name, value in narrow.items()}
    files.savez(_OUT.value, **fields, **{f"published_{name}": value for name, value in published.items()})
    print(f"{_OUT.value}: features of {narrow['evaluation'].std():.3g} and {published['evaluation'].std():.3g}")


def _answers(width: int, images: int, pixels: int, gradients: bool) -> dict[str, np.ndarray]:
    network = ResNet50(width).double()
    tensors = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    drawn = state_dict.random_state_dict({name: tuple(value.shape) for name, value in tensors.items()}, seed=width)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in drawn.items()}, strict=False)
    random = np.random.RandomState(width + 1)
    image = torch.from_numpy(random.normal(size=(images, 3, pixels, pixels))).requires_grad_()
    cotangent = torch.from_numpy(random.normal(size=(images, 32 * width)))
    answers = {
        "seed": np.array(width),
        "pixels": np.array(pixels),
        "evaluation": network.eval()(image).detach().numpy(),
    }
    features = network.train()(image)
    answers["training"] = features.detach().numpy()
    if not gradients:  # float32 keeps what a network of that size is compared to
        return {name: value.astype(np.float32) if value.ndim else value for name, value in answers.items()}
    (features * cotangent).sum().backward()
    found = {name: value.grad.numpy() for name, value in network.named_parameters()} | {"image": image.grad.numpy()}
    found = {name: found[name] for name in sorted(found)}
    answers["names"] = np.array(list(found))
    answers["projection"] = np.array([np.sum(found[name] * random.normal(size=found[name].shape)) for name in found])
    answers["length"] = np.array([np.linalg.norm(gradient) for gradient in found.values()])
    running = {name: value.numpy() for name, value in network.state_dict().items() if "running" in name}
    answers["running_names"] = np.array(sorted(running))
    answers["running"] = np.concatenate([running[name] for name in sorted(running)])
    return answers | {f"gradient_{name}": found[name] for name in _WHOLE}


if __name__ == "__main__":
    cli.run(main)
