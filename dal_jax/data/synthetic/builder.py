"""The embedded data set as a tensorflow-datasets builder (array_record files; TensorFlow itself is never imported)."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import ClassVar

import tensorflow_datasets as tfds

from dal_jax.data import schema
from dal_jax.data.synthetic import generation, recipe as recipe_lib
from dal_jax.runtime import errors

NAME = "synthetic_people"


@dataclasses.dataclass
class PeopleConfig(tfds.core.BuilderConfig):
    """A recipe under the name that TFDS knows it by."""

    recipe: recipe_lib.Recipe | None = None


class SyntheticPeople(tfds.core.GeneratorBasedBuilder):
    """Rendered people of seven subjects in fifteen actions, with 2D annotation, and with 3D truth for evaluation."""

    name = NAME
    code_path = pathlib.Path(__file__)  # TFDS would look it up through importlib_resources, which it does not require
    VERSION = tfds.core.Version(recipe_lib.VERSION)
    BUILDER_CONFIGS: ClassVar = [PeopleConfig(name=one.name, recipe=one) for one in recipe_lib.RECIPES.values()]

    def _info(self) -> tfds.core.DatasetInfo:
        recipe = self.builder_config.recipe
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=schema.features(),
            disable_shuffling=True,  # prefixes are balanced over subjects and actions; training shuffles for itself
            metadata=tfds.core.MetadataDict(digest=recipe.digest(), recipe=dataclasses.asdict(recipe)),
        )

    def _split_generators(self, _: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, object]]]:
        index = 0
        for chunk in generation.chunks(self.builder_config.recipe, _partial(self), split):
            for example in generation.read_chunk(chunk.path):
                yield index, example
                index += 1


def prepare(
    recipe: str | recipe_lib.Recipe, data_dir: str | os.PathLike[str], workers: int | None = None
) -> SyntheticPeople:
    """Return the builder of a data set that is on disk, made first if it is not; a killed run is gone on with.

    Args:
      recipe: 'tiny', 'demo', 'full', or a recipe of one's own.
      workers: processes that render; by default one a core.
    Raises:
      errors.InputError: there is no such configuration, or the folder holds one of this name made differently.
    """
    builder = _builder(recipe, data_dir)
    if (pathlib.Path(builder.data_dir) / "dataset_info.json").exists():
        _check_same(builder)
        return builder
    work = [
        chunk for split in ("train", "test") for chunk in generation.chunks(_recipe(recipe), _partial(builder), split)
    ]
    generation.generate(work, workers)
    with _quiet_tfds():
        builder.download_and_prepare(file_format="array_record")
    shutil.rmtree(_partial(builder), ignore_errors=True)
    return _builder(recipe, data_dir)


def load(recipe: str | recipe_lib.Recipe, data_dir: str | os.PathLike[str]) -> SyntheticPeople:
    """Return the builder of a data set that has been made.

    Raises:
      errors.InputError: it has not, or it was made differently.
    """
    builder = _builder(recipe, data_dir)
    if not (pathlib.Path(builder.data_dir) / "dataset_info.json").exists():
        raise errors.InputError(f"{builder.data_dir}: no data set there; run experiments.prepare_data first")
    _check_same(builder)
    return builder


def _recipe(recipe: str | recipe_lib.Recipe) -> recipe_lib.Recipe:
    if isinstance(recipe, recipe_lib.Recipe):
        return recipe
    if recipe not in recipe_lib.RECIPES:
        raise errors.InputError(f"{NAME}/{recipe}: no such configuration; there are {', '.join(recipe_lib.RECIPES)}")
    return recipe_lib.RECIPES[recipe]


def _builder(recipe: str | recipe_lib.Recipe, data_dir: str | os.PathLike[str]) -> SyntheticPeople:
    recipe = _recipe(recipe)
    known = recipe_lib.RECIPES.get(recipe.name) == recipe
    config = recipe.name if known else PeopleConfig(name=recipe.name, recipe=recipe)
    return SyntheticPeople(config=config, data_dir=os.fspath(data_dir), file_format="array_record")


def _partial(builder: SyntheticPeople) -> pathlib.Path:
    """Return where the chunks wait; its name tells recipes apart, so that chunks of two never mix."""
    recipe = builder.builder_config.recipe
    return pathlib.Path(builder._data_dir_root) / ".partial" / NAME / f"{recipe.name}-{recipe.digest()}"


def _check_same(builder: SyntheticPeople) -> None:
    made, wanted = builder.info.metadata.get("digest"), builder.builder_config.recipe.digest()
    if made != wanted:
        raise errors.InputError(
            f"{builder.data_dir}: made from another recipe or other bodies ({made}, now {wanted}); remove that folder, "
            "or name another --data_dir"
        )


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """Keep TFDS from printing: our own bar has shown the work."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(None):
            yield
    finally:
        tfds.enable_progress_bar()
