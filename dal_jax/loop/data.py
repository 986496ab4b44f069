"""Where a run's people come from: the embedded ones, a data set, or the user's annotation; truth kept apart."""

import dataclasses
import os

from dal_jax import presets
from dal_jax.body import template as template_lib
from dal_jax.data import annotations, catalogue, people as people_lib
from dal_jax.data.synthetic import builder as builder_lib
from dal_jax.runtime import errors


@dataclasses.dataclass(frozen=True)
class RunData:
    """Training and test people, and what is true of them where that is known (for the judge alone)."""

    train: people_lib.People
    test: people_lib.People
    train_truth: people_lib.Truth | None
    test_truth: people_lib.Truth | None


def load(config: presets.Config, template: template_lib.Template, data_dir: str | os.PathLike[str]) -> RunData:
    """Load (the first time: render or record) the people that a configuration names.

    Args:
      data_dir: where data sets are kept once they are rendered or recorded.

    Raises:
      errors.InputError: the data do not exist or do not fit the configuration.
    """
    if config.data == "annotations":
        people = annotations.load_annotations(config.annotation_source(), template, config.regressor.image_size)
        return RunData(people, people, None, None)
    if config.data in catalogue.FROM_FILES:
        return _recorded(config, data_dir)
    if config.data != "synthetic":
        names = ", ".join(["synthetic", "annotations", *catalogue.FROM_FILES])
        raise errors.InputError(f"config.data is '{config.data}': one of {names}")
    if config.body:
        raise errors.InputError("config.body: the embedded people are annotated on the free body; leave it empty")
    recipe = builder_lib.named(config.synthetic)
    recipe = recipe.of_recordings(config.motions) if config.motions else recipe
    builder = builder_lib.prepare(recipe, data_dir)
    size = recipe.image_size
    if size != config.regressor.image_size:
        raise errors.InputError(
            f"config.regressor.image_size is {config.regressor.image_size}, "
            f"the people of '{config.synthetic}' have {size} px"
        )
    return RunData(
        train=people_lib.load_people(builder, "train"),
        test=people_lib.load_people(builder, "test"),
        train_truth=people_lib.load_truth(builder, "train"),
        test_truth=people_lib.load_truth(builder, "test"),
    )


def _recorded(config: presets.Config, data_dir: str | os.PathLike[str]) -> RunData:
    """Return the people of a data set; to be tested on those of its first split for it, or the training people."""
    builder = catalogue.open_recorded(config.data, config.files(), data_dir)
    size = config.regressor.image_size
    train = "+".join(split for split in catalogue.TRAIN_SPLITS if split in builder.info.splits)
    test = next((split for split in catalogue.TEST_SPLITS if split in builder.info.splits), train)
    return RunData(
        train=people_lib.load_people(builder, train, image_size=size),
        test=people_lib.load_people(builder, test, image_size=size),
        train_truth=people_lib.load_truth(builder, train),
        test_truth=people_lib.load_truth(builder, test),
    )
