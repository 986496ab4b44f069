"""Arrays come out of pickles of any age; one that claims too much, or is damaged anywhere, is refused."""

import pickle

import numpy as np
import pytest
import scipy.sparse

from dal_jax.body.formats import array_pickle, pickles
from dal_jax.runtime import door
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
    return array_pickle.array_of(pickles.load(content))


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


def test_memory_is_never_taken_for_pointers():
    """An array of objects with bytes for memory would be read as pointers by NumPy's own unpickling."""
    content = pickle.dumps(np.arange(3), 2).replace(b"X\x02\x00\x00\x00i8", b"X\x02\x00\x00\x00O8")
    with pytest.raises(ValueError, match="without its numbers"):
        _read(content)


def test_sizes_that_lie_are_refused():
    whole = pickle.dumps(np.arange(300), 2)
    with pytest.raises(ValueError, match="bytes for an array of shape"):
        _read(whole.replace(b"M,\x01\x85", b"M-\x01\x85"))
    matrix = scipy.sparse.csc_matrix(np.eye(4))
    matrix.indices[2] = 2**30
    with pytest.raises(door.UNREADABLE):
        _read(pickle.dumps(matrix))


def test_one_object_named_many_times_is_counted_many_times():
    """Of a list of two lists of two lists .. only thirty are in the file, and a billion in the array."""
    lists = [1]
    for _ in range(30):
        lists = [lists, lists]
    with pytest.raises(ValueError, match="a list of more than 100000 numbers"):
        _read(pickle.dumps(lists))
    chained = Ch(np.arange(4.0))
    for _ in range(14):
        chained = Select({"a": chained, "idxs": Select({"a": chained, "idxs": np.arange(4)})})
    with pytest.raises(door.UNREADABLE, match="deep|larger, or more"):
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
            fields = pickles.load(bytes(damaged))
            for value in fields.values():
                array_pickle.array_of(value)
        except door.UNREADABLE:
            refused += 1
    assert refused > 1000
