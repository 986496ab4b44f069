"""The door: whatever a user names is opened here, and may be what anybody has made.

Sizes are checked before anything of that size is made, those of arrays in .npz and .npy files, too. Readers catch
`UNREADABLE` and name file and entry.
"""

import errno
import io
import math
import os
import pathlib
import pickle
import stat
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Collection
from typing import IO

import numpy as np

from dal_jax.runtime.errors import InputError

UNREADABLE = (
    OSError, ValueError, TypeError, AttributeError, LookupError, OverflowError, EOFError, RuntimeError, MemoryError,
    SyntaxError, ImportError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
    pickle.UnpicklingError,
)  # fmt: skip
"""What Python, NumPy, zipfile, zlib, pickle and Pillow raise on damaged files (found by changing bytes at random)."""

MOST_BYTES = 1 << 31
"""Of a file that is read whole: COCO's largest annotation has half of it."""

MOST_MEGAPIXELS = "DAL_MOST_MEGAPIXELS"
"""In the environment, so that processes which read pictures know it, too."""

DEEPEST = 64
"""Lists and objects of JSON in one another."""


def opened(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Open a file to read. What is no regular file is refused: a pipe would be waited for, a device does not end.

    Raises:
      OSError: it is none, or cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    kind = os.fstat(handle).st_mode
    if not stat.S_ISREG(kind):
        os.close(handle)
        code, said = (errno.EISDIR, "is a folder") if stat.S_ISDIR(kind) else (errno.EINVAL, "is no file")
        raise OSError(code, said, str(path))
    return open(handle, "rb")


def contents(path: str | os.PathLike[str], most: int = MOST_BYTES) -> bytes:
    """Return all bytes of a file.

    Raises:
      OSError: as `opened`, or it has more than `most`.
    """
    with opened(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > most:
            raise OSError(errno.E2BIG, f"{size} bytes, at most {most} are read", str(path))
        return file.read(most)


def depth_of_json(text: bytes) -> int:
    """Return how many lists and objects of a JSON text are in one another at most."""
    if b"\\" in text:
        text = text.replace(rb"\\", b"").replace(rb"\"", b"")  # what is left of quotes begins and ends strings
    deepest = depth = outside = 0
    for place in range(0, len(text), _CHUNK):
        letters = np.frombuffer(text, np.uint8, min(_CHUNK, len(text) - place), place)
        quotes = (np.cumsum(letters == ord('"'), dtype=np.uint8) + outside) % 2  # 1: in a string
        outside = int(quotes[-1])
        bracket = letters | 32  # [ and { are one then, ] and } too
        steps = ((bracket == ord("{")).astype(np.int32) - (bracket == ord("}"))) * (1 - quotes)
        depths = depth + np.cumsum(steps, dtype=np.int64)
        deepest, depth = max(deepest, int(depths.max())), int(depths[-1])
    return deepest


_CHUNK = 1 << 22


MOST_ARRAY_BYTES = 1 << 28
"""Of the arrays taken from a small file: SMPL-H's model needs half of it, and so do all poses of Human3.6M."""

_MOST_OVER_FILE = 8  # a file that is large itself may hold as many times its size; numbers hardly compress by two
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_PIECE = 1 << 20


def read_npz(
    path: str | os.PathLike[str],
    names: Collection[str] | None = None,
    pickled: Callable[[bytes], np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Return those of an .npz's named arrays that are there; names left out: all.

    Args:
      path: the file.
      names: of the arrays; everything else is passed over.
      pickled: reads an entry that NumPy had to pickle, or raises InputError; left out: refused.

    Raises:
      errors.InputError: missing, no archive, damaged, compressed in a way that NumPy does not, or larger than such
        files are; one line with file and field.
    """
    path, entry, fields = pathlib.Path(path), "", {}
    try:
        with opened(path) as file, zipfile.ZipFile(file) as archive:
            room = max(MOST_ARRAY_BYTES, _MOST_OVER_FILE * os.fstat(file.fileno()).st_size)
            held = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            for name, info in held.items():
                if names is not None and name not in names:
                    continue
                entry = f"field '{name}': "
                if info.compress_type not in _METHODS:
                    raise ValueError(f"compressed by method {info.compress_type}, expected none or deflate")
                room -= info.file_size
                if room < 0:
                    raise ValueError(f"its {info.file_size} bytes are more than such a file holds")
                with archive.open(info) as stream:
                    fields[name] = _array(stream, info.file_size, pickled)
    except UNREADABLE as error:
        raise InputError(f"{path}: {entry}{_reason(error, '.npz')}") from error
    return fields


def read_npy(path: str | os.PathLike[str]) -> np.ndarray:
    """Return the array of an .npy.

    Raises:
      errors.InputError: missing, damaged, or holds no plain values.
    """
    try:
        with opened(path) as stream:
            return _array(stream, os.fstat(stream.fileno()).st_size, None)
    except UNREADABLE as error:
        raise InputError(f"{path}: {_reason(error, '.npy')}") from error


def _array(stream: IO[bytes], size: int, pickled: Callable[[bytes], np.ndarray] | None) -> np.ndarray:
    """Read an array that, with its header, takes `size` bytes."""
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of NumPy's format")
    shape, fortran, dtype = _HEADERS[version](stream)
    left = size - stream.tell()
    if dtype.hasobject:
        if pickled is None:
            raise ValueError("holds Python objects, expected plain values")
        return pickled(bytes(_exactly(stream, left)))
    if min(shape, default=0) < 0 or not dtype.itemsize or math.prod(shape) * dtype.itemsize != left:
        raise ValueError(f"{left} bytes for an array of {dtype} of shape {shape}")
    values = np.frombuffer(_exactly(stream, left), dtype).reshape(shape, order="F" if fortran else "C")
    return values.astype(dtype.newbyteorder("="), copy=False)


_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def _exactly(stream: IO[bytes], size: int) -> bytearray:
    content, place = bytearray(size), 0
    while place < size:
        chunk = stream.read(min(_PIECE, size - place))
        if not chunk:
            raise EOFError(f"ends after {place} of {size} bytes")
        content[place : place + len(chunk)] = chunk
        place += len(chunk)
    stream.read(1)  # the end of an entry is where its checksum is compared
    return content


def _reason(error: BaseException, kind: str) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    if isinstance(error, InputError):  # of what reads pickled entries
        return str(error)
    return f"not a readable {kind}: {str(error) or type(error).__name__}"
