"""Overlays of a ball: it lies where eq. 1 says, and nothing else changes."""

import numpy as np
import pytest

from dal_jax.body import kinematics
from dal_jax.fits import overlays
from dal_jax.observations.observation import Observation
from dal_jax.viewing import raycast

_SIZE = 96
_SCALE = 1.5  # crop units a metre
_TRANSLATION = (-0.2, 0.1)


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 256, (_SIZE, _SIZE, 3), np.uint8)


@pytest.fixture
def upright():
    return kinematics.t_pose(_SCALE).replace(translation=np.float32(_TRANSLATION))


def _inside(shape: tuple[int, int], box: tuple[float, ...], radius: float) -> np.ndarray:
    """Pixels whose centre lies within `radius` metres of the ball's centre (0.2, 0.3 up) in the image."""
    x, y, side = box[0], box[1], box[2]
    centre = np.array([0.2 * _SCALE, -0.3 * _SCALE]) + _TRANSLATION
    centre_px = (centre + 1) / 2 * side + (x, y)
    columns, rows = np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5)
    return np.hypot(columns - centre_px[0], rows - centre_px[1]) < radius * _SCALE * side / 2


@pytest.mark.parametrize("box", [None, (40.0, -30.0, 120.0, 120.0)])
def test_body_lies_where_the_camera_puts_it_and_nothing_else_changes(ball, photo, upright, box):
    vertices = overlays.posed_vertices(ball, upright)
    picture = overlays.overlay(photo, vertices, ball.faces, None if box is None else np.array(box), opacity=1.0)
    changed = (picture != photo).any(axis=-1)
    box = (0.0, 0.0, _SIZE) if box is None else box
    one_pixel = 2 / box[2] / _SCALE  # metres
    assert changed[_inside(photo.shape, box, 0.4 - one_pixel)].mean() > 0.99  # a noise pixel may have the body's colour
    assert not changed[~_inside(photo.shape, box, 0.4 + one_pixel)].any()
    assert picture.dtype == np.uint8


def test_opacity_blends(ball, photo, upright):
    vertices = overlays.posed_vertices(ball, upright)
    solid, half = (overlays.overlay(photo, vertices, ball.faces, opacity=opacity) for opacity in (1.0, 0.5))
    rounding = 1.0
    np.testing.assert_allclose(half, (solid.astype(float) + photo) / 2, atol=rounding)
    np.testing.assert_array_equal(overlays.overlay(photo, vertices, ball.faces, opacity=0.0), photo)


def test_light_comes_from_above(ball, photo, upright):
    vertices = overlays.posed_vertices(ball, upright)
    picture = overlays.overlay(np.zeros_like(photo), vertices, ball.faces, opacity=1.0)
    rows = np.flatnonzero(picture.any(axis=(1, 2)))
    middle = round(rows.mean())
    assert picture[rows[0] : middle].sum() > 1.1 * picture[middle : rows[-1]].sum()


def test_a_body_outside_the_photograph_changes_nothing(ball, photo, upright):
    vertices = overlays.posed_vertices(ball, upright) + np.float32([9, 0, 0])
    np.testing.assert_array_equal(overlays.overlay(photo, vertices, ball.faces), photo)


def test_a_body_that_is_not_finite_is_refused(ball, photo):
    with pytest.raises(ValueError, match="not finite"):
        overlays.overlay(photo, np.full_like(ball.vertices, np.nan), ball.faces)


def test_side_view_looks_from_the_cameras_right(ball, upright):
    """The ball is moved far towards the camera beside a second one: in the side view the near one is on the left."""
    near = overlays.posed_vertices(ball, upright)
    far = near + np.float32([0, 0, 5])
    vertices = np.concatenate([near, 0.2 * far + 0.8 * far.mean(axis=0)])
    faces = np.concatenate([ball.faces, ball.faces + len(near)])
    front, side = overlays.front_and_side(vertices, faces, 100)
    for view in (front, side):
        assert view.shape == (100, 100, 3) and (view[0] == 255).all()
    body = (side != 255).any(axis=-1)
    assert body[:, :50].sum() > 3 * body[:, 50:].sum() > 0


def test_side_view_shows_what_the_cameras_right_sees(ball):
    """A small ball to the right of a large one is seen in front of it; to its left it is hidden."""

    def side_view(*balls: tuple[float, float]) -> np.ndarray:
        unit = (ball.vertices - ball.vertices.mean(axis=0)) / 0.4
        # Specks far to the left and right, in line with the ball: they fix the scale of the view.
        placed = [radius * unit + (x, 0, 0) for x, radius in ((-3.0, 0.01), (3.0, 0.01), (0.0, 1.0), *balls)]
        faces = np.concatenate([ball.faces + index * len(unit) for index in range(len(placed))])
        return overlays.front_and_side(np.concatenate(placed), faces, 100)[1]

    np.testing.assert_array_equal(side_view((-1.5, 0.3)), side_view())
    assert (side_view((1.5, 0.3)) != side_view()).any()


def test_annotation_is_drawn_where_it_is_visible():
    size = 128  # a power of two: whole pixels are exact in crop coordinates
    photo = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    keypoints_px = np.full((17, 2), np.nan, np.float32)
    keypoints_px[[0, 1]] = (30.0, 40.0), (60.0, 40.0)
    visible = np.zeros(17, np.float32)
    visible[[0, 1]] = 1.0
    points_px = np.float32([[80.0, 80.0], [10.0, 10.0]])
    observation = Observation(
        point_position=points_px * 2 / size - 1, point_face=np.zeros(2, np.int32),
        point_barycentric=np.zeros((2, 3), np.float32), point_confidence=np.float32([0.5, 0.0]),
        keypoint_position=keypoints_px * 2 / size - 1, keypoint_confidence=visible, depth=np.zeros(17, np.float32),
        depth_confidence=np.zeros(17, np.float32), box_px=np.float32([0, 0, 1, 1]),
    )  # fmt: skip
    picture = overlays.draw_observation(photo, observation)
    changed = (picture != photo).any(axis=-1)
    assert changed[80, 80] and changed[40, 45] and changed[40, 30]
    assert tuple(picture[40, 60]) == overlays.SIDE_COLOURS["right"]  # joint 1 is the right hip
    changed[75:86, 75:86] = changed[35:46, 25:66] = False
    assert not changed.any()


def test_pixel_convention_is_the_ray_casters():
    """Enlarging an image keeps its crop coordinates: the body lies over the same spot at every resolution."""
    small = np.zeros((8, 8, 3), np.uint8)
    small[:, 4:] = 200
    large = overlays.resize(small, 64)
    bright = raycast.pixel_centres(64)[large[32, :, 0] > 100]
    assert bright.min() > 0 and len(bright) == 32
