"""Nothing of a pickle's choice runs, and nothing of it takes long, whatever it names."""

import os
import pickle

import numpy as np
import pytest

from dal_jax.body.formats import array_pickle, pickles
from dal_jax.runtime import door


class _Calls:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("function", "argument", "name"),
    [
        (os.system, "touch ran", "system"), (eval, "open('ran', 'w')", "builtins.eval"),
        (exec, "open('ran', 'w')", "builtins.exec"), (getattr, "abc", "builtins.getattr"),
        (np.load, "ran", "numpy.load"), (__import__, "os", "builtins.__import__"), (open, "ran", "open"),
        (np.fromfile, "ran", "fromfile"), (pickle.loads, b"", "pickle.loads"), (bytearray, 2**40, "bytearray"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_any_other_name_is_refused_and_not_called(tmp_path, monkeypatch, function, argument, name, protocol):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps({"v_template": _Calls(function, argument)}, protocol)
    with pytest.raises(pickle.UnpicklingError, match="names '.*'") as caught:
        pickles.load(content)
    old = name.replace("builtins", "__builtin__")
    assert name in str(caught.value) or (old in str(caught.value) and protocol < 3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    [
        b"cchumpy\nos.system\n.", b"cchumpy.ch;os\nsystem\n.", b"cnumpy.core\nmultiarray._reconstruct\n.",
        b"cos\nsystem\n(S'touch ran'\ntR.", b"(S'touch ran'\nios\nsystem\n.", b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
    ],
)  # fmt: skip
def test_hand_written_tricks_name_nothing_that_runs(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    try:
        value = pickles.load(content)
    except door.UNREADABLE:
        pass
    else:
        assert value.__module__ == pickles.__name__  # a class that stands for chumpy's, and holds no code
    assert not list(tmp_path.iterdir())


def test_records_cannot_be_rewritten_by_a_file():
    """BUILD on a class or function would change it for every later file."""
    for name in (b"numpy\ndtype", b"numpy.core.multiarray\n_reconstruct", b"copyreg\n_reconstructor", b"chumpy.ch\nCh"):
        with pytest.raises(door.UNREADABLE):
            pickles.load(b"\x80\x02c" + name + b"\n}(X\x05\x00\x00\x00arrayK\x01u\x86b.")
        with pytest.raises(door.UNREADABLE):
            pickles.load(b"\x80\x02c" + name + b"\nN}X\x05\x00\x00\x00arrayK\x01s\x86b.")
    np.testing.assert_array_equal(array_pickle.array_of(pickles.load(pickle.dumps(np.arange(3)))), np.arange(3))


def test_a_place_that_lies_is_refused():
    with pytest.raises(door.UNREADABLE, match="LONG_BINPUT"):
        pickles.load(b"\x80\x02]r\xff\xff\xff\x7f.")


def _doubled(times: int, one: bytes, add: bytes) -> bytes:
    """Return steps that leave an object made of one object twice, made of one object twice, and so on."""
    steps = one
    for number in range(times):
        steps += b"q" + bytes([number]) + b"0" + add.replace(b"?", b"h" + bytes([number]))
    return steps


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (pickle.dumps({2**61 * number: 0 for number in range(1, 9)}, 2), "a key 2305843009213693952"),
        (b"\x80\x02}" + _doubled(30, b"K\x01\x85", b"??\x86") + b"K\x01s.", r"a key \("),
        (b"\x80\x02(" + _doubled(30, b"K\x01\x85", b"??\x86") + b"K\x01d.", r"a key \("),
        (pickle.dumps(frozenset([(1, 2)]), 4), r"a key \(1, 2\)"),
        (pickle.dumps({(1, 2)}, 4), r"a key \(1, 2\)"),
        (b"\x80\x02]" + b"K\x01a" * 60_000 + b".", "more than 100000 steps"),
        (b"\x80\x02]" + b"c_codecs\nencode\nX\x40\0\0\0" + b"x" * 64 + b"q\x01\x85Ra"
         + b"c_codecs\nencode\nh\x01\x85Ra" * 4 + b".", "same bytes many times"),
    ],
    ids=range(7),
)  # fmt: skip
def test_what_takes_long_or_much_is_refused(content, told):
    with pytest.raises(ValueError, match=told):
        pickles.load(content)
