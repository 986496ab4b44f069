"""Arrays out of an untrusted pickle: an allow-list under which nothing of the file's choice ever runs.

A pickle names classes and functions, and unpickling calls them. Here each name that SMPL's files use (NumPy's arrays
and scalars, SciPy's sparse matrices, chumpy's arrays, of any age) stands for an inert record, which keeps what it is
given; every other name is refused. NumPy, SciPy and chumpy take no part in the unpickling (chumpy needs not even be
installed): NumPy's own would take an array's memory, pointers included, from the file. `array_of` then builds plain
arrays from the records, checking every number that says how much or where. A pickle may name one object a hundred
times, so what is built of it is counted, too.
"""

import dataclasses
import io
import math
import pathlib
import pickle
import pickletools
import re
import reprlib
import struct
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse

from dal_jax.runtime.errors import InputError

UNREADABLE = (
    pickle.UnpicklingError, ValueError, TypeError, AttributeError, LookupError, EOFError, OverflowError, MemoryError,
    RecursionError, ImportError, struct.error,
)  # fmt: skip
"""What damaged pickles raise (found by changing bytes at random); the refusal of a name among them."""

_LARGEST_FILE = 2**30
_LARGEST = 2**22  # numbers in a sparse matrix written out; SMPL-H's has 358,280
_LARGEST_KEY = 2**60  # smaller ones are their own hashes
_MOST_STEPS = 100_000  # of unpickling; a model takes a thousand
_ROOM = 2**28  # bytes of arrays built of a file, beside four times its own
_STEP_BYTES = 4096  # what each array counts for at least, so that their number is bounded
_MOST_AXES = 32
_DEEPEST = 16  # of chumpy's arrays that are made of others


def load(content: bytes) -> object:
    """Return what a pickle holds, with records in the place of arrays (see `array_of`).

    Python 2's text and bytes are both read as latin-1, as NumPy's arrays of that age need.

    Raises:
      UNREADABLE: the pickle is damaged, or names a class or function that is not on the list.
    """
    _check_steps(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # text with a wrong escape is damage, not our code's age
        return _Unpickler(content).load()


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
    """Return the array that a record of `load` stands for: NumPy's, a sparse matrix written out, or chumpy's value.

    room: for it and other arrays of the same file; left out: for it alone.

    Raises:
      UNREADABLE: it stands for none, or its parts contradict each other.
    """
    room = Room() if room is None else room
    room.depth += 1
    if room.depth > _DEEPEST:
        raise ValueError(f"an array made of arrays, more than {_DEEPEST} deep")
    array = _built(value, room)
    room.depth -= 1
    return array


def _built(value: object, room: Room) -> np.ndarray:
    if isinstance(value, _Record):
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
        if count + len(found) > _MOST_STEPS:
            raise ValueError(f"a list of more than {_MOST_STEPS} numbers")
    return count


def read_fields(path: pathlib.Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return those of a file's named arrays that are there; the file is a pickled dictionary of them.

    Raises:
      errors.InputError: it cannot be read, is no such pickle, or names anything but arrays; one line.
    """
    entry = ""
    try:
        size = path.stat().st_size
        if size > _LARGEST_FILE:
            raise ValueError(f"{size} bytes, at most {_LARGEST_FILE}")
        content, room = load(path.read_bytes()), Room(_ROOM + 4 * size)
        if not isinstance(content, dict):
            raise ValueError(f"holds a {type(content).__name__}, expected a dictionary of arrays")
        fields = {}
        for name in names:
            if name in content:
                entry = f"field '{name}': "
                fields[name] = array_of(content[name], room)
    except (OSError, *UNREADABLE) as error:
        raise InputError(f"{path}: {entry}{reason(error)}") from error
    return fields


def reason(error: BaseException) -> str:
    """Return in a line why a file of arrays could not be read."""
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    text = " ".join(str(error).split())[:200] or type(error).__name__
    # A refusal is a sentence of its own; what a damaged file raises is not.
    return text if isinstance(error, pickle.UnpicklingError) and "names '" in text else f"not a readable file: {text}"


def _check_steps(content: bytes) -> None:
    """Refuse a pickle that is cut short, that takes many steps, or that claims room which the unpickler would make."""
    place, name, steps = 0, "", 0
    while name != "STOP":
        code = pickletools.code2op[  # pyright: ignore[reportAttributeAccessIssue]: missing in the stubs
            content[place : place + 1].decode("latin1")
        ]
        place, name, start = place + 1, code.name, place + 1
        kind = 0 if code.arg is None else code.arg.n
        if kind == pickletools.UP_TO_NEWLINE:
            for _ in range(2 if name in ("GLOBAL", "INST") else 1):
                place = content.index(b"\n", place) + 1
        elif kind < 0:
            width = _SIZE_BYTES[kind]
            place += width + int.from_bytes(content[place : place + width], "little")
        else:
            place += kind
        memo = int(content[start:place]) if name == "PUT" else 0
        memo = int.from_bytes(content[start:place], "little") if name == "LONG_BINPUT" else memo
        if max(place, memo) > len(content):
            raise ValueError(f"cut short, or damaged: {name} at byte {start - 1} of {len(content)}")
        steps += name not in _REMEMBER
        if steps > _MOST_STEPS:
            raise ValueError(f"takes more than {_MOST_STEPS} steps to unpickle, a file of arrays takes a thousand")


_REMEMBER = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")


_SIZE_BYTES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4, pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}  # fmt: skip


class _Record:
    """Stands for one object of the file: arguments and state as they came, and nothing done with them.

    Each name of the list has a subclass of its own (`_record`), functions included. Classes, each with `__setstate__`:
    a pickle that writes to one finds no room.
    """

    kind = "object"
    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: object):
        record = super().__new__(cls)
        record.arguments, record.state = arguments, {}
        return record

    def __setstate__(self, state: object) -> None:
        self.state = state


def _record(kind: str, new: Callable | None = None) -> type:
    """Return the class that stands for a name; new: makes something else than a record of the arguments."""
    return type(kind, (_Record,), {"kind": kind} | ({"__new__": new} if new else {}))


def _encoder(room: int) -> type:
    """Return what `_codecs.encode` stands for: how Python 3 writes bytes for protocols below 3; `room` bytes in all."""
    left = [room]

    def encode(_: type, text: str, encoding: str = "latin1") -> bytes:
        if encoding != "latin1":
            raise ValueError(f"bytes written in {encoding!r}")
        left[0] -= len(text)
        if left[0] < 0:
            raise ValueError("the same bytes many times over")
        return text.encode(encoding)

    return _record("encode", encode)


def _no_bytes(_: type) -> bytes:
    """Return what `bytes()` would: how protocols below 3 write empty bytes."""
    return b""


def _instance(_: type, kind: type, *__: object) -> _Record:
    """Return what `copyreg._reconstructor` would: how protocols 0 and 1 write an object of a class."""
    if not (isinstance(kind, type) and issubclass(kind, _Record)):
        raise ValueError("an object whose class is not on the list")
    return kind()


_OBJECT, _CSC, _CSR = _record("object"), _record("csc"), _record("csr")
_NUMPY = {
    "_reconstruct": _record("reconstruct"), "scalar": _record("scalar"), "_frombuffer": _record("buffer"),
    "ndarray": _OBJECT, "dtype": _record("dtype"),
}  # fmt: skip
_SCIPY = {"csc_matrix": _CSC, "csc_array": _CSC, "csr_matrix": _CSR, "csr_array": _CSR}
_PYTHON = {"object": _OBJECT, "set": _record("set"), "bytes": _record("bytes", _no_bytes)}
_RECONSTRUCTOR = {"_reconstructor": _record("reconstructor", _instance)}
_ALLOWED = {
    **dict.fromkeys(("numpy.core.multiarray", "numpy._core.multiarray"), _NUMPY),
    **dict.fromkeys(("numpy", "numpy.core.numeric", "numpy._core.numeric"), _NUMPY),
    **{f"scipy.sparse.{name}": _SCIPY for name in ("csc", "_csc", "csr", "_csr")},
    **dict.fromkeys(("builtins", "__builtin__"), _PYTHON),
    **dict.fromkeys(("copyreg", "copy_reg"), _RECONSTRUCTOR),
    "_codecs": {"encode": _record("encode")},
}
"""Module and name; old and new places, and Python 2's. Of chumpy every class is allowed: none does anything."""


_InPython: Any = pickle._Unpickler  # whose steps can be watched; of the one in C they cannot


class _Unpickler(_InPython):
    """Refuses every name but those of the list, and keys other than text and whole numbers.

    Other keys can be made to collide, or, as tuples of one tuple twice, to take 2^n steps.
    """

    def __init__(self, content: bytes):
        super().__init__(io.BytesIO(content), encoding="latin1")
        self._encoder = _encoder(len(content))

    def find_class(self, module: str, name: str) -> type:
        if re.fullmatch(r"chumpy(\.\w+)*", module):
            return _record(f"chumpy {name}")
        if name not in _ALLOWED.get(module, {}):
            raise pickle.UnpicklingError(f"names '{module}.{name}', which no array needs: nothing of it was run")
        return self._encoder if module == "_codecs" else _ALLOWED[module][name]

    def load_setitem(self) -> None:
        _check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        _check_keys(self.stack[::2])  # what stands behind the mark
        super().load_setitems()

    def load_dict(self) -> None:
        _check_keys(self.stack[::2])
        super().load_dict()

    def load_frozenset(self) -> None:
        _check_keys(self.stack)
        super().load_frozenset()

    def load_additems(self) -> None:
        _check_keys(self.stack)
        super().load_additems()

    dispatch = _InPython.dispatch | {
        pickle.SETITEM[0]: load_setitem, pickle.SETITEMS[0]: load_setitems, pickle.DICT[0]: load_dict,
        pickle.FROZENSET[0]: load_frozenset, pickle.ADDITEMS[0]: load_additems,
    }  # fmt: skip


def _check_keys(keys: list[Any]) -> None:
    for key in keys:
        if not isinstance(key, str | bytes) and not (isinstance(key, int) and abs(key) < _LARGEST_KEY):
            raise ValueError(f"a key {reprlib.repr(key)}, expected a name")


# --- From a record to the array that it stands for ---


def _reconstructed(record: _Record, room: Room) -> np.ndarray:
    """Return an array as `numpy.ndarray.__reduce__` writes it: (version, shape, type, Fortran order, memory)."""
    _, shape, dtype, fortran, memory = record.state
    if isinstance(memory, list):  # an array of objects: only the one that wraps a single object is of use
        if len(memory) != 1 or math.prod(shape) != 1:
            raise ValueError(f"holds {len(memory)} objects, expected numbers")
        return array_of(memory[0], room)
    return _from_memory(room, memory, dtype, shape, "F" if fortran else "C")


def _sparse(record: _Record, room: Room) -> np.ndarray:
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
    kind = _dtype(dtype) if isinstance(dtype, _Record) and dtype.kind == "dtype" else None
    shape = _whole(shape, room)
    if kind is None or kind.hasobject or not isinstance(memory, bytes | bytearray) or order not in ("C", "F"):
        raise ValueError("an array without its numbers")
    if min(shape, default=0) < 0 or len(memory) != math.prod(shape) * kind.itemsize:
        raise ValueError(f"{len(memory)} bytes for an array of shape {shape}")
    room.take(len(memory))
    return np.frombuffer(memory, kind).reshape(shape, order=order).astype(kind.newbyteorder("="))


def _scalar(room: Room, dtype: object, memory: object) -> np.ndarray:
    return _from_memory(room, memory, dtype, (), "C")


def _dtype(record: _Record) -> np.dtype:
    """Return the type; only plain numbers, or 'O': objects, which NumPy never gets to see as memory."""
    code = str(record.arguments[0])
    if not re.fullmatch(r"[iuf][1248]|b1|O8?", code):
        raise ValueError(f"holds values of type {code!r}, expected numbers")
    order = record.state[1] if isinstance(record.state, tuple) else "="
    if order not in ("<", ">", "=", "|"):
        raise ValueError(f"byte order {order!r}")
    return np.dtype(code[:1] if code[0] == "O" else code).newbyteorder(order)


def _whole(shape: Any, room: Room) -> tuple[int, ...]:
    values = array_of(shape, room).ravel() if isinstance(shape, _Record) else shape
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
