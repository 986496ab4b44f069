"""Each term's sign, value and finite gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.body import skeleton
from dal_jax.lifting import losses, views
from tests.lifting import stick_people

_FLOAT32 = 1e-6
_ALL = np.ones(17, bool)
_POINTS, _DEPTH = np.float32(stick_people.STANDING[:, :2]), np.float32(stick_people.STANDING[:, 2])
_facing, _mirror_ambiguity = jax.jit(losses.facing), jax.jit(losses.mirror_ambiguity, static_argnums=3)
_log_proportions, _bone_asymmetry = jax.jit(losses.log_proportions), jax.jit(losses.bone_asymmetry)
_bone_unlikeness = jax.jit(losses.bone_unlikeness)


def test_a_person_facing_the_camera_scores_1_and_with_depth_reversed_minus_1():
    np.testing.assert_allclose(_facing(_POINTS, _DEPTH), 1, atol=_FLOAT32)
    np.testing.assert_allclose(_facing(_POINTS, -_DEPTH), -1, atol=_FLOAT32)
    assert _mirror_ambiguity(_POINTS, _DEPTH, _ALL) == 0
    np.testing.assert_allclose(_mirror_ambiguity(_POINTS, -_DEPTH, _ALL), 1, atol=_FLOAT32)


@pytest.mark.parametrize("angle", [0.4, 1.5, 3.0, -2.0])
def test_facing_does_not_depend_on_the_azimuth(angle):
    points, depth = jax.jit(lambda angle: views.rotate_pose(views.yaw(angle), _POINTS, _DEPTH))(angle)
    np.testing.assert_allclose(_facing(points, depth), 1, atol=_FLOAT32)


@pytest.mark.parametrize("joint", [8, 9, 11, 14])
def test_no_opinion_where_a_joint_is_missing(joint):
    assert _mirror_ambiguity(_POINTS, -_DEPTH, _ALL & (np.arange(17) != joint)) == 0


def test_mirror_gradient_is_finite_where_neck_or_shoulders_have_no_length():
    narrow = np.where(np.arange(17)[:, None] == 14, _POINTS[11:12], _POINTS)
    slopes = jax.jit(jax.grad(losses.mirror_ambiguity, argnums=(0, 1)))
    for points in (np.zeros((17, 2), np.float32), narrow):
        gradients = slopes(points, np.zeros(17, np.float32), _ALL)
        assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_realism_is_the_softplus_gan():
    real, fake = np.array([-30.0, -1.0, 0.0, 2.0, 30.0]), np.array([3.0, 0.5, 0.0, -1.0, -40.0])
    np.testing.assert_allclose(losses.generator_realism(jnp.asarray(fake)), np.log1p(np.exp(-fake)), rtol=_FLOAT32)
    expected = np.log1p(np.exp(-real)) + np.log1p(np.exp(fake))
    np.testing.assert_allclose(losses.discriminator_realism(jnp.asarray(real), jnp.asarray(fake)), expected, rtol=1e-5)


def test_cycle_consistency_is_the_distance_after_rotating_back():
    """What Chen et al. compute: rotate, lift again, rotate back, compare in 3D."""
    random = np.random.default_rng(0)
    rotation = np.asarray(views.yaw(jnp.array(2.0)) @ views.tilt(jnp.array(0.2)), np.float64)
    pose = random.normal(size=(17, 3))
    rotated, again = pose @ rotation.T, random.normal(size=17)
    lifted_again = np.c_[rotated[:, :2], again]
    visible = np.arange(17) % 3 > 0
    expected = np.sum((lifted_again @ rotation - pose)[visible] ** 2, axis=-1).mean()
    loss = losses.cycle_consistency(jnp.asarray(rotated[:, 2]), jnp.asarray(again), visible)
    np.testing.assert_allclose(loss, expected, rtol=10 * _FLOAT32)
    assert losses.cycle_consistency(jnp.asarray(rotated[:, 2]), jnp.asarray(again), np.zeros(17, bool)) == 0


def test_reprojection_consistency_is_the_distance_in_the_image_after_rotating_back():
    random = np.random.default_rng(1)
    rotation = np.asarray(views.tilt(jnp.array(0.3)) @ views.yaw(jnp.array(1.1)), np.float64)
    pose = random.normal(size=(17, 3))
    rotated, again = pose @ rotation.T, random.normal(size=17)
    visible = np.arange(17) % 4 > 0
    back = np.c_[rotated[:, :2], again] @ rotation
    expected = np.sum((back - pose)[visible, :2] ** 2, axis=-1).mean()
    loss = losses.reprojection_consistency(
        jnp.asarray(rotation), jnp.asarray(rotated[:, 2]), jnp.asarray(again), visible
    )
    np.testing.assert_allclose(loss, expected, rtol=10 * _FLOAT32)


def test_a_margin_pushes_a_nose_that_is_not_square_to_the_shoulders():
    for margin in (0.0, 0.4):
        np.testing.assert_allclose(_mirror_ambiguity(_POINTS, -_DEPTH, _ALL, margin), 1 + margin, atol=_FLOAT32)
    sideways = np.where(np.arange(17) == 9, _DEPTH[8], _DEPTH)  # the nose neither before nor behind the neck
    np.testing.assert_allclose(_mirror_ambiguity(_POINTS, sideways, _ALL, 0.4), 0.4, atol=0.05)


def _stretched(shares):
    """Stick people whose bones are longer by these factors, at a few azimuths: (n, 17, 3)."""
    people = []
    for number, factor in enumerate(shares):
        joints = np.zeros((17, 3))
        for (joint, parent), stretch in zip(losses.BONES, factor, strict=True):
            bone = stick_people.STANDING[joint] - stick_people.STANDING[parent]
            joints[joint] = joints[parent] + stretch * bone
        people.append(joints @ stick_people.rotations(np.array([0.7 * number]))[0].T)
    return np.stack(people).astype(np.float32)


def test_equal_bodies_are_alike_whatever_their_size_and_azimuth():
    people = _stretched(np.ones((5, 16)) * np.array([1, 2, 1, 0.5, 3])[:, None])
    known = np.ones((5, 16), bool)
    symmetric = (people[..., :2], people[..., 2])
    proportions = _log_proportions(*symmetric)
    np.testing.assert_allclose(np.exp(proportions).sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(proportions, np.broadcast_to(proportions[:1], (5, 16)), atol=2e-2)  # the rounding at 0
    own_asymmetry = np.mean(np.square(_bone_asymmetry(proportions)))
    spread = _bone_unlikeness(proportions, known) - own_asymmetry
    flat = _bone_unlikeness(_log_proportions(symmetric[0], 0 * people[..., 2]), known)
    assert spread < 1e-2 and flat > 100 * spread


def test_left_is_compared_with_right():
    names = skeleton.H36M_JOINT_NAMES
    rows = {names[joint]: row for row, (joint, _) in enumerate(losses.BONES)}
    longer = np.ones((1, 16))
    longer[0, rows["left_knee"]] = 2.0
    asymmetry = _bone_asymmetry(_log_proportions(*_split(_stretched(longer))))[0]
    asymmetry = np.asarray(asymmetry)
    plain = _bone_asymmetry(_log_proportions(*_split(_stretched(np.ones((1, 16))))))[0]
    changed = np.abs(asymmetry - plain) > 0.1
    assert set(np.flatnonzero(changed)) == {rows["left_knee"], rows["right_knee"]}
    np.testing.assert_allclose((asymmetry - plain)[rows["left_knee"]], np.log(2), atol=1e-2)
    np.testing.assert_array_equal(asymmetry[[rows["spine"], rows["head"]]], 0)


def test_bones_with_a_missing_end_do_not_count():
    people = _stretched(np.ones((2, 16)))
    known = losses.known_bones(jnp.asarray(np.arange(17) != 13)[None].repeat(2, axis=0))
    assert int((~known).sum()) == 2  # the forearm of both
    moved = people + np.float32(5.0) * (np.arange(17) == 13)[None, :, None]
    one, other = (_log_proportions(*_split(joints)) for joints in (people, moved))
    shift = jnp.mean(jnp.where(known, other - one, 0.0), axis=-1, keepdims=True) * 16 / 15  # shares of another sum
    np.testing.assert_allclose(_bone_unlikeness(other - shift, known), _bone_unlikeness(one, known), rtol=1e-3)


def test_frames_of_a_person_are_compared_with_each_other():
    """Not with other people's: two people of different bodies, each alike in both frames, cost nothing."""
    people = _log_proportions(*_split(_stretched(np.stack([np.ones(16), 1 + 0.3 * (np.arange(16) == 5)]))))
    known = np.ones((4, 16), bool)
    both = jnp.concatenate([people, people])
    assert losses.track_unlikeness(both, known) == 0
    swapped = jnp.concatenate([people, people[::-1]])
    expected = np.mean((np.asarray(people[0]) - np.asarray(people[1])) ** 2)
    np.testing.assert_allclose(losses.track_unlikeness(swapped, known), expected, rtol=1e-5)
    assert losses.track_unlikeness(swapped, known & (np.arange(4) > 3)[:, None]) == 0


def test_bone_gradient_is_finite_where_bones_have_no_length():
    flat = np.zeros((2, 17, 2), np.float32), np.zeros((2, 17), np.float32)
    loss = lambda points, depth: _bone_unlikeness(  # noqa: E731
        _log_proportions(points, depth), np.ones((2, 16), bool)
    )
    assert all(np.isfinite(gradient).all() for gradient in jax.jit(jax.grad(loss, argnums=(0, 1)))(*flat))


def test_the_likeliest_deviation_is_the_errors_own():
    errors = jnp.asarray(np.random.default_rng(0).normal(scale=0.3, size=(20_000, 1)), jnp.float32)
    mean = lambda log_sd: jnp.mean(losses.negative_log_likelihood(errors, log_sd))  # noqa: E731
    slope = jax.jit(jax.grad(mean))
    assert slope(np.log(np.float32(0.29))) < 0 < slope(np.log(np.float32(0.31)))


def _split(joints):
    return joints[..., :2], joints[..., 2]


def test_published_bones_are_a_skeleton_s_own_and_cost_nothing_to_it_alone():
    bones = np.log(losses.HUMAN36M_BONES_MM).astype(np.float32)
    own = np.asarray(jax.nn.log_softmax(bones))[None]
    known = np.ones((1, 16), bool)
    np.testing.assert_allclose(_bone_unlikeness(own, known, bones), 0, atol=1e-10)
    np.testing.assert_allclose(_bone_unlikeness(own + np.float32(0.1), known, bones), 0.01, rtol=1e-3)
    names = [skeleton.H36M_JOINT_NAMES[joint] for joint, _ in losses.BONES]
    lengths = dict(zip(names, losses.HUMAN36M_BONES_MM, strict=True))
    assert all(lengths[f"left_{side}"] == lengths[f"right_{side}"] for side in ("hip", "knee", "foot", "wrist"))
