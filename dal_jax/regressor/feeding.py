"""What a training step is fed with: an epoch's order, and its batches, gathered while the device works.

The order is drawn from a key alone, so a run that goes on in the middle of an epoch takes up the rest of the same
order, whether pictures lie in memory or are decoded on the way.
"""

import concurrent.futures
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray, UInt8

from dal_jax.runtime import pipeline


def epoch_order(
    key: PRNGKeyArray, weight: Float[np.ndarray, "people"], batch: int
) -> Int[np.ndarray, "steps some_people"]:
    """Draw which people make up each batch of an epoch; the last batch is filled up from the first.

    Who has no weight is not shown: not even batch normalisation sees them.

    Raises:
      ValueError: nobody has a weight.
    """
    shown = np.flatnonzero(weight)
    if not len(shown):
        raise ValueError("nobody is left to learn from: all weights are 0")
    drawn = shown[np.asarray(jax.random.permutation(key, len(shown)))]
    batch = min(batch, len(shown))
    return np.resize(drawn, (math.ceil(len(shown) / batch), batch))


def images_shown(weight: Float[np.ndarray, "people"], batch: int, first: int, end: int) -> int:
    """Return how many people an epoch's steps from `first` to before `end` show that the steps before have not."""
    people = int(np.count_nonzero(weight))
    return min(end * batch, people) - min(first * batch, people)


class Feed:
    """Iterate over (images, *rest) of each batch, on the device; the next one is gathered meanwhile.

    waited_s: how long the iterating thread has waited for batches so far: 0 where the input keeps up.
    """

    def __init__(
        self,
        order: Int[np.ndarray, "steps batch"],
        images: UInt8[np.ndarray, "people s s 3"] | Sequence,
        rest: Any,
    ):
        """Prepare to read.

        Args:
          images: an array, or a sequence that decodes what is indexed by a number, in several threads at once.
          rest: a tuple of pytrees of host arrays, stacked over people.
        """
        self._order, self._rest = order, rest
        self._pictures = (
            (images[rows] for rows in order) if isinstance(images, np.ndarray) else pipeline.batches(images, order)
        )
        self.waited_s = 0.0

    def __iter__(self) -> Iterator[tuple]:
        with concurrent.futures.ThreadPoolExecutor(max_workers=1) as worker:
            following = worker.submit(self._gather, self._order[0])
            for rows in [*self._order[1:], None]:
                asked = time.monotonic()
                ready = following.result()
                self.waited_s += time.monotonic() - asked
                if rows is not None:
                    following = worker.submit(self._gather, rows)
                yield ready

    def _gather(self, rows: Int[np.ndarray, "batch"]) -> tuple:
        return jax.device_put((next(self._pictures), *jax.tree.map(lambda leaf: leaf[rows], self._rest)))
