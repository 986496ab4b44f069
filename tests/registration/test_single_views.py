import dataclasses

import numpy as np
import pytest

from dal_jax.body import skeleton
from dal_jax.observations import observation, residuals
from dal_jax.observations.observation import with_depth
from dal_jax.registration import single_views
from tests.registration import small_problem


def _observed():
    return small_problem.observe(small_problem.random_people(2, 0), 1)


def test_lifted_depths_stay_and_missing_ones_are_near_the_middle():
    observed = _observed()
    confidence = np.array(observed.depth_confidence)
    confidence[1] = 0
    found = single_views.complete(with_depth(observed, observed.depth, confidence))
    np.testing.assert_array_equal(found.depth[0], observed.depth[0])
    np.testing.assert_array_equal(found.depth_confidence[0], confidence[0])
    assert not found.depth[1].any() and (found.depth_confidence[1] > 0).all()
    wrist, spine = (skeleton.H36M_JOINT_NAMES.index(name) for name in ("left_wrist", "spine"))
    assert found.depth_confidence[1, wrist] < found.depth_confidence[1, spine] / 10, "a wrist may be anywhere"


def test_key_points_pull_harder_where_there_is_nothing_else():
    observed = _observed()
    points = np.array(observed.point_confidence)
    points[1] = 0
    found = single_views.complete(dataclasses.replace(observed, point_confidence=points))
    np.testing.assert_array_equal(found.keypoint_confidence[0], observed.keypoint_confidence[0])
    assert found.keypoint_confidence[1] == pytest.approx(observed.keypoint_confidence[1] * 10 / 3)


def test_nothing_is_said_of_the_depth_of_face_and_feet():
    observed = _observed()
    more = [(0, 0), (0, 8)]
    wide = dataclasses.replace(
        observed,
        keypoint_position=np.pad(observed.keypoint_position, [*more, (0, 0)]),
        keypoint_confidence=np.pad(observed.keypoint_confidence, more),
        depth=np.zeros((2, 25), np.float32),
        depth_confidence=np.zeros((2, 25), np.float32),
        keypoint_set="body_25b",
    )
    found = single_views.complete(wide).depth_confidence[0]
    for name, one in zip(skeleton.BODY_25B_NAMES, found, strict=True):
        silent = name.split("_", 1)[-1] in ("nose", "eye", "ear", "big_toe", "small_toe", "heel")
        assert (one == 0) == silent, name


def test_a_camera_that_looks_down_sees_upright_people_tilted():
    """Points of a body at one depth, seen from above by an angle: z = y tan(angle) in the camera's axes."""
    observed = with_depth(_observed(), np.zeros((2, 17)), np.zeros((2, 17)))
    found = single_views.complete(observed, np.array([0.0, 20.0]))
    apart = np.diff(found.depth[:, [0, 10]], axis=1)[:, 0]
    height = np.diff(observed.keypoint_position[:, [0, 10], 1], axis=1)[:, 0]
    np.testing.assert_allclose(apart, [0.0, height[1] * np.tan(np.radians(20.0))], atol=1e-6)


def test_three_quarters_of_a_common_lean_are_taken_back_and_bends_stay():
    """Lifted depths that are an upright body's, and lean; what no turn about x explains is not touched."""
    observed, tangent = _observed(), np.tan(np.radians(20.0))
    x, y = np.moveaxis(observed.keypoint_position.astype(np.float64), -1, 0)
    known = np.ones_like(x)
    leaning = with_depth(observed, y * tangent + 0.3 * y + 0.1 * x, known)
    found = single_views.complete(leaning, 20.0)
    apart = found.depth - (y * tangent + 0.25 * 0.3 * y + 0.1 * x)
    np.testing.assert_allclose(apart - apart.mean(axis=1, keepdims=True), 0.0, atol=1e-5)
    np.testing.assert_allclose(found.depth_confidence, known)
    places = np.stack([x[0], y[0], known[0]], axis=1)
    bend = np.random.default_rng(0).normal(size=len(places))
    bend -= places @ np.linalg.lstsq(places, bend, rcond=None)[0]
    bent = single_views.complete(with_depth(observed, np.stack([bend, bend]), known), 0.0)
    np.testing.assert_allclose(bent.depth[0] - bent.depth[0].mean(), bend - bend.mean(), atol=1e-5)


@pytest.mark.parametrize(("noise", "expected"), [(0.004, 0.01**2 / 0.004**2 * 260 / 360), (0.03, 1.0), (1e-5, 30.0)])
def test_points_pull_as_hard_as_they_are_exact(noise, expected):
    """180 points that are off by so much: 360 numbers, of which a fit could take 100; unseen ones stay out."""
    missed = np.abs(np.random.default_rng(0).normal(0.0, noise, (2, 200, 2)))
    confidence = np.repeat(np.float32([[1.0]]), 200, axis=1) * np.float32([[1.0], [0.5]])
    confidence[:, 180:] = 0.0
    observed = dataclasses.replace(_observed(), point_confidence=confidence)
    found = single_views.sharpened(observed, np.linalg.norm(missed, axis=-1)).point_confidence
    np.testing.assert_allclose(found[:, :180], expected, rtol=0.1)
    assert not found[:, 180:].any()


def test_few_points_are_not_taken_for_exact():
    observed = dataclasses.replace(_observed(), point_confidence=np.ones((2, 40), np.float32))
    np.testing.assert_array_equal(single_views.sharpened(observed, np.zeros((2, 40))).point_confidence, 1.0)


def test_lifted_depths_turn_at_the_price_of_unusual_turns():
    """What is left of their residuals is the least over turns (a, b), against least squares that know a and b."""
    observed, random = small_problem.observe(small_problem.random_people(3, seed=1), seed=2), np.random.default_rng(3)
    confidence = random.uniform(0, 1, observed.depth_confidence.shape).astype(np.float32)
    confidence[:, 5], confidence[2] = 0.0, 0.0
    turning = observation.with_turns(observed.replace(depth_confidence=confidence))
    apart = random.normal(0, 0.1, confidence.shape)
    found = np.asarray(residuals.depth_residual(apart.T, confidence.T, np.moveaxis(turning.depth_turns, 0, -1)))
    for row in range(2):
        mass, place = np.float64(confidence[row]), np.float64(observed.keypoint_position[row])
        place, off = (each - np.average(each, axis=0, weights=mass) for each in (place, apart[row]))
        size = np.sqrt(np.average(np.sum(place**2, axis=1), weights=mass))
        price = observation.TYPICAL_DEPTH_SD * size / (observation.TURN * np.array([observation.HEADING, 1.0]))
        system = np.concatenate([np.sqrt(mass)[:, None] * place, np.diag(price)])
        least = np.linalg.lstsq(system, np.concatenate([np.sqrt(mass) * off, [0, 0]]), rcond=None)[1]
        np.testing.assert_allclose(np.sum(found[:, row] ** 2), least, rtol=1e-4)
        assert least < 0.95 * np.sum(mass * off**2)
    np.testing.assert_array_equal(turning.depth_turns[2], 0.0)
