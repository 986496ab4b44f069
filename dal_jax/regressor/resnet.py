"""ResNet50 v1.5 (He et al. 2016; the stride in the 3x3 convolution), any width and image size, NHWC.

The last part reads the weights of others (ImageNet's, as a rule) from a .safetensors file, by explicit tables of names.
torchvision and timm name the same tensors alike; Hugging Face (`microsoft/resnet-50`) has names of its own. All three
put the stride into the 3x3 convolution, normalise with epsilon 1e-5, keep the unbiased running variance and expect
pixels less ImageNet's mean over its deviation, which is what `model.Regressor` feeds its trunk whatever the weights.
"""

import functools
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from dal_jax.regressor.layers import BatchNorm, Convolution
from dal_jax.runtime import door
from dal_jax.runtime.errors import InputError, needs_extra

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
    for stage, blocks in enumerate(BLOCKS):
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
