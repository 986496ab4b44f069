"""The camera of all pictures: projection against a pinhole's, what learning may change, what tells how near it is."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.lifting import losses, rotating
from dal_jax.lifting.config import Config
from dal_jax.lifting.rotating import Camera
from tests.lifting import stick_people

_DISTANCE_M = 4.0
_CONFIG = Config(elevation_start_deg=6.0, elevation_rate=1e-3, nearness_start=0.05, nearness_rate=1e-4, adam_b1=0.5)


def _photographed(people):
    """Return what a pinhole four metres from the hips sees, in metres at the hip's distance."""
    return people[..., :2] * _DISTANCE_M / (_DISTANCE_M + people[..., 2:])


def test_a_pinholes_picture_is_undone_and_made_again():
    people = stick_people.crowd(5, seed=0)
    size = 0.45
    seen, depth, nearness = _photographed(people) / size, people[..., 2] / size, jnp.float32(size / _DISTANCE_M)
    joints = rotating.unproject(nearness, seen, depth)
    np.testing.assert_allclose(joints, people[..., :2] / size, atol=1e-6)  # float32
    np.testing.assert_allclose(rotating.project(nearness, joints, depth), seen, atol=1e-6)


def test_weak_perspective_changes_nothing():
    people = np.asarray(stick_people.crowd(5, seed=0), np.float32)
    np.testing.assert_array_equal(rotating.unproject(jnp.zeros(()), people[..., :2], people[..., 2]), people[..., :2])


def test_equal_proportions_tell_how_near_the_camera_stands():
    """Limbs towards the camera look longer: seen as weak perspective, people differ from each other."""
    people = np.einsum("nab,jb->nja", stick_people.turns(np.linspace(0, 6, 40)), stick_people.STANDING)
    seen, depth, known = _photographed(people), jnp.asarray(people[..., 2]), jnp.ones((40, 16), bool)

    def unlikeness(nearness):
        return losses.bone_unlikeness(losses.log_proportions(rotating.unproject(nearness, seen, depth), depth), known)

    guesses = np.linspace(0, rotating.MOST_NEARNESS, 61, dtype=np.float32)  # per metre
    found = guesses[np.argmin(jax.vmap(unlikeness)(guesses))]
    assert found == pytest.approx(1 / _DISTANCE_M, abs=0.02)  # the stick man is not quite symmetric


@pytest.mark.parametrize("still", ["elevation", "nearness"])
def test_each_number_is_learned_at_its_own_rate(still):
    config = dataclasses.replace(_CONFIG, **{f"{still}_rate": 0.0})
    camera, optimizer = rotating.initial(config), rotating.optimizer(config)
    updates, _ = optimizer.update(Camera(jnp.float32(3), jnp.float32(-2)), optimizer.init(camera), camera)
    expected = {"elevation": -1e-3, "nearness": 1e-4} | {still: 0.0}  # Adam's first step is the rate
    for name, step in expected.items():
        np.testing.assert_allclose(getattr(updates, name), step, rtol=1e-5)


def test_cameras_neither_look_up_nor_stand_inside_the_person():
    beyond = rotating.possible(Camera(jnp.float32(-0.1), jnp.float32(-0.1)))
    assert beyond.elevation == 0 and beyond.nearness == 0
    assert rotating.possible(Camera(jnp.float32(0.1), jnp.float32(9))).nearness < 1
    behind = rotating.project(jnp.float32(0.3), jnp.ones((17, 2)), jnp.full(17, -50.0))
    assert np.isfinite(behind).all() and (np.asarray(behind) > 0).all()
