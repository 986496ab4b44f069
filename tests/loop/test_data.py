"""The loop on every data set that is made from files: one round, no truth, nulls in the history."""

import json

import pytest

from dal_jax.loop import judge
from tests.data.sources import made_folders
from tests.loop import one_round


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
    result = one_round.run(one_round.config(name, made(name)), tmp_path)
    (entry,) = json.loads((tmp_path / "run" / "history.json").read_text())
    assert all(entry[field] is None for field in judge.FIELDS) and entry["seconds"] > 0
    assert result.report.is_file()
