"""Files and folders of results that are either whole or absent, whenever a process is killed.

A file is written under a temporary name in the same folder, then renamed. A rename inside one file system is atomic, so
a killed process leaves the old file or the new one. A folder of results is made in a hidden folder inside it, which the
same command goes on with after a kill.
"""

import contextlib
import errno
import fcntl
import glob
import json
import os
import pathlib
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np

from dal_jax.runtime import door
from dal_jax.runtime.errors import InputError

PathLike = str | os.PathLike[str]

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Of the system's errors: no space, no quota, a file larger than allowed."""

_UNFINISHED = ".unfinished"  # folder inside a folder of results
_LOCK = ".lock"  # in a folder that a process works in
_RUN = "run.json"  # in it: what the results depend on


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


def savez(path: PathLike, **arrays: np.ndarray | str) -> None:
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
        raise InputError(f"{path}: exists; --overwrite replaces it")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    building = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    building.chmod(0o777 & ~_umask())  # mkdtemp makes it private
    lock = os.open(building, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield building
        if path.exists():
            _set_aside(path)
        os.replace(building, path)
    finally:
        os.close(lock)
        shutil.rmtree(building, ignore_errors=True)


def refuse_taken(out: PathLike, names: Sequence[str], overwrite: bool) -> None:
    """Refuse a folder for results that is a file, or that holds one of `names` already.

    Raises:
      InputError: names what is in the way.
    """
    out = pathlib.Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"--out={out}: exists and is no folder")
    taken = [name for name in names if (out / name).exists()]
    if taken and not overwrite:
        raise InputError(f"{out / taken[-1]} exists; --overwrite replaces it")


def is_unfinished(out: PathLike) -> bool:
    """Return whether a killed run has left unfinished results in a folder."""
    return (pathlib.Path(out) / _UNFINISHED / _RUN).exists()


@contextlib.contextmanager
def locked(folder: PathLike) -> Iterator[None]:
    """Keep other processes out of a folder, which is made if missing. The lock of a killed process is gone with it.

    Raises:
      InputError: it is a file, or another process works in it; names it.
    """
    path = pathlib.Path(folder)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file, not a folder")
    path.mkdir(parents=True, exist_ok=True)
    lock = path / _LOCK
    with lock.open("a+", encoding="utf-8", errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InputError(f"{path}: {file.read(200) or 'another process'} is working there") from None
        if not lock.exists() or not os.path.samestat(
            os.fstat(file.fileno()), lock.stat()
        ):  # removed since it was opened
            raise InputError(f"{path}: another process has just worked there; run the command again")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


@contextlib.contextmanager
def making(out: PathLike, names: Sequence[str], run: dict[str, Any], overwrite: bool) -> Iterator[pathlib.Path]:
    """Yield a folder to make results in; they move to `out` when the block ends without an exception.

    The folder is empty, or holds what a killed run with the same `run` has left there. Old results stay until the new
    ones are whole. Bad input leaves nothing behind.

    Args:
      out: folder of the results.
      names: of the results (files and folders). The last one stands for the whole.
      run: what the results depend on, as JSON values. Another value is another run.
      overwrite: replace old results, and start anew.

    Raises:
      InputError: another process works there; results are there, or the unfinished ones of another run; names the first
        value that differs.
    """
    try:
        with locked(out):
            building = _opened(pathlib.Path(out), names, run, overwrite)
            try:
                yield building
            except InputError:
                shutil.rmtree(building)
                raise
            publish(building, out, names)
            shutil.rmtree(building)
    except InputError:
        if not any(pathlib.Path(out).iterdir()):
            pathlib.Path(out).rmdir()
        raise


def publish(building: pathlib.Path, out: PathLike, names: Sequence[str]) -> None:
    """Move results into place, the last of `names` last; older ones of these names are removed first."""
    out = pathlib.Path(out)
    for name in reversed(names):
        if (out / name).is_dir():
            shutil.rmtree(out / name)
        else:
            (out / name).unlink(missing_ok=True)
    for name in names:
        if (building / name).exists():
            os.replace(building / name, out / name)


def _opened(out: pathlib.Path, names: Sequence[str], run: dict[str, Any], overwrite: bool) -> pathlib.Path:
    building = out / _UNFINISHED
    if overwrite and building.exists():
        shutil.rmtree(building)
    if not is_unfinished(out):
        refuse_taken(out, names, overwrite)
        shutil.rmtree(building, ignore_errors=True)  # killed before it knew what it was
        write_json(building / _RUN, run)
        return building
    found, wanted = _read(building / _RUN), json.loads(json.dumps(run))
    for key in sorted(found.keys() | wanted.keys()):
        if found.get(key) != wanted.get(key):
            raise InputError(
                f"{building}: holds an unfinished run with {key}={found.get(key)}, not {wanted.get(key)}; "
                "--overwrite starts anew"
            )
    return building


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except InputError as error:
        raise InputError(f"{error}; --overwrite starts anew") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: is no JSON object; --overwrite starts anew")
    return content


@contextlib.contextmanager
def _replacing(path: PathLike) -> Iterator[IO[bytes]]:
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # for as long as this process lives
            yield file
            file.flush()
            os.fsync(file.fileno())  # or a power cut could keep the new name and lose the content
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes it private
        os.replace(temporary, path)
    except OSError as error:
        pathlib.Path(temporary).unlink(missing_ok=True)
        if error.errno in DISK_FULL:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise


def _remove_stale(path: pathlib.Path) -> None:
    """Remove what killed processes have left of a file or a folder that they were making; living ones hold a lock."""
    for stale in path.parent.glob(f".{glob.escape(path.name)}.????????.tmp"):
        with contextlib.suppress(OSError):  # somebody else has just removed or locked it
            if time.time() - stale.stat().st_mtime < _STALE_S:
                continue
            handle = os.open(stale, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
            finally:
                os.close(handle)


_STALE_S = 60.0  # a living process has locked it by then


def _set_aside(path: pathlib.Path) -> None:
    """Move a folder out of the way first: deleting it in place could be seen, or interrupted, halfway."""
    aside = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    os.replace(path, aside / path.name)
    shutil.rmtree(aside)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# --- What is read ---


def name_inside(name: str) -> str | None:
    """Return a file's name below some folder, slashes for Windows' backslashes; None where it leaves the folder."""
    slashed = name.replace("\\", "/")
    path = pathlib.PurePosixPath(slashed)
    leaves = path.is_absolute() or ".." in path.parts or ":" in name or not name.isprintable()
    return None if leaves else slashed


def below(folder: PathLike, name: str) -> pathlib.Path:
    """Return the path of a file that another file names; links are followed inside the folder alone.

    The folder itself may be a link. Whether the file is there is not looked at.

    Raises:
      InputError: the name, or a link, leaves the folder.
    """
    inside = name_inside(name)
    path = pathlib.Path(folder, inside or "")
    try:
        if inside is not None and path.resolve().is_relative_to(pathlib.Path(folder).resolve()):
            return path
    except (OSError, ValueError, RuntimeError):  # a loop of links, a name of megabytes
        pass
    raise InputError(f"{folder}: '{name[:200]}' leaves the folder")


def read_text(path: PathLike) -> str:
    """Return what a UTF-8 file holds, without the byte order mark that Windows puts before it.

    Raises:
      InputError: the file cannot be read, or is no such text.
    """
    try:
        return door.contents(path).decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise InputError(f"{path}: is no text") from None


def read_json(path: PathLike) -> Any:
    """Return what a JSON file holds; it may still be anything.

    Raises:
      InputError: the file cannot be read, or is no JSON.
    """
    try:
        return parse_json(door.contents(path))
    except OSError as error:
        text = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise InputError(f"{path}: {text}") from error
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from error


def parse_json(content: bytes | str) -> Any:
    """Return what JSON text holds.

    Raises:
      ValueError: it is none: cut off, no UTF-8, nested too deep, or a number of thousands of digits.
    """
    if isinstance(content, bytes):
        content = content.decode(json.detect_encoding(content), "surrogatepass")
    if door.depth_of_json(content.encode("utf-8", "surrogatepass")) > door.DEEPEST:
        raise ValueError(f"nested too deep, more than {door.DEEPEST} levels")
    return json.loads(content)
