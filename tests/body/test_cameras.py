"""Cameras: eq. 1; every way there has its way back; the crop's ray is what weak perspective looks along."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.body import cameras
from dal_jax.observations import observation
from tests.body import reference

ROUNDING = 1e-6  # crop units: one product and one sum of float32 of size 1
PIXELS = 2e-5  # relative: float32, numbers up to a few thousand pixels, two products and a sum
BODY_OVER_DEPTH = 0.02  # a body of 0.3 m at 20 m or more: what weak perspective leaves out, relative


def _scene(*shape):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(*shape, 3)).astype(np.float32)
    return points, jnp.float32(0.8), jnp.asarray(rng.normal(size=2), jnp.float32)


def test_project_is_equation_1():
    points, scale, translation = _scene(7)
    found = cameras.project(points, scale, translation)
    np.testing.assert_allclose(found, reference.project(points, float(scale), np.asarray(translation)), atol=ROUNDING)


def test_depth_is_not_seen():
    points, scale, translation = _scene(7)
    further = points + np.float32([0, 0, 5])
    np.testing.assert_array_equal(
        cameras.project(points, scale, translation), cameras.project(further, scale, translation)
    )


def test_pelvis_lands_on_the_translation():
    _, scale, translation = _scene(1)
    np.testing.assert_array_equal(cameras.project(jnp.zeros(3), scale, translation), translation)


@pytest.mark.parametrize("shape", [(), (4,), (2, 4), (1, 2, 3)])
def test_leading_axes_are_points(shape):
    points, scale, translation = _scene(*shape)
    found = cameras.project(points, scale, translation)
    assert found.shape == (*shape, 2)
    flat = cameras.project(points.reshape(-1, 3), scale, translation)
    np.testing.assert_array_equal(found, flat.reshape(*shape, 2))


def test_a_batch_of_cameras_equals_a_loop():
    rng = np.random.default_rng(1)
    points, scales, translations = (rng.normal(size=s).astype(np.float32) for s in ((5, 7, 3), (5,), (5, 2)))
    together = jax.vmap(cameras.project)(points, scales, translations)
    for i in range(5):
        np.testing.assert_allclose(together[i], cameras.project(points[i], scales[i], translations[i]), atol=ROUNDING)


# --- the photograph, and full perspective ---

_crop_rotation, _ray_rotation = jax.jit(cameras.crop_rotation), jax.jit(cameras.ray_rotation)
_perspective = jax.jit(cameras.project_perspective)
_perspective_slope = jax.jit(jax.jacobian(cameras.project_perspective))
_weak_from_position, _position_from_weak = jax.jit(cameras.weak_from_position), jax.jit(cameras.position_from_weak)
INTRINSICS = jnp.array([1100.0, 1200.0, 640.0, 350.0])
BOXES = ([100.0, 50.0, 300.0, 300.0], [-40.0, 200.0, 500.0, 500.0], [1000.5, 3.25, 90.0, 90.0])


def _weak(seed):
    rng = np.random.default_rng(seed)
    return jnp.float32(rng.uniform(0.3, 1.5)), jnp.asarray(rng.uniform(-0.5, 0.5, 2), jnp.float32)


def _near(found, wanted, tolerance=PIXELS):
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance * np.abs(np.asarray(wanted)).max())


@pytest.mark.parametrize("box", BOXES)
def test_crop_to_photograph_to_position_and_all_the_way_back(box):
    box = jnp.array(box)
    scale, translation = _weak(0)
    weak = cameras.photograph_from_crop(scale, translation, box)
    position = _position_from_weak(*weak, INTRINSICS)
    assert position[2] > 0
    again = _weak_from_position(position, INTRINSICS)
    for found, wanted in zip(again, weak, strict=True):
        _near(found, wanted)
    for found, wanted in zip(cameras.crop_from_photograph(*again, box), (scale, translation), strict=True):
        _near(found, wanted)


def test_the_photograph_s_weak_perspective_puts_points_where_the_crop_s_does():
    box = jnp.array(BOXES[1])
    scale, translation = _weak(1)
    points = jnp.asarray(np.random.default_rng(1).normal(size=(9, 3)), jnp.float32)
    scale_px, pelvis_px = cameras.photograph_from_crop(scale, translation, box)
    crop = cameras.project(points, scale, translation)
    _near(cameras.project(points, scale_px, pelvis_px), observation.px_from_crop(crop, box))


@pytest.mark.parametrize("pixel", [(640.0, 350.0), (10.0, 20.0), (2500.0, -900.0), (640.0, 1900.0)])
def test_the_ray_rotation_is_the_smallest_that_takes_the_axis_to_the_ray(pixel):
    rotation = np.asarray(_ray_rotation(jnp.array(pixel), INTRINSICS), np.float64)
    ray = np.append((np.array(pixel) - INTRINSICS[2:]) / INTRINSICS[:2], 1.0)
    ray /= np.linalg.norm(ray)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=PIXELS)
    np.testing.assert_allclose(rotation[:, 2], ray, atol=PIXELS)
    angle_cosine = (np.trace(rotation) - 1) / 2
    np.testing.assert_allclose(angle_cosine, ray[2], atol=PIXELS)  # the angle between axis and ray, and no more


@pytest.mark.parametrize("position", [(0.5, -0.2, 4.0), (3.0, 2.0, 4.0), (-4.0, 0.1, 3.0)])
def test_the_best_weak_perspective_of_a_small_body_looks_along_its_ray(position):
    """The nearest scaled rows of a rotation to perspective's Jacobian are the first two rows of the ray's inverse."""
    intrinsics = jnp.array([900.0, 900.0, 500.0, 400.0])
    jacobian = np.asarray(_perspective_slope(jnp.array(position), intrinsics), np.float64)
    left, singular, right = np.linalg.svd(jacobian, full_matrices=False)
    pixel = _perspective(jnp.array(position), intrinsics)
    rotation = np.asarray(_ray_rotation(pixel, intrinsics))
    np.testing.assert_allclose(left @ right, rotation.T[:2], atol=PIXELS)
    scale, _ = _weak_from_position(jnp.array(position), intrinsics)
    np.testing.assert_allclose(singular, [scale / rotation[2, 2], scale], rtol=PIXELS)


def test_a_far_body_seen_in_its_crop_comes_back_to_its_place():
    """A body that looks straight down its ray: projected for true, fitted weakly in a crop round it, put back."""
    rng = np.random.default_rng(2)
    position = jnp.array([9.0, 6.0, 20.0])
    pixel = _perspective(position, INTRINSICS)
    box = jnp.concatenate([pixel - 60.0, jnp.array([120.0, 120.0])])
    seen = jnp.asarray(rng.uniform(-0.3, 0.3, (17, 3)), jnp.float32).at[0].set(0.0)  # in the crop's frame
    true = seen @ _crop_rotation(box, INTRINSICS).T + position[None]
    scale, translation = cameras.crop_from_photograph(*_weak_from_position(position, INTRINSICS), box)
    found = cameras.camera_from_crop(seen, scale, translation, box, INTRINSICS)
    _near(found, true)
    crop = observation.crop_from_px(_perspective(true, INTRINSICS), box)
    weak = cameras.project(seen, scale, translation)
    stretch = 1 / float(_crop_rotation(box, INTRINSICS)[2, 2])  # along the radius, off the axis
    assert np.abs(crop - weak).max() < (stretch - 1 + BODY_OVER_DEPTH) * np.abs(weak).max()


def test_batches_are_vmapped_and_gradients_are_finite_at_the_principal_point():
    boxes = jnp.array(BOXES)
    together = jax.jit(jax.vmap(cameras.crop_rotation, in_axes=(0, None)))(boxes, INTRINSICS)
    for box, rotation in zip(BOXES, np.asarray(together), strict=True):
        np.testing.assert_allclose(_crop_rotation(jnp.array(box), INTRINSICS), rotation, atol=PIXELS)
    slope = jax.jit(jax.jacobian(cameras.ray_rotation))(INTRINSICS[2:], INTRINSICS)
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0
