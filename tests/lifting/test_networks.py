"""The two MLPs against an independent float64 forward, and how they are drawn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dal_jax.lifting import networks
from dal_jax.lifting.config import LiftingConfig

_FLOAT32 = 2e-6  # outputs are of order 1e-2 with weights of sd 0.02; sums of 64 float32 terms
_CONFIG = LiftingConfig(width=64)


def _forward(parameters, features):
    layers = {
        name: (np.asarray(layer["kernel"], np.float64), np.asarray(layer["bias"], np.float64))
        for name, layer in parameters["params"]["mlp"].items()
    }

    def dense(name, values):
        kernel, bias = layers[name]
        return values @ kernel + bias

    def leaky(values):
        return np.maximum(values, 0) + 0.2 * np.minimum(values, 0)

    hidden1 = leaky(dense("first", features))
    hidden2 = leaky(dense("second", hidden1))
    hidden3 = leaky(dense("third", hidden2) + hidden1)
    return dense("last", hidden3)


def _random_biases(parameters, seed):
    """Biases start at 0, where leaving them out would not show."""
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + random.normal(0, 0.02, leaf.shape).astype(np.float32), parameters)


def _initial(config, name, key):
    return jax.device_get(jax.jit(functools.partial(networks.initial, config, name))(jax.random.key(key)))


def test_generator_is_the_published_mlp_with_the_hip_subtracted():
    poses = np.random.default_rng(0).normal(size=(5, 17, 2))
    parameters = _random_biases(_initial(_CONFIG, "generator", 1), 2)
    raw = _forward(parameters, poses.reshape(5, 34))
    depth = np.asarray(jax.jit(functools.partial(networks.depth, _CONFIG))(parameters, poses.astype(np.float32)))
    np.testing.assert_allclose(depth, raw - raw[:, :1], atol=_FLOAT32)
    assert np.abs(raw[:, 0]).min() > 100 * _FLOAT32  # or the subtraction would not have been tested
    np.testing.assert_array_equal(depth[:, 0], 0)


def test_discriminator_is_the_published_mlp_with_one_logit():
    poses = np.random.default_rng(0).normal(size=(2, 3, 17, 2))
    parameters = _random_biases(_initial(_CONFIG, "discriminator", 1), 2)
    logit = jax.jit(functools.partial(networks.realism_logit, _CONFIG))(parameters, poses.astype(np.float32))
    np.testing.assert_allclose(logit, _forward(parameters, poses.reshape(2, 3, 34))[..., 0], atol=_FLOAT32)


def test_weights_are_drawn_with_sd_0_02_and_biases_are_0():
    parameters = _initial(LiftingConfig(), "generator", 0)["params"]["mlp"]
    shapes = {name: layer["kernel"].shape for name, layer in parameters.items()}
    assert shapes == {"first": (34, 1024), "second": (1024, 1024), "third": (1024, 1024), "last": (1024, 17)}
    for layer in parameters.values():
        np.testing.assert_allclose(np.std(layer["kernel"]), 0.02, rtol=0.03)  # 17,408 draws or more: 0.5% each way
        assert not np.any(layer["bias"])


def test_the_flow_is_a_density():
    """Its likelihood is a normal one's times the volume of the map, whose derivatives JAX takes one by one."""
    random = np.random.default_rng(0)
    config = LiftingConfig(width=32)
    parameters = jax.tree.map(
        lambda leaf: leaf + random.normal(0, 0.3, leaf.shape).astype(np.float32),
        networks.initial_flow(config, jax.random.key(0)),
    )
    poses = random.normal(size=(3, 17, 2)).astype(np.float32)
    poses[:, 0] = 0
    found = jax.jit(functools.partial(networks.pose_nll, config))(parameters, poses)
    flow = networks._Flow(16)

    @jax.jit
    @jax.vmap
    def expected(values):
        normal = flow.apply(parameters, values)[0]
        volume = jnp.linalg.slogdet(jax.jacfwd(lambda each: flow.apply(parameters, each)[0])(values))[1]
        return (0.5 * jnp.sum(normal**2) - volume) / 32

    np.testing.assert_allclose(found, expected(poses[:, 1:].reshape(3, 32)), rtol=1e-4)
    assert np.ptp(np.asarray(found)) > 0.1


def test_a_generator_answers_its_camera_s_elevation_too():
    poses = np.random.default_rng(0).normal(size=(5, 17, 2)).astype(np.float32)
    config = LiftingConfig(width=64, elevation_spread_deg=10.0)
    parameters = _random_biases(_initial(config, "generator", 1), 2)
    raw = _forward(parameters, poses.reshape(5, 34))
    assert raw.shape == (5, 18)
    found = jax.jit(functools.partial(networks.elevation, config))(parameters, poses)
    np.testing.assert_allclose(found, np.radians(10) * np.tanh(raw[:, 17]), atol=_FLOAT32)
    depth = jax.jit(functools.partial(networks.depth, config))(parameters, poses)
    np.testing.assert_allclose(depth, raw[:, :17] - raw[:, :1], atol=_FLOAT32)
    assert not np.any(networks.elevation(LiftingConfig(), None, jnp.asarray(poses)))
