"""Random weights of a ResNet50 under PyTorch's names, the same numbers wherever they are drawn: for parity checks."""

from collections.abc import Mapping

import numpy as np


def random_state_dict(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Draw every tensor, float32, in the order of the names.

    Kernels have He et al.'s deviation; scales and running variances are about 1, the rest about 0, none trivial.
    `RandomState`, because NumPy promises that its numbers never change.
    """
    random = np.random.RandomState(seed)
    return {name: _draw(random, name, shapes[name]).astype(np.float32) for name in sorted(shapes)}


def _draw(random: np.random.RandomState, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) == 4:  # out, in, rows, columns
        return random.normal(0.0, np.sqrt(2.0 / (shape[0] * shape[2] * shape[3])), shape)
    if name.endswith((".weight", ".running_var")):
        return random.uniform(0.5, 1.5, shape)
    return random.normal(0.0, 0.2, shape)
