"""What is opened is a regular file of a bearable size, inside its folder; JSON is as deep as it says."""

import io
import json
import os
import tracemalloc
import zipfile

import numpy as np
import pytest

from dal_jax.observations import photographs
from dal_jax.runtime import door, files
from dal_jax.runtime.errors import InputError
from tests import damage


def test_pipes_and_devices_are_refused_at_once(tmp_path):
    """A pipe without a writer would be waited for; a device does not end."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        for read in (files.read_json, files.read_text, door.read_npz, door.read_npy, photographs.read_picture):
            with pytest.raises(InputError, match="is no file|is a folder"):
                read(path)


def test_a_file_above_the_limit_is_not_read(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)  # takes no room on the disk
    with pytest.raises(OSError, match="1099511627776 bytes, at most 1000 are read"):
        door.contents(tmp_path / "sparse", 1000)


def test_names_and_links_stay_in_the_folder(tmp_path):
    """The folder itself may be a link; what it holds may link to each other."""
    for name in ("inside", "outside"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_text("")
    (tmp_path / "images").symlink_to("inside")
    (tmp_path / "inside" / "b.jpg").symlink_to("a.jpg")
    (tmp_path / "inside" / "out.jpg").symlink_to("../outside/a.jpg")
    (tmp_path / "inside" / "loop.jpg").symlink_to("loop.jpg")
    for name in ("a.jpg", "b.jpg", "absent.jpg", "below\\absent.jpg"):
        assert files.below(tmp_path / "images", name).parent.name in ("images", "below")
    for name in ("out.jpg", "loop.jpg", "../outside/a.jpg", "/etc/passwd", "C:\\a.jpg", "a\0.jpg"):
        with pytest.raises(InputError, match="leaves the folder"):
            files.below(tmp_path / "images", name)


@pytest.mark.parametrize("letters", ['[]{}"\\ ', '[]"\\a,'])
def test_depth_is_that_of_the_parsed_value(letters, monkeypatch):
    """By a walk over what the library's parser made of it."""

    def depth(value: object) -> int:
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return 1 + max(map(depth, inside), default=0) if isinstance(value, dict | list) else 0

    rng, parsed = np.random.default_rng(0), 0
    monkeypatch.setattr(door, "_CHUNK", 64)
    for _ in range(60):
        value: object = "".join(rng.choice(list(letters), 5))
        for _ in range(rng.integers(8)):
            text = "".join(rng.choice(list(letters), rng.integers(6)))
            value = [text, value] if rng.random() < 0.5 else {text: value}
        for indent in (None, 1):
            assert door.depth_of_json(json.dumps(value, indent=indent).encode()) == depth(value)
            parsed += 1
    assert parsed == 120
    assert files.parse_json(b"[" * 64 + b"]" * 64)
    for content in (b"[" * 65 + b"]" * 65, b"[" * 10**6, '{"a":' * 100_000, ("[" * 65).encode("utf-16")):
        with pytest.raises(ValueError, match="nested too deep"):
            files.parse_json(content)


_ARRAYS = {
    "a": np.arange(6.0).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "big": np.arange(3, dtype=">i4"),
    "text": np.array(["one", "é"]),
    "scalar": np.array(2.5),
    "empty": np.zeros((0, 3)),
    "yes": np.array([True, False]),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_those_that_were_written(tmp_path, save):
    save(tmp_path / "a.npz", **_ARRAYS)
    found = door.read_npz(tmp_path / "a.npz")
    assert found.keys() == _ARRAYS.keys()
    for name, values in _ARRAYS.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype.newbyteorder("=")
    assert door.read_npz(tmp_path / "a.npz", ["text", "absent"]).keys() == {"text"}
    np.save(tmp_path / "a.npy", _ARRAYS["fortran"])
    np.testing.assert_array_equal(door.read_npy(tmp_path / "a.npy"), _ARRAYS["fortran"])


def _npy(header: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data


def _header(shape: str, kind: str = "<f8") -> str:
    return f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}\n"


def _write(path, content: bytes, method: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("f.npy", content)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (_npy(_header("(2, 3)"), b"\0" * 40), "40 bytes for an array of float64 of shape"),
        (_npy(_header("(3399999999966,)"), b"\0" * 8), "8 bytes for an array"),
        (_npy(_header("(-1, -1)"), b"\0" * 8), "8 bytes for an array"),
        (_npy(_header(f"({10**30}, 0)")), "not a readable .np"),
        (_npy(_header("(1000000000,)", "|V0")), "0 bytes for an array"),
        (_npy(_header("(1,)", "|O"), b"cos\nsystem\n."), "holds Python objects"),
        (_npy("{'descr': ["), "not a readable .np"),
        (_npy("(" * 9000), "not a readable .np"),
        (b"", "not a readable .np"),
        (b"\x93NUMPY\x09\x00", "version"),
    ],
)
def test_a_header_that_lies_is_one_line(tmp_path, content, told):
    _write(tmp_path / "a.npz", content)
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.npz: field 'f': .*{told}"):
        door.read_npz(tmp_path / "a.npz")
    with pytest.raises(InputError, match=rf"a\.npy: .*{told}"):
        door.read_npy(tmp_path / "a.npy")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(tmp_path, method):
    """Python unpacks them a whole block at a time, however large it is."""
    _write(tmp_path / "a.npz", _npy(_header("(1,)"), b"\0" * 8), method)
    with pytest.raises(InputError, match="field 'f': .*compressed by method"):
        door.read_npz(tmp_path / "a.npz")


def test_a_small_file_that_unpacks_to_much_is_refused_in_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(door, "MOST_ARRAY_BYTES", 1 << 20)
    large = io.BytesIO()
    np.save(large, np.zeros(1 << 21))
    _write(tmp_path / "a.npz", large.getvalue())
    np.savez_compressed(tmp_path / "many.npz", **{f"a{number}": np.zeros(1 << 15) for number in range(5)})
    tracemalloc.start()
    with pytest.raises(InputError, match="field 'f': .*16777344 bytes are more than such a file holds"):
        door.read_npz(tmp_path / "a.npz")
    with pytest.raises(InputError, match="field 'a3': .*more than such a file holds"):
        door.read_npz(tmp_path / "many.npz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 << 20
    np.savez(tmp_path / "whole.npz", a=np.zeros(1 << 18))  # large because its file is
    assert door.read_npz(tmp_path / "whole.npz")["a"].size == 1 << 18


def test_an_entry_longer_than_it_says_is_not_unpacked(tmp_path, monkeypatch):
    """The size in the archive's directory is checked first; what follows it is never unpacked."""
    _write(tmp_path / "a.npz", _npy(_header("(100000,)"), b"\0" * 800_000))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    place = content.rindex(b"PK\x01\x02") + 24  # its unpacked size
    content[place : place + 4] = (900).to_bytes(4, "little")
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match="field 'f': "):
        door.read_npz(tmp_path / "a.npz")


def test_damage_anywhere_is_refused_or_harmless(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, **_ARRAYS)
    assert damage.refusals(path, lambda: door.read_npz(path), copies=600) > 300
