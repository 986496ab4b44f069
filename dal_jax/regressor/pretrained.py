"""ResNet50 weights of others (ImageNet's, as a rule) from a .safetensors file, by explicit tables of names.

torchvision and timm name the same tensors alike; Hugging Face (`microsoft/resnet-50`) has names of its own. All three
put the stride into the 3x3 convolution, normalise with epsilon 1e-5, keep the unbiased running variance and expect
pixels less ImageNet's mean over its deviation, which is what `model.Regressor` feeds its trunk whatever the weights.
"""

import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors
from jaxtyping import Float

from dal_jax.regressor import resnet
from dal_jax.runtime.errors import InputError

HEADS = ("fc.weight", "fc.bias", "classifier.1.weight", "classifier.1.bias")
"""The classifiers of torchvision and timm, and of Hugging Face: not part of the trunk, ignored."""

_COUNTER = ".num_batches_tracked"  # of PyTorch's normalisation; means nothing to a momentum that is fixed
_NORMALISATION = (("weight", "params", "scale"), ("bias", "params", "bias"),
                  ("running_mean", "batch_stats", "mean"), ("running_var", "batch_stats", "var"))  # fmt: skip
_READABLE = ("F16", "F32", "F64")


class Unit(NamedTuple):
    """A convolution and its normalisation: where ours stand in the trunk's variables, and what others call them."""

    convolution: tuple[str, ...]
    normalisation: tuple[str, ...]
    torchvision: tuple[str, str]
    hugging_face: tuple[str, str]


def units() -> Iterator[Unit]:
    """Yield the 53 convolutions of a ResNet50 with their names."""

    def named(prefix: str) -> tuple[str, str]:
        return f"{prefix}.convolution", f"{prefix}.normalization"

    yield Unit(("conv1",), ("bn1",), ("conv1", "bn1"), named("embedder.embedder"))
    for stage, blocks in enumerate(resnet.BLOCKS):
        for block in range(blocks):
            ours, theirs = f"layer{stage + 1}_{block}", f"layer{stage + 1}.{block}"
            place = f"encoder.stages.{stage}.layers.{block}"
            for layer in (1, 2, 3):
                names = (f"{theirs}.conv{layer}", f"{theirs}.bn{layer}")
                yield Unit((ours, f"conv{layer}"), (ours, f"bn{layer}"), names, named(f"{place}.layer.{layer - 1}"))
            if block == 0:
                names = (f"{theirs}.downsample.0", f"{theirs}.downsample.1")
                yield Unit((ours, "downsample_conv"), (ours, "downsample_bn"), names, named(f"{place}.shortcut"))


def load_trunk(path: str | os.PathLike[str], shapes: Any) -> Any:
    """Return the trunk's variables, {'params', 'batch_stats'}, from a file.

    Args:
      path: .safetensors in the layout of torchvision, timm or Hugging Face; float16, float32 or float64.
      shapes: the trunk's variables as arrays or `jax.ShapeDtypeStruct`: what the configured network asks for.

    Raises:
      errors.InputError: unreadable, of no known layout, or a tensor is missing, unknown, misshaped or not finite.
    """
    tensors = _read(path)
    wanted = _table(path, tensors)
    missing = [name for name in wanted if name not in tensors]
    unknown = [name for name in tensors if name not in wanted]
    for names, what in ((missing, "is missing"), (unknown, "belongs to no ResNet50")):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise InputError(f"{path}: tensor '{names[0]}' {what}{more}")
    trunk: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for name, place in wanted.items():
        _put(trunk, place, _checked(path, name, tensors[name], _get(shapes, place)))
    return trunk


def names(choose: Callable[[Unit], tuple[str, str]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (name of a tensor, its place in the trunk's variables), where `choose` gives a unit's two names."""
    for unit in units():
        convolution, normalisation = choose(unit)
        yield f"{convolution}.weight", ("params", *unit.convolution, "kernel")
        for theirs, collection, ours in _NORMALISATION:
            yield f"{normalisation}.{theirs}", (collection, *unit.normalisation, ours)


def _read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read all tensors but classifiers and counters."""
    if pathlib.Path(path).is_dir():
        raise InputError(f"{path}: is a folder, not a .safetensors file")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            names = [name for name in file.keys() if name not in HEADS and not name.endswith(_COUNTER)]  # noqa: SIM118
            for name in names:
                if (kind := file.get_slice(name).get_dtype()) not in _READABLE:
                    raise InputError(f"{path}: tensor '{name}' is of type {kind}, not {', '.join(_READABLE)}")
            return {name: file.get_tensor(name) for name in names}
    except (OSError, safetensors.SafetensorError) as error:
        told = "no such file" if isinstance(error, FileNotFoundError) else " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not a readable .safetensors file: {told}") from error


def _table(path: str | os.PathLike[str], tensors: dict[str, np.ndarray]) -> dict[str, tuple[str, ...]]:
    """Return {the file's name of a tensor: its place in our variables} in the layout that the file has."""
    first = next(units())
    layouts = [
        (f"{first.torchvision[0]}.weight", lambda unit: unit.torchvision),
        *[
            (f"{prefix}{first.hugging_face[0]}.weight", lambda unit, prefix=prefix: _prefixed(prefix, unit))
            for prefix in ("resnet.", "")
        ],
    ]
    for name, choose in layouts:
        if name in tensors:
            return dict(names(choose))
    begins = f"it begins with '{min(tensors)}'" if tensors else "it is empty"
    raise InputError(
        f"{path}: is no ResNet50 of torchvision, timm or Hugging Face: it has none of "
        f"{', '.join(repr(name) for name, _ in layouts)}; {begins}"
    )


def _prefixed(prefix: str, unit: Unit) -> tuple[str, str]:
    convolution, normalisation = unit.hugging_face
    return prefix + convolution, prefix + normalisation


def _checked(path, name: str, tensor: np.ndarray, wanted: Any) -> Float[jnp.ndarray, "..."]:
    """Return a tensor in float32 and in our order of axes (PyTorch's kernels: out, in, rows, columns)."""
    ours = tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor
    if ours.shape != wanted.shape:
        order = (3, 2, 0, 1) if len(wanted.shape) == 4 else range(len(wanted.shape))
        asked = tuple(wanted.shape[axis] for axis in order)
        raise InputError(f"{path}: tensor '{name}' has shape {tensor.shape}, config.regressor.width asks for {asked}")
    if not np.isfinite(tensor).all():
        raise InputError(f"{path}: tensor '{name}' holds {tensor[~np.isfinite(tensor)][0]}")
    return jnp.asarray(ours, jnp.float32)


def _get(tree: Any, place: tuple[str, ...]) -> Any:
    for name in place:
        tree = tree[name]
    return tree


def _put(tree: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    for name in place[:-1]:
        tree = tree.setdefault(name, {})
    tree[place[-1]] = value
