"""The people of `benchmarks.builds`: exact points are where their own vertices are, errors those of NumPy."""

import numpy as np
from scipy.spatial.transform import Rotation

import dal_jax as dal
from benchmarks import builds
from dal_jax.observations.observation import px_from_crop
from dal_jax.synthetic import actors


def test_points_are_exact():
    body = dal.load_body()
    people, vertices = builds.observe(body, [actors.subject("E5")])
    seen = people.stacked
    corners = vertices[0][np.asarray(body.faces)[seen.point_face[0]]]
    expected = builds._PX_A_METRE * np.einsum("pc,pcd->pd", seen.point_barycentric[0], corners)[:, :2]
    found_px = np.asarray(px_from_crop(np.asarray(seen.point_position), np.asarray(seen.box_px)))[0]
    np.testing.assert_allclose(found_px, expected, atol=0.05)  # rays are cast in float32
    joints = np.asarray(body.h36m_regressor) @ vertices[0]
    metre = builds._PX_A_METRE / (seen.box_px[0, 2] / 2)
    np.testing.assert_allclose(seen.depth[0], metre * joints[:, 2], atol=1e-4)


def test_vertices_are_compared_at_one_size_place_and_if_asked_rotation():
    true = np.random.default_rng(0).normal(0, 1, (50, 3))
    turned = 1.3 * Rotation.from_rotvec([0.3, 0.2, 0.1]).apply(true) + 0.4
    assert builds.apart_mm(1.3 * true + 0.4, true) < 1e-6
    assert builds.apart_mm(turned, true, rotate=True) < 1e-6 < builds.apart_mm(turned, true)
