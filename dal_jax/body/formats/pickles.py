"""Unpickling under an allow-list: nothing of an untrusted file's choice ever runs.

A pickle names classes and functions, and unpickling calls them. Here each name that SMPL's files use (NumPy's arrays
and scalars, SciPy's sparse matrices, chumpy's arrays, of any age) stands for an inert record, which keeps what it is
given; every other name is refused. NumPy, SciPy and chumpy take no part (chumpy needs not even be installed): NumPy's
own unpickling would take an array's memory, pointers included, from the file.
"""

import io
import pickle
import pickletools
import re
import reprlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

_LARGEST_KEY = 2**60  # smaller ones are their own hashes
MOST_STEPS = 100_000
"""Of unpickling; a model takes a thousand."""


Allowed = Mapping[str, Mapping[str, type]]
"""What stands for the names that a pickle may use: by module and name."""


def load(content: bytes) -> object:
    """Return what a pickle holds, with records in the place of arrays (see `array_pickle`).

    Python 2's text and bytes are both read as latin-1, as NumPy's arrays of that age need.

    Raises:
      door.UNREADABLE: the pickle is damaged, or names a class or function that is not on the list.
    """
    return load_first(content)[0]


def load_first(
    content: bytes,
    more: Allowed | None = None,
    persistent: Callable[[Any], object] | None = None,
    most_steps: int = MOST_STEPS,
) -> tuple[object, int]:
    """Return what the first of several pickles holds, as `load`, and where it ends.

    Args:
      content: begins with the pickle.
      more: names allowed beside NumPy's, SciPy's and chumpy's.
      persistent: returns what stands for an object that lies outside the pickle, by its id; None: there are none.
      most_steps: of unpickling.
    """
    end = _check_steps(content, most_steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # text with a wrong escape is damage, not our code's age
        return _Unpickler(content[:end], more or {}, persistent).load(), end


def _check_steps(content: bytes, most_steps: int) -> int:
    """Return where a pickle ends.

    Refuse one that is cut short, that takes many steps, or that claims room which the unpickler would make.
    """
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
        if steps > most_steps:
            raise ValueError(f"takes more than {most_steps} steps to unpickle, a file of arrays takes a thousand")
    return place


_REMEMBER = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")


_SIZE_BYTES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4, pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}  # fmt: skip


class Record:
    """Stands for one object of the file: arguments and state as they came, and nothing done with them.

    kind: what the list calls it, 'csc' for instance; 'chumpy Ch' of chumpy's class `Ch`.

    Each name of the list has a subclass of its own (`record`), functions included. Classes, each with `__setstate__`:
    a pickle that writes to one finds no room.
    """

    kind = "object"
    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: object):
        """Keep what the file calls the class or function with."""
        record = super().__new__(cls)
        record.arguments, record.state = arguments, {}
        return record

    def __setstate__(self, state: object) -> None:
        self.state = state


def record(kind: str, new: Callable | None = None) -> type:
    """Return the class that stands for a name; new: makes something else than a record of the arguments."""
    return type(kind, (Record,), {"kind": kind} | ({"__new__": new} if new else {}))


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

    return record("encode", encode)


def _no_bytes(_: type) -> bytes:
    """Return what `bytes()` would: how protocols below 3 write empty bytes."""
    return b""


def _instance(_: type, kind: type, *__: object) -> Record:
    """Return what `copyreg._reconstructor` would: how protocols 0 and 1 write an object of a class."""
    if not (isinstance(kind, type) and issubclass(kind, Record)):
        raise ValueError("an object whose class is not on the list")
    return kind()


_OBJECT, _CSC, _CSR = record("object"), record("csc"), record("csr")
_NUMPY = {
    "_reconstruct": record("reconstruct"), "scalar": record("scalar"), "_frombuffer": record("buffer"),
    "ndarray": _OBJECT, "dtype": record("dtype"),
}  # fmt: skip
_SCIPY = {"csc_matrix": _CSC, "csc_array": _CSC, "csr_matrix": _CSR, "csr_array": _CSR}
_PYTHON = {"object": _OBJECT, "set": record("set"), "bytes": record("bytes", _no_bytes)}
_RECONSTRUCTOR = {"_reconstructor": record("reconstructor", _instance)}
_ALLOWED = {
    **dict.fromkeys(("numpy.core.multiarray", "numpy._core.multiarray"), _NUMPY),
    **dict.fromkeys(("numpy", "numpy.core.numeric", "numpy._core.numeric"), _NUMPY),
    **{f"scipy.sparse.{name}": _SCIPY for name in ("csc", "_csc", "csr", "_csr")},
    **dict.fromkeys(("builtins", "__builtin__"), _PYTHON),
    **dict.fromkeys(("copyreg", "copy_reg"), _RECONSTRUCTOR),
    "_codecs": {"encode": record("encode")},
}
"""Module and name; old and new places, and Python 2's. Of chumpy every class is allowed: none does anything."""


_InPython: Any = pickle._Unpickler  # whose steps can be watched; of the one in C they cannot


class _Unpickler(_InPython):
    """Refuses every name but those of the list, and keys other than text and whole numbers.

    Other keys can be made to collide, or, as tuples of one tuple twice, to take 2^n steps.
    """

    def __init__(self, content: bytes, more: Allowed, persistent: Callable[[Any], object] | None):
        super().__init__(io.BytesIO(content), encoding="latin1")
        self._allowed = _ALLOWED | dict(more)
        if persistent is not None:
            self.persistent_load = persistent
        self._encoder = _encoder(len(content))

    def find_class(self, module: str, name: str) -> type:
        if re.fullmatch(r"chumpy(\.\w+)*", module):
            return record(f"chumpy {name}")
        if name not in self._allowed.get(module, {}):
            raise pickle.UnpicklingError(f"names '{module}.{name}', which no array needs: nothing of it was run")
        return self._encoder if module == "_codecs" else self._allowed[module][name]

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
