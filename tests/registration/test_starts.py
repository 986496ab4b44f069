"""Starts: the closed-form pose against people made by hand in NumPy, and the laws of the headings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import transform

from dal_jax.body import kinematics
from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.skinning import SurfacePoints
from dal_jax.observations.residuals import Target
from dal_jax.registration import starts
from tests.registration import small_problem

FLOAT32 = 1e-5
EXACT = 1e-3  # float32, and half a point's worth of prior against points that count a million times
WEAK_PRIOR_RADIANS = 0.1  # half a point of prior against 77 points on a body 15 cm deep; measured: 0.04 to 0.08
POINTS, PEOPLE = 60, 6


def _people(seed=0):
    """Return rigid T-poses under any rotation, scale and translation."""
    rng = np.random.default_rng(seed)
    turn = transform.Rotation.random(PEOPLE, random_state=seed).as_matrix()
    return turn, rng.uniform(0.3, 2.0, PEOPLE), rng.normal(0, 0.5, (PEOPLE, 2))


def _target(turn, scale, translation, confidence=1.0, seed=1):
    """Project random vertices and the key points of the template."""
    template, rng = small_problem.small_template(), np.random.default_rng(seed)
    chosen = rng.integers(0, len(template.vertices), (len(scale), POINTS))
    rest = template.vertices[chosen]
    joints = np.broadcast_to(template.h36m_regressor @ template.vertices, (len(scale), 17, 3))

    def place(points):
        return scale[:, None, None] * np.einsum("nij,npj->npi", turn, points)[:, :, :2] + translation[:, None]

    target = Target(
        points=SurfacePoints(rest, template.skin_weight[chosen]),
        observation=small_problem.observation(
            point_position=place(rest),
            point_confidence=np.full((len(scale), POINTS), confidence),
            keypoint_position=place(joints),
            keypoint_confidence=np.full((len(scale), 17), confidence),
        ),
    )
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), target)


def _seen(target, **changes):
    return target.replace(observation=target.observation.replace(**changes))


@jax.jit
def _closed_form(target):
    template = small_problem.small_template()
    return jax.vmap(lambda one: starts.closed_form(template, one))(target)


def _assert_proper(rotation):
    identity = np.broadcast_to(np.eye(3), rotation.shape)
    np.testing.assert_allclose(np.swapaxes(rotation, -1, -2) @ rotation, identity, atol=FLOAT32)
    np.testing.assert_allclose(np.linalg.det(rotation), 1.0, atol=FLOAT32)


def _assert_usable(start):
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(start))
    assert np.all(np.asarray(start.camera_scale) > 0)
    _assert_proper(np.asarray(start.rotation))


def test_recovers_a_rigid_t_pose():
    turn, scale, translation = _people()
    start = _closed_form(_target(turn, scale, translation, confidence=1e6))
    np.testing.assert_allclose(start.rotation, turn, atol=EXACT)
    np.testing.assert_allclose(start.camera_scale, scale, rtol=EXACT)
    np.testing.assert_allclose(start.translation, translation, atol=EXACT)
    np.testing.assert_array_equal(start.pose, 0.0)
    np.testing.assert_array_equal(start.segment_scale, 1.0)


def test_prior_is_weak():
    turn, scale, translation = _people()
    start = _closed_form(_target(turn, scale, translation))
    relative = transform.Rotation.from_matrix(np.asarray(start.rotation)) * transform.Rotation.from_matrix(turn).inv()
    assert relative.magnitude().max() < WEAK_PRIOR_RADIANS


def test_no_points_at_all_gives_the_upright_t_pose():
    start = _closed_form(_target(*_people(), confidence=0.0))
    expected = kinematics.t_pose()
    jax.tree.map(
        lambda found, one: np.testing.assert_allclose(found, np.broadcast_to(one, found.shape), atol=FLOAT32),
        start, expected,
    )  # fmt: skip


def test_masked_entries_are_not_read():
    target = _target(*_people())
    confidence = np.ones((PEOPLE, POINTS), np.float32)
    confidence[:, ::3] = 0
    hidden = np.ones((PEOPLE, 17), np.float32)
    hidden[:, ::2] = 0
    target = _seen(target, point_confidence=confidence, keypoint_confidence=hidden)
    seen = target.observation
    garbage = _seen(
        target,
        point_position=np.where(confidence[..., None] > 0, seen.point_position, np.float32(77)),
        keypoint_position=np.where(hidden[..., None] > 0, seen.keypoint_position, np.float32(-55)),
    ).replace(
        points=target.points.replace(rest=np.where(confidence[..., None] > 0, target.points.rest, np.float32(9))),
    )
    jax.tree.map(np.testing.assert_array_equal, _closed_form(target), _closed_form(garbage))


def _flattened(axis):
    """Return people whose rest points lie in a plane (one axis), on a line (two) or at one place (three)."""
    target = _seen(_target(*_people()), keypoint_confidence=np.zeros((PEOPLE, 17), np.float32))
    rest = target.points.rest.copy()
    rest[..., axis] = 0.1
    return target.replace(points=target.points.replace(rest=rest))


@pytest.mark.parametrize("axis", [[0], [1], [2], [0, 2], [1, 2], [0, 1, 2]], ids=str)
def test_too_little_spread_gives_a_usable_start(axis):
    _assert_usable(_closed_form(_flattened(axis)))


def test_all_image_points_at_one_place_give_a_usable_start():
    target = _target(*_people())
    flat = {name: np.zeros_like(getattr(target.observation, name)) for name in ("point_position", "keypoint_position")}
    _assert_usable(_closed_form(_seen(target, **flat)))


def test_one_point_is_met_by_translation_alone():
    target = _target(*_people())
    confidence = np.zeros((PEOPLE, POINTS), np.float32)
    confidence[:, 4] = 1
    target = _seen(target, point_confidence=confidence, keypoint_confidence=np.zeros((PEOPLE, 17), np.float32))
    start = _closed_form(target)
    upright = np.array(kinematics.UPRIGHT_FACING_CAMERA)
    np.testing.assert_allclose(start.rotation, np.broadcast_to(upright, (PEOPLE, 3, 3)), atol=FLOAT32)
    np.testing.assert_allclose(start.camera_scale, 1.0, rtol=FLOAT32)
    met = target.points.rest[:, 4] @ upright[:2].T + start.translation
    np.testing.assert_allclose(met, target.observation.point_position[:, 4], atol=FLOAT32)


def _start():
    turn = transform.Rotation.random(random_state=5).as_matrix()
    rng = np.random.default_rng(6)
    return BodyParameters(
        pose=jnp.asarray(rng.normal(0, 0.3, (23, 3)), jnp.float32),
        segment_scale=jnp.asarray(rng.uniform(0.5, 2, 24), jnp.float32),
        rotation=jnp.asarray(turn, jnp.float32),
        camera_scale=jnp.float32(0.8),
        translation=jnp.asarray([0.1, -0.2], jnp.float32),
    )


def test_headings_are_quarter_turns_about_the_vertical_of_the_body():
    start = _start()
    found = np.asarray(starts.azimuths(start, 4).rotation)
    assert found.shape == (4, 3, 3)
    _assert_proper(found)
    relative = np.asarray(start.rotation).T @ found
    quarters = transform.Rotation.from_rotvec(np.outer(np.arange(4), [0, np.pi / 2, 0])).as_matrix()
    np.testing.assert_allclose(relative, quarters, atol=FLOAT32)


def test_first_heading_is_the_start_and_the_others_differ_in_rotation_only():
    start = _start()
    found = starts.azimuths(start, 4)
    np.testing.assert_allclose(found.rotation[0], start.rotation, atol=1e-7)  # a product with the unit matrix
    for name in ("pose", "segment_scale", "camera_scale", "translation"):
        one = np.asarray(getattr(start, name))
        np.testing.assert_array_equal(getattr(found, name), np.broadcast_to(one, (4, *one.shape)))
