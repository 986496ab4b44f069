"""A file is the old one or the new one, whatever happens in between; results appear whole and survive a kill."""

import codecs
import json
import os
import stat
import subprocess
import sys

import numpy as np
import pytest

from dal_jax.runtime import files
from dal_jax.runtime.errors import InputError


class _Killed(BaseException):
    """Stands for a process that ends in the middle of a block."""


def _fail_while_building(path):
    with files.directory(path, overwrite=True) as building:
        (building / "page").write_text("new")
        raise _Killed


def test_text_replaces_and_makes_folders(tmp_path):
    path = tmp_path / "a" / "b.txt"
    files.write_text(path, "old")
    files.write_text(path, "né")
    assert path.read_bytes() == "né".encode()
    assert os.listdir(path.parent) == ["b.txt"]


def test_files_get_the_usual_permissions(tmp_path):
    plain, ours = tmp_path / "plain", tmp_path / "ours"
    plain.write_text("")
    files.write_text(ours, "")
    assert stat.S_IMODE(ours.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path):
    """And what a living one is making stays: it holds a lock on it."""
    with files.directory(tmp_path / "out") as living:
        stale = [tmp_path / ".out.abcdefgh.tmp", tmp_path / ".out.12345678.tmp", living]
        stale[0].mkdir()
        stale[1].write_text("half")
        for path in stale:
            os.utime(path, (0, 0))
        young = tmp_path / ".out.23456789.tmp"
        young.write_text("")
        files.write_text(tmp_path / "out", "whole")
        assert {path.name for path in tmp_path.iterdir()} == {"out", living.name, young.name}
        (tmp_path / "out").unlink()


def test_json_round_trips_and_refuses_nan(tmp_path):
    path = tmp_path / "value.json"
    value = [{"round": 1, "error_mm": 0.1, "truth": None}]
    files.write_json(path, value)
    assert json.loads(path.read_text()) == value
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, float("nan"))
    assert json.loads(path.read_text()) == value


def test_a_byte_order_mark_is_not_read(tmp_path):
    path = tmp_path / "value.json"
    path.write_bytes(codecs.BOM_UTF8 + b'["a"]')
    assert files.read_text(path) == '["a"]' and files.read_json(path) == ["a"]
    path.write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"value\.json: is no text"):
        files.read_text(path)
    with pytest.raises(InputError, match=r"absent: cannot be read: No such file"):
        files.read_text(tmp_path / "absent")


def test_savez_round_trips_and_refuses_pickles(tmp_path):
    path = tmp_path / "arrays.npz"
    files.savez(path, a=np.arange(3), name=np.array("x"))
    with np.load(path, allow_pickle=False) as file:
        assert sorted(file.files) == ["a", "name"]
        np.testing.assert_array_equal(file["a"], [0, 1, 2])
    with pytest.raises(ValueError, match="Object arrays"):
        files.savez(path, a=np.array([{}]))
    assert os.listdir(tmp_path) == ["arrays.npz"]
    with np.load(path) as file:
        assert "name" in file.files


def test_directory_appears_whole(tmp_path):
    path = tmp_path / "report"
    with files.directory(path) as building:
        (building / "page").write_text("1")
        assert not path.exists()
    assert os.listdir(path) == ["page"]
    assert os.listdir(tmp_path) == ["report"]


def test_directory_is_dropped_when_its_block_fails(tmp_path):
    path = tmp_path / "report"
    with files.directory(path) as building:
        (building / "page").write_text("old")
    with pytest.raises(_Killed):
        _fail_while_building(path)
    assert (path / "page").read_text() == "old"
    assert os.listdir(tmp_path) == ["report"]


def test_directory_is_replaced_only_when_told(tmp_path):
    path = tmp_path / "report"
    path.mkdir()
    (path / "old").write_text("")
    with pytest.raises(InputError, match="report: exists; --overwrite replaces it"):
        files.directory(path).__enter__()
    with files.directory(path, overwrite=True) as building:
        (building / "new").write_text("")
    assert os.listdir(path) == ["new"]
    assert os.listdir(tmp_path) == ["report"]


NAMES = ("pictures", "numbers.txt")
RUN = {"seed": 1, "files": [1, 2]}


def _make(out, run=RUN, overwrite=False, text="new", then=None):
    with files.making(out, NAMES, run, overwrite) as building:
        (building / "pictures").mkdir(exist_ok=True)
        (building / "pictures" / f"{text}.png").touch()
        if then is not None:
            raise then
        (building / "numbers.txt").write_text(text)


def test_results_appear_whole_and_are_not_overwritten(tmp_path):
    _make(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["numbers.txt", "pictures"]
    with pytest.raises(InputError, match=r"numbers\.txt exists; --overwrite replaces it"):
        _make(tmp_path / "out", text="other")
    assert (tmp_path / "out" / "numbers.txt").read_text() == "new"
    _make(tmp_path / "out", text="other", overwrite=True)
    assert [path.name for path in (tmp_path / "out" / "pictures").iterdir()] == ["other.png"]


def test_a_killed_run_goes_on_with_what_it_has_left(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        _make(tmp_path / "out", text="first", then=KeyboardInterrupt())
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".unfinished"]
    _make(tmp_path / "out", text="second")
    assert {path.name for path in (tmp_path / "out" / "pictures").iterdir()} == {"first.png", "second.png"}


def test_another_run_does_not_take_it_over(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        _make(tmp_path / "out", text="first", then=KeyboardInterrupt())
    with pytest.raises(InputError, match="unfinished run with seed=1, not 2; --overwrite starts anew"):
        _make(tmp_path / "out", run=RUN | {"seed": 2})
    _make(tmp_path / "out", run=RUN | {"seed": 2}, overwrite=True)
    assert [path.name for path in (tmp_path / "out" / "pictures").iterdir()] == ["new.png"]


def test_old_results_stay_until_new_ones_are_whole(tmp_path):
    _make(tmp_path / "out", text="old")
    with pytest.raises(KeyboardInterrupt):
        _make(tmp_path / "out", overwrite=True, then=KeyboardInterrupt())
    assert (tmp_path / "out" / "numbers.txt").read_text() == "old"


def test_bad_input_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match="a bad picture"):
        _make(tmp_path / "out", then=InputError("a bad picture"))
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is no folder"):
        files.refuse_taken(tmp_path / "file", NAMES, overwrite=True)


def test_a_spoiled_note_of_the_run_is_named(tmp_path):
    (tmp_path / ".unfinished").mkdir()
    for text, told in (
        ("[", r"run\.json: not valid JSON: .*; --overwrite starts anew"), ("[]", r"run\.json: is no JSON object"),
        ("[" * 100_000, "nested too deep"), ('{"checkpoint": "a\\nb"}', "with checkpoint=a b, not None"),
        ("9" * 5000, "not valid JSON"),
    ):  # fmt: skip
        (tmp_path / ".unfinished" / "run.json").write_text(text)
        with pytest.raises(InputError, match=told) as caught:
            _make(tmp_path)
        assert len(str(caught.value).splitlines()) == 1


def test_a_folder_is_one_process_s_until_it_ends_or_is_killed(tmp_path):
    holder = (
        "import sys, time; from dal_jax.runtime import files\n"
        "with files.locked(sys.argv[1]): print(1, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", holder, str(tmp_path)], stdout=-1, text=True) as other:
        assert other.stdout.readline() == "1\n"
        with (
            pytest.raises(InputError, match=rf"{tmp_path}: process {other.pid} on .* is working there$"),
            files.locked(tmp_path),
        ):
            pass
        (tmp_path / ".lock").write_bytes(b"\xed")  # as a disk may have it
        with pytest.raises(InputError, match="is working there$"), files.locked(tmp_path):
            pass
        other.kill()
    with files.locked(tmp_path):
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()
    assert not any(tmp_path.iterdir())
