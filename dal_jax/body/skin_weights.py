"""Skinning weights of many segments to the four a vertex that a body file has."""

import numpy as np
from jaxtyping import Float, Int

SLOTS = 4


def four_largest(weights: Float[np.ndarray, "n segments"]) -> tuple[Int[np.ndarray, "n 4"], Float[np.ndarray, "n 4"]]:
    """Return (skin_index, skin_weight): the stored weights, as they are, of a vertex that has at most four.

    Of more than four the largest are kept and made to sum to what they all had; of equal ones the first.
    """
    order = np.argsort(-weights, axis=1, kind="stable")[:, :SLOTS]
    kept = np.take_along_axis(weights, order, axis=1)
    more = np.count_nonzero(weights, axis=1) > SLOTS
    kept[more] *= (weights[more].sum(axis=1) / kept[more].sum(axis=1))[:, None]
    return np.where(kept > 0, order, 0), kept
