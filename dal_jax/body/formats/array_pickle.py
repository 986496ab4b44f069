"""Arrays out of a pickle that nobody vouches for: an allow-list under which nothing of the file's choice ever runs.

A pickle names classes and functions, and unpickling calls them. Here each name that SMPL's files use (NumPy's arrays
and scalars, SciPy's sparse matrices, chumpy's arrays, of any age) stands for an inert record, which keeps what it is
given; every other name is refused. NumPy, SciPy and chumpy take no part in the unpickling (chumpy needs not even be
installed): NumPy's own would take an array's memory, pointers included, from the file. `array_of` then builds plain
arrays from the records, checking every number that says how much or where.
"""

import io
import math
import pickle
import pickletools
import re
import struct
import warnings

import numpy as np
import scipy.sparse

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
        return value.array(depth)
    if isinstance(value, bool | int | float | list | tuple):
        array = np.asarray(value)
        if array.dtype.kind in "biuf":
            return array
    raise ValueError(f"holds a {type(value).__name__}, expected an array")


def _check_sizes(content: bytes) -> None:
    """Refuse a pickle that is cut short, or for whose claims the unpickler would make room before it looks."""
    place, name = 0, ""
    while name != "STOP":
        code = pickletools.code2op[content[place : place + 1].decode("latin1")]
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

    Classes throughout, functions included, each with `__setstate__`: a pickle that writes to one finds no room.
    """

    def __new__(cls, *arguments: object):
        record = super().__new__(cls)
        record.arguments, record.state = arguments, {}
        return record

    def __setstate__(self, state: object) -> None:
        self.state = state

    def array(self, depth: int) -> np.ndarray:
        raise ValueError(f"holds a {type(self).__name__.strip('_')}, expected an array")


class _Dtype(_Record):
    def numpy(self) -> np.dtype:
        """Return the type; only plain numbers, or 'O': objects, which NumPy never gets to see as memory."""
        code = str(self.arguments[0])
        if not re.fullmatch(r"[iuf][1248]|b1|O8?", code):
            raise ValueError(f"holds values of type {code!r}, expected numbers")
        order = self.state[1] if isinstance(self.state, tuple) else "="
        if order not in ("<", ">", "=", "|"):
            raise ValueError(f"byte order {order!r}")
        return np.dtype(code[:1] if code[0] == "O" else code).newbyteorder(order)


class _Reconstruct(_Record):
    """An array as `numpy.ndarray.__reduce__` writes it: (version, shape, type, Fortran order, memory)."""

    def array(self, depth: int) -> np.ndarray:
        _, shape, dtype, fortran, memory = self.state
        if isinstance(memory, list):  # an array of objects: only the one that wraps a single object is of use
            if len(memory) != 1 or math.prod(shape) != 1:
                raise ValueError(f"holds {len(memory)} objects, expected numbers")
            return array_of(memory[0], depth + 1)
        return _from_memory(memory, dtype, shape, "F" if fortran else "C")


class _FromBuffer(_Record):
    """An array as pickle's protocol 5 writes it: memory, type, shape, order."""

    def array(self, depth: int) -> np.ndarray:
        return _from_memory(*self.arguments)


class _Scalar(_Record):
    def array(self, depth: int) -> np.ndarray:
        dtype, memory = self.arguments
        return _from_memory(memory, dtype, (), "C")


class _Sparse(_Record):
    order = ""

    def array(self, depth: int) -> np.ndarray:
        data, indices, indptr = (array_of(self.state[name], depth + 1) for name in ("data", "indices", "indptr"))
        shape = tuple(int(size) for size in self.state["_shape"])
        if len(shape) != 2 or not 0 < math.prod(shape) <= _LARGEST or min(shape) < 0:
            raise ValueError(f"a sparse matrix of shape {shape}")
        if indices.dtype.kind + indptr.dtype.kind != "ii":
            raise ValueError("a sparse matrix whose indices are no whole numbers")
        make = scipy.sparse.csc_matrix if self.order == "csc" else scipy.sparse.csr_matrix
        matrix = make((data, indices, indptr), shape=shape)
        matrix.check_format(full_check=True)  # indices out of range would write beyond the array
        return matrix.toarray()


class _Csc(_Sparse):
    order = "csc"


class _Csr(_Sparse):
    order = "csr"


class _Chumpy(_Record):
    """An array of chumpy: one that holds its value, or one that rearranges another's."""

    name = ""

    def array(self, depth: int) -> np.ndarray:
        if self.name == "Ch":
            return array_of(self.state["x"], depth + 1)
        if self.name not in ("Select", "Reshape", "transpose"):
            raise ValueError(f"holds chumpy's '{self.name}', whose value is not in the file")
        inner = array_of(self.state["a"], depth + 1)
        if self.name == "Reshape":
            return inner.reshape(_whole(self.state["newshape"]))
        if self.name == "transpose":
            return inner.transpose(_whole(self.state["axes"]) if self.state.get("axes") is not None else None)
        chosen = inner.ravel()[array_of(self.state["idxs"], depth + 1)]
        return chosen.reshape(_whole(self.state["preferred_shape"])) if "preferred_shape" in self.state else chosen


class _Encode(_Record):
    """`_codecs.encode`: how Python 3 writes bytes for protocols below 3."""

    def __new__(cls, text: str, encoding: str = "latin1"):
        if encoding != "latin1":
            raise ValueError(f"bytes written in {encoding!r}")
        return text.encode(encoding)


class _Bytes(_Record):
    """`bytes()`: how they write none."""

    def __new__(cls):
        return b""


class _Reconstructor(_Record):
    """`copyreg._reconstructor`: how protocols 0 and 1 write an object of a class."""

    def __new__(cls, kind: type, *_: object):
        if not (isinstance(kind, type) and issubclass(kind, _Record)):
            raise ValueError("an object of no class on the list")
        return kind()


_NUMPY = {
    "_reconstruct": _Reconstruct, "scalar": _Scalar, "_frombuffer": _FromBuffer, "ndarray": _Record, "dtype": _Dtype,
}  # fmt: skip
_SCIPY = {"csc_matrix": _Csc, "csc_array": _Csc, "csr_matrix": _Csr, "csr_array": _Csr}
_PYTHON = {"object": _Record, "set": set, "bytes": _Bytes}
_ALLOWED = {
    **dict.fromkeys(("numpy.core.multiarray", "numpy._core.multiarray"), _NUMPY),
    **dict.fromkeys(("numpy", "numpy.core.numeric", "numpy._core.numeric"), _NUMPY),
    **{f"scipy.sparse.{name}": _SCIPY for name in ("csc", "_csc", "csr", "_csr")},
    **dict.fromkeys(("builtins", "__builtin__"), _PYTHON),
    **{module: {"_reconstructor": _Reconstructor} for module in ("copyreg", "copy_reg")},
    "_codecs": {"encode": _Encode},
}
"""Module and name; old and new places, and Python 2's. Of chumpy every class is allowed: none does anything."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        if re.fullmatch(r"chumpy(\.\w+)*", module):
            return type("_Chumpy", (_Chumpy,), {"name": name})
        if name not in _ALLOWED.get(module, {}):
            raise pickle.UnpicklingError(f"names '{module}.{name}', which no array needs: nothing of it was run")
        return _ALLOWED[module][name]


def _from_memory(memory: object, dtype: object, shape: object, order: str) -> np.ndarray:
    memory = memory.encode("latin1") if isinstance(memory, str) else memory
    kind = dtype.numpy() if isinstance(dtype, _Dtype) else None
    shape = _whole(shape)
    if kind is None or kind.hasobject or not isinstance(memory, bytes | bytearray) or order not in ("C", "F"):
        raise ValueError("an array without its numbers")
    if min(shape, default=0) < 0 or len(memory) != math.prod(shape) * kind.itemsize:
        raise ValueError(f"{len(memory)} bytes for an array of shape {shape}")
    return np.frombuffer(memory, kind).reshape(shape, order=order).astype(kind.newbyteorder("="))


def _whole(shape: object) -> tuple[int, ...]:
    values = array_of(shape).ravel() if isinstance(shape, _Record) else shape
    return tuple(int(array_of(size)) for size in values)
