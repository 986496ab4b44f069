import numpy as np

import dal_jax as dal
from benchmarks import distances
from dal_jax.observations import residuals


def test_points_are_exact_and_face_the_camera():
    """Posed where they truly are and seen by the true camera, people's points are missed by nothing."""
    body, drawn = dal.load_body(), distances.draw(2)
    vertices, joints = (np.asarray(each) for each in distances._pose(body, drawn))
    people, ground = distances.observe(body, vertices, joints, 2.5)
    seen = people.with_camera(distances.FOCAL_PX, distances._MIDDLE_PX).stacked
    aside = np.asarray(drawn.translation)
    box = np.asarray(seen.box_px, np.float64)
    pelvis_px = distances.FOCAL_PX * aside / 2.5 + distances._MIDDLE_PX
    true = drawn.replace(
        camera_scale=(distances.FOCAL_PX / 2.5 / box[:, 2] * 2).astype(np.float32),
        translation=((pelvis_px - box[:, :2]) / box[:, 2:3] * 2 - 1).astype(np.float32),
    )
    dense, _ = residuals.errors_px(body, true, seen)
    shown = np.asarray(seen.point_confidence) > 0
    assert dense[shown].max() < 0.5, "blends of a triangle's corners are not quite its points"
    assert np.median(dense[shown]) < 0.02
    assert residuals.away(body, true, seen)[shown].max() < 0.05
    np.testing.assert_allclose(ground[:, 0, 2], 2.5, atol=0.1)


def test_errors_do_not_depend_on_size():
    true = np.random.default_rng(0).normal(size=(3, 17, 3))
    np.testing.assert_allclose(distances.scale_matched_mm(0.5 * true + 1.0, true), 0.0, atol=1e-9)
    across = np.cross(true[:, 5] - true[:, 0], [0.0, 0.0, 1.0])
    moved = true.copy()
    moved[:, 5] += 1e-3 * across / np.linalg.norm(across, axis=1, keepdims=True)
    np.testing.assert_allclose(distances.scale_matched_mm(moved, true), 1.0 / 17, rtol=1e-2)


def test_a_crop_s_ray_is_turned_into_the_camera_s_axes():
    people = dal.Observations.from_points(keypoints_px=np.random.default_rng(1).uniform(600, 700, (1, 17, 2)))
    centre = people.stacked.box_px[0, :2] + people.stacked.box_px[0, 2] / 2
    ray = np.append((centre - distances._MIDDLE_PX) / distances.FOCAL_PX, 1.0)
    np.testing.assert_allclose(distances.towards(people)[0] @ [0, 0, 1], ray / np.linalg.norm(ray), atol=1e-6)
