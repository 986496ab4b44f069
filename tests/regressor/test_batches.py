"""Batches: everyone once, no one of weight 0, the same rows whether pictures are held or decoded."""

import sys
import threading
from collections.abc import Sequence

import jax
import numpy as np
import pytest

from dal_jax.regressor import batches
from dal_jax.runtime import mesh

KEY = jax.random.key(3)
WEIGHT = np.float32([1, 0, 0.5, 1, 1, 0, 1, 1, 1])


def test_an_epoch_shows_everyone_of_a_weight_once_and_fills_up_from_its_first():
    order = batches.epoch_order(KEY, WEIGHT, 3)
    assert order.shape == (3, 3)
    flat = order.ravel()
    np.testing.assert_array_equal(np.sort(flat[:7]), np.flatnonzero(WEIGHT))
    np.testing.assert_array_equal(flat[7:], flat[:2])
    assert batches.epoch_order(KEY, WEIGHT, 100).shape == (1, 7)


def test_images_shown_add_up_whatever_the_parts():
    for cut in range(4):
        parts = batches.images_shown(WEIGHT, 3, 0, cut), batches.images_shown(WEIGHT, 3, cut, 3)
        assert parts == (min(3 * cut, 7), 7 - min(3 * cut, 7))


def test_rows_of_everything_go_together():
    images = np.arange(9 * 12, dtype=np.uint8).reshape(9, 2, 2, 3)
    order = batches.epoch_order(KEY, WEIGHT, 3)
    for pictures in (images, list(images)):
        found = jax.device_get(list(batches.feed(order, pictures, ({"number": np.arange(9)},), mesh.of_networks())))
        np.testing.assert_array_equal([rest["number"] for (_, rest), _ in found], order)
        np.testing.assert_array_equal([picture for (picture, _), _ in found], images[order])
        assert sum(waited_s for _, waited_s in found) > 0


ORDER = np.random.default_rng(0).permutation(40).reshape(5, 8)


class _Pictures(Sequence):
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
    found = [_numbers(batch) for batch in batches.decoded(pictures, ORDER, threads=threads)]
    assert found == ORDER.tolist()
    assert threading.get_ident() not in pictures.threads and len(pictures.threads) <= threads


def test_a_picture_that_cannot_be_read_is_told():
    iterator = batches.decoded(_Pictures(broken=int(ORDER[3, 0])), ORDER)
    with pytest.raises(OSError, match=f"picture {ORDER[3, 0]} cannot be read"):
        list(iterator)


def test_tensorflow_is_not_needed():
    assert "tensorflow" not in sys.modules
