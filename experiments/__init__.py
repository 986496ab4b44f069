"""Thin binaries: flags, one library call, files and a table.

`python -m experiments.NAME` in a checkout is `python -m dal_jax.experiments.NAME` where the package is installed; the
main ones are commands too: `dal-register` runs `register` as `python -m` would, so that `--help` and errors are alike.
"""

import os
import runpy
import sys

# After every product of matrices NumPy's other threads wait for the next one, busily: an eighth of a `register`'s time
# for few people. What is large runs in XLA, which has threads of its own.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def dal_register() -> None:
    """Run `register`."""
    _run("register")


def dal_predict() -> None:
    """Run `predict`."""
    _run("predict")


def dal_lift() -> None:
    """Run `lift`."""
    _run("lift")


def dal_train() -> None:
    """Run `deform_and_learn`."""
    _run("deform_and_learn")


def dal_bench() -> None:
    """Run `benchmark`, in a checkout: what measures is not installed."""
    sys.path.insert(0, os.getcwd())
    _run("benchmark")


def _run(name: str) -> None:
    runpy.run_module(f"{__name__}.{name}", run_name="__main__", alter_sys=True)
