"""The whole path learns: eight rendered people, registered, and a demo network that knows them by heart afterwards."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dal_jax.body import kinematics
from dal_jax.body.formats import load
from dal_jax.config import demo
from dal_jax.data.people import People, load_people
from dal_jax.registration import register
from dal_jax.registration.energy import Objective
from dal_jax.regressor import model, training
from dal_jax.regressor.augmentation import AugmentationConfig
from dal_jax.regressor.training import TrainingSet
from dal_jax.synthetic import people as synthetic_people
from dal_jax.synthetic.annotator import RECIPES

pytestmark = pytest.mark.slow

COUNT = 8
EPOCHS = 70  # of one step
NEAR_MM = 20.0


def test_the_demo_s_network_knows_eight_people_by_heart(tmp_path):
    """Joints lie within 20 mm of the registered bodies', in training and as predicted, by the running statistics.

    The people face anywhere: for some, R's nine numbers end with a negative determinant.
    """
    people = _people(tmp_path)
    config = demo()
    registration = dataclasses.replace(config.first.registration, batch=COUNT)
    template = load.load_body()
    fits = register.register(template, people.observations, registration, Objective(config.first.weights)).parameters

    learning = dataclasses.replace(config.regressor, batch=COUNT, epochs=EPOCHS, augmentation=AugmentationConfig())
    assert (learning.width, learning.image_size) == (16, 64)
    state = training.start_round(learning, training.initial_state(learning, jax.random.key(0)), fits)
    shown, shown_people = [], TrainingSet(template, people.images, people.observations, fits)
    for epoch in range(EPOCHS):
        state, metrics = training.train_epoch(learning, state, shown_people, jax.random.key(1), span=(epoch, EPOCHS))
        shown.append(metrics["joint_to_fit_mm"])
    assert shown[0] > 5 * NEAR_MM and shown[-1] < NEAR_MM
    assert _apart_mm(template, model.predict(learning, state.learned, people.images), fits) < NEAR_MM


def _people(folder) -> People:
    recipe = dataclasses.replace(
        RECIPES["tiny"], name="overfit", train_count=COUNT, test_count=1, heading_spread_deg=180.0
    )
    return load_people(synthetic_people.prepare(recipe, folder), "train")


def _apart_mm(template, bodies, others) -> float:
    """Return the mean distance of 23 joints, pelvis at 0."""

    @jax.jit
    @jax.vmap
    def joints(body):
        return kinematics.pose_skeleton(template, body.rotation, body.pose, body.segment_scale).position[1:]

    found, wanted = (joints(jax.tree.map(jnp.asarray, one)) for one in (bodies, others))
    return float(1000 * np.mean(np.linalg.norm(found - wanted, axis=-1)))
