"""Arrays out of an untrusted pickle: plain ones, built of the records that `pickles` leaves in their place.

Every number that says how much or where is checked. A pickle may name one object a hundred times, so what is built of
it is counted, too.
"""

import dataclasses
import math
import pathlib
import pickle
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse

from dal_jax.body.formats import pickles
from dal_jax.body.formats.pickles import Record
from dal_jax.runtime import door
from dal_jax.runtime.errors import InputError

_LARGEST_FILE = 2**30
_LARGEST = 2**22  # numbers in a sparse matrix written out; SMPL-H's has 358,280
_ROOM = 2**28  # bytes of arrays built of a file, beside four times its own
_STEP_BYTES = 4096  # what each array counts for at least, so that their number is bounded
_MOST_AXES = 32
_DEEPEST = 16  # of chumpy's arrays that are made of others


@dataclasses.dataclass
class Room:
    """How many bytes of arrays may still be built of a file's records, and how deep in one another they are."""

    left: int = _ROOM
    depth: int = 0

    def take(self, size: int) -> None:
        """Count `size` more bytes.

        Raises:
          ValueError: there are not that many left.
        """
        self.left -= size + _STEP_BYTES
        if self.left < 0:
            raise ValueError("its arrays are larger, or more, than such a file holds")


def array_of(value: object, room: Room | None = None) -> np.ndarray:
    """Return the array that a record of `pickles` stands for: NumPy's, a sparse matrix written out, or chumpy's value.

    room: for it and other arrays of the same file; left out: for it alone.

    Raises:
      door.UNREADABLE: it stands for none, or its parts contradict each other.
    """
    room = Room() if room is None else room
    room.depth += 1
    if room.depth > _DEEPEST:
        raise ValueError(f"an array made of arrays, more than {_DEEPEST} deep")
    array = _built(value, room)
    room.depth -= 1
    return array


def _built(value: object, room: Room) -> np.ndarray:
    if isinstance(value, Record):
        if value.kind.startswith("chumpy "):
            return _chumpy(value.kind.removeprefix("chumpy "), value.state, room)
        if value.kind in _ARRAYS:
            return _ARRAYS[value.kind](value, room)
        raise ValueError(f"holds a {value.kind}, expected an array")
    if isinstance(value, bool | int | float | list | tuple):
        room.take(8 * _count(value))
        array = np.asarray(value)
        if array.dtype.kind in "biuf":
            return array
    raise ValueError(f"holds a {type(value).__name__}, expected an array")


def _count(value: object) -> int:
    """Return the numbers in lists of lists of them; more than there were steps to make them are refused."""
    count, found = 0, [value]
    while found:
        one = found.pop()
        if isinstance(one, list | tuple):
            found += one
        count += 1
        if count + len(found) > pickles.MOST_STEPS:
            raise ValueError(f"a list of more than {pickles.MOST_STEPS} numbers")
    return count


def read_fields(path: pathlib.Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return those of a file's named arrays that are there; the file is a pickled dictionary of them.

    Raises:
      errors.InputError: it cannot be read, is no such pickle, or names anything but arrays; one line.
    """
    entry = ""
    try:
        whole = door.contents(path, _LARGEST_FILE)
        content, room = pickles.load(whole), Room(_ROOM + 4 * len(whole))
        if not isinstance(content, dict):
            raise ValueError(f"holds a {type(content).__name__}, expected a dictionary of arrays")
        fields = {}
        for name in names:
            if name in content:
                entry = f"field '{name}': "
                fields[name] = array_of(content[name], room)
    except door.UNREADABLE as error:
        raise InputError(f"{path}: {entry}{reason(error)}") from error
    return fields


def reason(error: BaseException) -> str:
    """Return in a line why a file of arrays could not be read."""
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    text = " ".join(str(error).split())[:200] or type(error).__name__
    # A refusal is a sentence of its own; what a damaged file raises is not.
    return text if isinstance(error, pickle.UnpicklingError) and "names '" in text else f"not a readable file: {text}"


def _reconstructed(record: Record, room: Room) -> np.ndarray:
    """Return an array as `numpy.ndarray.__reduce__` writes it: (version, shape, type, Fortran order, memory)."""
    _, shape, dtype, fortran, memory = record.state
    if isinstance(memory, list):  # an array of objects: only the one that wraps a single object is of use
        if len(memory) != 1 or math.prod(shape) != 1:
            raise ValueError(f"holds {len(memory)} objects, expected numbers")
        return array_of(memory[0], room)
    return _from_memory(room, memory, dtype, shape, "F" if fortran else "C")


def _sparse(record: Record, room: Room) -> np.ndarray:
    data, indices, indptr = (array_of(record.state[name], room) for name in ("data", "indices", "indptr"))
    shape = tuple(int(size) for size in record.state["_shape"])
    if len(shape) != 2 or not 0 < math.prod(shape) <= _LARGEST or min(shape) < 0:
        raise ValueError(f"a sparse matrix of shape {shape}")
    if indices.dtype.kind + indptr.dtype.kind != "ii":
        raise ValueError("a sparse matrix whose indices are no whole numbers")
    room.take(8 * math.prod(shape))
    make = scipy.sparse.csc_matrix if record.kind == "csc" else scipy.sparse.csr_matrix
    matrix = make((data, indices, indptr), shape=shape)
    matrix.check_format(full_check=True)  # indices out of range would write beyond the array
    return matrix.toarray()


def _chumpy(name: str, state: dict, room: Room) -> np.ndarray:
    """Return the value of an array of chumpy: one that holds its value, or one that rearranges another's."""
    if name == "Ch":
        return array_of(state["x"], room)
    if name not in ("Select", "Reshape", "transpose"):
        raise ValueError(f"holds chumpy's '{name}', whose value is not in the file")
    inner = array_of(state["a"], room)
    if name == "Reshape":
        return inner.reshape(_whole(state["newshape"], room))
    if name == "transpose":
        return inner.transpose(_whole(state["axes"], room) if state.get("axes") is not None else None)
    indices = array_of(state["idxs"], room)
    room.take(indices.size * inner.itemsize)
    chosen = inner.ravel()[indices]
    return chosen.reshape(_whole(state["preferred_shape"], room)) if "preferred_shape" in state else chosen


def _from_memory(room: Room, memory: object, dtype: object, shape: object, order: object) -> np.ndarray:
    memory = memory.encode("latin1") if isinstance(memory, str) else memory
    kind = _dtype(dtype) if isinstance(dtype, Record) and dtype.kind == "dtype" else None
    shape = _whole(shape, room)
    if kind is None or kind.hasobject or not isinstance(memory, bytes | bytearray) or order not in ("C", "F"):
        raise ValueError("an array without its numbers")
    if min(shape, default=0) < 0 or len(memory) != math.prod(shape) * kind.itemsize:
        raise ValueError(f"{len(memory)} bytes for an array of shape {shape}")
    room.take(len(memory))
    return np.frombuffer(memory, kind).reshape(shape, order=order).astype(kind.newbyteorder("="))


def _scalar(room: Room, dtype: object, memory: object) -> np.ndarray:
    return _from_memory(room, memory, dtype, (), "C")


def _dtype(record: Record) -> np.dtype:
    """Return the type; only plain numbers, or 'O': objects, which NumPy never gets to see as memory."""
    code = str(record.arguments[0])
    if not re.fullmatch(r"[iuf][1248]|b1|O8?", code):
        raise ValueError(f"holds values of type {code!r}, expected numbers")
    order = record.state[1] if isinstance(record.state, tuple) else "="
    if order not in ("<", ">", "=", "|"):
        raise ValueError(f"byte order {order!r}")
    return np.dtype(code[:1] if code[0] == "O" else code).newbyteorder(order)


def _whole(shape: Any, room: Room) -> tuple[int, ...]:
    values = array_of(shape, room).ravel() if isinstance(shape, Record) else shape
    if not 0 <= len(values) <= _MOST_AXES:
        raise ValueError(f"a shape of {len(values)} axes")
    return tuple(size if isinstance(size, int) else int(array_of(size, room)) for size in values)


_ARRAYS: dict[str, Callable[[Any, Room], np.ndarray]] = {
    "reconstruct": _reconstructed,
    # as pickle's protocol 5 writes it: memory, type, shape, order
    "buffer": lambda record, room: _from_memory(room, *record.arguments),
    "scalar": lambda record, room: _scalar(room, *record.arguments),
    "csc": _sparse,
    "csr": _sparse,
}
