"""Kudo et al.'s lifter in PyTorch beside ours: the same weights, the same poses, the same losses, one run.

  python -m benchmarks.torch_lifting --out=benchmarks/torch_lifting.json      about a minute on two cores

Training (`kudo`: width 1024, batch 16) and lifting, of both programs in turns. It stops if they differ on the same
weights by more than 1e-5 in what they lift, or by more than 1e-4 in the losses or in a gradient of one step (relative
to the largest number). Both programs draw their own batches and rotations. JAX has all cores, PyTorch
once one thread and once a thread a core; compare CPU time (user and system, of the whole process) on a busy machine,
where PyTorch's threads wait for each other actively, and wall time on a quiet one.
"""

import jax
import torch
from absl import flags

from benchmarks import kudo_comparison, lifting, measure, results
from dal_jax.body.formats import load
from dal_jax.lifting.config import kudo
from dal_jax.runtime import cli, machine

_STEPS = flags.DEFINE_integer("steps", 50, "Steps of training in a turn.", 1)
_BATCHES = flags.DEFINE_multi_integer("batch", [1, 64, 4096], "Poses lifted at once.", 1)
_THREADS = flags.DEFINE_multi_integer("torch_threads", None, "Of PyTorch; left out: 1, and a thread a core.", 1)
_SECONDS = flags.DEFINE_float("seconds", 20.0, "How long the programs take turns.", 0.0)
_OUT = flags.DEFINE_string("out", None, "Write the rows here too, as one JSON list.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the file of --out.")


def main(_: list[str]) -> None:
    """Check that both compute the same; take turns; print."""
    results.check_out(_OUT.value, _OVERWRITE.value)
    threads = _THREADS.value or sorted({1, machine.cores()})
    config = kudo()
    poses = lifting.people(load.load_body(), lifting.PEOPLE)
    found = [{"what": "agreement", **kudo_comparison.agreement(config, poses)}]
    for count in threads:
        torch.set_num_threads(count)
        found += kudo_comparison.rows(config, poses, _STEPS.value, _BATCHES.value, _SECONDS.value)
    environment = {"torch": torch.__version__, **measure.machine(jax.devices()[:1])}
    results.emit(({**row, **environment} for row in found), _OUT.value)


if __name__ == "__main__":
    cli.run(main)
