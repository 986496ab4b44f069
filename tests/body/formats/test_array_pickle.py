"""Arrays come out of pickles of any age; nothing of the file's choice runs, whatever it names or however it is cut."""

import os
import pickle

import numpy as np
import pytest
import scipy.sparse

from dal_jax.body.formats import array_pickle
from dal_jax.runtime.errors import InputError
from tests.body import smpl_files
from tests.body.smpl_files import Ch, MatVecMult, Select

ARRAYS = {
    "float64": np.arange(6.0).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big endian": np.arange(6, dtype=">i4"),
    "uint32": np.array([[2**32 - 1, 0], [0, 1]], np.uint32),
    "float32": np.linspace(0, 1, 300, dtype=np.float32),  # every byte value, newlines and quotes included
    "bool": np.array([True, False]),
    "empty": np.zeros((0, 3)),
    "scalar": np.float64(2.5),
    "no axes": np.array(7),
}


def _read(content: bytes) -> np.ndarray:
    return array_pickle.array_of(array_pickle.load(content))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_every_protocol(name, protocol):
    found = _read(pickle.dumps(ARRAYS[name], protocol))
    np.testing.assert_array_equal(found, ARRAYS[name])
    assert found.dtype == np.asarray(ARRAYS[name]).dtype.newbyteorder("=")


@pytest.mark.parametrize("protocol", [0, 1, 2])
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_python_2(name, protocol):
    content = smpl_files.old_pickle(ARRAYS[name], protocol)
    assert b"numpy.core.multiarray" in content and b"_codecs" not in content
    np.testing.assert_array_equal(_read(content), ARRAYS[name])


@pytest.mark.parametrize("make", [scipy.sparse.csc_matrix, scipy.sparse.csr_matrix, scipy.sparse.csc_array])
@pytest.mark.parametrize("write", [pickle.dumps, smpl_files.old_pickle])
def test_sparse_matrices_are_written_out(make, write):
    matrix = make(scipy.sparse.random_array((5, 40), density=0.2, rng=np.random.default_rng(0)))
    np.testing.assert_array_equal(_read(write(matrix)), matrix.toarray())


def test_chumpys_arrays_without_chumpy():
    base = np.arange(24.0).reshape(2, 3, 4)
    part = Select({"a": Ch(base), "idxs": np.arange(12), "preferred_shape": (3, 4)})
    np.testing.assert_array_equal(_read(smpl_files.old_pickle(Ch(base))), base)
    np.testing.assert_array_equal(_read(smpl_files.old_pickle(part)), base[0])
    chained = Select({"a": part, "idxs": np.array([5, 0])})
    np.testing.assert_array_equal(_read(smpl_files.old_pickle(chained)), [5.0, 0.0])
    with pytest.raises(ValueError, match="MatVecMult"):
        _read(smpl_files.old_pickle(MatVecMult({})))


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
        array_pickle.load(content)
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
        value = array_pickle.load(content)
    except array_pickle.UNREADABLE:
        pass
    else:
        assert value.__module__ == array_pickle.__name__  # a class that stands for chumpy's, and holds no code
    assert not list(tmp_path.iterdir())


def test_records_cannot_be_rewritten_by_a_file():
    """BUILD on a class or function would change it for every later file."""
    for name in (b"numpy\ndtype", b"numpy.core.multiarray\n_reconstruct", b"copyreg\n_reconstructor", b"chumpy.ch\nCh"):
        with pytest.raises(array_pickle.UNREADABLE):
            array_pickle.load(b"\x80\x02c" + name + b"\n}(X\x05\x00\x00\x00arrayK\x01u\x86b.")
        with pytest.raises(array_pickle.UNREADABLE):
            array_pickle.load(b"\x80\x02c" + name + b"\nN}X\x05\x00\x00\x00arrayK\x01s\x86b.")
    np.testing.assert_array_equal(_read(pickle.dumps(np.arange(3))), np.arange(3))


def test_memory_is_never_taken_for_pointers():
    """An array of objects with bytes for memory would be read as pointers by NumPy's own unpickling."""
    content = pickle.dumps(np.arange(3), 2).replace(b"X\x02\x00\x00\x00i8", b"X\x02\x00\x00\x00O8")
    with pytest.raises(ValueError, match="without its numbers"):
        _read(content)


def test_sizes_that_lie_are_refused():
    with pytest.raises(array_pickle.UNREADABLE, match="LONG_BINPUT"):
        array_pickle.load(b"\x80\x02]r\xff\xff\xff\x7f.")
    whole = pickle.dumps(np.arange(300), 2)
    with pytest.raises(ValueError, match="bytes for an array of shape"):
        _read(whole.replace(b"M,\x01\x85", b"M-\x01\x85"))
    matrix = scipy.sparse.csc_matrix(np.eye(4))
    matrix.indices[2] = 2**30
    with pytest.raises(array_pickle.UNREADABLE):
        _read(pickle.dumps(matrix))


def _doubled(times: int, one: bytes, add: bytes) -> bytes:
    """Return steps that leave an object made of one object twice, made of one object twice, and so on."""
    steps = one
    for number in range(times):
        steps += b"q" + bytes([number]) + b"0" + add.replace(b"?", b"h" + bytes([number]))
    return steps


def test_one_object_named_many_times_is_counted_many_times():
    """Of a list of two lists of two lists .. only thirty are in the file, and a billion in the array."""
    lists = array_pickle.load(b"\x80\x02" + _doubled(30, b"]K\x01a", b"]?a?a") + b".")
    with pytest.raises(ValueError, match="a list of more than 100000 numbers"):
        array_pickle.array_of(lists)
    chained = Ch(np.arange(4.0))
    for _ in range(14):
        chained = Select({"a": chained, "idxs": Select({"a": chained, "idxs": np.arange(4)})})
    with pytest.raises(array_pickle.UNREADABLE, match="deep|larger, or more"):
        _read(smpl_files.old_pickle(chained))
    wide = scipy.sparse.csr_matrix((1, 2**28))
    with pytest.raises(ValueError, match="sparse matrix of shape"):
        _read(pickle.dumps(wide))


def test_arrays_of_a_file_share_its_room(tmp_path, monkeypatch):
    monkeypatch.setattr(array_pickle, "_ROOM", 2**16)
    matrix = scipy.sparse.csr_matrix((50, 100))
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": matrix, "b": matrix}))
    assert array_pickle.read_fields(tmp_path / "a.pkl", ["a"])["a"].shape == (50, 100)
    with pytest.raises(InputError, match="a.pkl: field 'b': .*its arrays are larger, or more"):
        array_pickle.read_fields(tmp_path / "a.pkl", ["a", "b"])


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
        array_pickle.load(content)


def test_damage_anywhere_is_refused_or_harmless():
    """Cut short, or 1 to 3 bytes changed: one of the errors that are caught, or an array."""
    content = smpl_files.old_pickle(
        {"a": Ch(np.arange(4.0)), "b": scipy.sparse.csc_matrix(np.eye(3)), "c": np.float32(1), "d": "lbs"}
    )
    rng, refused = np.random.default_rng(0), 0
    for trial in range(3000):
        damaged = bytearray(content)
        if trial < len(content) // 4:
            del damaged[4 * trial :]
        else:
            for _ in range(rng.integers(1, 4)):
                damaged[rng.integers(len(content))] = rng.integers(256)
        try:
            fields = array_pickle.load(bytes(damaged))
            for value in fields.values():
                array_pickle.array_of(value)
        except array_pickle.UNREADABLE:
            refused += 1
    assert refused > 1000
