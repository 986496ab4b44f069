"""MATLAB's version 5 files: full arrays of real numbers by name, every size checked before its bytes are read.

SciPy's own reader trusts the tags of the file: 248 bytes in the wrong order end the process.
"""

import math
import pathlib
import zlib
from collections.abc import Collection, Iterator

import numpy as np

from dal_jax.runtime import door
from dal_jax.runtime.errors import InputError

_LARGEST_FILE = 1 << 28
_LARGEST_ELEMENT = 1 << 26  # bytes of an array; DensePose's whole chart has a million
_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_STORED = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
"""NumPy's types of what a data element holds, by MATLAB's numbers (miINT8 to miUINT64)."""
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
"""NumPy's types of arrays, by MATLAB's numbers (mxDOUBLE_CLASS to mxUINT64_CLASS)."""
_COMPLEX = 0x0800
_NAME_WITHIN = 512  # bytes of an array before which its flags, shape and name end


_Element = tuple[int, memoryview]
"""Kind and content of a data element."""


def read(path: str | pathlib.Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """Return those of the named arrays that a file has; whatever else it holds is passed over.

    Raises:
      errors.InputError: it cannot be read, is no such file, or an array is damaged; names file and array.
    """
    path, entry = pathlib.Path(path), ""
    try:
        held = memoryview(door.contents(path, _LARGEST_FILE))
        order = {b"IM": "<", b"MI": ">"}.get(bytes(held[126:_HEADER]))
        if order is None:
            raise ValueError("does not begin like one of version 5")
        fields = {}
        for kind, content in _elements(held[_HEADER:], order):
            name = _name(kind, content, order)
            if name in names:
                entry = f"field '{name}': "
                fields[name] = _array(_whole(kind, content, order)[1], order)
            entry = ""
        return fields
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, zlib.error) as error:
        raise InputError(f"{path}: {entry}not a MATLAB file: {error}") from error


def _elements(content: memoryview, order: str) -> Iterator[_Element]:
    """Yield the elements that follow one another: a tag (kind, bytes) and the bytes, padded to eight."""
    place = 0
    while place < len(content):
        if len(content) - place < 8:
            raise ValueError(f"cut off in the tag of an element, {len(content) - place} bytes")
        kind, size = (int(number) for number in np.frombuffer(content, f"{order}u4", 2, place))
        start = place + 8
        if kind >> 16:  # a small element: size and kind in the first four bytes, its bytes in the others
            kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
            place += 8
            if size > 4:
                raise ValueError(f"a small element of {size} bytes")
        else:
            # Arrays that are compressed are not padded.
            place = start + size + (-size % 8 if kind != _COMPRESSED else 0)
        if size > len(content) - start:
            raise ValueError(f"an element of {size} bytes where {len(content) - start} are left")
        yield kind, content[start : start + size]


def _whole(kind: int, content: memoryview, order: str, most: int = _LARGEST_ELEMENT) -> _Element:
    """Return an element as it is without compression; of no more than `most` bytes, unless less of it will do."""
    if kind != _COMPRESSED:
        return kind, content
    unpack = zlib.decompressobj()
    tag = unpack.decompress(content, 8)
    if len(tag) < 8:
        raise ValueError("a compressed element without a tag")
    kind, size = (int(number) for number in np.frombuffer(tag, f"{order}u4", 2))
    if size > _LARGEST_ELEMENT:
        raise ValueError(f"an element of {size} bytes, at most {_LARGEST_ELEMENT}")
    wanted = min(size, most)
    unpacked = unpack.decompress(unpack.unconsumed_tail, wanted) if wanted else b""
    if len(unpacked) < wanted:
        raise ValueError(f"an element of {size} bytes holds {len(unpacked)}")
    return kind, memoryview(unpacked)


def _name(kind: int, content: memoryview, order: str) -> str:
    """Return the name of an array, '' of what is none."""
    kind, content = _whole(kind, content, order, _NAME_WITHIN)
    if kind != _MATRIX:
        return ""
    try:
        parts = _elements(content[:_NAME_WITHIN], order)
        _, _, (_, name) = next(parts), next(parts), next(parts)
    except StopIteration:
        raise ValueError("an array without a name") from None
    return bytes(name).decode("latin1")


def _array(content: memoryview, order: str) -> np.ndarray:
    parts = list(_elements(content, order))
    if len(parts) < 4:
        raise ValueError(f"an array of {len(parts)} parts, expected flags, shape, name and numbers")
    (flags_kind, flags), (shape_kind, shape), _, (stored_kind, data) = parts[:4]
    if flags_kind != 6 or len(flags) != 8 or shape_kind != 5 or len(shape) % 4:
        raise ValueError("an array whose flags or shape are damaged")
    word = int(np.frombuffer(flags, f"{order}u4", 1)[0])
    sizes = tuple(int(size) for size in np.frombuffer(shape, f"{order}i4"))
    if word & 0xFF not in _CLASSES or word & _COMPLEX or stored_kind not in _STORED:
        raise ValueError("holds values that are not real numbers, all written out")
    stored = np.dtype(_STORED[stored_kind]).newbyteorder(order)  # pyright: ignore[reportArgumentType]: "<" or ">"
    if not 1 <= len(sizes) <= 8 or min(sizes) < 0 or math.prod(sizes) * stored.itemsize != len(data):
        raise ValueError(f"{len(data)} bytes for an array of shape {sizes}")
    values = np.frombuffer(data, stored).reshape(sizes, order="F")
    # Whole numbers of any class are stored in the least bytes that hold them.
    return values.astype(_CLASSES[word & 0xFF])
