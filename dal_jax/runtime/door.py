"""The door: whatever a user names is opened here, and may be what anybody has made.

Sizes are checked before anything of that size is made. Readers catch `UNREADABLE` and name file and entry.
"""

import errno
import io
import os
import pickle
import stat
import struct
import tokenize
import zipfile
import zlib

import numpy as np

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
