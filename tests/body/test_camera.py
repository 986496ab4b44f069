"""The weak-perspective camera, eq. 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.body import cameras
from tests.body import reference

ROUNDING = 1e-6  # crop units: one product and one sum of float32 of size 1


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
