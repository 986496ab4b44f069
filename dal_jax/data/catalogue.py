"""Data sets by name: the embedded people, and those made from somebody's files."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow_datasets as tfds

from dal_jax.data.coco_sets import CocoFolder, DensePoseCoco
from dal_jax.data.files import Files, body_digest
from dal_jax.data.human36m.source import Human36m
from dal_jax.data.iuv_folder import IuvFolder
from dal_jax.data.posetrack import DensePosePoseTrack
from dal_jax.data.preparing.builder import load, prepare
from dal_jax.data.preparing.source import Source
from dal_jax.runtime.errors import InputError
from dal_jax.synthetic.builder import NAME, SyntheticPeople, named

FROM_FILES: dict[str, Callable[[Files], Source]] = {
    one.name: one
    for one in (
        DensePoseCoco,
        DensePosePoseTrack,
        IuvFolder,
        CocoFolder,
        Human36m,
    )
}
"""What makes the source of a data set from its files."""

TRAIN_SPLITS = ("train", "valminusminival")
"""Names of splits that are trained on, all that are there."""

TEST_SPLITS = ("test", "minival", "val")
"""Names of splits that are not trained on, the one to be judged on first."""


def source_of(dataset: str, files: Files, choices: Mapping[str, Any] | None = None) -> Source:
    """Return the source of `NAME` or, of the embedded people, `synthetic_people/RECIPE`.

    choices: of that data set alone, by the names of its source's fields; of the embedded people `motions`, a folder of
    recordings.

    Raises:
      errors.InputError: there is no such data set, or it is made from files and none are given.
    """
    name, _, config = dataset.partition("/")
    if name == NAME:
        recipe = named(config or "demo")
        folder = _check_choices(dataset, choices, {"motions"}).get("motions", "")
        return SyntheticPeople(recipe.of_recordings(folder) if folder else recipe)
    if name not in FROM_FILES or config:
        names = ", ".join([f"{NAME}/RECIPE", *FROM_FILES])
        raise InputError(f"--dataset={dataset}: no such data set; there are {names}")
    if not files.source:
        raise InputError(f"--dataset={dataset}: is made from files; name their folder by --source=DIR")
    source = FROM_FILES[name](files)
    known = {field.name for field in dataclasses.fields(source)}
    return dataclasses.replace(source, **_check_choices(dataset, choices, known))


def open_recorded(dataset: str, files: Files, data_dir: str | os.PathLike[str]) -> tfds.core.DatasetBuilder:
    """Return a data set made from files, recorded first if it is not; without `files.source` only what is there.

    Raises:
      errors.InputError: as `source_of` and `recording.builder`; or what is there is annotated on another body.
    """
    if dataset in FROM_FILES and not files.source:
        builder, _ = load(dataset, "", data_dir)
    else:
        builder, _ = prepare(source_of(dataset, files), data_dir)
    made_on = builder.info.metadata["options"]["body"]
    if made_on != body_digest(files.body):
        raise InputError(f"{builder.data_dir}: its surface points are on another body ({made_on}); name it")
    return builder


def _check_choices(dataset: str, choices: Mapping[str, Any] | None, known: set[str]) -> Mapping[str, Any]:
    choices = choices or {}
    for name in choices:
        if name not in known:
            raise InputError(f"--{name}: --dataset={dataset} has no such choice")
    return choices
