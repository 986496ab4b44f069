"""Examples to array_record files, by tensorflow-datasets without TensorFlow: the same examples, the same bytes."""

import contextlib
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import writer
from tensorflow_datasets.proto import tf_example_pb2

from dal_jax.data import schema
from dal_jax.data.source import Example, Source

PathLike = str | os.PathLike[str]


def write(source: Source, data_dir: PathLike, examples: Mapping[str, Iterable[Example]], summary: Any) -> None:
    """Write a data set.

    Args:
      source: names and describes it.
      data_dir: folder of data sets.
      examples: of each split, in order.
      summary: of the examples, as JSON, for the data set's metadata.
    """
    with _quiet_tfds():
        builder = _Builder(source, os.fspath(data_dir), examples, summary)
        builder.download_and_prepare(file_format="array_record")


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes examples as array_record files; what is read later needs no code of the source."""

    code_path: Any = pathlib.Path(
        __file__
    )  # TFDS would look it up through importlib_resources, which it does not require
    VERSION = tfds.core.Version(schema.VERSION)

    def __init__(self, source: Source, data_dir: str, examples: Mapping[str, Iterable[Example]], summary: Any):
        self.name: str = source.name  # pyright: ignore[reportAttributeAccessIssue]: the class attribute has no setter
        self._source, self._examples, self._summary = source, examples, summary
        config = tfds.core.BuilderConfig(name=source.config) if source.config else None
        super().__init__(config=config, data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self._source.description,
            features=schema.features(),
            disable_shuffling=True,  # the source's order means something: prefixes, tracks; training shuffles itself
            metadata=tfds.core.MetadataDict(
                digest=self._source.digest(), options=self._source.options(), summary=self._summary
            ),
        )

    def _example_writer(self) -> writer.ExampleWriter:
        file_format: Any = self.info.file_format
        return _SameBytesWriter(file_format)

    def _split_generators(self, _: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in self._examples}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, Example]]:
        yield from enumerate(self._examples[split])


class _SameBytesWriter(writer.ExampleWriter):
    """Writes an example's features in order of their names; protobuf's own order is another in every process."""

    def write(self, path: PathLike, examples: Iterable[tuple[object, bytes]]) -> object:
        in_order: Any = ((key, _in_order(example)) for key, example in examples)
        return super().write(path, in_order)


def _in_order(example: bytes) -> bytes:
    return tf_example_pb2.Example.FromString(  # pyright: ignore[reportAttributeAccessIssue]: made at run time
        example
    ).SerializeToString(deterministic=True)


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """Keep TFDS from printing: our own bar has shown the work."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(None):
            yield
    finally:
        tfds.enable_progress_bar()
