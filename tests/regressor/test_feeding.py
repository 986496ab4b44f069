"""Batches: everyone once, nobody without a weight, the same rows whether pictures are held or decoded."""

import jax
import numpy as np

from dal_jax.regressor import batches
from dal_jax.regressor.batches import Feed

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
        feed = Feed(order, pictures, ({"number": np.arange(9)},))
        found = jax.device_get(list(feed))
        np.testing.assert_array_equal([rest["number"] for _, rest in found], order)
        np.testing.assert_array_equal([picture for picture, _ in found], images[order])
        assert feed.waited_s > 0
