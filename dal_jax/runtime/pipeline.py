"""Pictures that do not fit into memory, batch by batch: decoded ahead in threads by Grain, in a given order.

The order is the caller's (of a seed, of a step), so that a run that goes on reads what it would have read; a place
inside it is `get_state()`, which a new iterator of the same order takes by `set_state`. Threads are enough: decoding
leaves Python's lock alone.
"""

from collections.abc import Sequence

import grain
import numpy as np
from jaxtyping import Int

from dal_jax.runtime import machine

_AHEAD = 2
"""Batches decoded before they are asked for."""


def batches(
    images: Sequence, order: Int[np.ndarray, "steps batch"], host: tuple[int, int] = (0, 1), threads: int | None = None
) -> grain.DatasetIterator:
    """Return an iterator over the pictures of each row of `order`, (batch, s, s, 3).

    Args:
      images: decodes what is indexed by a number; from several threads at once.
      order: numbers of pictures, a row a batch.
      host: (index, count); each of `count` hosts reads its own share of every batch, in the order of their indices.
      threads: that decode; by default one a core.

    Raises:
      ValueError: the hosts cannot share a batch evenly.
    """
    index, count = host
    if not 0 <= index < count or order.shape[1] % count:
        raise ValueError(f"batches of {order.shape[1]} cannot be shared evenly, host {index} of {count}")
    share = order.shape[1] // count
    rows = np.ascontiguousarray(order[:, index * share : (index + 1) * share])
    pictures = grain.MapDataset.source(rows.ravel()).map(lambda row: images[int(row)])
    options = grain.ReadOptions(num_threads=threads or machine.cores(), prefetch_buffer_size=max(_AHEAD * share, 1))
    return iter(pictures.to_iter_dataset(options).batch(share))
