"""Which people of which pictures are one person at one moment, seen by several calibrated cameras.

The rule of names. A photograph's name, with its folders, holds the name of its camera, between other characters than
letters and digits: `cam01/000012.jpg`, `walk_cam01_000012.jpg`. What is left of the name is the moment's: pictures
whose rest is alike, the last number of it the frame, show the same moment.

Who is who. Within a moment people of two cameras are one if the rays of their key points pass near to each other; of
several who could be, those whose rays are nearest. `track_id`s of the annotation decide where both have one.
"""

import dataclasses
import itertools
import pathlib
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from dal_jax.body.cameras import Pinhole
from dal_jax.observations.cameras_file import Camera
from dal_jax.observations.observation import Observation, crop_from_px, px_from_crop
from dal_jax.observations.observations import Observations
from dal_jax.runtime.errors import InputError

_NEAR_M = 0.2  # median distance between the rays of one person's key points: of two people it is more, as a rule
_NEXT_M = 1.0  # how far a person may be from where they were a frame before
_FEWEST = 3  # key points in common that decide
_HEIGHT_M = 1.7  # that places somebody whom one camera alone sees
_CONTRADICTS, _LEAST_DEG = 3.0, 2.0
"""A camera contradicts the others if its rays pass their places by so many times their own error, and two degrees.

Note: our choice. Good detections miss by half a degree, and where hips are taken to be by one. Or if its rays, turned
as one, are nearest at two degrees: those of right cameras are within one and a half."""
_REFINED = 3  # times that what is far off is left out of such a rotation
_PARALLEL = 0.05  # sine of the angle between rays below which their distance says little


@dataclasses.dataclass(frozen=True)
class Moments:
    """People at moments, by camera.

    rows: which of the people each camera sees, -1: none. place: about where they are, world, metres.
    frame: the number of the moment's pictures. person: a number for everybody, the same in all moments.
    """

    rows: Int[np.ndarray, "moments cameras"]
    place: Float[np.ndarray, "moments 3"]
    frame: Int[np.ndarray, "moments"]
    person: Int[np.ndarray, "moments"]

    def of_rows(self, count: int) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
        """Return the moment and the camera of each of the people."""
        moment, camera = np.zeros(count, np.int64), np.zeros(count, np.int64)
        for (one, view), row in np.ndenumerate(self.rows):
            if row >= 0:
                moment[row], camera[row] = one, view
        return moment, camera


def find(people: Observations, cameras: Sequence[Camera]) -> Moments:
    """Return who is seen when by which cameras.

    Args:
      people: whose key points are those of lenses without distortion (`straight`).
      cameras: which photographs' names hold.

    Raises:
      errors.InputError: a photograph whose name holds no camera's, or several.
    """
    names = [names_of(people.file_name[row], str(people.image_id[row]), cameras) for row in range(len(people))]
    rays, known = rays_of(people, np.array([camera for camera, _, _ in names]), cameras)
    moments: dict[tuple[str, int], list[int]] = {}
    for row, (_, sequence, frame) in enumerate(names):
        moments.setdefault((sequence, frame), []).append(row)
    found, frames, sequences = [], [], []
    for (sequence, frame), rows in sorted(moments.items()):
        for group in _people_of(rows, [names[row][0] for row in rows], rays, known, people.track_id, cameras):
            found.append(group)
            frames.append(frame)
            sequences.append(sequence)
    rows = np.array(found)
    places, height = np.array([camera.position for camera in cameras]), np.asarray(people.bbox_px)[:, 2:].max(axis=1)
    distance = np.array([cameras[camera].focal_px for camera, _, _ in names]) * _HEIGHT_M / height
    place = np.stack(
        [place_of(rays[row[row >= 0]], known[row[row >= 0]], places[row >= 0], distance[row[row >= 0]]) for row in rows]
    )
    person = _persons(rows, place, np.array(frames), sequences, people.track_id)
    return Moments(rows, place, np.array(frames), person)


def by_names(people: Observations, cameras: Sequence[Camera]) -> Moments:
    """Return who is seen when where no calibration tells rays: by ids, or as the only person of each photograph.

    Raises:
      errors.InputError: as `find`; or a photograph that shows several people, one of whom has no id.
    """
    moments: dict[tuple[str, int, object], dict[int, int]] = {}
    for row in range(len(people)):
        camera, sequence, frame = names_of(people.file_name[row], str(people.image_id[row]), cameras)
        label = people.track_id[row] if people.track_id else None
        seen = moments.setdefault((sequence, frame, label), {})
        if camera in seen:
            name = people.file_name[row] or people.image_id[row]
            raise InputError(f"image '{name}': shows several people; without calibration their track_id must tell them")
        seen[camera] = row
    keys = sorted(moments, key=lambda key: (key[:2], str(key[2])))
    rows = np.array([[moments[key].get(view, -1) for view in range(len(cameras))] for key in keys])
    labels = {key: str((key[0], key[2])) for key in keys}
    person = np.unique([labels[key] for key in keys], return_inverse=True)[1]
    return Moments(rows, np.zeros((len(keys), 3)), np.array([frame for _, frame, _ in keys]), person)


def names_of(file_name: str, image_id: str, cameras: Sequence[Camera]) -> tuple[int, str, int]:
    """Return the camera's place, the sequence and the frame that a photograph's name tells."""
    stem = file_name or image_id
    suffix = pathlib.PurePath(stem).suffix
    stem = stem.removesuffix(suffix) if re.search(r"[A-Za-z]", suffix) else stem
    holds = [one for one in cameras if re.search(_whole(one.name), stem)]
    longest = max((len(one.name) for one in holds), default=0)
    holds = [one for one in holds if len(one.name) == longest]
    if len(holds) != 1:
        several = " and ".join(one.name for one in holds)
        said = f"names {several}" if holds else f"names none of the cameras {', '.join(one.name for one in cameras)}"
        raise InputError(f"image '{file_name or image_id}': {said}; its name must tell its camera")
    rest = re.sub(_whole(holds[0].name), "", stem)
    numbers = list(re.finditer(r"\d+", rest))
    frame = int(numbers[-1].group()) if numbers else 0
    rest = rest[: numbers[-1].start()] + rest[numbers[-1].end() :] if numbers else rest
    return cameras.index(holds[0]), re.sub(r"[^A-Za-z0-9]+", " ", rest).strip(), frame


def _whole(name: str) -> str:
    return rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])"


def straight(people: Observations, cameras: Sequence[Camera]) -> Observations:
    """Return people as their cameras would see them without distortion, before their pinholes."""
    names = [names_of(people.file_name[row], str(people.image_id[row]), cameras)[0] for row in range(len(people))]
    seen, box = people.stacked, np.asarray(people.stacked.box_px, np.float64)
    fields = {}
    for field in ("point_position", "keypoint_position"):
        pixels = np.array(px_from_crop(np.asarray(getattr(seen, field), np.float64), box))
        for row, camera in enumerate(names):
            pixels[row] = cameras[camera].undistort(pixels[row])
        fields[field] = np.asarray(crop_from_px(pixels, box), np.float32)
    focal = np.array([cameras[camera].focal_px for camera in names])
    principal = np.array([cameras[camera].matrix[:2, 2] for camera in names])
    pinhole = Pinhole(
        focal=(focal / box[:, 2] * 2.0).astype(np.float32),
        centre=np.asarray(crop_from_px(principal[:, None], box), np.float32)[:, 0],
    )
    return people.replace(lambda one: dataclasses.replace(one, **fields, pinhole=pinhole))


def rays_of(
    people: Observations, camera: Int[np.ndarray, "n"], cameras: Sequence[Camera]
) -> tuple[Float[np.ndarray, "n k 3"], Float[np.ndarray, "n k"]]:
    """Return unit directions of the key points of straightened people, in the world, and their confidences.

    People without key points have the middle of their dense points as the first.
    """
    seen = people.stacked
    position, known = marks(seen)
    pixels = np.asarray(px_from_crop(position, np.asarray(seen.box_px, np.float64)))
    directions = np.ones((*pixels.shape[:2], 3))
    for row, view in enumerate(camera):
        one = cameras[view]
        directions[row, :, :2] = (pixels[row] - one.matrix[:2, 2]) / one.focal_px
        directions[row] = directions[row] @ one.rotation
    return directions / np.linalg.norm(directions, axis=-1, keepdims=True), known


def marks(seen: Observation) -> tuple[Float[np.ndarray, "n k 2"], Float[np.ndarray, "n k"]]:
    """Return the places and confidences of key points; without any, of the dense points' middle as the first."""
    position, known = np.array(seen.keypoint_position, np.float64), np.array(seen.keypoint_confidence, np.float64)
    mass = np.asarray(seen.point_confidence, np.float64)
    bare = (known > 0).sum(axis=1) == 0
    middle = np.einsum("np,npc->nc", mass, seen.point_position) / np.maximum(mass.sum(axis=1), 1e-9)[:, None]
    position[bare, 0], known[bare, 0] = middle[bare], 1.0
    return position, known


def triangulate(
    rays: Float[np.ndarray, "views k 3"], weight: Float[np.ndarray, "views k"], places: Float[np.ndarray, "views 3"]
) -> Float[np.ndarray, "k 3"]:
    """Return the places that are nearest to the rays of each key point; NaN where fewer than two are weighted."""
    across = np.eye(3) - rays[..., :, None] * rays[..., None, :]
    system = np.einsum("vk,vkij->kij", weight, across)
    right = np.einsum("vk,vkij,vj->ki", weight, across, places)
    known = (weight > 0).sum(axis=0) >= 2
    found = np.full((rays.shape[1], 3), np.nan)
    found[known] = np.linalg.solve(system[known] + 1e-9 * np.eye(3), right[known][..., None])[..., 0]
    return found


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How well a camera agrees with the others, degrees, in the median over key points and moments; NaN: not known.

    apart: its rays from the places that two others or more have. usual: the rays of these from the same places.
    turned: the rotation of its rays, as one, that brings them nearest to these places.
    contradicts: whether it has people somewhere else. Of several cameras that seem to, the one without which the others
      agree best: it misleads them. Where none has, whether it is turned, the most of all.
    """

    camera: str
    apart_deg: float
    usual_deg: float
    turned_deg: float
    contradicts: bool

    def line(self) -> str:
        """Return what is to be said of a camera that contradicts."""
        return (
            f"camera {self.camera} contradicts the others: its key points lie {self.apart_deg:.1f} degrees from where "
            f"these have them (usual: {self.usual_deg:.1f}), nearest if it is turned by {self.turned_deg:.1f} degrees; "
            "is its calibration right, and its name?"
        )


def agreement(people: Observations, moments: Moments, cameras: Sequence[Camera]) -> list[Agreement]:
    """Return how each camera agrees with the others, also where they took its people for somebody else."""
    rays, known = rays_of(people, moments.of_rows(len(people))[1], cameras)
    places = np.array([camera.position for camera in cameras])
    found: list[list[tuple]] = [[] for _ in cameras]
    at = {frame: np.flatnonzero(moments.frame == frame) for frame in np.unique(moments.frame)}
    for view, pairs in enumerate(found):
        for one in np.flatnonzero(moments.rows[:, view] >= 0):
            row, candidates = moments.rows[one, view], []
            for moment in at[moments.frame[one]]:
                others = [k for k in np.flatnonzero(moments.rows[moment] >= 0) if k != view]
                if len(others) >= 2:
                    theirs = moments.rows[moment, others]
                    where = triangulate(rays[theirs], known[theirs], places[others])
                    own = _degrees(rays[theirs], where[None] - places[others][:, None], known[theirs])
                    towards = where - places[view]
                    candidates.append((_degrees(rays[row], towards, known[row]), own, rays[row], towards, known[row]))
            if candidates:
                pairs.append(min(candidates, key=lambda each: each[:2]))
    angles = [np.median([pair[:2] for pair in pairs], axis=0) if pairs else (np.nan, np.nan) for pairs in found]
    (apart, usual), turned = np.array(angles).T, np.array([_turned_deg([pair[2:] for pair in each]) for each in found])
    bad = apart > np.maximum(_CONTRADICTS * usual, _LEAST_DEG)
    bad &= usual <= np.min(usual, where=bad, initial=np.inf)
    if not bad.any():  # one that rolled about its axis hardly moves what is near the middle of its picture
        bad = (turned > _LEAST_DEG) & (turned == np.max(turned, where=np.isfinite(turned), initial=0.0))
    rows = zip(cameras, *(each.tolist() for each in (apart, usual, turned, bad)), strict=True)
    return [Agreement(camera.name, *each) for camera, *each in rows]


def _turned_deg(pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> float:
    """Return the angle of the rotation that brings rays nearest to directions, those far off left out; NaN of few."""
    if not pairs:
        return np.nan
    rays, towards, known = (np.concatenate(each) for each in zip(*pairs, strict=True))
    used = (known > 0) & np.isfinite(towards).all(axis=-1)
    if used.sum() < _FEWEST:
        return np.nan
    rays, towards = rays[used], towards[used] / np.linalg.norm(towards[used], axis=-1, keepdims=True)
    kept, turn = np.ones(len(rays), bool), Rotation.identity()
    for _ in range(_REFINED):
        turn = Rotation.align_vectors(towards[kept], rays[kept])[0]
        off = np.linalg.norm(turn.apply(rays) - towards, axis=-1)
        kept = off <= _CONTRADICTS * np.median(off)
    return float(np.degrees(turn.magnitude()))


def _degrees(rays: np.ndarray, towards: np.ndarray, known: np.ndarray) -> float:
    """Return the median angle between rays and directions, of those that are known; inf of none."""
    away = np.linalg.norm(np.cross(rays, towards), axis=-1)
    angle = np.degrees(np.arctan2(away, np.sum(rays * towards, axis=-1)))
    angle = angle[(known > 0) & np.isfinite(angle)]
    return float(np.median(angle)) if angle.size else np.inf


def _people_of(rows, views, rays, known, track_id, cameras) -> list[Int[np.ndarray, "cameras"]]:
    """Return the people of one moment, as rows by camera: clusters of least distance, joined one pair after another."""
    groups = [{view: row} for row, view in zip(rows, views, strict=True)]
    while True:
        best, pair = _NEAR_M, None
        for one, other in itertools.combinations(range(len(groups)), 2):
            if groups[one].keys() & groups[other].keys():
                continue
            apart = [
                _apart(here, there, rays, known, track_id, cameras)
                for here, there in itertools.product(groups[one].items(), groups[other].items())
            ]
            if (mean := float(np.mean(apart))) < best:
                best, pair = mean, (one, other)
        if pair is None:
            break
        groups[pair[0]] |= groups.pop(pair[1])
    return [np.array([group.get(view, -1) for view in range(len(cameras))]) for group in groups]


def _apart(here, there, rays, known, track_id, cameras) -> float:
    """Return the median distance of the rays of two people's key points, metres; each a camera and a row."""
    (view, one), (other_view, other) = here, there
    if track_id and track_id[one] is not None and track_id[other] is not None:
        return 0.0 if track_id[one] == track_id[other] else np.inf
    normal = np.cross(rays[one], rays[other])
    sine = np.linalg.norm(normal, axis=-1)
    common = (known[one] > 0) & (known[other] > 0) & (sine > _PARALLEL)
    if common.sum() < min(_FEWEST, (known[one] > 0).sum(), (known[other] > 0).sum()) or not common.any():
        return np.inf
    between = cameras[other_view].position - cameras[view].position
    return float(np.median(np.abs(normal[common] @ between) / sine[common]))


def place_of(
    rays: Float[np.ndarray, "v k 3"],
    mass: Float[np.ndarray, "v k"],
    places: Float[np.ndarray, "v 3"],
    distance: Float[np.ndarray, "v"],
) -> Float[np.ndarray, "3"]:
    """Return about where somebody is: the middle of the key points that two cameras see, or by their height."""
    middle = np.einsum("vk,vki->vi", mass, rays)
    middle = middle / np.linalg.norm(middle, axis=-1, keepdims=True)
    if len(rays) == 1:
        return places[0] + middle[0] * distance[0]
    found = triangulate(rays, mass, places)
    seen = np.isfinite(found).all(axis=1)
    if seen.sum() >= _FEWEST:
        return np.median(found[seen], axis=0)
    return triangulate(middle[:, None], np.ones((len(rays), 1)), places)[0]


def _persons(rows, place, frame, sequences, track_id) -> Int[np.ndarray, "moments"]:
    """Return a number for everybody: by track ids, else by who was nearest a frame before."""
    person, last, labels = np.full(len(rows), -1), {}, {}
    for moment in np.lexsort((frame, sequences)).tolist():
        own = [track_id[row] for row in rows[moment].tolist() if row >= 0 and track_id]
        ids = [one for one in own if one is not None]
        if ids:
            person[moment] = labels.setdefault((sequences[moment], ids[0]), len(labels) + len(last))
            continue
        same = [
            (float(np.linalg.norm(place[moment] - where)), key)
            for key, (sequence, when, where) in last.items()
            if sequence == sequences[moment] and when < frame[moment]
        ]
        distance, key = min(same, default=(np.inf, -1))
        key = key if distance < _NEXT_M else len(labels) + len(last)
        person[moment], last[key] = key, (sequences[moment], frame[moment], place[moment])
    return np.unique(person, return_inverse=True)[1]
