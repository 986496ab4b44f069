"""The embedded people as a data set that can be recorded: their recipe is the source, a person a unit of work."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow_datasets as tfds

from dal_jax.data.preparing import builder as builder_lib
from dal_jax.data.preparing.source import Example
from dal_jax.runtime.errors import InputError
from dal_jax.synthetic import example
from dal_jax.synthetic.recipe import RECIPES, Recipe

NAME = "synthetic_people"


@dataclasses.dataclass(frozen=True)
class SyntheticPeople:
    """Rendered people of seven subjects in fifteen actions; a `recording.source.Source`."""

    recipe: Recipe
    units_a_chunk: int = 250

    name = NAME
    unit = "person"
    description = (
        "Rendered people of seven subjects in fifteen actions, with 2D annotation, and with 3D truth for evaluation."
    )

    @property
    def config(self) -> str:
        """The recipe's name."""
        return self.recipe.name

    def digest(self) -> str:
        """Return the recipe's."""
        return self.recipe.digest()

    def options(self) -> dict[str, Any]:
        """Return the recipe; of a folder of recordings its name."""
        return dataclasses.asdict(self.recipe) | {"motions": pathlib.Path(self.recipe.motions).name}

    def splits(self) -> Mapping[str, list[tuple[str, int]]]:
        """Return (split, number) of each person."""
        return {split: [(split, index) for index in range(self.recipe.count(split))] for split in ("train", "test")}

    def read(self, unit: tuple[str, int]) -> Iterator[Example]:
        """Render one person."""
        yield example.make(self.recipe, *unit)


def prepare(
    recipe: str | Recipe, data_dir: str | os.PathLike[str], workers: int | None = None
) -> tfds.core.DatasetBuilder:
    """Return a data set that is on disk, rendered first if it is not; a killed run is gone on with.

    Args:
      recipe: 'tiny', 'demo', 'full', or a recipe of one's own.
      data_dir: folder of data sets.
      workers: processes that render; by default one a core.

    Raises:
      errors.InputError: there is no such recipe, or the folder holds one of this name made differently.
    """
    builder, _ = builder_lib.prepare(SyntheticPeople(named(recipe)), data_dir, workers)
    return builder


def load(recipe: str | Recipe, data_dir: str | os.PathLike[str]) -> tfds.core.DatasetBuilder:
    """Return a data set that has been rendered.

    Raises:
      errors.InputError: it has not, or it was made differently.
    """
    recipe = named(recipe)
    builder, _ = builder_lib.load(NAME, recipe.name, data_dir, recipe.digest())
    return builder


def named(recipe: str | Recipe) -> Recipe:
    """Return the recipe of a name; a recipe is its own."""
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise InputError(f"{NAME}/{recipe}: no such configuration; there are {', '.join(RECIPES)}")
    return RECIPES[recipe]
