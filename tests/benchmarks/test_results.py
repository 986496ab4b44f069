"""Rows: strict JSON; made once; a row of other settings is named, not mixed in."""

import json

import numpy as np
import pytest

from benchmarks import results
from dal_jax.runtime.errors import InputError

_SETTINGS = {"seed": 0, "share": 0.1, "config": {"width": 4}}
_ROW = {"name": "base", "error_mm": 0.1 + 0.2, "unknown": None}


def _never():
    pytest.fail("the row was made again")


def test_a_finished_row_is_kept_to_the_last_bit(tmp_path):
    path = tmp_path / "rows" / "base-0.json"
    assert results.kept(path, _SETTINGS, lambda: _ROW) == _ROW
    assert results.kept(path, _SETTINGS, _never) == _ROW
    assert results.kept(path, _SETTINGS, _never, overwrite=True) == _ROW


def test_a_row_under_way_leaves_nothing(tmp_path):
    def killed():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        results.kept(tmp_path / "base-0.json", _SETTINGS, killed)
    assert not list(tmp_path.iterdir())


def test_a_row_of_other_settings_is_refused_by_name(tmp_path):
    path = tmp_path / "base-0.json"
    results.kept(path, _SETTINGS, lambda: _ROW)
    other = _SETTINGS | {"config": {"width": 8}}
    with pytest.raises(InputError, match=r"base-0.json: was made with config.width=4, not 8; --overwrite"):
        results.kept(path, other, _never)
    assert results.kept(path, other, lambda: {"new": True}, overwrite=True) == {"new": True}
    assert results.kept(path, other, _never) == {"new": True}


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"made_of": {}, "row": 3}', "\xff"])
def test_a_file_that_is_no_row_is_named(text, tmp_path):
    path = tmp_path / "base-0.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="base-0.json: is no kept row"):
        results.kept(path, _SETTINGS, _never)


def test_a_digest_tells_contents_shapes_and_types_apart():
    one = {"a": np.arange(6, dtype=np.int32), "b": np.zeros(2, np.float32)}
    others = (
        one | {"a": one["a"][::-1]},
        one | {"a": one["a"].reshape(2, 3)},
        one | {"a": one["a"].view(np.uint32)},
        {"a": one["b"], "b": one["a"]},
    )
    digests = {results.digest(tree) for tree in (one, *others)}
    assert len(digests) == 5
    assert results.digest(dict(reversed(one.items()))) in digests


def test_rows_are_printed_and_written_as_strict_json(tmp_path, capsys):
    rows = [{"what": "a", "share": np.float32(1 / 3), "energy": float("nan"), "count": 3}]
    results.emit(rows, str(tmp_path / "rows.json"))
    expected = [{"what": "a", "share": 0.333333, "energy": None, "count": 3}]
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == expected
    assert json.loads((tmp_path / "rows.json").read_text()) == expected
    with pytest.raises(InputError, match="rows.json exists; --overwrite"):
        results.check_out(str(tmp_path / "rows.json"), overwrite=False)


def test_seeds_that_are_no_numbers_are_refused_before_anything_is_rendered():
    assert results.seeds(["0", "2"]) == [0, 2]
    for texts in (["x"], ["-1"], ["1", "1"], []):
        with pytest.raises(InputError, match="--seeds="):
            results.seeds(texts)


def test_names_that_no_row_has_are_refused():
    assert results.names("builds", ["wide"], ["wide", "average"]) == ["wide"]
    for texts in (["thin"], []):
        with pytest.raises(InputError, match="--builds="):
            results.names("builds", texts, ["wide", "average"])
