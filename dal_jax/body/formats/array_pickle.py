"""Arrays out of an untrusted pickle: an allow-list under which nothing of the file's choice ever runs.

A pickle names classes and functions, and unpickling calls them. Here each name that SMPL's files use (NumPy's arrays
and scalars, SciPy's sparse matrices, chumpy's arrays, of any age) stands for an inert record, which keeps what it is
given; every other name is refused. NumPy, SciPy and chumpy take no part in the unpickling (chumpy needs not even be
installed): NumPy's own would take an array's memory, pointers included, from the file. `array_of` then builds plain
arrays from the records, checking every number that says how much or where.
"""

import io
import math
import pathlib
import pickle
import pickletools
import re
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

_LARGEST = 2**28  # numbers in a sparse matrix written out
_DEEPEST = 16  # of chumpy's arrays that are made of others


def load(content: bytes) -> object:
    """Return what a pickle holds, with records in the place of arrays (see `array_of`).

    Python 2's text and bytes are both read as latin-1, as NumPy's arrays of that age need.

    Raises:
      UNREADABLE: the pickle is damaged, or names a class or function that is not on the list.
    """
    _check_sizes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # text with a wrong escape is damage, not our code's age
        return _Unpickler(io.BytesIO(content), encoding="latin1").load()


def array_of(value: object, depth: int = 0) -> np.ndarray:
    """Return the array that a record of `load` stands for: NumPy's, a sparse matrix written out, or chumpy's value.

    Raises:
      UNREADABLE: it stands for none, or its parts contradict each other.
    """
    if depth > _DEEPEST:
        raise ValueError(f"an array made of arrays, more than {_DEEPEST} deep")
    if isinstance(value, _Record):
        if value.kind.startswith("chumpy "):
            return _chumpy(value.kind.removeprefix("chumpy "), value.state, depth)
        if value.kind in _ARRAYS:
            return _ARRAYS[value.kind](value, depth)
        raise ValueError(f"holds a {value.kind}, expected an array")
    if isinstance(value, bool | int | float | list | tuple):
        array = np.asarray(value)
        if array.dtype.kind in "biuf":
            return array
    raise ValueError(f"holds a {type(value).__name__}, expected an array")


def read_fields(path: pathlib.Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return those of a file's named arrays that are there; the file is a pickled dictionary of them.

    Raises:
      errors.InputError: it cannot be read, is no such pickle, or names anything but arrays; one line.
    """
    entry = ""
    try:
        content = load(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError(f"holds a {type(content).__name__}, expected a dictionary of arrays")
        fields = {}
        for name in names:
            if name in content:
                entry = f"field '{name}': "
                fields[name] = array_of(content[name])
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


def _check_sizes(content: bytes) -> None:
    """Refuse a pickle that is cut short, or for whose claims the unpickler would make room before it looks."""
    place, name = 0, ""
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


def _encode(_: type, text: str, encoding: str = "latin1") -> bytes:
    """Return what `_codecs.encode` would: how Python 3 writes bytes for protocols below 3."""
    if encoding != "latin1":
        raise ValueError(f"bytes written in {encoding!r}")
    return text.encode(encoding)


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
_PYTHON = {"object": _OBJECT, "set": set, "bytes": _record("bytes", _no_bytes)}
_RECONSTRUCTOR = {"_reconstructor": _record("reconstructor", _instance)}
_ALLOWED = {
    **dict.fromkeys(("numpy.core.multiarray", "numpy._core.multiarray"), _NUMPY),
    **dict.fromkeys(("numpy", "numpy.core.numeric", "numpy._core.numeric"), _NUMPY),
    **{f"scipy.sparse.{name}": _SCIPY for name in ("csc", "_csc", "csr", "_csr")},
    **dict.fromkeys(("builtins", "__builtin__"), _PYTHON),
    **dict.fromkeys(("copyreg", "copy_reg"), _RECONSTRUCTOR),
    "_codecs": {"encode": _record("encode", _encode)},
}
"""Module and name; old and new places, and Python 2's. Of chumpy every class is allowed: none does anything."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        if re.fullmatch(r"chumpy(\.\w+)*", module):
            return _record(f"chumpy {name}")
        if name not in _ALLOWED.get(module, {}):
            raise pickle.UnpicklingError(f"names '{module}.{name}', which no array needs: nothing of it was run")
        return _ALLOWED[module][name]


# --- From a record to the array that it stands for ---


def _reconstructed(record: _Record, depth: int) -> np.ndarray:
    """Return an array as `numpy.ndarray.__reduce__` writes it: (version, shape, type, Fortran order, memory)."""
    _, shape, dtype, fortran, memory = record.state
    if isinstance(memory, list):  # an array of objects: only the one that wraps a single object is of use
        if len(memory) != 1 or math.prod(shape) != 1:
            raise ValueError(f"holds {len(memory)} objects, expected numbers")
        return array_of(memory[0], depth + 1)
    return _from_memory(memory, dtype, shape, "F" if fortran else "C")


def _sparse(record: _Record, depth: int) -> np.ndarray:
    data, indices, indptr = (array_of(record.state[name], depth + 1) for name in ("data", "indices", "indptr"))
    shape = tuple(int(size) for size in record.state["_shape"])
    if len(shape) != 2 or not 0 < math.prod(shape) <= _LARGEST or min(shape) < 0:
        raise ValueError(f"a sparse matrix of shape {shape}")
    if indices.dtype.kind + indptr.dtype.kind != "ii":
        raise ValueError("a sparse matrix whose indices are no whole numbers")
    make = scipy.sparse.csc_matrix if record.kind == "csc" else scipy.sparse.csr_matrix
    matrix = make((data, indices, indptr), shape=shape)
    matrix.check_format(full_check=True)  # indices out of range would write beyond the array
    return matrix.toarray()


def _chumpy(name: str, state: dict, depth: int) -> np.ndarray:
    """Return the value of an array of chumpy: one that holds its value, or one that rearranges another's."""
    if name == "Ch":
        return array_of(state["x"], depth + 1)
    if name not in ("Select", "Reshape", "transpose"):
        raise ValueError(f"holds chumpy's '{name}', whose value is not in the file")
    inner = array_of(state["a"], depth + 1)
    if name == "Reshape":
        return inner.reshape(_whole(state["newshape"]))
    if name == "transpose":
        return inner.transpose(_whole(state["axes"]) if state.get("axes") is not None else None)
    chosen = inner.ravel()[array_of(state["idxs"], depth + 1)]
    return chosen.reshape(_whole(state["preferred_shape"])) if "preferred_shape" in state else chosen


def _from_memory(memory: object, dtype: object, shape: object, order: object) -> np.ndarray:
    memory = memory.encode("latin1") if isinstance(memory, str) else memory
    kind = _dtype(dtype) if isinstance(dtype, _Record) and dtype.kind == "dtype" else None
    shape = _whole(shape)
    if kind is None or kind.hasobject or not isinstance(memory, bytes | bytearray) or order not in ("C", "F"):
        raise ValueError("an array without its numbers")
    if min(shape, default=0) < 0 or len(memory) != math.prod(shape) * kind.itemsize:
        raise ValueError(f"{len(memory)} bytes for an array of shape {shape}")
    return np.frombuffer(memory, kind).reshape(shape, order=order).astype(kind.newbyteorder("="))


def _scalar(dtype: object, memory: object) -> np.ndarray:
    return _from_memory(memory, dtype, (), "C")


def _dtype(record: _Record) -> np.dtype:
    """Return the type; only plain numbers, or 'O': objects, which NumPy never gets to see as memory."""
    code = str(record.arguments[0])
    if not re.fullmatch(r"[iuf][1248]|b1|O8?", code):
        raise ValueError(f"holds values of type {code!r}, expected numbers")
    order = record.state[1] if isinstance(record.state, tuple) else "="
    if order not in ("<", ">", "=", "|"):
        raise ValueError(f"byte order {order!r}")
    return np.dtype(code[:1] if code[0] == "O" else code).newbyteorder(order)


def _whole(shape: Any) -> tuple[int, ...]:
    values = array_of(shape).ravel() if isinstance(shape, _Record) else shape
    return tuple(int(array_of(size)) for size in values)


_ARRAYS: dict[str, Callable[[Any, int], np.ndarray]] = {
    "reconstruct": _reconstructed,
    # as pickle's protocol 5 writes it: memory, type, shape, order
    "buffer": lambda record, depth: _from_memory(*record.arguments),
    "scalar": lambda record, depth: _scalar(*record.arguments),
    "csc": _sparse,
    "csr": _sparse,
}
