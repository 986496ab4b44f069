"""Which lifter gives people their depths, and to whom; and a fit of several cameras, from their file to the report."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dal_jax.body import kinematics, skeleton, skinning
from dal_jax.body.formats.load import load_body
from dal_jax.fits import fitting
from dal_jax.fits.options import FitOptions
from dal_jax.observations.observations import Observations
from dal_jax.observations.person import Annotations
from dal_jax.registration import single_views
from dal_jax.synthetic import people as synthetic_people
from tests.fits import entries
from tests.observations import test_cameras_file as cameras
from tests.registration import small_problem

EXPLAINED_PX = 7.0  # root mean square, of people 700 px tall


@pytest.fixture(scope="module")
def people() -> Observations:
    """Two people's key points; the second has two dense points, too."""
    points_px, faces = np.full((2, 2, 2), np.nan), np.zeros((2, 2), int)
    points_px[1] = [[480.0, 500.0], [510.0, 520.0]]
    keypoints_px = synthetic_people.poses_2d(range(2))["body_25b"]
    shares = np.full((2, 2, 3), 1 / 3)
    return Observations.from_points(points_px, faces, shares, keypoints_px=keypoints_px, keypoint_set="body_25b")


@pytest.mark.parametrize(
    ("lifting", "options", "chosen"),
    [
        (None, FitOptions(), "shipped"),
        (None, FitOptions(pitch_deg=10.0), "shipped"),
        (None, FitOptions(weights="paper_soft"), None),
        ("none", FitOptions(), None),
        ("shipped", FitOptions(pitch_deg=10.0, weights="paper_soft"), "shipped"),
        ("runs/lifter", FitOptions(), "runs/lifter"),
    ],
)
def test_the_shipped_lifter_is_the_default_where_it_was_measured_to_pay(lifting, options, chosen, people):
    assert fitting.chosen_lifter(people, options, lifting) == chosen


def test_people_who_all_have_dense_points_need_no_lifter(people):
    stacked = dataclasses.replace(people.stacked, point_confidence=np.ones_like(people.stacked.point_confidence))
    assert fitting.chosen_lifter(dataclasses.replace(people, stacked=stacked), FitOptions(), None) is None
    annotations = Annotations([entries.annotated(1, 2, points=7), entries.rejected(1, 1)])
    assert fitting.chosen_lifter(annotations, FitOptions(), None) is None
    alone = Annotations([entries.annotated(1, 2, points=7), entries.annotated(1, 3, points=0)])
    assert fitting.chosen_lifter(alone, FitOptions(), None) == "shipped"


def test_by_default_depths_are_lifted_for_people_without_dense_points_alone(people):
    observed = people.stacked
    everybody, alone = fitting.lifted("shipped", observed), fitting.lifted("shipped", observed, alone=True)
    assert (everybody.depth_confidence > 0).any(axis=1).all()
    np.testing.assert_array_equal(alone.depth[0], everybody.depth[0])
    np.testing.assert_array_equal(alone.depth_confidence[0], everybody.depth_confidence[0])
    np.testing.assert_array_equal(alone.depth_confidence[1], observed.depth_confidence[1])
    np.testing.assert_array_equal(alone.depth[1], observed.depth[1])


@pytest.mark.parametrize(("lifting", "lifter"), [(None, "shipped"), ("shipped", "shipped"), ("none", None)])
def test_depths_reach_the_fit(lifting, lifter, people, monkeypatch):
    fitted = []

    def register(_body, observation, *_):
        fitted.append(observation)
        raise InterruptedError

    monkeypatch.setattr(fitting.register, "register", register)
    with pytest.raises(InterruptedError):
        fitting.fit(people, load_body(), lifting=lifting)
    expected = people.stacked if lifter is None else fitting.lifted(lifter, people.stacked, alone=lifting is None)
    expected = single_views.complete(expected)
    np.testing.assert_array_equal(fitted[0].depth, expected.depth)
    np.testing.assert_array_equal(fitted[0].depth_confidence, expected.depth_confidence)


@pytest.mark.slow  # two programs are compiled
def test_people_whom_several_cameras_see_are_reported_on(tmp_path):
    """Two moments before three cameras; in the second one of them has a wrist 150 px off."""
    quarters = Rotation.from_euler("y", [[0.0], [1.5], [3.5]]).as_matrix()
    rig = [dataclasses.replace(one, rotation=turn) for one, turn in zip(cameras.rig(), quarters, strict=True)]
    (tmp_path / "rig.json").write_text(cameras.own(rig))
    body, shown = load_body(), small_problem.random_people(2, seed=3, pose_sd=0.2)

    @jax.jit
    @jax.vmap
    def places(one):
        return skinning.keypoints(body, kinematics.pose_segments(body, one), "body_25b")

    pixels = np.stack([one.project(np.float64(places(shown))) for one in rig])
    pixels[2, 1, skeleton.KEYPOINT_SETS["body_25b"].index("left_wrist")] += 150.0
    seen = Observations.from_points(keypoints_px=pixels.reshape(6, 25, 2), keypoint_set="body_25b")
    seen = seen.with_views([one.name for one in rig for _ in range(2)], np.tile([0, 1], 3))
    fits = fitting.fit(seen, body, FitOptions(cameras=str(tmp_path / "rig.json")))

    first, second = np.arange(0, 6, 2), np.arange(1, 6, 2)
    assert fits.extra["moment"].tolist() == [0, 1] * 3 and np.isfinite(fits.extra["joints_world"]).all()
    assert [fits.quality[row].verdict for row in first] == ["good"] * 3
    assert "usable" in [fits.quality[row].verdict for row in second]
    assert fits.keypoint_error_px[first].max() < EXPLAINED_PX < 2 * EXPLAINED_PX < fits.keypoint_error_px[second].min()
    numbers = [fits.quality[row].numbers for row in range(6)]
    deviations = np.array([one["expected_error_mm"] for one in numbers])
    assert np.isfinite(deviations).all() and deviations[first].max() < deviations[second].min()
