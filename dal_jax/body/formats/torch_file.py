"""Tensors out of an untrusted file of `torch.save`, or a pickle with tensors in it, as arrays; without PyTorch.

Nothing of the file is run: names stand for inert records (`pickles`). Three layouts: an archive with the pickle and a
file for each tensor's memory (since PyTorch 1.6), several pickles and then the memory (before), and a plain pickle, in
which each tensor's memory is a file of the second layout.
"""

import functools
import io
import math
import pathlib
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from dal_jax.body.formats import pickles
from dal_jax.body.formats.array_pickle import Room, reason
from dal_jax.body.formats.pickles import Record, record
from dal_jax.runtime import door
from dal_jax.runtime.errors import InputError

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the second layout
_LARGEST_FILE = 2**30
_MOST_STEPS = 5_000_000  # of unpickling; a person's tensors take a hundred
_MOST_AXES = 8
_STORAGES = {
    "FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "LongStorage": "i8", "IntStorage": "i4",
    "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "b1",
}  # fmt: skip
_TORCH = {
    "torch": {name: record(code) for name, code in _STORAGES.items()},
    "torch._utils": {"_rebuild_tensor_v2": record("tensor")},
    "torch.storage": {"_load_from_bytes": record("memory")},
    "collections": {"OrderedDict": record("hooks")},  # of gradients, empty
}


Arrays = Callable[[object], np.ndarray]
"""Returns the array that a record in the place of a tensor stands for.

It raises door.UNREADABLE where it stands for none, or its parts contradict each other.
"""


def read(path: pathlib.Path, more: pickles.Allowed) -> tuple[object, Arrays]:
    """Return what a file holds, records in the place of tensors, and what makes arrays of these.

    more: the classes that it may name beside PyTorch's own.

    Raises:
      errors.InputError: it cannot be read, is no such file, or names anything else; one line.
    """
    try:
        content = door.contents(path, _LARGEST_FILE)
        held, memory = (_of_archive if content.startswith(b"PK") else _of_pickles)(content, more)
        return held, functools.partial(_array, memory, Room(2**28 + 4 * len(content)))
    except door.UNREADABLE as error:
        raise InputError(f"{path}: {reason(error)}") from error


_Memory = tuple[bytes, np.dtype]
"""The numbers of tensors, and their type."""

_FindMemory = Callable[[Any], _Memory]
"""Returns the memory of a tensor by the id that its record has."""


def _array(memory: _FindMemory, room: Room, tensor: object) -> np.ndarray:
    if not isinstance(tensor, Record) or tensor.kind != "tensor":
        raise ValueError(f"holds {getattr(tensor, 'kind', type(tensor).__name__)!r}, expected a tensor")
    storage, offset, shape, strides = tensor.arguments[:4]
    if not isinstance(storage, Record):
        raise ValueError("a tensor without its numbers")
    held, kind = (_memory_of_bytes if storage.kind == "memory" else memory)(storage.arguments[0])
    sizes = [offset, *shape, *strides]
    whole = all(type(size) is int and size >= 0 for size in sizes)
    if not whole or len(shape) != len(strides) or len(shape) > _MOST_AXES:
        raise ValueError(f"a tensor of shape {shape}")
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    if math.prod(shape) and last >= len(held) // kind.itemsize:
        raise ValueError(f"{len(held)} bytes for a tensor of shape {shape}")
    room.take(math.prod(shape) * kind.itemsize)
    if not math.prod(shape):
        return np.zeros(shape, kind.newbyteorder("="))
    steps = [step * kind.itemsize for step in strides]
    return np.ndarray(shape, kind, held, offset * kind.itemsize, steps).astype(kind.newbyteorder("="))


def _of_archive(content: bytes, more: pickles.Allowed) -> tuple[object, _FindMemory]:
    archive = zipfile.ZipFile(io.BytesIO(content))
    names = {name.partition("/")[2]: name for name in archive.namelist()}
    if "data.pkl" not in names:
        raise ValueError("an archive without data.pkl: not of torch.save")

    def entry(name: str) -> bytes:
        info = archive.getinfo(names[name])
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > len(content):
            raise ValueError(f"{name} is compressed, which torch.save does not")
        return archive.read(info)

    order = ">" if "byteorder" in names and entry("byteorder") == b"big" else "<"
    held, _ = pickles.load_first(entry("data.pkl"), _TORCH | dict(more), record("storage"), _MOST_STEPS)

    def memory(name: Any) -> _Memory:
        _, kind, key, *_ = name
        return entry(f"data/{key}"), _type(kind, order)

    return held, memory


def _of_pickles(content: bytes, more: pickles.Allowed) -> tuple[object, _FindMemory]:
    types: dict[Any, np.dtype] = {}

    def persistent(name: Any) -> Record:
        _, kind, key, *_ = name
        types[key] = _type(kind)
        return record("storage")(name)

    def following(place: int) -> tuple[Any, int]:
        held, size = pickles.load_first(content[place:], _TORCH | dict(more), persistent, _MOST_STEPS)
        return held, place + size

    held, place = following(0)
    if held != _MAGIC:
        return held, _no_memory
    protocol, place = following(place)
    _, place = following(place)
    held, place = following(place)
    keys, place = following(place)
    if protocol != _PROTOCOL or not isinstance(keys, list):
        raise ValueError("of another version of torch.save")
    found: dict[Any, _Memory] = {}
    for key in keys:
        (count,) = struct.unpack_from("<q", content, place)
        end = place + 8 + count * types[key].itemsize
        if count < 0 or end > len(content):
            raise ValueError(f"cut short: {count} numbers at byte {place} of {len(content)}")
        found[key], place = (content[place + 8 : end], types[key]), end
    return held, lambda name: found[name[2]]


def _memory_of_bytes(content: object) -> _Memory:
    """Return the memory of a tensor in a plain pickle: a file of its own, of one storage."""
    if not isinstance(content, bytes):
        raise ValueError("a tensor without its numbers")
    held, memory = _of_pickles(content, {})
    if not isinstance(held, Record) or held.kind != "storage":
        raise ValueError("a tensor without its numbers")
    return memory(held.arguments[0])


def _no_memory(_: Any) -> _Memory:
    raise ValueError("a tensor whose numbers lie outside the file")


def _type(kind: Any, order: str = "<") -> np.dtype:
    """Return the type of the numbers of a storage's class, in an order of bytes, '<' or '>'."""
    code = str(getattr(kind, "kind", ""))
    if code not in _STORAGES.values():
        raise ValueError("a tensor of a type of numbers that is not read")
    return np.dtype(order + code)
