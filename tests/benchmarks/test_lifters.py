"""What the lifters' table says: disturbed poses, depths reversed front to back, correlations, the people's sameness."""

import dataclasses
import itertools

import numpy as np
import pytest

from benchmarks import lifters, pose_sets
from benchmarks.lifters import Score
from benchmarks.pose_sets import PoseSet
from dal_jax.body import skeleton
from dal_jax.lifting.config import best, kudo
from tests.lifting import stick_people

_TRUE_MM = 1000 * stick_people.crowd(50, seed=0) + [0, 0, 5000]
_SCORE = Score(_TRUE_MM)


def _people():
    return PoseSet(_TRUE_MM[..., :2].astype(np.float32), np.ones((50, 17), bool), _TRUE_MM)


def test_the_truth_has_no_error_and_its_reverse_is_reversed():
    """One skeleton: the canonical size is each one's own."""
    true = _TRUE_MM - _TRUE_MM[:, :1]
    found = _SCORE.errors(true, _TRUE_MM)
    np.testing.assert_allclose([found["mpjpe_scale_matched_mm"], found["pa_mpjpe_mm"]], 0, atol=0.1)
    assert found["reversed_share"] == 0 and found["depth_extent"] == pytest.approx(1, abs=1e-3)
    aside = _TRUE_MM + [300, -100, 0]
    assert _SCORE.errors(true * [1, 1, 0.8], aside)["depth_extent"] == pytest.approx(0.8, abs=1e-3)
    assert _SCORE.errors(true * [1, 1, -1], _TRUE_MM)["reversed_share"] == 1


def test_no_depth_leaves_the_depth_as_error():
    found = _SCORE.no_depth(_people())
    depth = np.abs(_TRUE_MM[..., 2] - _TRUE_MM[:, :1, 2]).mean()
    assert 0.8 * depth < found["mpjpe_scale_matched_mm"] < 1.5 * depth


def test_swapping_sides_exchanges_pairs_and_nothing_else():
    points = np.random.default_rng(0).normal(size=(4000, 17, 2))
    swapped = lifters.swap_sides(points, 0.03)
    changed = (swapped != points).any(axis=-1)
    paired = np.array(skeleton.H36M_MIRROR) != np.arange(17)
    assert not changed[:, ~paired].any()
    np.testing.assert_allclose(changed[:, paired].mean(), 0.03, atol=0.004)
    mirror = np.array(skeleton.H36M_MIRROR)
    np.testing.assert_array_equal(changed, changed[:, mirror])
    np.testing.assert_array_equal(swapped[changed], points[:, mirror][changed])


def test_disturbed_poses_are_disturbed_as_said():
    points = np.random.default_rng(0).normal(size=(4000, 17, 2)).astype(np.float32)
    found = lifters.disturbances(points)
    assert found["missing"][1].mean() == pytest.approx(0.9, abs=0.01)
    away = np.linalg.norm(found["moved"][0] - points, axis=-1)
    assert np.mean(away > 0) == pytest.approx(0.02, abs=0.003)
    assert away[away > 0].min() > 59 and away.max() < 201
    detected, known = found["detected"]
    assert np.mean((detected != points).any(axis=-1)) == pytest.approx(0.02 + 0.03 * 12 / 17, abs=0.006)
    np.testing.assert_array_equal(known, found["missing"][1])


def test_the_ladder_leads_from_kudo_to_the_preset_one_change_at_a_time():
    goal = best()
    steps = list(lifters.ladder(goal, 100).values())
    assert steps[0] == dataclasses.replace(kudo(), width=goal.width, members=goal.members, steps=100)
    assert steps[-1] == goal
    assert dataclasses.replace(steps[-2], preset=goal.preset, steps=goal.steps) == goal, (
        "nothing else is left to change"
    )
    for before, after in itertools.pairwise(steps):
        assert before != after


def test_selection_is_a_rank_correlation_and_names_what_it_would_choose():
    checkpoints = [
        {"mpjpe_mm": true, "criterion": true**2, "mmd": -true, "reflection": 0.0, "cycle_consistency": 1.0,
         "bone_spread": (-1) ** number}
        for number, true in enumerate([90.0, 70.0, 80.0, 60.0])
    ]  # fmt: skip
    whole, alone = lifters.selection({"best": checkpoints})
    assert whole["lifters"] == "all" and alone["lifters"] == "best" and whole["checkpoints"] == 4
    assert whole["rank_correlation_criterion"] == pytest.approx(1)
    assert whole["rank_correlation_mmd"] == pytest.approx(-1)
    assert whole["rank_correlation_reflection"] is None
    assert whole["chosen_mpjpe_mm"] == whole["best_mpjpe_mm"] == 60


def test_the_same_people_whenever_they_are_made(tmp_path):
    """Splits are people of their own; a person does not depend on how many others there are."""
    few = pose_sets.load({"train": 3, "validation": 2, "test": 2}, tmp_path)
    more = pose_sets.load({"train": 5, "validation": 1, "test": 2}, tmp_path)
    np.testing.assert_array_equal(few["train"].keypoints_px, more["train"].keypoints_px[:3])
    np.testing.assert_array_equal(few["validation"].keypoints_px, more["train"].keypoints_px[3:5])
    np.testing.assert_array_equal(few["test"].joints_true_mm, more["test"].joints_true_mm)
    again = pose_sets.load({"train": 3, "validation": 2, "test": 2}, tmp_path)
    np.testing.assert_array_equal(again["test"].keypoints_px, few["test"].keypoints_px)
    depth = few["train"].joints_true_mm[..., 2:]
    projected = 1146 * few["train"].joints_true_mm[..., :2] / depth + 500
    off = np.linalg.norm(projected - few["train"].keypoints_px, axis=-1)
    assert 0 < off.mean() < 15  # px: an annotator's noise, about a hundredth of a person's 450 px
