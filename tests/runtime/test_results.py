"""Results appear whole, survive a kill unfinished, and nobody's are overwritten unasked."""

import pytest

from dal_jax.runtime import files
from dal_jax.runtime.errors import InputError

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
    (tmp_path / ".unfinished" / "run.json").write_text("[")
    with pytest.raises(InputError, match=r"run\.json: is no JSON object"):
        _make(tmp_path)
