"""Laws of normalisation, and what is done about missing joints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.body import skeleton
from dal_jax.lifting import normalise
from tests.lifting import stick_people

_FLOAT32 = 1e-6  # coordinates of order 1 to 1000, divided by their mean
_ALL = np.ones(17, bool)
_POSE = np.asarray(stick_people.STANDING[:, :2], np.float32)


def _without(*joints):
    visible = _ALL.copy()
    visible[list(joints)] = False
    return visible


def test_hip_at_the_origin_and_mean_distance_1():
    points, hip, scale, visible, _ = normalise.normalise(jnp.asarray(100 * _POSE + 7), _ALL)
    expected = _POSE - _POSE[:1]
    distance = np.linalg.norm(expected[1:], axis=-1).mean()
    np.testing.assert_allclose(points, expected / distance, atol=10 * _FLOAT32)  # the offset of 7 costs a digit
    np.testing.assert_allclose(scale, 100 * distance, rtol=10 * _FLOAT32)
    np.testing.assert_allclose(hip, 100 * _POSE[0] + 7, rtol=_FLOAT32)
    assert visible.all()


def test_leading_axes_are_batch():
    poses = np.stack([_POSE, 2 * _POSE + 1, _POSE[:, ::-1]]).reshape(3, 1, 17, 2)
    visible = np.random.default_rng(0).random((3, 1, 17)) < 0.7
    both = normalise.normalise_all(jnp.asarray(poses), jnp.asarray(visible))
    for row in range(3):
        one = normalise.normalise(jnp.asarray(poses[row, 0]), jnp.asarray(visible[row, 0]))
        for batched, single in zip(both, one, strict=True):
            np.testing.assert_allclose(batched[row, 0], single, rtol=_FLOAT32, atol=_FLOAT32)


def test_a_mirror_image_is_a_person_again():
    """Normalising the mirror image is mirroring the normalised pose; twice mirrored is the pose."""
    visible = _without(3, 12, 13)
    mirror = np.array(skeleton.H36M_MIRROR)
    poses = normalise.normalise_all(jnp.asarray(_POSE)[None], jnp.asarray(visible)[None])
    image = (_POSE * np.float32([-1, 1]))[mirror]
    expected = normalise.normalise_all(jnp.asarray(image)[None], jnp.asarray(visible[mirror])[None])
    found = normalise.mirrored(poses)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=_FLOAT32)
    jax.tree.map(np.testing.assert_array_equal, normalise.mirrored(found), poses)


def test_scale_and_place_do_not_matter():
    here = normalise.normalise(jnp.asarray(_POSE), _ALL)
    there = normalise.normalise(jnp.asarray(64 * (_POSE + np.float32([3, -2]))), _ALL)
    np.testing.assert_allclose(there.points, here.points, atol=10 * _FLOAT32)
    np.testing.assert_allclose(there.scale, 64 * here.scale, rtol=10 * _FLOAT32)


def test_a_missing_joint_is_folded_onto_its_nearest_visible_ancestor_and_not_counted():
    visible = _without(12, 13)  # left elbow and wrist; the shoulder, 11, is there
    broken = _POSE.copy()
    broken[[12, 13]] = np.nan
    points, _, scale, seen, _ = normalise.normalise(jnp.asarray(broken), visible)
    counted = np.flatnonzero(visible)[1:]
    np.testing.assert_allclose(scale, np.linalg.norm(_POSE[counted] - _POSE[0], axis=-1).mean(), rtol=_FLOAT32)
    np.testing.assert_array_equal(np.asarray(points)[[12, 13]], np.asarray(points)[[11, 11]])
    np.testing.assert_array_equal(seen, visible)


@pytest.mark.parametrize(
    ("missing", "expected"),
    [((0,), [1, 4]), ((0, 1), [4]), ((0, 1, 4), [j for j in range(17) if j not in (0, 1, 4)])],
)
def test_a_missing_hip_is_estimated(missing, expected):
    visible = _without(*missing)
    points, _, scale, seen, _ = normalise.normalise(jnp.asarray(_POSE), visible)
    hip = _POSE[expected].mean(axis=0)
    np.testing.assert_array_equal(points[0], 0)
    np.testing.assert_allclose(points[10] * scale, _POSE[10] - hip, atol=_FLOAT32)
    assert seen[0]


@pytest.mark.parametrize("visible", [_ALL, np.arange(17) == 3, np.zeros(17, bool)])
def test_a_pose_of_no_size_stays_finite(visible):
    pose = jnp.full((17, 2), 5.0)
    points, _, scale, *_ = normalise.normalise(pose, visible)
    np.testing.assert_array_equal(points, 0)
    assert scale == 0
    gradient = jax.grad(lambda p: jnp.sum(normalise.normalise(p, visible).points))(pose)
    assert np.isfinite(gradient).all()
