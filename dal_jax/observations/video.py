"""Frames of video files, one after the other, upright as their metadata says (FFmpeg through PyAV)."""

import os
import pathlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

from dal_jax.runtime import door
from dal_jax.runtime.errors import InputError, needs_extra

ENDINGS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")
"""Of videos' names, in any case."""

_FORMATS = "mov,matroska,avi,mpeg"
_SAFE = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}  # a playlist could name other files and hosts
_MOST_PX = 61_000_000  # as of photographs


def is_video(path: str | os.PathLike[str]) -> bool:
    """Tell by its name whether a file is a video."""
    return pathlib.PurePath(path).suffix.lower() in ENDINGS


def frame_name(path: str | os.PathLike[str], number: int) -> str:
    """Return what a frame is called: NAME_000123."""
    return f"{pathlib.PurePath(path).stem}_{number:06d}"


def frame_number(name: str) -> int:
    """Return the number of a frame from its name."""
    return int(name.rpartition("_")[2])


def frames(
    path: str | os.PathLike[str], step: int = 1, extra: str = "data"
) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
    """Yield (number, RGB) of the frames 0, step, 2 step, ..., counted as they are shown, whatever time lies between.

    Videos predict most frames from their neighbours, so all are decoded; only those asked for become pictures.

    Args:
      path: of the file.
      step: of the frames that are yielded.
      extra: the extra of this package that is named where PyAV is missing.

    Raises:
      errors.InputError: the file is missing, is no video or is damaged; names the frame reached.
    """
    with needs_extra(extra):
        import av
        import av.error
    number = 0
    try:
        door.opened(path).close()
        with av.open(os.fspath(path), metadata_errors="ignore", options=_SAFE) as container:
            if not container.streams.video:
                raise InputError(f"{path}: holds no video")
            stream = container.streams.video[0]
            if stream.width * stream.height > _MOST_PX:
                raise InputError(f"{path}: {stream.width}x{stream.height} px, at most {_MOST_PX} in all are read")
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                if number % step == 0:
                    turns = round(frame.rotation / 90)  # counterclockwise; cameras turn by quarters alone
                    yield number, np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
                number += 1
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"{path}: frame {number}: cannot be read as a video: {_reason(error)}") from error
    if not number:
        raise InputError(f"{path}: holds no frame")


def told(path: str | os.PathLike[str], extra: str = "data") -> tuple[int | None, float | None]:
    """Return how many frames a video says that it has, and how many a second; None where it does not say."""
    with needs_extra(extra):
        import av
        import av.error
    try:
        door.opened(path).close()
        with av.open(os.fspath(path), metadata_errors="ignore", options=_SAFE) as container:
            stream = container.streams.video[0] if container.streams.video else None
            if stream is None:
                return None, None
            return stream.frames or None, float(stream.average_rate) if stream.average_rate else None
    except (av.error.FFmpegError, OSError):
        return None, None  # `frames` says why


class Reader:
    """Frames of one video by their number; going forward decodes each frame once."""

    def __init__(self, path: str | os.PathLike[str]):
        self._path = path
        self._coming = iter(())
        self._number, self._pixels = -1, None

    def __call__(self, number: int) -> UInt8[np.ndarray, "h w 3"]:
        """Return a frame.

        Raises:
          errors.InputError: as `frames`, or the video ends before it.
        """
        if self._pixels is None or number < self._number:
            self._coming, self._number = frames(self._path), -1
        while self._number < number:
            self._number, self._pixels = next(self._coming, (number, None))
        if self._pixels is None:
            raise InputError(f"{self._path}: has no frame {number}")
        return self._pixels


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
