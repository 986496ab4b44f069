"""Tensors without PyTorch: what three versions of it wrote, and what nobody should."""

import dataclasses
import pathlib
import pickle
import sys
import types
from typing import Any

import numpy as np
import pytest

from dal_jax.body.formats import torch_file
from dal_jax.body.formats.pickles import record
from dal_jax.runtime import door
from dal_jax.runtime.errors import InputError
from tests import damage

WRITTEN = np.load(pathlib.Path(__file__).with_name("torch_files.npz"))
"""What PyTorch 2.13 wrote by `write` below, byte by byte, and the arrays that it wrote."""

LAYOUTS = ("archive", "pickles", "plain")
CLASSES = {"densepose.structures.chart_result": {"DensePoseChartResult": record("chart")}}


def made() -> list[dict[str, np.ndarray]]:
    """Return the arrays of two people: part and u, v of each pixel of a box."""
    people = []
    for row in range(2):
        y, x = np.mgrid[:16, :12]
        part = np.where((x > 1) & (y > 1), np.where(y < 8, 2, 9 + row), 0)
        uv = np.stack([8 * x + y + row, 12 * y + x]) / np.float32(255)
        people.append({"labels": part.astype(np.int64), "uv": uv.astype(np.float32)})
    return people


BOXES = np.array([[10.5, 20.25, 22.75, 36.5], [50.0, 8.0, 62.0, 24.0]], np.float32)
SCORES = np.array([0.95, 0.5], np.float32)


def write(folder: pathlib.Path, torch: Any, chart_result: type) -> None:
    """Write what apply_net.py dump writes, in each layout; the first person's part is not contiguous."""
    tensors = [{name: torch.from_numpy(values) for name, values in one.items()} for one in made()]
    tensors[0]["labels"] = tensors[0]["labels"].t().contiguous().t()
    content = [
        {
            "file_name": "photos/walk.jpg",
            "scores": torch.from_numpy(SCORES),
            "pred_boxes_XYXY": torch.from_numpy(BOXES),
            "pred_densepose": [chart_result(**one) for one in tensors],
        },
        {
            "file_name": "photos/empty.jpg",
            "scores": torch.zeros(0),
            "pred_boxes_XYXY": torch.zeros(0, 4),
            "pred_densepose": [],
        },
    ]
    with (folder / "archive.pkl").open("wb") as file:
        torch.save(content, file)
    with (folder / "pickles.pkl").open("wb") as file:
        torch.save(content, file, _use_new_zipfile_serialization=False)
    (folder / "plain.pkl").write_bytes(pickle.dumps(content))


@pytest.fixture(params=LAYOUTS)
def path(request, tmp_path):
    path = tmp_path / f"{request.param}.pkl"
    path.write_bytes(WRITTEN[request.param].tobytes())
    return path


def _check(path):
    content, array = torch_file.read(path, CLASSES)
    walk, empty = content
    np.testing.assert_array_equal(array(walk["scores"]), SCORES)
    np.testing.assert_array_equal(array(walk["pred_boxes_XYXY"]), BOXES)
    for one, wanted in zip(walk["pred_densepose"], made(), strict=True):
        for name, values in wanted.items():
            found = array(one.state[name])
            np.testing.assert_array_equal(found, values)
            assert found.dtype == values.dtype
    assert array(empty["pred_boxes_XYXY"]).shape == (0, 4)


def test_every_layout_holds_the_same(path):
    _check(path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_the_pytorch_at_hand_writes(tmp_path, monkeypatch, layout):
    torch = pytest.importorskip("torch")
    module = types.ModuleType("densepose.structures.chart_result")
    chart_result = dataclasses.make_dataclass("DensePoseChartResult", ["labels", "uv"])
    chart_result.__module__ = module.__name__
    module.DensePoseChartResult = chart_result  # pyright: ignore[reportAttributeAccessIssue]
    for name in ("densepose", "densepose.structures", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    write(tmp_path, torch, chart_result)
    _check(tmp_path / f"{layout}.pkl")


def test_a_class_that_is_not_on_the_list_is_refused(path):
    with pytest.raises(InputError, match=r"names 'densepose\.structures\.chart_result\.DensePoseChartResult'.*nothing"):
        torch_file.read(path, {})


def test_a_call_in_a_pickle_is_refused(tmp_path):
    path = tmp_path / "results.pkl"
    path.write_bytes(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.")
    with pytest.raises(InputError, match=r"results\.pkl: names 'os\.system', .*nothing of it was run"):
        torch_file.read(path, CLASSES)


def test_damage_anywhere_is_refused_or_harmless(path):
    def arrays():
        content, array = torch_file.read(path, CLASSES)
        try:
            for one in content:
                array(one["scores"])
                for person in one["pred_densepose"]:
                    array(person.state["labels"])
        except door.UNREADABLE as error:
            raise InputError(str(error)) from error

    assert damage.refusals(path, arrays, 400) > 50
