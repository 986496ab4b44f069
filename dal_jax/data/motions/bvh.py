"""Biovision's .bvh: a skeleton and its motion in one text file, read and posed.

No kept library reads them with errors that name a line (`bvhio` builds an object a joint and frame, `bvh` is of 2017),
and the format is small.
"""

import math
import pathlib

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from dal_jax.data.motions.tracks import Tracks, frame_step
from dal_jax.runtime import files
from dal_jax.runtime.errors import InputError

_CHANNELS = ("Xposition", "Yposition", "Zposition", "Xrotation", "Yrotation", "Zrotation")
_MOST_JOINTS = 1000
_LARGEST = 1e7


_Channel = tuple[int, str]
"""A joint's row, and one of `_CHANNELS`."""


def read(path: pathlib.Path, rate: float = math.inf) -> Tracks:
    """Read and pose a file's frames, no more than `rate` a second; an End Site becomes the joint PARENT_end.

    Raises:
      errors.InputError: one line that names file, line and word.
    """
    words = _Words(path)
    words.expect("HIERARCHY")
    words.expect("ROOT")
    names, parents, offsets, channels = _read_joints(words)
    words.expect("MOTION")
    words.expect("Frames:")
    count = int(words.number())
    words.expect("Frame")
    words.expect("Time:")
    seconds = words.number()
    if count < 1 or seconds <= 0:
        raise words.error(f"{count} frames of {seconds} s")
    values = words.table(count, len(channels))[:: frame_step(1 / seconds, rate)]
    return Tracks(tuple(names), tuple(parents), *_pose(parents, np.array(offsets), channels, values))


def _pose(
    parents: list[int],
    offsets: Float[np.ndarray, "joints 3"],
    channels: list[_Channel],
    values: Float[np.ndarray, "frames columns"],
) -> tuple[Float[np.ndarray, "joints 3"], Float[np.ndarray, "frames joints 3"], Float[np.ndarray, "frames joints 3 3"]]:
    """Return `Tracks.rest`, `positions` and `rotations`: a joint's rotations follow one another as its channels do."""
    rotation = np.broadcast_to(np.eye(3), (len(parents), len(values), 3, 3)).copy()
    place = np.broadcast_to(offsets[:, None], (len(parents), len(values), 3)).copy()
    for column, (joint, channel) in enumerate(channels):
        axis = "XYZ".index(channel[0])
        if channel.endswith("position"):
            place[joint, :, axis] = values[:, column]  # it stands in for the offset
        else:
            rotation[joint] = rotation[joint] @ about(axis, np.radians(values[:, column]))
    rest = offsets.copy()
    for joint, parent in enumerate(parents):
        if parent >= 0:
            rest[joint] += rest[parent]
            place[joint] = place[parent] + np.einsum("fij,fj->fi", rotation[parent], place[joint])
            rotation[joint] = rotation[parent] @ rotation[joint]
    return rest, place.swapaxes(0, 1), rotation.swapaxes(0, 1)


def about(axis: int, angle: Float[np.ndarray, "*b"] | float) -> Float[np.ndarray, "*b 3 3"]:
    """Return right-handed rotations about the x, y or z axis (0, 1, 2), radians."""
    vectors = np.asarray(angle)[..., None] * np.eye(3)[axis]
    return Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix().reshape(*vectors.shape, 3)


def _read_joints(words: "_Words") -> tuple[list[str], list[int], list[list[float]], list[_Channel]]:
    """Return names, parents, offsets and channels of NAME { OFFSET .. CHANNELS .. children }, what follows ROOT."""
    names: list[str] = []
    parents: list[int] = []
    offsets: list[list[float]] = []
    channels: list[_Channel] = []

    def opened(name: str, parent: int) -> int:
        words.expect("{")
        if len(names) >= _MOST_JOINTS:
            raise words.error(f"more than {_MOST_JOINTS} joints")
        names.append(name)
        parents.append(parent)
        offsets.append([0.0, 0.0, 0.0])
        return len(names) - 1

    open_joints = [opened(words.line_rest(), -1)]
    while open_joints:  # not by recursion, so that no file can exhaust the stack
        row, word = open_joints[-1], words.next()
        if word == "}":
            open_joints.pop()
        elif word == "OFFSET":
            offsets[row] = [words.number() for _ in range(3)]
        elif word == "CHANNELS":
            for _ in range(int(words.number())):
                channel = words.next()
                if channel not in _CHANNELS:
                    raise words.error(f"no channel '{channel}'")
                channels.append((row, channel))
        elif word == "JOINT":
            open_joints.append(opened(words.line_rest(), row))
        elif word == "End":
            words.expect("Site")
            open_joints.append(opened(f"{names[row]}_end", row))
        else:
            raise words.error(f"'{word[:40]}' where OFFSET, CHANNELS, JOINT, End Site or }} must be")
    return names, parents, offsets, channels


class _Words:
    """The words of a text file one after the other, with the line that each stands in."""

    def __init__(self, path: pathlib.Path):
        self._lines = files.read_text(path).splitlines()
        self._path, self._line, self._rest = path, 0, []

    def next(self) -> str:
        while not self._rest:
            if self._line >= len(self._lines):
                raise self.error("the file ends here")
            self._rest = self._lines[self._line].split()[::-1]
            self._line += 1
        return self._rest.pop()

    def line_rest(self) -> str:
        """Return what is left of the line, up to a brace: names may hold blanks."""
        words = [self.next()]
        while self._rest and self._rest[-1] != "{":
            words.append(self._rest.pop())
        return " ".join(words)

    def expect(self, wanted: str) -> None:
        if (word := self.next()).lower() != wanted.lower():
            raise self.error(f"'{word[:40]}' where {wanted} must be")

    def number(self) -> float:
        word = self.next()
        try:
            value = float(word)
        except ValueError:
            raise self.error(f"'{word[:40]}' is not a number") from None
        if not abs(value) <= _LARGEST:
            raise self.error(f"{word[:40]} is not a finite number")
        return value

    def table(self, rows: int, columns: int) -> Float[np.ndarray, "rows columns"]:
        """Return the numbers that are left: one line a row."""
        first = self._line
        lines = [line for line in self._lines[first:] if line.strip()]
        if self._rest or len(lines) < rows:
            raise self.error(f"{len(lines)} lines of motion follow, not {rows}")
        values = np.empty((rows, columns))
        for row, line in enumerate(lines[:rows]):
            words = line.split()
            try:
                values[row] = np.array(words, np.float64)
            except ValueError:
                raise InputError(f"{self._path}: frame {row}: {len(words)} values, not {columns} numbers") from None
        wrong = ~(np.abs(values) <= _LARGEST)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise InputError(f"{self._path}: frame {row}: value {column} is {values[row, column]}")
        return values

    def error(self, text: str) -> InputError:
        return InputError(f"{self._path}: line {self._line}: {text}")
