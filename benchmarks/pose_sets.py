"""2D poses of the synthetic people for the lifter's benchmarks, and, for the score alone, where their joints were.

Posed and photographed as the synthetic data set's people are, at any azimuth, and annotated by the same annotator, who
guesses hidden joints with twice the error; nothing is painted.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import multiprocessing
import os
import pathlib

import numpy as np
from jaxtyping import Bool, Float

from dal_jax.runtime import files, progress
from dal_jax.synthetic import annotator, people as synthetic_people, view
from dal_jax.synthetic.annotator import Recipe
from dal_jax.synthetic.view import View

_VERSION = 1  # of this file's rules: raise it and every cache is made anew
_SEED = 77
_CHUNK = 100
_CROP = 1.2  # side of the crop over that of the person: key points err by a share of it
_SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class PoseSet:
    """One split. validation: other people of the training subjects' kind, for choosing; test: S9 and S11.

    keypoints_px: as annotated, every joint; seen: which of them the camera sees; joints_true_mm: Human3.6M's, camera
    axes.
    """

    keypoints_px: Float[np.ndarray, "n 17 2"]
    seen: Bool[np.ndarray, "n 17"]
    joints_true_mm: Float[np.ndarray, "n 17 3"]


def load(counts: dict[str, int], data_dir: str | os.PathLike[str]) -> dict[str, PoseSet]:
    """Return the splits `train`, `validation` and `test`, made the first time (24,000 people: two minutes) and kept."""
    recipe = _recipe(counts)
    content = hashlib.sha256(json.dumps([_VERSION, recipe.digest(), counts]).encode()).hexdigest()[:12]
    path = pathlib.Path(data_dir) / f"benchmark_poses-{content}.npz"
    if not path.exists():
        columns = {}
        for split in _SPLITS:
            made = _make(recipe, split, counts)
            columns |= {f"{split}_{field.name}": getattr(made, field.name) for field in dataclasses.fields(made)}
        files.savez(path, **columns)
    with np.load(path, allow_pickle=False) as archive:
        names = [field.name for field in dataclasses.fields(PoseSet)]
        return {split: PoseSet(*(archive[f"{split}_{name}"] for name in names)) for split in _SPLITS}


def _recipe(counts: dict[str, int]) -> Recipe:
    return Recipe("poses", counts["train"] + counts["validation"], counts["test"], image_size=64)


def _make(recipe: Recipe, split: str, counts: dict[str, int]) -> PoseSet:
    first = counts["train"] if split == "validation" else 0
    people = "test" if split == "test" else "train"
    starts = range(first, first + counts[split], _CHUNK)
    work = [(recipe, people, start, min(start + _CHUNK, first + counts[split])) for start in starts]
    context = multiprocessing.get_context("spawn")  # JAX has threads of its own, which a fork would break
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with (
        concurrent.futures.ProcessPoolExecutor(min(workers or 1, len(work)), context) as pool,
        progress.bar(f"{split} poses", total=counts[split], unit="person") as bar,
    ):
        rows = []
        for chunk in pool.map(_chunk, work):
            rows += chunk
            bar.update(len(chunk))
    return PoseSet(*(np.stack(column) for column in zip(*rows, strict=True)))


def _chunk(work: tuple[Recipe, str, int, int]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    recipe, people, start, stop = work
    return [_one(recipe, people, index) for index in range(start, stop)]


def _one(recipe: Recipe, people: str, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng((_SEED, people == "test", index))
    scene = synthetic_people.stage(recipe, people, index, random)
    joints_px, outline_px = view.project(scene.joints_h36m), view.project(scene.vertices[::7])
    seen = View(scene.vertices, scene.furniture).sees_keypoints(scene.joints_h36m)
    side_px = _CROP * (outline_px.max(axis=0) - outline_px.min(axis=0)).max()
    keypoints_px = annotator.keypoints(joints_px, seen, side_px, recipe, random)
    return keypoints_px.astype(np.float32), seen, (1000 * scene.joints_h36m).astype(np.float32)
