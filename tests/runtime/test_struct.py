"""Trees of arrays over people are filled up to few numbers of people; what training may not go on from is named."""

import numpy as np
import pytest

from dal_jax.runtime import struct
from dal_jax.runtime.errors import DivergedError


@pytest.mark.parametrize(("people", "rows"), [(1, 8), (8, 8), (9, 16), (64, 64), (65, 128), (130, 192)])
def test_the_last_person_is_repeated(people, rows):
    tree = {"age": np.arange(people), "place": np.random.default_rng(0).normal(size=(people, 2, 3))}
    filled = struct.filled_up(tree)
    assert filled["place"].shape == (rows, 2, 3)
    for name, leaf in tree.items():
        np.testing.assert_array_equal(filled[name][:people], leaf)
        np.testing.assert_array_equal(filled[name][people:], np.repeat(leaf[-1:], rows - people, axis=0))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2e19, -1e30])
def test_weights_from_which_no_rate_goes_on_are_refused(value):
    """float32 ends at 3.4e38, and a loss has squares."""
    state = {"layer": {"kernel": np.full((2, 3), 1e18, np.float32)}, "step": np.int32(2**31 - 1), "absent": None}
    struct.refuse_not_finite("step 7", {"loss": 1e30}, state)
    state["layer"]["kernel"][1, 2] = value
    with pytest.raises(DivergedError, match=r"^step 7: 1 of 6 numbers of layer\.kernel are not finite, or nearly so$"):
        struct.refuse_not_finite("step 7", {"loss": 1e30}, state)


def test_a_loss_that_is_not_finite_is_refused_by_name():
    with pytest.raises(DivergedError, match="^step 7: loss is nan$"):
        struct.refuse_not_finite("step 7", {"rate": 1.0, "loss": float("nan")}, {})
