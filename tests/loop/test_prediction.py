"""People in photographs: any batch gives the same bodies, a killed run goes on, a bad picture is one line."""

import json

import jax
import numpy as np
import PIL.Image
import pytest

from dal_jax.loop import prediction
from dal_jax.observations import detections, photographs
from dal_jax.observations.person import Annotations
from dal_jax.regressor import model
from dal_jax.runtime.errors import InputError
from tests.loop import small_run

FLOAT32 = 1e-4  # batches of another size sum in another order


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "run"
    small_run.write(workdir)
    return prediction.load(workdir)


@pytest.fixture
def shown(tmp_path):
    """Return the five people of three photographs."""
    rng = np.random.default_rng(0)
    for name in "abc":
        PIL.Image.fromarray(rng.integers(0, 256, (60, 80, 3)).astype(np.uint8)).save(tmp_path / f"{name}.png")
    boxes = [{"file_name": f"{name}.png", "bbox": [5.0 * row, 3.0, 40.0, 30.0]} for row, name in enumerate("aabbc", 1)]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    pictures = detections.list_photographs(tmp_path)
    return detections.people(pictures, detections.read_boxes(tmp_path / "boxes.json", pictures))


def test_every_person_gets_the_body_of_its_own_crop(trained, shown, tmp_path):
    crops = [photographs.crop(photographs.read_picture(shown.photograph(p)), p.crop_px, 32) for p in shown.people]
    wanted = model.predict(trained.config, trained.learned, np.stack(crops), batch=8)
    assert np.ptp(wanted.pose, axis=0).max() > 0.01
    for batch in (2, 64):
        found, problems = prediction.predict_crops(trained, shown, tmp_path / f"done{batch}", batch=batch)
        assert problems == [""] * 5
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=FLOAT32), found, wanted)


class _Killed(Exception):
    pass


def test_a_killed_run_goes_on_to_the_same_bits(trained, shown, tmp_path, monkeypatch):
    undisturbed, _ = prediction.predict_crops(trained, shown, tmp_path / "undisturbed", batch=2)
    write, written = prediction._write, []

    def write_and_die(path, *predicted):
        write(path, *predicted)
        written.append(path)
        if len(written) == 2:
            raise _Killed

    monkeypatch.setattr(prediction, "_write", write_and_die)
    with pytest.raises(_Killed):
        prediction.predict_crops(trained, shown, tmp_path / "done", batch=2)
    for name in ("a.png", "b.png"):  # not needed any more: their people are done
        (tmp_path / name).unlink()
    found, _ = prediction.predict_crops(trained, shown, tmp_path / "done", batch=2)
    assert len(written) == 3
    jax.tree.map(np.testing.assert_array_equal, found, undisturbed)


def test_a_bad_photograph_is_one_line_or_a_row_of_nan(trained, shown, tmp_path):
    path = tmp_path / "b.png"
    path.write_bytes(path.read_bytes()[:3000])  # the header is whole, the pixels are not
    with pytest.raises(InputError, match=r"b\.png: cannot be read as a picture"):
        prediction.predict_crops(trained, shown, tmp_path / "first", batch=2)
    found, problems = prediction.predict_crops(trained, shown, tmp_path / "second", batch=2, skip_invalid=True)
    assert [bool(problem) for problem in problems] == [False, False, True, True, False]
    assert np.isnan(found.pose[2:4]).all() and np.isfinite(found.pose[[0, 1, 4]]).all()
    without = jax.tree.map(lambda leaf: leaf[[0, 1, 4]], found)
    alone, _ = prediction.predict_crops(
        trained, Annotations([shown.people[row] for row in (0, 1, 4)], images=shown.images), tmp_path / "third", batch=2
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=FLOAT32), without, alone)


def test_a_damaged_batch_is_named(trained, shown, tmp_path):
    prediction.predict_crops(trained, shown, tmp_path / "done", batch=2)
    (tmp_path / "done" / "000001.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"000001\.npz: is damaged"):
        prediction.predict_crops(trained, shown, tmp_path / "done", batch=2)
