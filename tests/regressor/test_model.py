"""The ConvNet's answer: the mean body before training, the same for any grouping of images, always a body."""

import dataclasses

import flax.struct
import jax
import numpy as np
import pytest

from dal_jax.regressor import model, theta
from dal_jax.regressor.model import Frozen
from dal_jax.regressor.theta import Statistics
from dal_jax.runtime.errors import InputError
from tests.regressor import people

CONFIG = dataclasses.replace(model.paper(), width=4, image_size=32)
FLOAT32 = 1e-4


@flax.struct.dataclass
class Learned:
    variables: dict
    statistics: Statistics


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def untrained():
    variables = model.initial_variables(CONFIG, jax.random.key(0))
    return Learned(variables, theta.measured_statistics(people.random_bodies(50, seed=0)))


@pytest.fixture(scope="module")
def learned(untrained):
    """A network whose last layer is not zero, so that its answers differ."""
    kernel = untrained.variables["params"]["theta"]["kernel"]
    variables = jax.tree.map(lambda leaf: leaf, untrained.variables)
    variables["params"]["theta"]["kernel"] = np.random.default_rng(1).normal(0, 0.01, kernel.shape).astype(np.float32)
    return Learned(variables, untrained.statistics)


def test_an_untrained_network_predicts_the_mean(untrained, images):
    bodies = model.predict(CONFIG, untrained, images)
    mean = jax.jit(theta.finish)(theta.to_parameters(untrained.statistics.mean[None]))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, np.repeat(b, len(images), axis=0), atol=FLOAT32), bodies, mean
    )


def test_people_are_predicted_alike_in_any_batch(learned, images):
    together = model.predict(CONFIG, learned, images, batch=8)
    assert np.ptp(together.pose, axis=0).max() > 0.01
    for batch in (2, 5):
        bodies = model.predict(CONFIG, learned, images, batch=batch)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=FLOAT32), bodies, together)


def test_predictions_are_bodies(learned, images):
    bodies = model.predict(CONFIG, learned, images, batch=8)
    products = bodies.rotation @ np.swapaxes(bodies.rotation, 1, 2)
    np.testing.assert_allclose(products, np.broadcast_to(np.eye(3), products.shape), atol=FLOAT32)
    np.testing.assert_allclose(np.linalg.det(bodies.rotation), 1.0, atol=FLOAT32)
    assert np.all(bodies.camera_scale > 0) and np.all(bodies.segment_scale > 0)


def test_images_may_be_decoded_when_they_are_asked_for(learned, images):
    class Lazy:
        def __len__(self):
            return len(images)

        def __getitem__(self, rows):
            return images[rows]

    lazily = model.predict(CONFIG, learned, Lazy(), batch=8)
    jax.tree.map(np.testing.assert_array_equal, lazily, model.predict(CONFIG, learned, images, batch=8))


def test_wrong_images_are_refused(learned, images):
    with pytest.raises(ValueError, match="image_size"):
        model.predict(CONFIG, learned, images[:, :16])
    with pytest.raises(ValueError, match="no image"):
        model.predict(CONFIG, learned, images[:0])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"held_out_share": 1.0}, "config.regressor.held_out_share is 1.0: from 0 to below 1"),
        ({"held_out_share": float("nan")}, "config.regressor.held_out_share is nan"),
        ({"held_out_share": 0.1, "patience": -1}, "config.regressor.patience is -1: at least 0"),
        ({"patience": 2}, "config.regressor.patience is 2: needs a held_out_share above 0"),
        ({"compute_dtype": "float16"}, "config.regressor.compute_dtype is 'float16': one of float32, bfloat16"),
    ],
)
def test_values_no_training_can_start_from_are_one_line(changes, told):
    with pytest.raises(InputError, match=told):
        model.validate(dataclasses.replace(CONFIG, **changes))


@pytest.mark.parametrize("make", [model.paper, model.demo, model.best])
def test_the_whole_configurations_are_valid(make):
    model.validate(make())


def test_configurations_of_equal_values_share_a_program():
    assert Frozen(model.demo()) == Frozen(model.demo())
    assert hash(Frozen(model.demo())) == hash(Frozen(model.demo()))
    config = model.demo()
    before = Frozen(config)
    config.weights.dense = 3.0
    assert Frozen(config) != before
    assert before.config.weights.dense == model.demo().weights.dense
