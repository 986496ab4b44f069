"""Every head begins at the mean body, learns, and predicts bodies; HMR's iterations; gradients of the whole loss."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dal_jax.body.formats import load
from dal_jax.regressor import batches, heads, model, training
from dal_jax.regressor.heads import Iterated
from dal_jax.regressor.losses import LossWeights
from dal_jax.regressor.model import RegressorConfig
from dal_jax.runtime.errors import InputError
from tests.regressor import people

FLOAT32 = 1e-4  # bodies through a ResNet of width 4
FINITE_DIFFERENCE = 1e-6  # of the largest entry; float64, central, step 1e-6: rounding 1e-16 / step, curvature step^2
NOT_THE_PAPERS = [("axis_angle", 3), ("6d", 0), ("6d", 3)]
CONFIG = RegressorConfig(
    preset="tiny", width=4, image_size=32, batch=8, epochs=24, learning_rate=1e-2, warmup_share=0.1,
    last_rate_share=0.1, standardise=True, weights=LossWeights(joint=1.0),
)  # fmt: skip


def _config(rotations, iterations):
    return dataclasses.replace(CONFIG, rotations=rotations, iterations=iterations)


@pytest.fixture(scope="module")
def data():
    fits = people.random_bodies(8, seed=0)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)
    return images, people.observe(fits, seed=0), fits


@pytest.mark.parametrize(("rotations", "iterations"), NOT_THE_PAPERS)
def test_a_head_begins_at_the_mean_body_and_learns(data, rotations, iterations):
    """Without the trunk: from features that tell eight people apart, by gradient descent on eq. 5."""
    config, template = _config(rotations, iterations), load.load_body()
    images, observed, fits = data
    batch = jax.vmap(functools.partial(batches.make_sample, template))(images, observed, fits, np.ones(8))
    statistics, features = heads.measured_statistics(rotations, fits), jnp.eye(8)
    head = heads.layers(rotations, iterations, config.width, name="theta")
    optimizer = optax.adam(1e-2)

    def loss(params):
        output = head.apply(params, features)
        theta = statistics.mean[None] + statistics.sd[None] * output
        return training.batch_loss(config, template, statistics, theta, batch)[0], output

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


def test_both_changes_together_learn_from_pictures(data):
    """An untrained network's answer is the mean body; trained, its answers are bodies that differ."""
    config, template = _config("6d", 3), load.load_body()
    state = training.start_round(config, training.initial_state(config, jax.random.key(0)), data[2])
    mean = jax.jit(lambda statistics: statistics.finish(statistics.mean[None]))(state.statistics)
    first = model.predict(config, state, data[0], batch=8)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, np.repeat(b, 8, axis=0), atol=FLOAT32), first, mean)
    history = []
    for _ in range(config.epochs):
        state, metrics = training.train_epoch(state, template, *data, config, jax.random.key(1))
        history.append(metrics["loss"])
    assert history[-1] < history[0] / 2
    last = model.predict(config, state, data[0], batch=8)
    products = last.rotation @ np.swapaxes(last.rotation, 1, 2)
    np.testing.assert_allclose(products, np.broadcast_to(np.eye(3), products.shape), atol=FLOAT32)
    assert np.ptp(last.pose, axis=0).max() > 0.01
    assert np.all(last.camera_scale > 0) and np.all(last.segment_scale > 0)


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
        template, batch, statistics, predicted = _double(data)
        objective = functools.partial(_objective, config, template, statistics, batch)
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


def _objective(config, template, statistics, batch, predicted):
    return training.batch_loss(config, template, statistics, predicted, batch)[0]


def _double(data):
    """Return template, two people whose joints turn by about pi, statistics and predictions near them, in float64."""
    fits = jax.tree.map(lambda leaf: leaf[:2], data[2])
    axis = fits.pose / np.linalg.norm(fits.pose, axis=-1, keepdims=True)
    angle = np.array([np.pi, np.pi - 1e-6, np.pi + 1e-6, np.pi - 0.1])[np.arange(23) % 4]
    samples = [people.sample(seed) for seed in (0, 1)]
    template, batch, statistics = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        (
            load.load_body(),
            jax.tree.map(lambda *leaves: jnp.stack(leaves), *samples),
            heads.measured_statistics("6d", data[2]),
        ),
    )
    batch = batch.replace(fit=batch.fit.replace(pose=jnp.asarray(axis * angle[None, :, None])))
    offset = 0.05 * np.random.default_rng(2).normal(size=(2, statistics.mean.size))
    return template, batch, statistics, statistics.encode(batch.fit) + offset


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rotations": "quaternion"}, r"^config\.regressor\.rotations is 'quaternion': one of axis_angle, 6d$"),
        ({"iterations": -1}, r"^config\.regressor\.iterations is -1: at least 0$"),
    ],
)
def test_a_head_that_there_is_not_is_one_line(change, told):
    with pytest.raises(InputError, match=told):
        model.check(dataclasses.replace(CONFIG, **change))
