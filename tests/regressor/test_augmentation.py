"""The law of augmentation: project the changed body = change what the body projects to; and the pixels go along."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.body import cameras, kinematics, skeleton
from dal_jax.body.cameras import Pinhole
from dal_jax.body.formats import load
from dal_jax.regressor import augmentation
from dal_jax.regressor.augmentation import AugmentationConfig, CropSimilarity
from tests.regressor import people

ROUNDING = 2e-5  # crop units; a few dozen float32 products

SIMILARITIES = {
    "nothing": (False, 0.0, 1.0, (0.0, 0.0)),
    "mirror": (True, 0.0, 1.0, (0.0, 0.0)),
    "rotation": (False, 0.4, 1.0, (0.0, 0.0)),
    "zoom and shift": (False, 0.0, 1.3, (0.2, -0.1)),
    "all": (True, -0.3, 0.8, (-0.1, 0.15)),
}


def _similarity(name):
    flip, angle, zoom, shift = SIMILARITIES[name]
    return CropSimilarity(jnp.array(flip), jnp.array(angle), jnp.array(zoom), jnp.array(shift))


def _map(name, points):
    """Return p' = zoom Q F p + shift in NumPy."""
    flip, angle, zoom, shift = SIMILARITIES[name]
    mirror = np.diag([-1.0 if flip else 1.0, 1.0])
    q = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return zoom * np.asarray(points) @ (q @ mirror).T + np.array(shift)


@pytest.fixture(scope="module")
def sample():
    return people.sample(seed=0)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_the_changed_body_explains_the_changed_annotation(sample, name):
    moved = _move(_similarity(name), sample)
    dense, joints = _project(moved.fit, moved.target.points)
    np.testing.assert_allclose(dense, moved.target.observation.point_position, atol=ROUNDING)
    np.testing.assert_allclose(joints[:, :2], moved.target.observation.keypoint_position, atol=ROUNDING)
    np.testing.assert_allclose(joints[:, 2], moved.target.observation.depth, atol=ROUNDING)
    rotation = np.asarray(moved.fit.rotation)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=ROUNDING)
    assert np.linalg.det(rotation) > 0


@pytest.mark.parametrize("name", SIMILARITIES)
def test_annotation_moves_with_the_crop(sample, name):
    moved = _move(_similarity(name), sample)
    flip = SIMILARITIES[name][0]
    others = np.array([0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13]) if flip else np.arange(17)
    np.testing.assert_allclose(
        moved.target.observation.point_position, _map(name, sample.target.observation.point_position), atol=ROUNDING
    )
    np.testing.assert_allclose(
        moved.target.observation.keypoint_position,
        _map(name, sample.target.observation.keypoint_position[others]),
        atol=ROUNDING,
    )
    np.testing.assert_array_equal(
        moved.target.observation.keypoint_confidence, sample.target.observation.keypoint_confidence[others]
    )
    np.testing.assert_array_equal(
        moved.target.observation.depth_confidence, sample.target.observation.depth_confidence[others]
    )
    np.testing.assert_array_equal(moved.target.observation.point_confidence, sample.target.observation.point_confidence)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_pixels_move_with_the_crop(sample, name):
    size = 48
    centre = (np.arange(size) + 0.5) / size * 2 - 1
    here = np.stack(np.meshgrid(centre, centre), axis=-1)
    picture = sample.replace(image=jnp.asarray(_smooth(here), jnp.float32))
    moved = np.asarray(_move(_similarity(name), picture).image)
    there = _map(name, here.reshape(-1, 2))
    inside = np.all(np.abs(there) < 0.9, axis=1)
    assert inside.sum() > 500
    column, row = ((there[inside] + 1) * size / 2).astype(int).T
    # looked up in the nearest of 48 pixels, of a picture that changes by at most 4 a crop unit
    np.testing.assert_allclose(moved[row, column], _smooth(here).reshape(-1, 3)[inside], atol=4 * 2 / size)


def _smooth(points):
    x, y = points[..., 0], points[..., 1]
    return np.stack([np.sin(2 * x + y), x + 0.5 * y, np.cos(x - 2 * y)], axis=-1)


def test_no_change_changes_nothing_and_two_mirrors_cancel(sample):
    same = _move(_similarity("nothing"), sample)
    twice = _move(_similarity("mirror"), _move(_similarity("mirror"), sample))
    for other in (same, twice):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), other, sample)


def test_draws_stay_within_their_limits():
    config = AugmentationConfig(flip_share=0.3, rotation_deg=20.0, zoom=0.2, shift=0.1)
    keys = jax.random.split(jax.random.key(0), 2000)
    drawn = jax.jit(jax.vmap(lambda key: augmentation.draw_similarity(config, key)))(keys)
    assert abs(np.mean(drawn.flip) - 0.3) < 0.05  # five standard errors
    for values, limit in ((drawn.angle, np.deg2rad(20)), (np.log(drawn.zoom), 0.2), (drawn.shift, 0.1)):
        assert 0.99 * limit < np.max(np.abs(values)) <= limit * (1 + 1e-6)
        assert abs(np.mean(values)) < 0.1 * limit


def test_the_papers_configuration_changes_nothing(sample):
    augmented = _augment(AugmentationConfig(), jax.random.key(0), sample)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), augmented, sample)


def test_colours_stay_pixels_and_rectangles_cover_their_share(sample):
    plain = sample.replace(image=jnp.full((16, 16, 3), 128.0))
    keys = jax.random.split(jax.random.key(0), 400)

    def images(config):
        return np.asarray(jax.jit(jax.vmap(lambda key: augmentation.augment(config, key, plain).image))(keys))

    recoloured = images(AugmentationConfig(brightness=0.8, contrast=1.0, tint=1.0))
    assert recoloured.min() == 0.0 and recoloured.max() == 255.0
    assert np.all(np.ptp(recoloured, axis=(1, 2)) < 1e-3)  # a plain picture stays plain
    covered = np.any(images(AugmentationConfig(erase_share=0.5, erase_side=0.5)) != 128.0, axis=3)
    share = np.mean(np.any(covered, axis=(1, 2)))
    assert 0.3 < share < 0.55  # some rectangles are thinner than a pixel
    assert np.all(np.sum(covered, axis=(1, 2)) <= 64 + 1e-6)  # half of 16 px along each side


_move = jax.jit(augmentation.move)
_project = jax.jit(people.project)


def _augment(config, key, sample):
    return jax.jit(lambda key, sample: augmentation.augment(config, key, sample))(key, sample)


@pytest.mark.parametrize("name", ["mirror", "all"])
def test_a_known_camera_goes_along_with_the_crop(sample, name):
    """Projecting the changed body before the changed camera = changing what the body projects to before its own."""
    pinhole = Pinhole(jnp.float32(4.0), jnp.array([0.3, -0.5], jnp.float32))
    observation = sample.target.observation.replace(pinhole=pinhole)
    known = sample.replace(target=sample.target.replace(observation=observation))
    moved = _move(_similarity(name), known)

    def project(one):
        joints, fit = _joints(one.fit), one.fit
        return cameras.project(joints, fit.camera_scale, fit.translation, one.target.observation.pinhole)

    other = np.array(skeleton.SMPL_MIRROR) if SIMILARITIES[name][0] else np.arange(24)
    np.testing.assert_allclose(project(moved), _map(name, project(known))[other], atol=ROUNDING)


def _joints(fit):
    return kinematics.pose_skeleton(load.load_body(), fit.rotation, fit.pose, fit.segment_scale).position
