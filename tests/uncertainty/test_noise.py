"""Noise levels come back from residuals; weights state them; fits and levels take turns."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.registration import priors, register
from dal_jax.registration.energy import Objective
from dal_jax.registration.register import Fit, RegistrationConfig
from dal_jax.uncertainty import noise as noise_lib
from tests.registration import linear_fits, small_problem

SAMPLING = 0.12  # of a standard deviation: 96 people
SLOW = 0.25  # where most is prior: spreads of rotations that no residual sees keep what they started from for long


@pytest.fixture(scope="module")
def estimated():
    """Estimate from the data alone, with no initial people among them."""
    _, observations, fits, precisions = linear_fits.people()
    noise = noise_lib.initial().replace(turn=linear_fits.NOISE["turn"], pose_prior=linear_fits.poses(0.04))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noise_lib, "_INITIAL_PEOPLE", 0.0)
        patch.setattr(priors, "_SMALLEST_SD", 0.001)
        for _ in range(8):
            noise = noise_lib.estimate(small_problem.small_template(), observations, fits, precisions, noise)
    return noise


@pytest.mark.parametrize("kind", ["point", "keypoint", "depth"])
def test_levels_come_back_although_fits_follow_their_noise(estimated, kind):
    assert getattr(estimated, kind) == pytest.approx(linear_fits.NOISE[kind], rel=SAMPLING)


def test_spread_of_poses_and_scales_comes_back(estimated):
    spread = np.diagonal(estimated.pose_prior.covariance, axis1=1, axis2=2)
    assert np.sqrt(np.mean(spread)) == pytest.approx(linear_fits.NOISE["pose"], rel=SLOW)
    assert estimated.log_scale == pytest.approx(linear_fits.NOISE["log_scale"], rel=SAMPLING)


def test_errors_that_are_not_shared_are_not_taken_for_shared(estimated):
    assert estimated.shape < 0.4 * linear_fits.NOISE["point"]
    assert estimated.limb < 0.5 * linear_fits.NOISE["depth"]


def test_a_common_turn_is_told_and_hardly_shows(estimated):
    """The body turns with its depths: whether the turn is known or not, the noise of each depth is the same."""
    assert estimated.turn == pytest.approx(linear_fits.NOISE["turn"])
    _, observations, fits, precisions = linear_fits.people()
    unaware = estimated.replace(turn=np.float32(0.0))
    unaware = noise_lib.estimate(small_problem.small_template(), observations, fits, precisions, unaware, unaware)
    assert unaware.depth == pytest.approx(estimated.depth, rel=0.1)


def test_initial_levels_count_as_two_people(estimated):
    _, observations, fits, precisions = linear_fits.people()
    start = noise_lib.initial()
    one = jax.tree.map(lambda leaf: leaf[:1], (observations, fits))
    alone = noise_lib.estimate(small_problem.small_template(), *one, precisions, estimated)
    assert alone.point == pytest.approx(np.sqrt((2 * start.point**2 + estimated.point**2) / 3), rel=0.1)


def test_without_depths_their_level_stays_and_everything_is_finite():
    _, observations, fits, precisions = linear_fits.people()
    start = noise_lib.initial()
    blind = observations.replace(depth_confidence=np.zeros_like(observations.depth_confidence))
    found = noise_lib.estimate(small_problem.small_template(), blind, fits, precisions, start)
    assert found.depth == pytest.approx(start.depth)
    assert found.limb == pytest.approx(start.limb)
    assert found.depth_sharing == start.depth_sharing
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize("spoil", ["key points", "camera", "not a number"])
@pytest.mark.parametrize("count", [2, 3, 32])
def test_one_bad_entry_does_not_own_everybodys_levels(spoil, count):
    """Levels with a spoilt person among others stay near those of the others alone."""
    _, observations, fits, precisions = linear_fits.people()
    template, start = small_problem.small_template(), noise_lib.initial()
    observations, fits = jax.tree.map(lambda leaf: leaf[:count].copy(), (observations, fits))
    others = jax.tree.map(lambda leaf: leaf[1:], (observations, fits))
    wanted = noise_lib.estimate(template, *others, precisions, start).variances()
    if spoil == "key points":
        observations.keypoint_position[0] = 5e3
        observations.point_position[0] += 100.0
    elif spoil == "camera":
        fits.camera_scale[0] *= 1e4
    else:
        fits.translation[0] = np.nan
    found = noise_lib.estimate(template, observations, fits, precisions, start)
    # One person counts as ten at most, beside two of the start: with one other alone that is still much.
    np.testing.assert_array_less(np.sqrt(found.variances()), 4 * np.sqrt(wanted) + 0.1 * np.sqrt(start.variances()))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_of_nobody_with_finite_numbers_the_levels_stay():
    before = np.arange(1.0, 8.0)
    np.testing.assert_array_equal(noise_lib._solve(np.zeros((7, 7)), np.zeros(7), before), before)


def test_weights_are_inverse_variances_and_depths_have_theirs_as_confidence():
    noise = dataclasses.replace(noise_lib.initial(), shape=np.float32(0), limb=np.float32(0))
    objective, precisions = noise_lib.objective(noise), noise_lib.precisions(noise)
    weights, prior = objective.weights, objective.prior
    assert weights.dense == pytest.approx(noise.point**-2)
    assert weights.keypoint == pytest.approx(noise.keypoint**-2)
    precision = weights.joint * np.swapaxes(prior.root, 1, 2) @ prior.root
    np.testing.assert_allclose(precision @ noise.pose_prior.covariance, np.eye(3)[None].repeat(23, axis=0), atol=1e-3)
    _, observations, _, _ = linear_fits.people()
    reweighted = noise_lib.reweighted(observations, noise)
    assert weights.keypoint * reweighted.depth_confidence[0, 3] == pytest.approx(noise.depth**-2, rel=1e-5)
    assert precisions.depth == pytest.approx(noise.depth**-2, rel=1e-5)
    shared = dataclasses.replace(noise, shape=noise.point)
    assert noise_lib.precisions(shared).dense == pytest.approx(precisions.dense / (1 + noise.point_sharing), rel=1e-5)


def test_wrong_correspondences_lose_their_weight():
    _, observations, fits, _ = linear_fits.people()
    wrong = observations.replace(point_position=observations.point_position.copy())
    wrong.point_position[:, 0] += 1.0
    template = small_problem.small_template()
    robust = noise_lib.robust_weights(template, wrong, fits, 0.1)
    assert robust.point_confidence[:, 0].max() < 1e-3
    assert np.median(robust.point_confidence[:, 1:]) > 0.9
    assert noise_lib.robust_weights(template, wrong, fits, None) is wrong


def test_fits_and_levels_take_turns(monkeypatch):
    observations, fits = jax.tree.map(lambda leaf: leaf[:32], linear_fits.people()[1:3])
    used = []

    def fake(template, observations, config, objective, progress=None):
        used.append((objective, observations.depth_confidence.max()))
        progress(len(observations.point_face))
        return Fit(fits, *[jnp.zeros(len(observations.point_face))] * (len(dataclasses.fields(Fit)) - 1))

    monkeypatch.setattr(register, "register", fake)
    done = []
    config = RegistrationConfig()
    _, noise = noise_lib.alternate(
        small_problem.small_template(), observations, config, rounds=2, outlier=0.1, progress=done.append
    )
    assert done == [32, 64, 96]
    for made, levels in ((used[0], noise_lib.initial()), (used[2], noise)):
        jax.tree.map(np.testing.assert_array_equal, made[0], noise_lib.objective(levels).reweighted(outlier=0.1))
    assert isinstance(used[2][0], Objective)
    assert used[2][1] == pytest.approx(
        float(noise_lib.precisions(noise).depth / noise_lib.precisions(noise).keypoint), rel=1e-4
    )
