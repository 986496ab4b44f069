"""Files that are either whole or absent: written under a temporary name in the same folder, then renamed.

A rename inside one file system is atomic, so a process killed at any instant leaves the old file, or the new one.
"""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import IO

import numpy as np

from dal_jax.runtime import errors

PathLike = str | os.PathLike[str]


def write_bytes(path: PathLike, content: bytes) -> None:
    """Write bytes; an existing file is replaced, its folder is made if missing."""
    with _replacing(path) as file:
        file.write(content)


def write_text(path: PathLike, text: str) -> None:
    """Write text as UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: PathLike, value: object, indent: int | None = 2) -> None:
    """Write strict JSON: NaN and infinity, which no other JSON reader accepts, raise ValueError."""
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def savez(path: PathLike, **arrays: np.ndarray) -> None:
    """Write a compressed .npz without pickles; an object array raises ValueError."""
    with _replacing(path) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


@contextlib.contextmanager
def directory(path: PathLike, overwrite: bool = False) -> Iterator[pathlib.Path]:
    """Yield an empty sibling folder to fill; it takes the name `path` when the block ends without an exception.

    Raises:
      InputError: `path` exists and `overwrite` is false (found before any work is done).
    """
    path = pathlib.Path(path)
    if path.exists() and not overwrite:
        raise errors.InputError(f"{path}: exists; --overwrite replaces it")
    path.parent.mkdir(parents=True, exist_ok=True)
    building = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    building.chmod(0o777 & ~_umask())  # mkdtemp makes it private
    try:
        yield building
        if path.exists():
            _set_aside(path)
        os.replace(building, path)
    finally:
        shutil.rmtree(building, ignore_errors=True)


@contextlib.contextmanager
def _replacing(path: PathLike) -> Iterator[IO[bytes]]:
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # or a power cut could keep the new name and lose the content
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes it private
        os.replace(temporary, path)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise


def _set_aside(path: pathlib.Path) -> None:
    """Move a folder out of the way first: deleting it in place could be seen, or interrupted, halfway."""
    aside = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    os.replace(path, aside / path.name)
    shutil.rmtree(aside)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
