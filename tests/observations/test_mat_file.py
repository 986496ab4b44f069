"""MATLAB files are read as SciPy reads them; one that lies about its sizes is refused in a line."""

import struct
import zlib

import numpy as np
import pytest
import scipy.io

from dal_jax.observations import mat_file
from dal_jax.runtime.errors import InputError
from tests import damage

_ARRAYS = {
    "faces": np.arange(12, dtype=np.uint32).reshape(4, 3),
    "part": np.arange(24, dtype=np.uint8)[:, None],
    "u": np.linspace(0, 1, 7)[:, None],
    "v": np.linspace(0, 1, 7, dtype=np.float32)[None],
    "negative": np.array([[-(2**40), 3]]),
    "one": np.array([[2.0]]),
    "cube": np.arange(24.0).reshape(2, 3, 4),
    "empty": np.zeros((0, 3)),
}


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_are_those_that_were_written(tmp_path, compressed):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, _ARRAYS | {"text": "no number", "record": {"a": 1}}, do_compression=compressed)
    found = mat_file.read(path, ("absent", *_ARRAYS))
    assert found.keys() == _ARRAYS.keys()
    for name, values in _ARRAYS.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype
    with pytest.raises(InputError, match=r"a\.mat: field 'text': .*not real numbers"):
        mat_file.read(path, ["text"])


def _element(kind: int, content: bytes, padded: bool = True) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + b"\0" * (-len(content) % 8 * padded)


def _matrix(data: bytes, shape=(2, 3), name: bytes = b"f", flags: int = 6) -> bytes:
    sizes = np.array(shape, "<i4").tobytes()
    return _element(14, _element(6, struct.pack("<II", flags, 0)) + _element(5, sizes) + _element(1, name) + data)


_NUMBERS = _element(9, np.zeros(6).tobytes())
_LONG = zlib.compress(struct.pack("<II", 14, 2**31) + b"\0" * 1000)
_CLAIMS = zlib.compress(_matrix(_element(9, b"\0" * 48), shape=(2**15, 2**15)))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (_matrix(_element(0, b"\0" * 48)), "field 'f': .*not real numbers"),  # a kind that there is not
        (_matrix(_NUMBERS, shape=(2, 2**30)), "field 'f': .*48 bytes for an array of shape"),
        (_matrix(_NUMBERS, shape=(-2, -3)), "field 'f': .*48 bytes for an array of shape"),
        (_matrix(_NUMBERS, flags=1), "field 'f': .*not real numbers"),
        (_matrix(_NUMBERS, flags=0x806), "field 'f': .*not real numbers"),
        (_matrix(b""), "field 'f': .*3 parts"),
        (_element(14, b""), "without a name"),
        (_matrix(_NUMBERS)[:-20], "an element of 104 bytes where 84 are left"),
        (_matrix(_NUMBERS)[:5], "cut off in the tag"),
        (struct.pack("<II", 5 << 16 | 14, 0), "small element of 5 bytes"),
        (_element(15, _LONG, padded=False), "element of 2147483648 bytes"),
        (_element(15, _CLAIMS, padded=False), "48 bytes for an array of shape"),
        (_element(15, b"\x78\x9c nonsense", padded=False), "not a MATLAB file"),
        (_element(15, b"", padded=False), "without a tag"),
    ],
)
def test_sizes_that_lie_are_refused(tmp_path, content, told):
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + content)
    with pytest.raises(InputError, match=told) as caught:
        mat_file.read(tmp_path / "a.mat", ["f"])
    assert "a.mat" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("compressed", [False, True])
def test_damage_anywhere_is_refused_or_harmless(tmp_path, compressed):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, _ARRAYS, do_compression=compressed)
    assert damage.refusals(path, lambda: mat_file.read(path, _ARRAYS), copies=300, first=128) > 150
