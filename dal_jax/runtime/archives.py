"""Arrays from untrusted .npz and .npy files: every size is checked before anything of that size is made."""

import math
import os
import pathlib
import zipfile
from collections.abc import Callable, Collection
from typing import IO

import numpy as np

from dal_jax.runtime import door
from dal_jax.runtime.errors import InputError
from dal_jax.runtime.files import PathLike

MOST_BYTES = 1 << 28
"""Of the arrays taken from a small file: SMPL-H's model needs half of it, and so do all poses of Human3.6M."""

_MOST_OVER_FILE = 8  # a file that is large itself may hold as many times its size; numbers hardly compress by two
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_CHUNK = 1 << 20


def read(
    path: PathLike, names: Collection[str] | None = None, pickled: Callable[[bytes], np.ndarray] | None = None
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
        with door.opened(path) as file, zipfile.ZipFile(file) as archive:
            room = max(MOST_BYTES, _MOST_OVER_FILE * os.fstat(file.fileno()).st_size)
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
    except door.UNREADABLE as error:
        raise InputError(f"{path}: {entry}{_reason(error, '.npz')}") from error
    return fields


def read_npy(path: PathLike) -> np.ndarray:
    """Return the array of an .npy.

    Raises:
      errors.InputError: missing, damaged, or holds no plain values.
    """
    try:
        with door.opened(path) as stream:
            return _array(stream, os.fstat(stream.fileno()).st_size, None)
    except door.UNREADABLE as error:
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
        chunk = stream.read(min(_CHUNK, size - place))
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
