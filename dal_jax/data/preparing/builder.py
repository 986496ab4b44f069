"""A recorded data set on disk: array_record files through tensorflow-datasets (TensorFlow itself is never imported)."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator

import tensorflow_datasets as tfds
from tensorflow_datasets.core import writer as tfds_writer
from tensorflow_datasets.proto import tf_example_pb2

from dal_jax.data import schema
from dal_jax.data.preparing import chunks
from dal_jax.data.preparing.chunks import Chunk
from dal_jax.data.preparing.source import Example, Source, Summary, from_json, total
from dal_jax.runtime.errors import InputError

PathLike = str | os.PathLike[str]


def prepare(source: Source, data_dir: PathLike, workers: int | None = None) -> tuple[tfds.core.DatasetBuilder, Summary]:
    """Return a data set that is on disk, and its counts; recorded first if it is not; a killed run is gone on with.

    Args:
      source: the data set in its owner's files.
      data_dir: folder of data sets.
      workers: processes that read; by default one a core, 0: this process alone.

    Raises:
      errors.InputError: the source's files are not what they must be, none of a split's people can be used, or the
        folder holds a data set of this name made differently.
    """
    if _is_recorded(_folder(source.name, source.config, data_dir)):
        return load(source.name, source.config, data_dir, source.digest())
    partial = pathlib.Path(data_dir) / ".partial" / source.name / f"{source.config or 'all'}-{source.digest()}"
    work = chunks.cut(source, partial)
    chunks.record(work, workers)
    summary = total(chunks.read_counts(chunk.path) for chunk in work)
    _refuse_empty_splits(source, summary)
    with _quiet_tfds():
        _Recording(source, os.fspath(data_dir), work, summary).download_and_prepare(file_format="array_record")
    shutil.rmtree(partial, ignore_errors=True)
    builder, _ = load(source.name, source.config, data_dir)
    return builder, summary


def load(
    name: str, config: str, data_dir: PathLike, digest: str | None = None
) -> tuple[tfds.core.DatasetBuilder, Summary]:
    """Return a data set that has been recorded, and its counts; with `digest` only the one that was made of that.

    Raises:
      errors.InputError: it has not been recorded, or from other input.
    """
    folder = _folder(name, config, data_dir)
    if not _is_recorded(folder):
        raise InputError(f"{folder}: no data set there; run experiments.prepare_data first")
    builder = tfds.builder_from_directory(folder)
    made = builder.info.metadata["digest"]
    if digest not in (None, made):
        raise InputError(
            f"{folder}: made from other files or with other options ({made}, now {digest}); remove that folder, or "
            "name another --data_dir"
        )
    return builder, from_json(builder.info.metadata["summary"])


class _Recording(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes chunks as array_record files; what is read later needs no code of the source."""

    code_path = pathlib.Path(__file__)  # TFDS would look it up through importlib_resources, which it does not require
    VERSION = tfds.core.Version(schema.VERSION)

    def __init__(
        self,
        source: Source,
        data_dir: str,
        work: list[Chunk],
        summary: Summary,
    ):
        self.name = source.name
        self._source, self._work, self._summary = source, work, summary
        config = tfds.core.BuilderConfig(name=source.config) if source.config else None
        super().__init__(config=config, data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self._source.description,
            features=schema.features(),
            disable_shuffling=True,  # the source's order means something: prefixes, tracks; training shuffles itself
            metadata=tfds.core.MetadataDict(
                digest=self._source.digest(), options=self._source.options(), summary=self._summary.to_json()
            ),
        )

    def _example_writer(self) -> tfds_writer.ExampleWriter:
        return _SameBytesWriter(self.info.file_format)

    def _split_generators(self, _: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in self._summary.prepared}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, Example]]:
        index = 0
        for chunk in self._work:
            for example in chunks.read(chunk.path) if chunk.split == split else ():
                yield index, example
                index += 1


class _SameBytesWriter(tfds_writer.ExampleWriter):
    """Writes an example's features in order of their names; protobuf's own order is another in every process."""

    def write(self, path: PathLike, examples: Iterable[tuple[object, bytes]]) -> object:
        return super().write(path, ((key, _in_order(example)) for key, example in examples))


def _in_order(example: bytes) -> bytes:
    return tf_example_pb2.Example.FromString(example).SerializeToString(deterministic=True)


def _folder(name: str, config: str, data_dir: PathLike) -> pathlib.Path:
    return pathlib.Path(data_dir) / name / config / schema.VERSION


def _is_recorded(folder: pathlib.Path) -> bool:
    return (folder / "dataset_info.json").exists()


def _refuse_empty_splits(source: Source, summary: Summary) -> None:
    for split, count in summary.prepared.items():
        if not count:
            why = f": {next(iter(summary.first.values()))}" if summary.first else ""
            raise InputError(f"{source.name}: no person of '{split}' can be used ({summary}){why}")


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """Keep TFDS from printing: our own bar has shown the work."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(None):
            yield
    finally:
        tfds.enable_progress_bar()
