import jax
import numpy as np
import pytest

from dal_jax.body.formats import load
from dal_jax.observations.observation import Observation
from dal_jax.registration import energy
from dal_jax.registration.energy import Objective
from dal_jax.registration.register import RegistrationConfig
from dal_jax.uncertainty import held_out_points
from tests.observations import posed_people

BOX_PX = 100.0
EXACT_PX = 2.0  # what 20 steps of the stiff weights leave where the points say little
WRONG_PX = 10.0


@pytest.fixture(scope="module")
def observations():
    face, barycentric, position = posed_people.visible_points(1, 60)
    position = position.copy()
    one = Observation(
        point_position=position.astype(np.float32), point_face=face.astype(np.int32), point_barycentric=barycentric,
        point_confidence=np.ones(60, np.float32), keypoint_position=np.zeros((17, 2), np.float32),
        keypoint_confidence=np.zeros(17, np.float32), depth=np.zeros(17, np.float32),
        depth_confidence=np.zeros(17, np.float32), box_px=np.float32([0, 0, BOX_PX, BOX_PX]),
    )  # fmt: skip
    spoiled = one.replace(point_position=np.random.default_rng(0).permutation(one.point_position))
    return jax.tree.map(lambda a, b: np.stack([a, b]), one, spoiled)


def test_points_that_were_left_out_are_found_where_they_are_and_nonsense_is_not(observations):
    config = RegistrationConfig("adam", steps=60, learning_rate=0.05, starts="closed_form", batch=2)
    done = []
    error = held_out_points.held_out_error_px(
        load.load_body(), observations, config, Objective(energy.stiff_weights()), folds=3, progress=done.append
    )
    assert error[0] < EXACT_PX < WRONG_PX < error[1]
    assert done == [2, 4, 6]
