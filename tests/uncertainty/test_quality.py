"""The report on a fit: numbers against their definitions, warnings that say what is wrong, held-out points."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from dal_jax.body import skeleton
from dal_jax.body.formats import load
from dal_jax.observations import residuals
from dal_jax.registration import register
from dal_jax.registration.energy import Objective
from dal_jax.registration.register import Fit, RegistrationConfig
from dal_jax.uncertainty import modes, quality, verdict
from dal_jax.uncertainty.noise import initial, objective
from tests.registration import linear_fits, small_problem

PEOPLE = 7
WELL, BENT, LONG, WRONG, EMPTY, IMPROPER, SMALL = range(PEOPLE)


@pytest.fixture(scope="module")
def case():
    """Return observations, a fit and noise levels: people with one thing wrong each."""
    _, observations, fits, _ = linear_fits.people()
    observations, fits = jax.tree.map(lambda leaf: np.array(leaf[:PEOPLE]), (observations, fits))
    fits.pose[BENT, skeleton.SMPL_JOINT_NAMES.index("left_elbow") - 1] = [0.0, np.radians(45.0), 0.0]
    fits.segment_scale[LONG, skeleton.SMPL_JOINT_NAMES.index("right_hip")] = 1.6
    observations.point_position[WRONG, :30] += 0.5
    (
        observations.point_confidence[EMPTY],
        observations.keypoint_confidence[EMPTY],
        observations.depth_confidence[EMPTY],
    ) = 0.0, 0.0, 0.0
    fits.rotation[IMPROPER, 2] *= -1.0
    observations.keypoint_confidence[WELL, 4:] = 0.0
    observations.keypoint_position[SMALL] = 0.8 * observations.keypoint_position[SMALL] + 0.1
    left = len(dataclasses.fields(Fit)) - 1
    fit = Fit(fits, *[np.zeros(PEOPLE, np.float32)] * left).replace(converged=np.arange(PEOPLE) != WELL)
    return observations, fit, initial()


@pytest.fixture(scope="module")
def report(case):
    """Assess with flips that are not fitted: half turns of energy as scored."""
    observations, fit, noise = case

    def find(template, observations, parameters, objective):
        return jax.tree.map(np.asarray, modes._starts(template, parameters))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modes, "find", find)
        return quality.assess(small_problem.small_template(), observations, fit, objective(noise), noise)


def test_errors_are_those_of_the_projection(case, report):
    observations, fit, noise = case
    dense, keypoint = residuals.errors_px(small_problem.small_template(), fit.parameters, observations)
    assert report.dense_px[WELL] == pytest.approx(np.sqrt(np.mean(dense[WELL] ** 2)), rel=1e-5)
    assert report.dense_percent[WELL] == pytest.approx(report.dense_px[WELL])  # the box is 100 px
    assert report.keypoint_px[WELL] == pytest.approx(np.sqrt(np.mean(keypoint[WELL, :4] ** 2)), rel=1e-5)
    inside = dense <= 3.0 * np.sqrt(noise.point**2 + noise.shape**2) * 50.0
    np.testing.assert_array_equal(report.inliers[:EMPTY], inside.sum(axis=1)[:EMPTY])
    assert np.isnan(report.dense_px[EMPTY])
    assert np.isnan(report.inlier_share[EMPTY])


def test_parts_have_their_own_errors(case, report):
    """Every face of the small body is of DensePose's part 1: all of the error is the torso's."""
    np.testing.assert_allclose(report.part_px[:EMPTY, 0], report.dense_px[:EMPTY], rtol=1e-5)
    assert np.isnan(report.part_px[:, 1:]).all()
    assert sorted(number for numbers in quality.PARTS.values() for number in numbers) == list(range(1, 25))


def test_weights_are_shares_and_fall_with_every_fault(report):
    assert np.all((report.weight >= 0) & (report.weight <= 1))
    assert report.weight[EMPTY] == 0.0
    assert report.weight[BENT] < 0.5 * report.weight[WELL]
    assert report.weight[WRONG] <= 0.51  # half of the points


def test_warnings_name_what_is_wrong(report):
    flags = [quality.describe(report, row)["flags"] for row in range(PEOPLE)]
    assert "left elbow 35 deg beyond its limit" in flags[BENT]
    assert "right thigh is 1.60 times its usual size" in flags[LONG]
    assert any(
        flag.startswith("3") and flag.endswith("of 60 points lie too far from the body") for flag in flags[WRONG]
    )
    assert "leans on 0 points and 0 key points" in flags[EMPTY]
    assert "rotation is not proper (determinant -1.00)" in flags[IMPROPER]
    assert "had not converged when its steps were used up" in flags[WELL]
    assert any(flag.startswith("dense points, key points and box disagree in scale or place") for flag in flags[SMALL])
    assert not any("disagree in scale" in flag for row in range(SMALL) for flag in flags[row])
    assert not any("limit" in flag for row in (WELL, LONG, WRONG) for flag in flags[row])


def test_the_gravest_comes_first_and_decides(report):
    described = [quality.describe(report, row) for row in range(PEOPLE)]
    long = jax.tree.map(lambda leaf: leaf[LONG], report)
    gravity = {text: severity for severity, text in verdict.warnings(long)}
    order = [verdict.SEVERITIES.index(gravity[text]) for text in described[LONG]["flags"]]
    assert order == sorted(order) and gravity["right thigh is 1.60 times its usual size"] == "grave"
    assert described[IMPROPER]["verdict"] == described[LONG]["verdict"] == described[WRONG]["verdict"] == "doubtful"
    assert described[EMPTY]["verdict"] == "fragment" and described[EMPTY]["coverage"] == 0.0
    assert described[WELL]["flags"][-1] == "had not converged when its steps were used up", "a note is no doubt"
    sure = jax.tree.map(lambda leaf: leaf[WELL], report).replace(
        expected_error_mm=np.float32(30.0), far_points=np.int64(0)
    )
    assert verdict.verdict(sure) == "good"
    assert verdict.verdict(sure.replace(expected_error_mm=np.float32(100.0))) == "usable"
    assert verdict.verdict(sure.replace(expected_error_mm=np.float32(np.nan))) == "doubtful"
    assert verdict.verdict(sure.replace(far_points=sure.points)) == "doubtful"
    wild = sure.replace(keypoint_percent=np.float32(30.0), keypoint_rest_px=sure.keypoint_px)
    assert verdict.verdict(wild) == "doubtful" and "key points are missed by 30% of the crop" in verdict.flags(wild)[0]


def test_coverage_is_the_surface_of_the_parts_that_were_seen(case):
    """The parts of the free body that two dense points, or both key points at the ends of a limb, show."""
    body = load.load_body()
    names = skeleton.KEYPOINT_SETS["body_25b"]
    marked = np.zeros((3, len(names)), np.float32)
    for name in ("left_shoulder", "left_elbow"):
        marked[1, names.index(name)] = 1.0
    face = np.tile(np.flatnonzero(np.isin(body.part, quality.PARTS["head"]))[:2], (3, 1))
    seen = dataclasses.replace(
        case[0],
        point_face=face,
        point_confidence=np.array([[1, 1], [0, 0], [1, 0]], np.float32),
        keypoint_confidence=marked,
        keypoint_set="body_25b",
    )
    head, arm, nothing = quality._coverage(body, seen, np.asarray(body.part)[face])
    assert 0.05 < head < 0.15 and 0.02 < arm < 0.08 and nothing == 0.0
    torso = np.flatnonzero(np.isin(body.part, quality.PARTS["torso"]))
    height = np.asarray(body.vertices)[np.asarray(body.faces)[torso]].mean(axis=1)[:, 1]
    chest, waist = torso[np.argsort(height)[[-1, 0]]]
    face = np.array([[chest, chest], [waist, waist], [chest, waist]])
    seen = dataclasses.replace(seen, point_face=face, keypoint_confidence=np.zeros_like(marked))
    seen.point_confidence[:] = 1.0
    shoulders, hips, one_each = quality._coverage(body, seen, np.asarray(body.part)[face])
    assert 0.05 < shoulders < 0.2 and 0.05 < hips < 0.2 and one_each == 0.0, "a third of the torso each"


def test_scale_of_key_points_is_theirs_over_the_body_s(report):
    np.testing.assert_allclose(report.keypoint_scale[SMALL], 0.8, atol=0.05)  # they have noise
    assert report.keypoint_rest_px[SMALL] < 0.4 * report.keypoint_px[SMALL]
    assert np.isnan(report.keypoint_scale[[WELL, EMPTY]]).all(), "four key points, none"


def test_nothing_observed_leaves_every_flip_open(report):
    flags = quality.describe(report, EMPTY)["flags"]
    assert "may face the other way (50% likely)" in flags
    assert report.mode_rotation_deg[EMPTY, modes.NAMES.index("half_turn")] == pytest.approx(180.0, abs=0.1)


def test_reports_are_json(report):
    for row in range(PEOPLE):
        one = quality.describe(report, row)
        assert json.loads(json.dumps(one, allow_nan=False)) == one
    assert quality.describe(report, LONG)["largest_segment_scale"] == {"segment": "right_hip", "scale": 1.6}
    assert quality.describe(report, BENT)["beyond_limits_deg"].keys() >= {"left_elbow"}
    assert quality.describe(report, EMPTY)["dense_px"] is None


def test_every_point_is_left_out_of_the_fit_that_is_measured_at_it(monkeypatch):
    """The fits are perfect: what is measured is how far each person's points were moved, 0 and 2 of a crop's 100 px."""
    bodies = small_problem.random_people(2, seed=3)
    observations = small_problem.observe(bodies, seed=4)
    observations.point_position[1, :, 0] += 0.04
    folds, done, kept = 3, [], []

    def perfect(template, observations, config, objective, progress=None):
        kept.append(observations.point_confidence > 0)
        progress(len(kept[-1]))
        every = jax.tree.map(lambda leaf: np.concatenate([leaf] * folds), bodies)
        return Fit(every, *[np.zeros(2 * folds, np.float32)] * (len(dataclasses.fields(Fit)) - 1))

    monkeypatch.setattr(register, "register", perfect)
    error = quality.held_out_error_px(
        small_problem.small_template(), observations, RegistrationConfig(), Objective(), folds, done.append
    )
    np.testing.assert_allclose(error, [0.0, 2.0], atol=1e-3)
    np.testing.assert_array_equal(np.sum(kept[0].reshape(folds, 2, -1), axis=0), folds - 1)
    assert done == [6]
