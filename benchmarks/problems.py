"""The benchmark's people: surface points, key points and simulated depths, the same bytes from the same config.

Posed by the synthetic data set's own actors, whose shapes differ from the body that is fitted, and seen by the same
cameras; visibility comes from ray casting, and nothing is painted, so that 512 people take about 15 seconds.
"""

import dataclasses
import hashlib
import json
import os
import pathlib

import jax
import numpy as np
from jaxtyping import Float

from dal_jax.body.formats.load import FREE_BODY
from dal_jax.evaluation import metrics
from dal_jax.observations import observation
from dal_jax.observations.observation import Observation
from dal_jax.runtime import files, progress, struct
from dal_jax.runtime.errors import InputError
from dal_jax.synthetic import actors, annotator, people as synthetic_people
from dal_jax.synthetic.actors import SUBJECT_SHAPES
from dal_jax.synthetic.annotator import VERSION, Recipe
from dal_jax.synthetic.view import FOCAL_PX, View, project, square_box
from dal_jax.viewing.raycast import pixel_grid_px, spread

_VERSION = 1  # of this file's rules: raise it and every cache is made anew
_CANONICAL_PEOPLE = 200  # training people whose mean bone-length sum the protocol scales to
_HIDDEN_M = 0.005  # a vertex this far behind the surface that a ray to it meets is hidden


@dataclasses.dataclass(frozen=True)
class PeopleConfig:
    """What `benchmarks/people.json` says.

    people: how many; points: visible surface points of each (the first 120 are an even choice too).
    split: 'test' or 'train' subjects; seed: of every random number; heading_spread_deg: 180 for any heading.
    grid_px: cells along the crop's side, of which the points are a choice, spread over the parts.
    keypoint_noise: standard deviation of visible key points, as a share of the crop's side; hidden ones are left out.
    depth_noise_m: what stands for a lifting: the true depth of a key point plus this Gaussian noise.
    """

    people: int
    points: int
    split: str
    seed: int
    heading_spread_deg: float
    grid_px: int
    keypoint_noise: float
    depth_noise_m: float

    def digest(self) -> str:
        """Return a short name of everything the people depend on."""
        content = hashlib.sha256(json.dumps([_VERSION, VERSION, dataclasses.asdict(self)]).encode())
        for file in (FREE_BODY, SUBJECT_SHAPES):
            content.update(file.read_bytes())
        return content.hexdigest()[:12]

    def recipe(self) -> Recipe:
        """Return the recipe under which the actors take the stage."""
        return Recipe(
            "benchmark",
            train_count=_CANONICAL_PEOPLE,
            test_count=self.people,
            image_size=self.grid_px,
            seed=self.seed,
            heading_spread_deg=self.heading_spread_deg,
            keypoint_noise=self.keypoint_noise,
        )


@struct.dataclass
class Problems:
    """Observed people and, for the score alone, where their joints were.

    joints_true_mm: Human3.6M's joints, the camera's axes; canonical_bone_sum_mm: of the training subjects.
    """

    observations: Observation
    joints_true_mm: Float[np.ndarray, "people 17 3"]
    canonical_bone_sum_mm: float
    digest: str = struct.static()

    def take(self, people: int | None = None, points: int | None = None) -> "Problems":
        """Return the first people and their first points."""
        observed = jax.tree.map(lambda leaf: leaf[:people], self.observations)
        return self.replace(
            observations=observed.replace(
                point_position=observed.point_position[:, :points],
                point_face=observed.point_face[:, :points],
                point_barycentric=observed.point_barycentric[:, :points],
                point_confidence=observed.point_confidence[:, :points],
            ),
            joints_true_mm=self.joints_true_mm[:people],
        )


def spoil(observations: Observation, share: float, seed: int = 0) -> Observation:
    """Put this share of everybody's points where another of their own points was marked: wrong correspondences."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(observations.point_confidence.shape) < share
    other = np.argsort(rng.random(observations.point_confidence.shape), axis=1)[..., None]
    position = np.where(
        wrong[..., None], np.take_along_axis(observations.point_position, other, axis=1), observations.point_position
    )
    return observations.replace(point_position=position.astype(np.float32))


def tile(observations: Observation, people: int) -> Observation:
    """Repeat people until there are `people` of them: rates do not care, memory and batches do."""
    rows = np.arange(people) % len(observations.point_face)
    return jax.tree.map(lambda leaf: leaf[rows], observations)


def read_config(path: str | os.PathLike[str]) -> PeopleConfig:
    """Read a config.

    Raises:
      errors.InputError: the file is missing, no JSON, or a field is missing, unknown or out of range; names it.
    """
    try:
        found = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable config: {error}") from error
    fields = {field.name: field.type for field in dataclasses.fields(PeopleConfig)}
    if not isinstance(found, dict) or found.keys() != fields.keys():
        raise InputError(f"{path}: the fields must be {', '.join(fields)}")
    for name, kind in fields.items():
        numbers = (int,) if kind is int else (int, float)
        if kind is not str and (not isinstance(found[name], numbers) or found[name] is True or found[name] < 0):
            raise InputError(f"{path}: {name} is {found[name]!r}, not a {kind.__name__} of 0 or more")
    if found["split"] not in ("train", "test"):
        raise InputError(f"{path}: split is {found['split']!r}, not train or test")
    for name in ("people", "points", "grid_px"):
        if found[name] < 1:
            raise InputError(f"{path}: {name} is {found[name]}, at least 1")
    return PeopleConfig(**found)


def load(config: PeopleConfig, data_dir: str | os.PathLike[str]) -> Problems:
    """Return the people of a config, made the first time and kept in `data_dir`.

    Raises:
      errors.InputError: somebody shows fewer visible points than asked for.
    """
    path = pathlib.Path(data_dir) / f"benchmark_people-{config.digest()}.npz"
    if not path.exists():
        files.savez(path, **_make(config))
    with np.load(path, allow_pickle=False) as archive:
        columns = {name: archive[name] for name in archive.files}
    joints, canonical = columns.pop("joints_true_mm"), float(columns.pop("canonical_bone_sum_mm"))
    return Problems(Observation(**columns), joints, canonical, config.digest())


def _make(config: PeopleConfig) -> dict[str, np.ndarray]:
    recipe = config.recipe()
    rows = [_one(config, recipe, index) for index in progress.bar("people", range(config.people), unit="person")]
    train = [
        synthetic_people.stage(recipe, "train", index, np.random.default_rng((config.seed, 0, index))).joints_h36m
        for index in progress.bar("training skeletons", range(_CANONICAL_PEOPLE), unit="person")
    ]
    columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    canonical = metrics.canonical_bone_sum_mm(1000 * np.stack(train))
    return {**columns, "canonical_bone_sum_mm": np.float64(canonical)}


def _one(config: PeopleConfig, recipe: Recipe, index: int) -> dict[str, np.ndarray]:
    """Stage, photograph (rays only) and annotate a person; one stream of random numbers each."""
    random = np.random.default_rng((config.seed, 1, index))
    scene = synthetic_people.stage(recipe, config.split, index, random)
    view = View(scene.vertices, scene.furniture)
    outline_px = project(np.concatenate([scene.vertices[::7], scene.joints, scene.joints_h36m]))
    box_px = square_box(outline_px, random)
    vertex = _visible_vertices(config, view, scene.vertices, box_px, random)
    if len(vertex) < config.points:
        raise InputError(f"person {index} shows {len(vertex)} of {config.points} points; raise grid_px")
    vertex = vertex[: config.points]
    face, corner = _first_corner()[vertex].T
    seen = view.sees_keypoints(scene.joints_h36m)
    keypoints_px = annotator.keypoints(project(scene.joints_h36m), seen, box_px[2], recipe, random)
    pelvis = scene.joints_h36m[0, 2]
    crop_units_a_metre = 2 * FOCAL_PX / (pelvis * box_px[2])
    depth_m = scene.joints_h36m[:, 2] - pelvis + random.normal(0, config.depth_noise_m, len(seen))
    row = {
        "point_position": observation.crop_from_px(project(scene.vertices[vertex]), box_px),
        "point_face": face,
        "point_barycentric": np.eye(3)[corner],
        "point_confidence": np.ones(config.points),
        "keypoint_position": observation.crop_from_px(keypoints_px, box_px),
        "keypoint_confidence": seen,
        "depth": crop_units_a_metre * depth_m,
        "depth_confidence": seen,
        "box_px": box_px,
        "joints_true_mm": 1000 * scene.joints_h36m,
    }
    return {name: np.asarray(values, np.int32 if name == "point_face" else np.float32) for name, values in row.items()}


def _visible_vertices(config, view: View, vertices: np.ndarray, box_px, random) -> np.ndarray:
    """Return seen vertices in random order, spread over the parts: the paper matches a pixel to its nearest vertex."""
    grid_px = pixel_grid_px(box_px, config.grid_px)
    hits = view.cast(grid_px)
    body = (hits.face >= 0) & (hits.face < view.body_faces)
    part = np.where(body, actors.surface().part[np.where(body, hits.face, 0)], 0)
    chosen = spread(part, 2 * config.points, random)  # some share their vertex, and some of those are hidden
    nearest = actors.surface().faces[hits.face[chosen], np.argmax(hits.barycentric[chosen], axis=-1)]
    _, first = np.unique(nearest, return_index=True)
    vertex = nearest[np.sort(first)]
    met = view.cast(project(vertices[vertex])).distance
    return vertex[vertices[vertex, 2] - met < _HIDDEN_M]


def _first_corner() -> np.ndarray:
    """Return (face, corner) by which each vertex can be named, (n, 2)."""
    faces = actors.surface().faces
    vertex, place = np.unique(faces, return_index=True)
    named = np.zeros((len(actors.surface().vertices), 2), np.int64)
    named[vertex] = np.stack([place // 3, place % 3], axis=1)
    return named
