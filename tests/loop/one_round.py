"""A configuration that runs one round in seconds: narrow networks, few steps; one set of shapes for all tests."""

from dal_jax.config import Config, demo

SIZE = 32


def config(name: str, source: str = "") -> Config:
    """Return the configuration of a data set; without `source` it has been recorded."""
    config = demo()
    config.data, config.source, config.rounds = name, source, 1
    config.lifting.width, config.lifting.batch, config.lifting.steps = 16, 4, 20
    config.lifting.steps_per_call = config.lifting_checkpoint_steps = 20
    config.regressor.width, config.regressor.batch, config.regressor.epochs = 4, 4, 1
    config.regressor.image_size, config.regressor.depth = SIZE, 14
    config.first.registration.steps, config.first.registration.batch = 3, 24
    return config
