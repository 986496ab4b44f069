"""A run's regressor comes back from either of its folders; what is no run is named in one line."""

import json

import jax
import numpy as np
import pytest

from dal_jax.loop import prediction
from dal_jax.regressor import model
from dal_jax.runtime.errors import InputError
from tests.loop import small_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "run"
    return workdir, small_run.write(workdir)


def _images():
    size = small_run.IMAGE_SIZE
    return np.random.default_rng(0).integers(0, 256, (3, size, size, 3)).astype(np.uint8)


@pytest.mark.parametrize("place", [".", "checkpoints"])
def test_the_regressor_predicts_as_the_one_that_was_saved(run, place):
    workdir, state = run
    loaded = prediction.load(workdir / place)
    assert loaded.config == small_run.config().regressor and loaded.folder.samefile(workdir)
    assert (loaded.step, loaded.training_steps, loaded.body) == (1, 5, "")
    wanted = model.predict(small_run.config().regressor, state.learned, _images(), batch=8)
    found = model.predict(loaded.config, loaded.learned, _images(), batch=8)
    assert np.ptp(wanted.pose, axis=0).max() > 0.01
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_the_running_mean_of_the_weights_predicts_where_there_is_one(tmp_path):
    state = small_run.write(tmp_path / "run", average_decay=0.9)
    loaded = prediction.load(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, loaded.learned.variables, state.average)
    kernels = [one["params"]["theta"]["kernel"] for one in (state.trained, state.average)]
    assert np.abs(kernels[0] - kernels[1]).max() > 0


@pytest.mark.parametrize(("rotations", "iterations", "size"), [("axis_angle", 2, 105), ("6d", 0, 171)])
def test_every_head_predicts_as_the_one_that_was_saved(tmp_path, rotations, iterations, size):
    state = small_run.write(tmp_path / "run", rotations=rotations, iterations=iterations)
    loaded = prediction.load(tmp_path / "run")
    assert small_run.last_layer(loaded.learned.variables)["bias"].shape == (size,)
    jax.tree.map(np.testing.assert_array_equal, loaded.learned.codec, state.codec)
    wanted, found = (model.predict(loaded.config, one, _images(), batch=8) for one in (state.learned, loaded.learned))
    assert np.ptp(wanted.pose, axis=0).max() > 0.01
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def _spoil(workdir, change):
    path = workdir / "config.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_configuration_from_before_a_field_existed_keeps_the_field_s_default(run, tmp_path):
    """And predicts the same: what was there before there were other heads is the paper's."""
    small_run.write(tmp_path / "run")
    later = ("pretrained", "rotations", "iterations")
    _spoil(tmp_path / "run", lambda content: [content["regressor"].pop(field) for field in later])
    loaded = prediction.load(tmp_path / "run")
    assert [getattr(loaded.config, field) for field in later] == ["", "axis_angle", 0]
    wanted = model.predict(small_run.config().regressor, run[1].learned, _images(), batch=8)
    jax.tree.map(
        np.testing.assert_array_equal, model.predict(loaded.config, loaded.learned, _images(), batch=8), wanted
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c.clear(), "has no group 'regressor'"),
        (lambda c: c["regressor"].update(layers=101), "regressor.layers is unknown"),
        (lambda c: c["regressor"].update(compute_dtype="int3"), "json: config.regressor.compute_dtype is 'int3'"),
        (lambda c: c["regressor"].update(width="wide"), "regressor.width is 'wide'"),
        (lambda c: c["regressor"]["weights"].update(dense=None), "regressor.weights.dense is None"),
        (lambda c: c["regressor"].update(width=8), "expected float32"),
        (lambda c: c["regressor"].update(rotations="6d"), r"is float32\[105\], expected float32\[171\]"),
        (lambda c: c["regressor"].update(rotations="euler"), "config.regressor.rotations is 'euler': one of"),
        (lambda c: c["regressor"].update(iterations=-3), "config.regressor.iterations is -3"),
        (lambda c: c["regressor"].update(iterations=2), "params/theta/change/bias is absent"),
        (lambda c: c.update(body=3), "body is 3"),
    ],
)
def test_a_configuration_that_does_not_fit_is_one_line(tmp_path, change, told):
    small_run.write(tmp_path / "run")
    _spoil(tmp_path / "run", change)
    with pytest.raises(InputError, match=told) as caught:
        prediction.load(tmp_path / "run")
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_folders_that_are_no_run_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    small_run.write(tmp_path / "untrained", step=0)
    small_run.write(tmp_path / "text")
    (tmp_path / "text" / "config.json").write_text("{")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text((tmp_path / "untrained" / "config.json").read_text())
    for name, told in (
        ("absent", "no such folder"),
        ("empty", "it has no config.json"),
        ("untrained", "not trained yet"),
        ("text", "config.json: not valid JSON"),
        ("bare", "there is no checkpoint"),
    ):
        with pytest.raises(InputError, match=told) as caught:
            prediction.load(tmp_path / name)
        assert name in str(caught.value)
