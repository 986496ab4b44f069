"""The loop on every data set that is made from files: one round, no truth, nulls in the history."""

import json

import pytest

from dal_jax import presets
from dal_jax.loop import judge as judge_lib, session
from tests.data.sources import made_folders

SIZE = 32


def _config(name: str, source: str) -> presets.Config:
    """One round in seconds: narrow networks, few steps; the same shapes for every data set."""
    config = presets.demo()
    config.data, config.source, config.rounds = name, source, 1
    config.lifting.width, config.lifting.batch, config.lifting.steps = 16, 4, 20
    config.lifting.steps_per_call = config.lifting_checkpoint_steps = 20
    config.regressor.width, config.regressor.batch, config.regressor.epochs = 4, 4, 1
    config.regressor.image_size = SIZE
    config.first_registration.steps, config.first_registration.batch = 3, 24
    return config


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return the folder of a data set, made the first time."""
    root, folders = tmp_path_factory.mktemp("sources"), {}

    def make(name):
        if name not in folders:
            folders[name] = made_folders.MAKERS[name](root / name)
        return str(folders[name])

    return make


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(made_folders.MAKERS))
def test_a_round_runs_on_every_data_set(made, name, tmp_path):
    result = session.run(_config(name, made(name)), tmp_path / "run", tmp_path / "data")
    (entry,) = json.loads((tmp_path / "run" / "history.json").read_text())
    assert all(entry[field] is None for field in judge_lib.FIELDS) and entry["seconds"] > 0
    assert result.report.is_file()
