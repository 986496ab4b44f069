"""Laws of normalisation, and what is done about missing joints."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.body import skeleton
from dal_jax.lifting import networks, normalise, outliers
from dal_jax.lifting.config import LiftingConfig
from tests.lifting import stick_people

_FLOAT32 = 1e-6  # coordinates of order 1 to 1000, divided by their mean
_ALL = np.ones(17, bool)
_POSE = np.asarray(stick_people.STANDING[:, :2], np.float32)
_normalise, _normalise_all = jax.jit(normalise.normalise), jax.jit(normalise.normalise_all)
_mirrored, _hide = jax.jit(normalise.mirrored), jax.jit(normalise.hide)


def _without(*joints):
    visible = _ALL.copy()
    visible[list(joints)] = False
    return visible


def test_hip_at_the_origin_and_mean_distance_1():
    points, hip, scale, visible, _ = _normalise(jnp.asarray(100 * _POSE + 7), _ALL)
    expected = _POSE - _POSE[:1]
    distance = np.linalg.norm(expected[1:], axis=-1).mean()
    np.testing.assert_allclose(points, expected / distance, atol=10 * _FLOAT32)  # the offset of 7 costs a digit
    np.testing.assert_allclose(scale, 100 * distance, rtol=10 * _FLOAT32)
    np.testing.assert_allclose(hip, 100 * _POSE[0] + 7, rtol=_FLOAT32)
    assert visible.all()


def test_leading_axes_are_batch():
    poses = np.stack([_POSE, 2 * _POSE + 1, _POSE[:, ::-1]]).reshape(3, 1, 17, 2)
    visible = np.random.default_rng(0).random((3, 1, 17)) < 0.7
    both = _normalise_all(jnp.asarray(poses), jnp.asarray(visible))
    for row in range(3):
        one = _normalise(jnp.asarray(poses[row, 0]), jnp.asarray(visible[row, 0]))
        for batched, single in zip(both, one, strict=True):
            np.testing.assert_allclose(batched[row, 0], single, rtol=_FLOAT32, atol=_FLOAT32)


def test_a_mirror_image_is_a_person_again():
    """Normalising the mirror image is mirroring the normalised pose; twice mirrored is the pose."""
    visible = _without(3, 12, 13)
    mirror = np.array(skeleton.H36M_MIRROR)
    poses = _normalise_all(jnp.asarray(_POSE)[None], jnp.asarray(visible)[None])
    image = (_POSE * np.float32([-1, 1]))[mirror]
    expected = _normalise_all(jnp.asarray(image)[None], jnp.asarray(visible[mirror])[None])
    found = _mirrored(poses)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=_FLOAT32)
    jax.tree.map(np.testing.assert_array_equal, _mirrored(found), poses)


def test_scale_and_place_do_not_matter():
    here = _normalise(jnp.asarray(_POSE), _ALL)
    there = _normalise(jnp.asarray(64 * (_POSE + np.float32([3, -2]))), _ALL)
    np.testing.assert_allclose(there.points, here.points, atol=10 * _FLOAT32)
    np.testing.assert_allclose(there.scale, 64 * here.scale, rtol=10 * _FLOAT32)


def test_a_missing_joint_is_folded_onto_its_nearest_visible_ancestor_and_not_counted():
    visible = _without(12, 13)  # left elbow and wrist; the shoulder, 11, is there
    broken = _POSE.copy()
    broken[[12, 13]] = np.nan
    points, _, scale, seen, _ = _normalise(jnp.asarray(broken), visible)
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
    points, _, scale, seen, _ = _normalise(jnp.asarray(_POSE), visible)
    hip = _POSE[expected].mean(axis=0)
    np.testing.assert_array_equal(points[0], 0)
    np.testing.assert_allclose(points[10] * scale, _POSE[10] - hip, atol=_FLOAT32)
    np.testing.assert_array_equal(seen, visible)


_gradient = jax.jit(jax.grad(lambda pose, visible: jnp.sum(normalise.normalise(pose, visible).points)))


@pytest.mark.parametrize("visible", [_ALL, np.arange(17) == 3, np.zeros(17, bool)])
def test_a_pose_of_no_size_stays_finite(visible):
    pose = jnp.full((17, 2), 5.0)
    points, _, scale, *_ = _normalise(pose, visible)
    np.testing.assert_array_equal(points, 0)
    assert scale == 0
    gradient = _gradient(pose, visible)
    assert np.isfinite(gradient).all()


# --- missing joints, predicted ---

_CONFIG = LiftingConfig(width=16, complete=True)
_prepare = jax.jit(functools.partial(normalise.prepare, _CONFIG))
_COMPLETER = jax.jit(functools.partial(networks.initial, _CONFIG, "completer"))(jax.random.key(0))
_CROWD = stick_people.crowd(40, seed=0)[..., :2].astype(np.float32)
_WHOLE = np.ones((40, 17), bool)


@jax.jit
@functools.partial(jax.value_and_grad, argnums=0)
def _completion(completer, points, visible, key):
    return normalise.completion_nll(_CONFIG, completer, normalise.normalise_all(points, visible), key)


_place = jax.jit(functools.partial(networks.place, _CONFIG))


def test_half_the_poses_hide_nothing_and_the_others_any_joint():
    hidden = np.asarray(_hide(jax.random.key(0), np.ones((4000, 17), bool)))
    assert 0.5 < np.mean(~hidden.any(axis=1)) < 0.6  # and some whose rate is small
    np.testing.assert_allclose(hidden.mean(axis=0), 0.1, atol=0.02)  # half of the poses, 0 to 0.4


def test_whole_poses_are_only_normalised():
    poses, sd = _prepare(_CROWD, _WHOLE, _COMPLETER)
    plain = _normalise_all(_CROWD, _WHOLE)
    np.testing.assert_allclose(poses.points, plain.points, atol=1e-6)
    np.testing.assert_allclose(poses.scale, plain.scale, rtol=1e-6)
    np.testing.assert_array_equal(sd, 0)


def test_a_missing_hip_is_placed_like_any_joint_and_is_the_origin():
    visible = np.tile(_without(0, 1), (40, 1))
    poses, sd = _prepare(7 * _CROWD, visible, _COMPLETER)
    np.testing.assert_array_equal(poses.points[:, 0], 0)
    masked = _normalise_all(7 * _CROWD, visible)
    placed, log_sd = _place(_COMPLETER, masked.points, visible)
    hip = np.asarray(masked.hip) + np.asarray(placed)[:, 0] * np.asarray(masked.scale)[:, None]
    np.testing.assert_allclose(poses.hip, hip, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        poses.points[:, 10] * np.asarray(poses.scale)[:, None], 7 * _CROWD[:, 10] - hip, atol=1e-3
    )
    np.testing.assert_allclose(sd[:, 0] * poses.scale, np.exp(log_sd[:, 0]) * masked.scale, rtol=1e-4)


def test_completed_poses_have_unit_size_and_keep_what_was_seen():
    visible = np.tile(_without(3, 13), (40, 1))
    poses, sd = _prepare(7 * _CROWD, visible, _COMPLETER)
    distance = np.linalg.norm(np.asarray(poses.points)[:, 1:], axis=-1).mean(axis=1)
    np.testing.assert_allclose(distance, 1, rtol=1e-5)
    back = np.asarray(poses.points) * np.asarray(poses.scale)[:, None, None]
    given = 7 * (_CROWD - _CROWD[:, :1])
    np.testing.assert_allclose(back[visible], given[visible], atol=1e-4)
    np.testing.assert_array_equal(np.asarray(sd) > 0, ~visible)
    assert (np.asarray(poses.stand_in) == np.arange(17)).all()  # rotated, a completed joint stays what it is


def test_without_a_completer_joints_are_folded():
    poses, sd = _prepare(_CROWD, np.tile(_without(13), (40, 1)))
    points = np.asarray(poses.points)
    np.testing.assert_array_equal(points[:, 13], points[:, 12])
    np.testing.assert_array_equal(sd, 0)


def test_the_loss_asks_for_hidden_known_joints_only():
    """Joints without annotation teach nothing: whatever is there, loss and gradient are the same."""
    visible = np.random.default_rng(0).random((40, 17)) < 0.7
    visible[:, 0] = True
    broken = np.where(visible[..., None], _CROWD, np.float32(np.nan))
    one, other = (_completion(_COMPLETER, points, visible, jax.random.key(2)) for points in (_CROWD, broken))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(one))


def test_loss_is_the_likelihood_of_the_target_in_the_masked_poses_own_frame():
    """Against a slow NumPy count over poses and joints."""
    key = jax.random.key(3)
    points = np.asarray(_normalise_all(_CROWD, _WHOLE).points)
    hidden = np.asarray(_hide(key, _WHOLE))
    terms = []
    for row in range(40):
        masked = _normalise(points[row], ~hidden[row])
        placed, log_sd = _place(_COMPLETER, masked.points, ~hidden[row])
        target = (points[row] - np.asarray(masked.hip)) / float(masked.scale)
        away = np.sum((target - np.asarray(placed)) ** 2, axis=-1)
        likelihood = away / (2 * np.exp(2 * np.asarray(log_sd))) + 2 * np.asarray(log_sd)
        terms += list(likelihood[hidden[row]])
    # normalised already, they are normalised to what they are
    np.testing.assert_allclose(_completion(_COMPLETER, points, _WHOLE, key)[0], np.mean(terms), rtol=1e-4)


def test_degenerate_poses_stay_finite():
    flat = np.zeros((40, 17, 2), np.float32)
    flat[1::2, 1:] = 1.0
    standardised = jax.jit(functools.partial(outliers.standardised_residual, _CONFIG))
    for visible in (_WHOLE, ~_WHOLE):
        poses, sd = _prepare(flat, visible, _COMPLETER)
        residual = standardised(_COMPLETER, flat, visible)
        _, gradient = _completion(_COMPLETER, flat, visible, jax.random.key(0))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((poses, sd, residual, gradient)))


# --- noise, taken off ---


def _moving(count, seed):
    """Stick people who move in eight ways at once."""
    ways = np.random.default_rng(0).normal(0, 0.1, (8, 17, 2))
    moved = np.random.default_rng(seed).normal(size=(count, 8))
    return stick_people.STANDING[:, :2] + np.einsum("nw,wjd->njd", moved, ways)


_SEEN = np.ones((1000, 17), bool)


def test_noise_along_the_ways_in_which_nobody_moves_is_taken_off():
    exact, off = _moving(1000, 1), np.random.default_rng(2).normal(0, 0.02, (1000, 17, 2))
    known = normalise.denoiser(exact + off, _SEEN)
    left = np.asarray(normalise.without_noise(known, np.float32(exact + off))) - exact
    kept = np.sqrt((2 * 8 + 1) / 34)  # the ways, those of mirror images, and the middle's share
    np.testing.assert_allclose(np.sqrt(np.mean(left**2) / np.mean(off**2)), kept, atol=0.12)


def test_exact_poses_stay_what_they_are_and_few_say_nothing():
    exact = np.float32(_moving(1000, 1))
    for known in (normalise.denoiser(exact, _SEEN), normalise.denoiser(exact[:999], _SEEN[:999])):
        np.testing.assert_allclose(normalise.without_noise(known, exact), exact, atol=2e-3)


def test_noise_is_taken_off_alike_wherever_a_pose_lies_however_large_and_in_a_mirror():
    known = normalise.denoiser(_moving(1000, 1) + np.random.default_rng(2).normal(0, 0.05, (1000, 17, 2)), _SEEN)
    poses, mirror = np.float32(_moving(5, 3)), np.array(skeleton.H36M_MIRROR)
    once = np.asarray(normalise.without_noise(known, poses))
    moved = normalise.without_noise(known, 50 * poses + np.float32([300, 200]))
    np.testing.assert_allclose(moved, 50 * once + np.float32([300, 200]), atol=1e-2)
    image = normalise.without_noise(known, poses[:, mirror] * np.float32([-1, 1]))
    np.testing.assert_allclose(image, once[:, mirror] * np.float32([-1, 1]), atol=1e-4)
    points, _ = normalise.prepare(LiftingConfig(), 50 * poses, np.ones((5, 17), bool), denoiser=known)
    np.testing.assert_allclose(
        points.points, (once - once[:, :1]) * 50 / np.asarray(points.scale)[:, None, None], atol=1e-4
    )
