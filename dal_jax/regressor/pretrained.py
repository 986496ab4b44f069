"""ResNet50 weights of others (ImageNet's, as a rule) from a .safetensors file, by explicit tables of names.

torchvision and timm name the same tensors alike; Hugging Face (`microsoft/resnet-50`) has names of its own. All three
put the stride into the 3x3 convolution, normalise with epsilon 1e-5, keep the unbiased running variance and expect
pixels less ImageNet's mean over its deviation, which is what `model.Regressor` feeds its trunk whatever the weights.
"""

import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dal_jax.regressor import resnet
from dal_jax.runtime import door
from dal_jax.runtime.errors import InputError, needs_extra

HEADS = ("fc.weight", "fc.bias", "classifier.1.weight", "classifier.1.bias")
"""The classifiers of torchvision and timm, and of Hugging Face: not part of the trunk, ignored."""

_COUNTER = ".num_batches_tracked"  # of PyTorch's normalisation; means nothing to a momentum that is fixed
_NORMALISATION = (("weight", "params", "scale"), ("bias", "params", "bias"),
                  ("running_mean", "batch_stats", "mean"), ("running_var", "batch_stats", "var"))  # fmt: skip
_READABLE = ("F16", "F32", "F64")


Layout = Callable[[], Iterator[tuple[str, str]]]
"""Yields the names of the 53 convolutions of a ResNet50 and of their normalisations."""


def torchvision() -> Iterator[tuple[str, str]]:
    """Yield torchvision's and timm's names."""
    yield "conv1", "bn1"
    for stage, block, layer in _units():
        place = f"layer{stage + 1}.{block}"
        shortcut = f"{place}.downsample.0", f"{place}.downsample.1"
        yield (f"{place}.conv{layer}", f"{place}.bn{layer}") if layer else shortcut


def hugging_face() -> Iterator[tuple[str, str]]:
    """Yield Hugging Face's names."""
    places = [
        f"encoder.stages.{stage}.layers.{block}." + (f"layer.{layer - 1}" if layer else "shortcut")
        for stage, block, layer in _units()
    ]
    for place in ["embedder.embedder", *places]:
        yield f"{place}.convolution", f"{place}.normalization"


def _ours() -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Yield where the convolutions and their normalisations stand in the trunk's variables."""
    yield ("conv1",), ("bn1",)
    for stage, block, layer in _units():
        names = (f"conv{layer}", f"bn{layer}") if layer else ("downsample_conv", "downsample_bn")
        yield (f"layer{stage + 1}_{block}", names[0]), (f"layer{stage + 1}_{block}", names[1])


def _units() -> Iterator[tuple[int, int, int]]:
    """Yield (stage, block, layer) of all but the first convolution; layers 1 to 3, and 0, the shortcut."""
    for stage, blocks in enumerate(resnet.BLOCKS):
        for block in range(blocks):
            yield from ((stage, block, layer) for layer in ((1, 2, 3) if block else (1, 2, 3, 0)))


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


def names(layout: Layout, prefix: str = "") -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (name of a tensor, its place in the trunk's variables) of a layout, the name behind a prefix."""
    for (convolution, normalisation), place in zip(layout(), _ours(), strict=True):
        yield f"{prefix}{convolution}.weight", ("params", *place[0], "kernel")
        for theirs, collection, ours in _NORMALISATION:
            yield f"{prefix}{normalisation}.{theirs}", (collection, *place[1], ours)


def _read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read all tensors but classifiers and counters."""
    with needs_extra("data"):
        import safetensors
    if pathlib.Path(path).is_dir():
        raise InputError(f"{path}: is a folder, not a .safetensors file")
    try:
        door.opened(path).close()
        with safetensors.safe_open(path, framework="numpy") as file:
            names = [name for name in file.keys() if name not in HEADS and not name.endswith(_COUNTER)]  # noqa: SIM118
            for name in names:
                if (kind := file.get_slice(name).get_dtype()) not in _READABLE:
                    raise InputError(f"{path}: tensor '{name}' is of type {kind}, not {', '.join(_READABLE)}")
            return {name: file.get_tensor(name) for name in names}
    except (OSError, safetensors.SafetensorError) as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not a readable .safetensors file: {why}") from error


def _table(path: str | os.PathLike[str], tensors: dict[str, np.ndarray]) -> dict[str, tuple[str, ...]]:
    """Return {the file's name of a tensor: its place in our variables} in the layout that the file has."""
    layouts = (torchvision, ""), (hugging_face, "resnet."), (hugging_face, "")
    tables = [dict(names(layout, prefix)) for layout, prefix in layouts]
    firsts = [next(iter(table)) for table in tables]
    for first, table in zip(firsts, tables, strict=True):
        if first in tensors:
            return table
    begins = f"it begins with '{min(tensors)}'" if tensors else "it is empty"
    raise InputError(
        f"{path}: is no ResNet50 of torchvision, timm or Hugging Face: it has none of "
        f"{', '.join(map(repr, firsts))}; {begins}"
    )


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
