"""The regressor's answers: the mean body before training, alike for any grouping of images; its heads."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dal_jax.body.formats import load
from dal_jax.regressor import batches, model, theta, training
from dal_jax.regressor.losses import LossWeights
from dal_jax.regressor.model import Iterated, Learned, RegressorConfig
from dal_jax.runtime.errors import InputError
from tests.regressor import people

CONFIG = dataclasses.replace(model.paper(), width=4, image_size=32)
FLOAT32 = 1e-4


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def untrained():
    variables = model.initial_variables(CONFIG, jax.random.key(0))
    return Learned(variables, theta.measured_codec("axis_angle", people.random_bodies(50, seed=0)))


@pytest.fixture(scope="module")
def learned(untrained):
    """A network whose last layer is not zero, so that its answers differ."""
    kernel = untrained.variables["params"]["theta"]["kernel"]
    variables = jax.tree.map(lambda leaf: leaf, untrained.variables)
    variables["params"]["theta"]["kernel"] = np.random.default_rng(1).normal(0, 0.01, kernel.shape).astype(np.float32)
    return Learned(variables, untrained.codec)


def test_an_untrained_network_predicts_the_mean(untrained, images):
    bodies = model.predict(CONFIG, untrained, images)
    mean = jax.jit(untrained.codec.to_parameters)(untrained.codec.mean[None])
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
    class Lazy(Sequence):
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
        ({"rotations": "quaternion"}, r"^config\.regressor\.rotations is 'quaternion': one of axis_angle, 6d$"),
        ({"iterations": -1}, r"^config\.regressor\.iterations is -1: at least 0$"),
        ({"compute_dtype": "float16"}, "config.regressor.compute_dtype is 'float16': one of float32, bfloat16"),
    ],
)
def test_values_no_training_can_start_from_are_one_line(changes, told):
    with pytest.raises(InputError, match=told):
        model.check(_changed(**changes))


def _changed(**changes):
    config = dataclasses.replace(CONFIG)
    for name, value in changes.items():
        setattr(config, name, value)
    return config


@pytest.mark.parametrize("make", [model.paper, model.demo, model.best])
def test_the_whole_configurations_are_valid(make):
    model.validate(make())


FINITE_DIFFERENCE = 1e-6  # of the largest entry; float64, central, step 1e-6: rounding 1e-16 / step, curvature step^2
NOT_THE_PAPERS = [("axis_angle", 3), ("6d", 0)]  # both together: test_training
LEARNING = RegressorConfig(
    preset="tiny", width=4, image_size=32, batch=8, epochs=24, learning_rate=1e-2, warmup_share=0.1,
    last_rate_share=0.1, standardise=True, weights=LossWeights(joint=1.0),
)  # fmt: skip


def _config(rotations, iterations):
    return dataclasses.replace(LEARNING, rotations=rotations, iterations=iterations)


@pytest.fixture(scope="module")
def data():
    return people.training_set(8)


@pytest.mark.parametrize(("rotations", "iterations"), NOT_THE_PAPERS)
def test_a_head_begins_at_the_mean_body_and_learns(data, rotations, iterations):
    """Without the trunk: from features that tell eight people apart, by gradient descent on eq. 5."""
    config, template = _config(rotations, iterations), load.load_body()
    shown = (data.images, data.observations, data.fits, np.ones(8, np.float32))
    batch = jax.jit(jax.vmap(functools.partial(batches.make_sample, template)))(*shown)
    codec, features = theta.measured_codec(rotations, data.fits), np.eye(8, dtype=np.float32)
    head = model.head(theta.size(rotations), iterations, config.width, name="theta")
    optimizer = optax.adam(1e-2)

    def loss(params):
        output = head.apply(params, jnp.asarray(features))
        return training.batch_loss(config, template, codec, codec.from_output(output), batch)[0], output

    @jax.jit
    def step(params, moments):
        (value, output), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, moments = optimizer.update(gradient, moments)
        return optax.apply_updates(params, updates), moments, value, output

    params = jax.jit(head.init)(jax.random.key(0), features)
    moments, history = optimizer.init(params), []
    for number in range(60):
        params, moments, value, output = step(params, moments)
        history.append(value)
        assert number > 0 or not np.any(output)
    assert history[-1] < history[0] / 4


@pytest.mark.parametrize(("rotations", "size"), [("axis_angle", 105), ("6d", 171)])
def test_the_shapes_are_hmr_s_at_the_published_width(rotations, size):
    def shapes(iterations):
        config = dataclasses.replace(model.paper(), rotations=rotations, iterations=iterations)
        return jax.tree.map(lambda leaf: leaf.shape, model.variable_shapes(config)["params"]["theta"])

    assert shapes(0) == {"kernel": (2048, size), "bias": (size,)}
    layers = {"hidden1": (2048 + size, 1024), "hidden2": (1024, 1024), "change": (1024, size)}
    wanted = {name: {"kernel": shape, "bias": shape[1:]} for name, shape in layers.items()}
    assert shapes(1) == shapes(3) == wanted


@pytest.mark.parametrize("iterations", [1, 3])
def test_iterations_share_their_layers(iterations):
    """Against NumPy: the output starts at zero and goes n times through one set of weights."""
    rng = np.random.default_rng(1)
    head = Iterated(size=5, iterations=iterations, hidden=7)
    features = rng.normal(size=(4, 6)).astype(np.float32)
    shapes = jax.eval_shape(head.init, jax.random.key(0), features)
    variables = jax.tree.map(lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32), shapes)
    wanted = np.zeros((4, 5))
    for _ in range(iterations):
        hidden = np.concatenate([features, wanted], axis=1)
        for name in ("hidden1", "hidden2"):
            layer = variables["params"][name]
            hidden = np.maximum(hidden @ layer["kernel"] + layer["bias"], 0.0)
        change = variables["params"]["change"]
        wanted = wanted + hidden @ change["kernel"] + change["bias"]
    np.testing.assert_allclose(jax.jit(head.apply)(variables, features), wanted, rtol=1e-5, atol=1e-5)


def test_gradient_of_the_whole_loss_equals_finite_differences(data):
    """Every term of eq. 5 with six numbers a rotation, in float64; joints turn by pi, within 1e-6 of it, and less."""
    config = dataclasses.replace(_config("6d", 0), weights=LossWeights(1.0, 1.0, 1.0, 1.0))
    with jax.enable_x64(True):
        template, batch, codec, predicted = _double(data)
        objective = functools.partial(_objective, config, template, codec, batch)
        exact = np.asarray(jax.jit(jax.grad(objective))(predicted))
        numeric = jax.jit(functools.partial(_central_differences, objective))(predicted)
    assert np.all(np.any(exact != 0.0, axis=0))  # every dimension of theta matters
    np.testing.assert_allclose(exact, numeric, rtol=0, atol=FINITE_DIFFERENCE * np.abs(exact).max())


def _central_differences(function, point, step=1e-6):
    """Return the gradient, one dimension after the other."""

    def along(offset):
        return (function(point + offset) - function(point - offset)) / (2 * step)

    offsets = step * jnp.eye(point.size).reshape(-1, *point.shape)
    return jax.lax.map(along, offsets).reshape(point.shape)


def _objective(config, template, codec, batch, predicted):
    return training.batch_loss(config, template, codec, predicted, batch)[0]


def _double(data):
    """Return template, two people whose joints turn by about pi, codec and predictions near them, in float64."""
    fits = jax.tree.map(lambda leaf: leaf[:2], data.fits)
    axis = fits.pose / np.linalg.norm(fits.pose, axis=-1, keepdims=True)
    angle = np.array([np.pi, np.pi - 1e-6, np.pi + 1e-6, np.pi - 0.1])[np.arange(23) % 4]
    samples = [people.sample(seed) for seed in (0, 1)]
    template, batch, codec = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        (
            load.load_body(),
            jax.tree.map(lambda *leaves: jnp.stack(leaves), *samples),
            theta.measured_codec("6d", data.fits),
        ),
    )
    batch = batch.replace(fit=batch.fit.replace(pose=jnp.asarray(axis * angle[None, :, None])))
    offset = 0.05 * np.random.default_rng(2).normal(size=(2, codec.mean.size))
    return template, batch, codec, codec.encode(batch.fit) + offset
