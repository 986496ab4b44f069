"""Data sets that are made from files, by name."""

import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any

from dal_jax.data.coco_sets import coco_folder, densepose_coco
from dal_jax.data.files import Files, body_digest
from dal_jax.data.human36m.source import human36m
from dal_jax.data.iuv_folder import iuv_folder
from dal_jax.data.posetrack import densepose_posetrack
from dal_jax.data.preparing import load, prepare
from dal_jax.data.schema import DatasetBuilder, Source, check_choices
from dal_jax.runtime.errors import InputError

FROM_FILES: dict[str, Callable[..., Source]] = {
    "densepose_coco": densepose_coco,
    "densepose_posetrack": densepose_posetrack,
    "iuv_folder": iuv_folder,
    "coco_folder": coco_folder,
    "human36m": human36m,
}
"""What makes the source of a data set from its files, and options of its own."""

TRAIN_SPLITS = ("train", "valminusminival")
"""Names of splits that are trained on, all that are there."""

TEST_SPLITS = ("test", "minival", "val")
"""Names of splits that are not trained on, the one to be judged on first."""


def source_of(dataset: str, files: Files, choices: Mapping[str, Any] | None = None) -> Source:
    """Return the source of a data set.

    Args:
      dataset: its name.
      files: the folder it is made from, and how.
      choices: options of that data set alone, by name.

    Raises:
      errors.InputError: there is no such data set, it has no such option, or no folder is given.
    """
    if dataset not in FROM_FILES:
        names = ", ".join(["synthetic_people/RECIPE", *FROM_FILES])
        raise InputError(f"--dataset={dataset}: no such data set; there are {names}")
    if not files.source:
        raise InputError(f"--dataset={dataset}: is made from files; name their folder by --source=DIR")
    make, choices = FROM_FILES[dataset], choices or {}
    check_choices(dataset, choices, list(inspect.signature(make).parameters)[1:])
    return make(files, **choices)


def open_prepared(dataset: str, files: Files, data_dir: str | os.PathLike[str]) -> DatasetBuilder:
    """Return a data set made from files, prepared first if it is not; without `files.source` only what is there.

    Raises:
      errors.InputError: as `source_of` and `preparing.prepare`; or what is there is annotated on another body.
    """
    if dataset in FROM_FILES and not files.source:
        builder, _ = load(dataset, "", data_dir)
    else:
        builder, _ = prepare(source_of(dataset, files), data_dir)
    metadata: Any = builder.info.metadata
    made_on = metadata["options"]["body"]
    if made_on != body_digest(files.body):
        raise InputError(f"{builder.data_dir}: its surface points are on another body ({made_on}); name it")
    return builder
