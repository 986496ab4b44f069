"""ResNet50 in PyTorch beside ours and plain Linen's: the same weights, images and loss, one run.

  python -m benchmarks.torch_regressor --out=benchmarks/torch_regressor.json      about two minutes on two cores
  python -m benchmarks.torch_regressor --width=64 --image_size=224 --out=benchmarks/torch_regressor_64.json

A training step is the answer, the mean of squares from 105 numbers, its gradient, Adam 1e-4 and the running statistics;
inference answers by these. PyTorch has its channels last, its fused Adam, nothing compiled, once one thread and once a
thread a core; JAX has all cores. It stops if ours and PyTorch's answers or loss differ by more than 1e-3 (relative to
the largest number; float32, 53 normalised layers).
"""

import json
import pathlib

import jax
import numpy as np
import torch
from absl import flags

from benchmarks import resnet_comparison
from benchmarks.regressor import Case
from dal_jax.runtime import cli, files, machine
from dal_jax.runtime.errors import InputError

_WIDTH = flags.DEFINE_integer("width", 16, "Channels of the first convolution.", 1)
_SIZE = flags.DEFINE_integer("image_size", 64, "Side of the images, px.", 32)
_BATCH = flags.DEFINE_integer("batch", 30, "Images at once.", 2)
_THREADS = flags.DEFINE_multi_integer("torch_threads", None, "Of PyTorch; left out: 1, and a thread a core.", 1)
_SECONDS = flags.DEFINE_float("seconds", 30.0, "How long the programs take turns.", 0.0)
_OUT = flags.DEFINE_string("out", None, "Write the rows here too, as one JSON list.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the file of --out.")


def main(_: list[str]) -> None:
    """Check that both compute the same; take turns; print."""
    if _OUT.value and pathlib.Path(_OUT.value).exists() and not _OVERWRITE.value:
        raise InputError(f"--out={_OUT.value} exists; --overwrite replaces it")
    case = Case(_WIDTH.value, _SIZE.value, _BATCH.value)
    found = resnet_comparison.rows(case, _THREADS.value or sorted({1, machine.cores()}), _SECONDS.value)
    plain = [{name: _plain(value) for name, value in {**row, "torch": torch.__version__}.items()} for row in found]
    for row in plain:
        print(json.dumps(row, allow_nan=False), flush=True)
    if _OUT.value:
        files.write_json(_OUT.value, plain)


def _plain(value: object) -> object:
    return float(f"{value:.6g}") if isinstance(value, float | np.floating) else value


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    cli.run(main)
