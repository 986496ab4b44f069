"""The crop's frame and the attachment of lifted depths."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.observations.observation import Observation, crop_from_px, px_from_crop, with_depth

CROP_ROUNDING = 1e-6  # crop units: float32 of size 1
PX_ROUNDING = 1e-3  # px: float32 keeps 1e-4 of a pixel in a photograph of a few thousand
BOX = np.float32([100.0, 40.0, 200.0, 200.0])


def _boxes(rng, *batch):
    side = rng.uniform(20, 900, (*batch, 1))
    return np.concatenate([rng.uniform(-200, 2000, (*batch, 2)), side, side], axis=-1).astype(np.float32)


def _observation(*batch, points=6):
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.uniform(0, 1, (*batch, *shape)).astype(np.float32)

    return Observation(
        point_position=draw(points, 2),
        point_face=rng.integers(0, 9, (*batch, points)).astype(np.int32),
        point_barycentric=draw(points, 3),
        point_confidence=draw(points),
        keypoint_position=draw(17, 2),
        keypoint_confidence=draw(17),
        depth=np.zeros((*batch, 17), np.float32),
        depth_confidence=np.zeros((*batch, 17), np.float32),
        box_px=_boxes(rng, *batch),
    )


def test_the_box_spans_minus_one_to_one_with_y_down():
    corners_px = np.float32([[100, 40], [300, 40], [100, 240], [200, 140], [400, 140]])
    expected = [[-1, -1], [1, -1], [-1, 1], [0, 0], [2, 0]]
    np.testing.assert_allclose(crop_from_px(corners_px, BOX), expected, atol=CROP_ROUNDING)
    np.testing.assert_allclose(px_from_crop(np.float32(expected), BOX), corners_px, atol=PX_ROUNDING)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_the_two_maps_are_inverse(batch):
    rng = np.random.default_rng(1)
    box = _boxes(rng, *batch)
    crop = rng.uniform(-1.5, 1.5, (*batch, 8, 2)).astype(np.float32)
    points_px = px_from_crop(crop, box)
    assert points_px.shape == crop.shape
    exact = points_px.astype(np.float64), box.astype(np.float64)
    rounding = 2e-7 * np.abs(points_px).max() / box[..., 2].min()  # of the pixels, seen in the smallest crop
    np.testing.assert_allclose(crop_from_px(*exact), crop, atol=2 * rounding + CROP_ROUNDING)
    np.testing.assert_allclose(px_from_crop(crop_from_px(*exact), exact[1]), exact[0])


def test_distances_scale_alike_in_x_and_y():
    rng = np.random.default_rng(2)
    points_px = rng.uniform(0, 500, (10, 2)).astype(np.float32)
    crop = crop_from_px(points_px, BOX)
    np.testing.assert_allclose(crop[1:] - crop[:-1], (points_px[1:] - points_px[:-1]) / 100, atol=10 * CROP_ROUNDING)


def test_a_batch_equals_a_loop():
    rng = np.random.default_rng(3)
    box, points_px = _boxes(rng, 4), rng.uniform(0, 500, (4, 5, 2)).astype(np.float32)
    for function in (crop_from_px, px_from_crop):
        together = function(points_px, box)
        for i in range(4):
            np.testing.assert_array_equal(together[i], function(points_px[i], box[i]))


def test_maps_work_on_the_host_and_in_kernels():
    points_px = np.float32([[150, 90], [260, 200]])
    host = crop_from_px(points_px, BOX)
    assert type(host) is np.ndarray
    assert host.dtype == np.float32
    np.testing.assert_allclose(jax.jit(crop_from_px)(points_px, BOX), host, atol=CROP_ROUNDING)


def test_depths_are_trusted_like_their_key_points():
    observation = _observation(3)
    depth = np.random.default_rng(4).normal(size=(3, 17))
    found = with_depth(observation, depth)
    np.testing.assert_array_equal(found.depth, depth.astype(np.float32))
    np.testing.assert_array_equal(found.depth_confidence, observation.keypoint_confidence)


def test_depths_may_have_a_confidence_of_their_own():
    confidence = np.linspace(0, 1, 17)
    found = with_depth(_observation(), jnp.ones(17), confidence)
    np.testing.assert_array_equal(found.depth_confidence, confidence.astype(np.float32))
    assert found.depth.dtype == found.depth_confidence.dtype == np.float32


def test_attaching_depths_changes_nothing_else():
    before = _observation(2)
    after = with_depth(before, np.ones((2, 17)))
    for field in dataclasses.fields(before):
        if not field.name.startswith("depth"):
            np.testing.assert_array_equal(getattr(after, field.name), getattr(before, field.name))
    assert not before.depth.any()


def test_observations_stack_and_map_as_one():
    """The struct is a pytree: vmap hands every person theirs, in the order of the fields."""
    people = _observation(4)
    sums = jax.vmap(lambda person: jnp.sum(person.point_position) + jnp.sum(person.box_px))(people)
    expected = people.point_position.sum(axis=(1, 2)) + people.box_px.sum(axis=1)
    np.testing.assert_allclose(sums, expected, rtol=CROP_ROUNDING)
    others = ("depth_turns", "pinhole", "expected", "views", "keypoint_set")  # none of these, and no leaf
    assert len(jax.tree.leaves(people)) == len(dataclasses.fields(people)) - len(others)
