"""Trees of arrays over people are filled up to few numbers of people."""

import numpy as np
import pytest

from dal_jax.runtime import struct


@pytest.mark.parametrize(("people", "rows"), [(1, 8), (8, 8), (9, 16), (64, 64), (65, 128), (130, 192)])
def test_the_last_person_is_repeated(people, rows):
    tree = {"age": np.arange(people), "place": np.random.default_rng(0).normal(size=(people, 2, 3))}
    filled = struct.filled_up(tree)
    assert filled["place"].shape == (rows, 2, 3)
    for name, leaf in tree.items():
        np.testing.assert_array_equal(filled[name][:people], leaf)
        np.testing.assert_array_equal(filled[name][people:], np.repeat(leaf[-1:], rows - people, axis=0))
