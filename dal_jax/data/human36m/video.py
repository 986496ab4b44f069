"""Single frames of a video file, decoded one after the other (FFmpeg through PyAV)."""

import pathlib
from collections.abc import Iterator

import av
import numpy as np
from jaxtyping import UInt8

from dal_jax.runtime import errors


def frames(path: pathlib.Path, step: int) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
    """Yield (number, RGB) of the frames 0, step, 2 step, ...

    Videos predict most frames from their neighbours, so all are decoded; only those asked for become pictures.

    Raises:
      errors.InputError: the file is missing, is no video or is damaged; names the frame reached.
    """
    number = 0
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            if not container.streams.video:
                raise errors.InputError(f"{path}: holds no video")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                if number % step == 0:
                    yield number, frame.to_ndarray(format="rgb24")
                number += 1
    except FileNotFoundError:
        raise errors.InputError(f"{path}: no such file") from None
    except (av.error.FFmpegError, OSError) as error:
        raise errors.InputError(f"{path}: frame {number}: cannot be read as a video: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
