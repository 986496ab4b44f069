import sys
import threading

import numpy as np
import pytest

from dal_jax.runtime import pipeline

ORDER = np.random.default_rng(0).permutation(40).reshape(5, 8)


class _Pictures:
    """Pictures that tell their number, and who decoded them."""

    def __init__(self, broken: int | None = None):
        self.threads, self._broken = set(), broken

    def __len__(self):
        return 40

    def __getitem__(self, index):
        self.threads.add(threading.get_ident())
        if index == self._broken:
            raise OSError(f"picture {index} cannot be read")
        return np.full((2, 2, 3), index, np.uint8)


def _numbers(batch: np.ndarray) -> list[int]:
    assert batch.shape[1:] == (2, 2, 3) and batch.dtype == np.uint8
    return batch[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("threads", [1, 4])
def test_batches_come_in_the_order_that_was_asked_for(threads):
    pictures = _Pictures()
    found = [_numbers(batch) for batch in pipeline.batches(pictures, ORDER, threads=threads)]
    assert found == ORDER.tolist()
    assert threading.get_ident() not in pictures.threads and len(pictures.threads) <= threads


def test_an_iterator_goes_on_where_another_stood():
    first = pipeline.batches(_Pictures(), ORDER)
    for _ in range(2):
        next(first)
    state = first.get_state()
    expected = [_numbers(batch) for batch in first]
    again = pipeline.batches(_Pictures(), ORDER)
    again.set_state(state)
    assert [_numbers(batch) for batch in again] == expected == ORDER[2:].tolist()


def test_hosts_share_every_batch():
    shares = [[_numbers(batch) for batch in pipeline.batches(_Pictures(), ORDER, (index, 4))] for index in range(4)]
    together = [[number for share in step for number in share] for step in zip(*shares, strict=True)]
    assert together == ORDER.tolist()
    for wrong in ((0, 3), (4, 4), (-1, 2)):
        with pytest.raises(ValueError, match="cannot be shared evenly"):
            pipeline.batches(_Pictures(), ORDER, wrong)


def test_a_picture_that_cannot_be_read_is_told():
    iterator = pipeline.batches(_Pictures(broken=int(ORDER[3, 0])), ORDER)
    with pytest.raises(OSError, match=f"picture {ORDER[3, 0]} cannot be read"):
        list(iterator)


def test_tensorflow_is_not_needed():
    assert "tensorflow" not in sys.modules
