"""Who is who over the frames of a video: numbers of tracks, by the input's own, or by where people are.

Frame after frame, people are matched to the tracks of the frames before by the assignment of least cost (Hungarian
method): how little their boxes overlap, and how far their key points lie apart, in sizes of the person.
"""

import dataclasses
import pathlib
import re
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.optimize
from jaxtyping import Bool, Float, Int

from dal_jax.body import skeleton
from dal_jax.observations.observation import px_from_crop
from dal_jax.observations.observations import Observations
from dal_jax.runtime.errors import InputError

LONGEST_GAP = 15
"""Frames that a person may be lost for and still be the same track."""

_FARTHEST = 0.35  # key points apart from frame to frame, in sizes of the person: more is somebody else
_FARTHER = 0.05  # what each frame of a gap adds
_FEWEST = 3  # key points in common that decide by themselves
_SPEED = 0.5  # of the last step's motion that the next one is taken to have: detections swing
_APART = 10.0  # cost of a pair that cannot be
_TURN = 0.05  # motion, in sizes of the person, that an exchange of sides must save
_RARE = 1e-4  # cost of a frame whose sides are exchanged: fewer are likelier


@dataclasses.dataclass(frozen=True)
class Frames:
    """Whose each person is, and when: numbers of tracks, each once a frame, and of frames.

    track: -1 for somebody of no track. fps: frames a second, as they are numbered.
    """

    track: Int[np.ndarray, "n"]
    frame: Int[np.ndarray, "n"]
    fps: float

    def paths(self, longest_gap_s: float) -> Iterator[Int[np.ndarray, "t"]]:
        """Yield the rows of each track in order of its frames; after a longer gap it is another path.

        Raises:
          errors.InputError: a track is in one frame twice.
        """
        order = np.lexsort((self.frame, self.track))
        track, frame = self.track[order], self.frame[order]
        same, apart = np.diff(track) == 0, np.diff(frame)
        if (twice := same & (apart == 0) & (track[1:] >= 0)).any():
            row = int(np.argmax(twice))
            raise InputError(f"track_id {track[row]}: is in frame {frame[row]} twice")
        ends = np.flatnonzero(~same | (apart > longest_gap_s * self.fps)) + 1
        yield from (rows for rows in np.split(order, ends) if self.track[rows[0]] >= 0)


def frames_of(people: Observations, fps: float) -> Frames:
    """Return the tracks of people: by the ids of the input where it has them, the others by where they are.

    Raises:
      errors.InputError: two people of one frame have the same track id.
    """
    video, frame = frame_numbers(people.file_name, people.image_id)
    ids = people.track_id or [None] * len(people)
    named = np.array([one is not None for one in ids])
    track = numbered(video, ids)
    taken: set[tuple[int, int]] = set()
    for row in np.flatnonzero(named):
        if (place := (int(track[row]), int(frame[row]))) in taken:
            raise InputError(f"track_id {ids[int(row)]}: two people of image {people.image_id[int(row)]} have it")
        taken.add(place)
    rows = np.flatnonzero(~named)
    if len(rows):
        seen, box = people.stacked, np.asarray(people.stacked.box_px, np.float64)
        places = np.asarray(px_from_crop(np.asarray(seen.keypoint_position), box))
        known = np.asarray(seen.keypoint_confidence)
        other = np.array(skeleton.KEYPOINT_MIRROR[seen.keypoint_set])
        names = [video[row] for row in rows]
        followed = follow(names, frame[rows], people.bbox_px[rows], places[rows], known[rows], other)
        track[rows] = track.max() + 1 + followed
    return Frames(np.unique(track, return_inverse=True)[1], frame, fps)


def set_right(people: Observations, frames: Frames) -> tuple[Observations, Bool[np.ndarray, "n"]]:
    """Exchange left and right of key points in frames whose neighbours say that a detector took one for the other.

    Along each track the exchanges are those of least motion from frame to frame (Viterbi's algorithm); of two that
    differ in all frames, the one with fewer. Who is seen from the side, where both lie on each other, stays.

    Returns:
      the people, and whose key points were exchanged.
    """
    seen, exchanged = people.stacked, np.zeros(len(people), bool)
    place = np.asarray(px_from_crop(np.asarray(seen.keypoint_position), np.asarray(seen.box_px, np.float64)))
    known = np.asarray(seen.keypoint_confidence) > 0
    other = np.array(skeleton.KEYPOINT_MIRROR[seen.keypoint_set])
    for number in range(int(frames.track.max()) + 1):
        rows = np.flatnonzero(frames.track == number)
        rows = rows[np.argsort(frames.frame[rows])]
        size = people.bbox_px[rows, 2:].max(axis=1)
        exchanged[rows] = _exchanges(frames.frame[rows], place[rows], known[rows], size, other)

    def change(values: np.ndarray) -> np.ndarray:
        mine = np.asarray(values)
        return np.where(exchanged.reshape(-1, *(1,) * (mine.ndim - 1)), mine[:, other], mine)

    names = ("keypoint_position", "keypoint_confidence", "depth", "depth_confidence")
    fields = {name: change(getattr(seen, name)) for name in names}
    return people.replace(lambda stacked: dataclasses.replace(stacked, **fields)), exchanged


def _exchanges(
    frame: Int[np.ndarray, "t"],
    place: Float[np.ndarray, "t k 2"],
    known: Bool[np.ndarray, "t k"],
    size: Float[np.ndarray, "t"],
    other: Int[np.ndarray, "k"],
) -> Bool[np.ndarray, "t"]:
    """Return in which frames of one track sides are exchanged; `other`: the number of each key point's other side."""
    sided = np.flatnonzero(other != np.arange(len(other)))
    apart = np.zeros((len(frame) - 1, 2))  # as they are, and with one of two frames exchanged
    for relative, order in enumerate((sided, other[sided])):
        common = known[1:, order] & known[:-1, sided]
        offset = np.where(common[..., None], place[1:, order] - place[:-1, sided], 0.0)
        moved = np.minimum(np.linalg.norm(offset, axis=-1) / size[1:, None], _FARTHEST)
        count = np.sum(common, axis=1)
        told = (count >= _FEWEST) & (np.diff(frame) <= LONGEST_GAP)
        apart[:, relative] = np.where(told, np.sum(moved, axis=1) / np.maximum(count, 1), 0.0)
    steps = apart[:, [[0, 1], [1, 0]]] + _TURN * (1 - np.eye(2))  # from the row's to the column's
    cost, came_from = np.array([0.0, _RARE]), []
    for step in steps:
        total = cost[:, None] + step
        came_from.append(total.argmin(axis=0))
        cost = total.min(axis=0) + (0.0, _RARE)
    path = [int(cost.argmin())]
    for before in reversed(came_from):
        path.append(int(before[path[-1]]))
    return np.array(path[::-1], bool)


def numbered(video: Sequence[str], ids: Sequence[int | str | None]) -> Int[np.ndarray, "n"]:
    """Return numbers from 0 for the ids of tracks, each of its video, in order of their first person."""
    keys = [(name, str(one)) for name, one in zip(video, ids, strict=True)]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], np.int64)


def frame_numbers(file_name: Sequence[str], image_id: Sequence[int | str]) -> tuple[list[str], Int[np.ndarray, "n"]]:
    """Return the video and the frame number of each person.

    The last number in a photograph's name is that of its frame, and what is before it names the video. Where names have
    none, or several images have one name, as those of a video file, a number that is an image's id will do; else the
    order of names and ids.
    """
    images = list(zip(file_name, map(str, image_id), strict=True))
    own_name = len(set(file_name)) == len(set(images))
    paths = [pathlib.PurePath(name) for name in file_name]
    numbered = [re.fullmatch(r"(.*?)(\d+)\D*", path.stem) for path in paths]
    if own_name and all(numbered):
        parts = [(str(path.parent / one[1]), int(one[2])) for path, one in zip(paths, numbered, strict=True) if one]
        return [video for video, _ in parts], np.array([number for _, number in parts], np.int64)
    video = [str(path.parent) for path in paths] if own_name else list(file_name)
    if all(isinstance(one, int) for one in image_id):
        return video, np.array(image_id, np.int64)
    order = {name: number for number, name in enumerate(sorted(set(images)))}
    return video, np.array([order[name] for name in images], np.int64)


def follow(
    video: Sequence[str],
    frame: Int[np.ndarray, "n"],
    box_px: Float[np.ndarray, "n 4"],
    keypoints_px: Float[np.ndarray, "n k 2"],
    known: Float[np.ndarray, "n k"],
    other: Int[np.ndarray, "k"],
) -> Int[np.ndarray, "n"]:
    """Return the number of each person's track, counted from 0 in the order in which tracks begin.

    Args:
      video: name of each person's; tracks keep to one.
      frame: number of its frame.
      box_px: x, y, width, height.
      keypoints_px: where `known` is positive.
      other: the number of each key point's other side, for which detectors take it now and then.
    """
    track = np.full(len(frame), -1, np.int64)
    names = np.array([str(name) for name in video])
    for name in dict.fromkeys(names.tolist()):
        rows = np.flatnonzero(names == name)
        alive: list[_Track] = []
        for now in np.unique(frame[rows]):
            here = rows[frame[rows] == now]
            seen = [_Sight(int(now), box_px[row], keypoints_px[row], known[row] > 0, other) for row in here]
            alive = [one for one in alive if now - one.last.frame <= LONGEST_GAP + 1]
            for row, sight, matched in zip(here, seen, _assign(alive, seen), strict=True):
                if matched is None:
                    matched = _Track(int(track.max()) + 1, sight)
                    alive.append(matched)
                else:
                    matched.see(sight)
                track[row] = matched.number
    return track


@dataclasses.dataclass(frozen=True)
class _Sight:
    """One person in one frame."""

    frame: int
    box: np.ndarray
    keypoints: np.ndarray
    known: np.ndarray
    other: np.ndarray

    @property
    def size(self) -> float:
        return float(np.max(self.box[2:]))

    @property
    def middle(self) -> np.ndarray:
        return self.box[:2] + self.box[2:] / 2


class _Track:
    """Where a person was last, and how fast."""

    def __init__(self, number: int, first: _Sight):
        self.number, self.last, self.speed = number, first, np.zeros(2)

    def see(self, sight: _Sight) -> None:
        step = (sight.middle - self.last.middle) / (sight.frame - self.last.frame)
        self.speed, self.last = _SPEED * step + (1 - _SPEED) * self.speed, sight

    def cost(self, sight: _Sight) -> float:
        """Return how unlike the track's next sight one is, `_APART` where it cannot be."""
        gap = sight.frame - self.last.frame
        moved, size = self.speed * gap, max(self.last.size, sight.size)
        distances = []
        for order in (np.arange(len(sight.other)), sight.other):
            common = self.last.known & sight.known[order]
            if np.sum(common) >= _FEWEST:
                apart = self.last.keypoints[common] + moved - sight.keypoints[order][common]
                distances.append(float(np.median(np.linalg.norm(apart, axis=1))) / size)
        middle = float(np.linalg.norm(self.last.middle + moved - sight.middle)) / size
        distance = min(distances, default=middle)
        if distance > _FARTHEST + _FARTHER * (gap - 1):
            return _APART
        before = np.concatenate([self.last.box[:2] + moved, self.last.box[2:]])
        return distance + 0.5 * (1.0 - _overlap(before, sight.box))


def _assign(tracks: Sequence[_Track], seen: Sequence[_Sight]) -> list[_Track | None]:
    """Return the track of each person of a frame; None: a new one."""
    cost = np.array([[one.cost(sight) for one in tracks] for sight in seen]).reshape(len(seen), len(tracks))
    found: list[_Track | None] = [None] * len(seen)
    for person, track in zip(*scipy.optimize.linear_sum_assignment(cost), strict=True):
        if cost[person, track] < _APART:
            found[person] = tracks[track]
    return found


def _overlap(first: Float[np.ndarray, "4"], second: Float[np.ndarray, "4"]) -> float:
    """Return the intersection of two boxes over their union."""
    low = np.maximum(first[:2], second[:2])
    high = np.minimum(first[:2] + first[2:], second[:2] + second[2:])
    both = float(np.prod(np.maximum(high - low, 0.0)))
    return both / max(float(np.prod(first[2:]) + np.prod(second[2:])) - both, 1e-9)
