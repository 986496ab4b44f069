"""Measurements are what a tape would say of the mesh, in the unit that they name; deviations are of the covariance."""

import dataclasses

import jax
import numpy as np
import pytest
import trimesh

from dal_jax.body import kinematics, skeleton, skinning
from dal_jax.body.formats.load import load_body
from dal_jax.body.kinematics import t_pose
from dal_jax.body.template import WIDENED
from dal_jax.uncertainty import measurements

_ROUNDING = 2e-5  # float32 over 14,394 faces, relative
_STEP = 1e-3  # of the numerical derivative
_HEIGHT_CM = 178.0


def _person(log_shape):
    """Return a body of these log scales and log girth (or segment girths), and its mesh at rest, upright."""
    body = load_body()
    girths = np.exp(log_shape[24:]).astype(np.float32)
    parameters = dataclasses.replace(
        t_pose(),
        rotation=np.eye(3, dtype=np.float32),
        segment_scale=np.exp(log_shape[:24]).astype(np.float32),
        **{"girth": girths[0]} if len(girths) == 1 else {"segment_girth": girths.reshape(24, 2)},
    )
    vertices = np.asarray(_vertices(body, parameters), np.float64)
    return body, parameters, trimesh.Trimesh(vertices, np.asarray(body.faces), process=False)


@jax.jit
def _vertices(body, parameters):
    return skinning.skin_vertices(body, kinematics.pose_segments(body, parameters))


def _expected(log_shape):
    """Return what NumPy and trimesh measure over the height: bones of the rest skeleton, girths of the cut mesh."""
    body, _, mesh = _person(log_shape)
    scale = np.exp(log_shape[:24])
    place = np.zeros((24, 3))
    for child, parent in enumerate(skeleton.SMPL_PARENTS[1:], start=1):
        place[child] = place[parent] + scale[parent] * (
            np.asarray(body.joints)[child] - np.asarray(body.joints)[parent]
        )
    place = dict(zip(skeleton.SMPL_JOINT_NAMES, place, strict=True))

    def apart(one, other):
        return np.linalg.norm(place[one] - place[other])

    def girth(height):
        lines = trimesh.intersections.mesh_plane(mesh, [0, 1, 0], [0, height, 0])
        of_trunk = np.abs(lines.mean(axis=1)[:, 0]) < 0.3  # arms are stretched out to the sides, and higher
        return np.linalg.norm(lines[:, 0] - lines[:, 1], axis=1)[of_trunk].sum()

    found = {"height": np.ptp(mesh.vertices[:, 1])}
    for name, upper, lower in (
        ("upper_arm", "shoulder", "elbow"), ("forearm", "elbow", "wrist"), ("thigh", "hip", "knee"),
        ("shin", "knee", "ankle"),
    ):  # fmt: skip
        found[name] = np.mean([apart(f"{side}_{upper}", f"{side}_{lower}") for side in ("left", "right")])
    found["shoulder_width"] = apart("left_shoulder", "right_shoulder")
    found["hip_width"] = apart("left_hip", "right_hip")
    found["chest_girth"] = girth(place["spine3"][1])
    found["waist_girth"] = girth((place["spine1"][1] + place["spine2"][1]) / 2)
    found["hip_girth"] = girth((place["left_hip"][1] + place["right_hip"][1]) / 2)
    return {name: value / found["height"] for name, value in found.items()}


@pytest.fixture(scope="module")
def log_shape():
    random = np.random.default_rng(3)
    return np.append(random.normal(0, 0.04, 24), 0.15)


def test_lengths_and_girths_are_those_of_the_mesh(log_shape):
    body, parameters, _ = _person(log_shape)
    expected = _expected(log_shape)
    for height_cm, factor, unit in ((None, 1.0, "heights"), (_HEIGHT_CM, _HEIGHT_CM, "cm")):
        found = measurements.measure(body, parameters, np.zeros((25, 25)), height_cm)
        assert tuple(found) == measurements.NAMES == tuple(expected)
        for name, one in found.items():
            assert one.value == pytest.approx(factor * expected[name], rel=_ROUNDING), name
            assert one.sd == 0 and one.unit == unit
    assert found["height"].value == pytest.approx(_HEIGHT_CM)
    assert 80 < found["waist_girth"].value < 120  # of a body 16% wider than the free one, whose waist is 77 cm at 178


def test_segment_girths_measure_as_the_mesh_and_deviate_as_a_common_girth(log_shape):
    random = np.random.default_rng(4)
    wide = np.append(log_shape[:24], random.normal(0.1, 0.1, 48))
    body, parameters, _ = _person(wide)
    found = measurements.measure(body, parameters, np.zeros((72, 72)))
    assert {name: one.value for name, one in found.items()} == pytest.approx(_expected(wide), rel=_ROUNDING)
    widened = np.repeat(WIDENED, 2).astype(float)
    alike = _person(np.append(log_shape[:24], log_shape[24] * widened))[1]
    one, other = np.zeros((25, 25)), np.zeros((72, 72))
    one[24, 24], other[24:, 24:] = 0.01, 0.01 * np.outer(widened, widened)
    by_girth = measurements.measure(body, _person(log_shape)[1], one)
    by_segments = measurements.measure(body, alike, other)
    for name in measurements.NAMES:
        np.testing.assert_allclose(by_segments[name][:2], by_girth[name][:2], rtol=1e-3, atol=1e-5)


def test_an_unknown_girth_is_the_bodys_own_and_a_common_scale_is_none(log_shape):
    body, parameters, _ = _person(np.append(log_shape[:24], 0.0))
    larger = dataclasses.replace(parameters, girth=None, segment_scale=1.3 * np.asarray(parameters.segment_scale))
    one, other = (measurements.measure(body, each, np.zeros((25, 25))) for each in (parameters, larger))
    for name in measurements.NAMES:
        assert other[name].value == pytest.approx(one[name].value, rel=_ROUNDING)


def test_deviations_are_the_covariances_by_a_numerical_derivative(log_shape):
    body, parameters, _ = _person(log_shape)
    root = np.random.default_rng(1).normal(0, 0.01, (25, 25))
    found = measurements.measure(body, parameters, root @ root.T, _HEIGHT_CM)
    slope = np.zeros((len(measurements.NAMES), 25))
    for place in range(25):
        ends = [_expected(log_shape + sign * _STEP * np.eye(25)[place]) for sign in (1, -1)]
        slope[:, place] = [(ends[0][name] - ends[1][name]) / (2 * _STEP) for name in measurements.NAMES]
    expected = _HEIGHT_CM * np.linalg.norm(slope @ root, axis=1)
    np.testing.assert_allclose([one.sd for one in found.values()], expected, rtol=0.02, atol=1e-3)
    assert found["height"].sd == pytest.approx(0, abs=1e-3)
    assert all(one.sd > 0.1 for name, one in found.items() if name != "height")


@pytest.mark.parametrize("height_cm", [0.0, 1.78, 1780.0, np.nan])
def test_a_height_that_nobody_has_is_refused(log_shape, height_cm):
    body, parameters, _ = _person(log_shape)
    with pytest.raises(ValueError, match="height_cm is .*: between 40 and 280"):
        measurements.measure(body, parameters, np.zeros((25, 25)), height_cm)
