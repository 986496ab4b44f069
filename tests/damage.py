"""A file's bytes changed anywhere: what the reader of a binary format must refuse, or bear."""

import pathlib
from collections.abc import Callable

import numpy as np

from dal_jax.runtime.errors import InputError


def refusals(path: pathlib.Path, read: Callable[[], object], copies: int, first: int = 0) -> int:
    """Return how many copies of a file, 1 to 3 bytes from `first` on changed in each, are refused.

    Any other error than `InputError` is raised. The file is left damaged.
    """
    rng, content, refused = np.random.default_rng(0), path.read_bytes(), 0
    for _ in range(copies):
        damaged = bytearray(content)
        for place in rng.integers(first, len(content), rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read()
        except InputError:
            refused += 1
    return refused
