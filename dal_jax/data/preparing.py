"""Prepare a data set once, as array_record files: in parallel, resumable, counted; and open it again.

The units of a source (`data.schema.Source`) are read in chunks by parallel processes. A chunk is an .npz file in
DATA_DIR/.partial that is whole or absent, so that a killed run loses only the chunks that were under way.
tensorflow-datasets then writes the examples of all chunks in order, always the same bytes; TensorFlow itself is never
imported.
"""

import contextlib
import dataclasses
import functools
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from concurrent.futures import process
from typing import Any, NamedTuple

import numpy as np

from dal_jax.data import schema
from dal_jax.data.people import COLUMNS, COLUMNS_NEEDED, Columns, write_columns
from dal_jax.data.schema import DatasetBuilder, Example, Source, Summary, count, from_json, total
from dal_jax.observations.person import Rejected
from dal_jax.runtime import door, files, machine, progress
from dal_jax.runtime.errors import InputError, damage_named, needs_extra

PathLike = str | os.PathLike[str]
_FEW = 50  # units, people or photographs, that one process has read before others have started
_ENDS = "__ends"
_COUNTS = "__counts"


def prepare(source: Source, data_dir: PathLike, workers: int | None = None) -> tuple[DatasetBuilder, Summary]:
    """Return a data set that is on disk, and its counts; prepared first if it is not; a killed run is resumed.

    Args:
      source: the data set in its owner's files.
      data_dir: folder of data sets.
      workers: processes that read, 0: this process alone; by default one a core, but none for a few people.

    Raises:
      errors.InputError: the source's files are not what they must be, none of a split's people can be used, or the
        folder holds a data set of this name made differently.
    """
    builder_class = _builder_class()  # first: what is not installed is told before the work
    if _is_prepared(_folder(source.name, source.config, data_dir)):
        return load(source.name, source.config, data_dir, source.digest())
    partial = pathlib.Path(data_dir) / ".partial" / source.name / f"{source.config or 'all'}-{source.digest()}"
    work = _cut(source, partial)
    _prepare_chunks(work, workers)
    summary = total(_read_counts(chunk.path) for chunk in work)
    _refuse_empty_splits(source, summary)
    examples = {split: _examples_of(split, work) for split in summary.prepared}
    pieces = {split: functools.partial(_pieces_of, split, work) for split in summary.prepared}
    write_columns(partial / COLUMNS, pieces, summary.prepared)
    with _quiet_tfds():
        made = builder_class(source, os.fspath(data_dir), examples, summary.to_json())
        made.download_and_prepare(file_format="array_record")
    os.replace(partial / COLUMNS, _folder(source.name, source.config, data_dir) / COLUMNS)
    shutil.rmtree(partial, ignore_errors=True)
    builder, _ = load(source.name, source.config, data_dir)
    return builder, summary


def load(name: str, config: str, data_dir: PathLike, digest: str | None = None) -> tuple[DatasetBuilder, Summary]:
    """Return a data set that has been prepared, and its counts.

    Args:
      name, config: as `Source` has them.
      data_dir: folder of data sets.
      digest: refuse a data set that was made from input of another digest.

    Raises:
      errors.InputError: it has not been prepared, or from other input.
    """
    folder = _folder(name, config, data_dir)
    if not _is_prepared(folder):
        raise InputError(f"{folder}: no data set there; run experiments.prepare_data first")
    with needs_extra("data"):
        import tensorflow_datasets as tfds
    with damage_named(folder, "data set", "; remove that folder, and the same command makes it again"):
        builder = tfds.builder_from_directory(folder)
        metadata: Any = builder.info.metadata
        made, summary = metadata["digest"], from_json(metadata["summary"])
    if digest not in (None, made):
        raise InputError(
            f"{folder}: made from other files or with other options ({made}, now {digest}); remove that folder, or "
            "name another --data_dir"
        )
    return builder, summary


class Chunk(NamedTuple):
    """Some consecutive units of a split, and the file that their people are kept in."""

    source: Source
    split: str
    units: Sequence[Any]
    path: pathlib.Path


def _examples_of(split: str, work: list[Chunk]) -> Iterator[Example]:
    for chunk in work:
        if chunk.split == split:
            yield from read_chunk(chunk.path)


def _pieces_of(split: str, work: list[Chunk]) -> Iterator[Columns]:
    parts = (_read(chunk.path, COLUMNS_NEEDED) for chunk in work if chunk.split == split)
    return filter(None, parts)  # of a chunk without people there are none


def _cut(source: Source, folder: pathlib.Path) -> list[Chunk]:
    """Return the chunks of all splits, in order."""
    size = source.units_a_chunk
    return [
        Chunk(source, split, units[start : start + size], folder / f"{split}-{start:08d}.npz")
        for split, units in source.splits().items()
        for start in range(0, len(units), size)
    ]


def _prepare_chunks(work: list[Chunk], workers: int | None = None) -> None:
    """Make the chunks that are not there yet; workers: as of `prepare`."""
    missing = [chunk for chunk in work if not chunk.path.exists()]
    if not missing:
        return
    total = sum(len(chunk.units) for chunk in work)
    done = total - sum(len(chunk.units) for chunk in missing)
    source = work[0].source
    if workers is None:
        small = source.units_a_chunk > 1  # else a unit is a recording, minutes of work
        workers = 0 if small and total - done <= _FEW else machine.cores()
    workers = min(workers, len(missing))
    with progress.bar(f"preparing {source.name}", total=total, unit=source.unit) as bar:
        bar.update(done)
        if not workers:
            for chunk in missing:
                bar.update(prepare_chunk(chunk))
            return
        # Processes are spawned, not forked: JAX has threads of its own, which a fork would break.
        context = multiprocessing.get_context("spawn")
        with _one_thread_each(), futures.ProcessPoolExecutor(workers, context, _leave_ctrl_c_to_the_parent) as pool:
            tasks = [pool.submit(prepare_chunk, chunk) for chunk in missing]
            try:
                for task in futures.as_completed(tasks):
                    bar.update(task.result())
            except process.BrokenProcessPool:
                why = "a process that read it was killed, perhaps for want of memory; the same command goes on"
                raise InputError(f"{source.name}: {why}") from None
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # what has begun is finished and kept
                raise


def prepare_chunk(chunk: Chunk) -> int:
    """Read one chunk's units and write their people; return how many units."""
    items = [item for unit in chunk.units for item in chunk.source.read(unit)]
    examples = [item for item in items if not isinstance(item, Rejected | str)]
    write_chunk(chunk.path, examples, count(chunk.split, items))
    return len(chunk.units)


def _leave_ctrl_c_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent: Any = multiprocessing.parent_process()
    parent.join()
    os._exit(1)  # killed: nobody takes what this process makes, and its queue would wait for ever


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Start new processes with one thread for linear algebra: the processes are the parallelism."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


# --- A chunk on disk ---


def write_chunk(path: pathlib.Path, examples: list[Example], counts: Summary) -> None:
    """Write examples and counts to one .npz that is whole or absent: features stacked, ragged ones laid end to end.

    Raises:
      ValueError: an example lacks a feature of the schema or has one of its own.
    """
    text = json.dumps(dataclasses.asdict(counts))
    files.savez(path, **_pack(examples), **{_COUNTS: np.frombuffer(text.encode(), np.uint8)})


def read_chunk(path: pathlib.Path) -> Iterator[Example]:
    """Yield a file's examples."""
    packed = {name: values for name, values in _read(path).items() if name != _COUNTS}
    stacked = {}
    for name in (key for key in packed if not key.endswith(_ENDS)):
        values = packed[name]
        ends = packed.get(name + _ENDS)
        if ends is None:
            stacked[name] = values
            continue
        pieces = np.split(values, ends[:-1])
        stacked[name] = [piece.tobytes() for piece in pieces] if schema.is_bytes(name) else pieces
    for row in range(len(stacked.get("name", ()))):
        yield {name: _plain(values[row]) for name, values in stacked.items()}


def _read_counts(path: pathlib.Path) -> Summary:
    """Return a file's counts, without reading its examples."""
    with damage_named(path, "part of a data set", _AGAIN):
        return Summary(**json.loads(_read(path, (_COUNTS,))[_COUNTS].tobytes()))


_AGAIN = "; remove that file, and the same command makes it again"


def _read(path: pathlib.Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    try:
        return door.read_npz(path, names)
    except InputError as error:
        raise InputError(f"{error}{_AGAIN}") from error


def _pack(examples: list[Example]) -> dict[str, np.ndarray]:
    packed, names = {}, schema.features().keys()
    for one in examples:
        if different := one.keys() ^ names:
            raise ValueError(f"the example and the schema differ in '{min(different)}'")
    for name in names if examples else ():
        values: list[Any] = [one[name] for one in examples]
        if schema.is_bytes(name):
            values = [np.frombuffer(value, np.uint8) for value in values]
        if schema.is_ragged(name):
            packed[name] = np.concatenate(values)
            packed[name + _ENDS] = np.cumsum([len(value) for value in values])
        else:
            packed[name] = np.stack(values)
    return packed


def _plain(value: object) -> object:
    return str(value) if isinstance(value, np.str_) else value


def _folder(name: str, config: str, data_dir: PathLike) -> pathlib.Path:
    return pathlib.Path(data_dir) / name / config / schema.VERSION


def _is_prepared(folder: pathlib.Path) -> bool:
    return (folder / COLUMNS).exists()


def _refuse_empty_splits(source: Source, summary: Summary) -> None:
    for split, people in summary.prepared.items():
        if not people:
            why = f": {next(iter(summary.first.values()))}" if summary.first else ""
            raise InputError(f"{source.name}: no person of '{split}' can be used ({summary}){why}")


# --- Examples to array_record files, by tensorflow-datasets, which is loaded where it is needed and not before ---


@functools.cache
def _builder_class() -> Any:
    """Return the class that writes a source's examples: the same examples, the same bytes.

    Its arguments are the source, the folder of data sets, the examples of each split in order, and their summary as
    JSON. What is read later needs no code of the source.
    """
    with needs_extra("data"):
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core import writer
        from tensorflow_datasets.proto import tf_example_pb2

    class ArrayRecordBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        # TFDS would look it up through importlib_resources, which it does not require
        code_path: Any = pathlib.Path(__file__)
        VERSION = tfds.core.Version(schema.VERSION)

        def __init__(self, source: Source, data_dir: str, examples: Mapping[str, Iterable[Example]], summary: Any):
            self.name: str = source.name  # pyright: ignore[reportAttributeAccessIssue]: the attribute has no setter
            self._source, self._examples, self._summary = source, examples, summary
            config = tfds.core.BuilderConfig(name=source.config) if source.config else None
            super().__init__(config=config, data_dir=data_dir, file_format="array_record")

        def _info(self) -> tfds.core.DatasetInfo:
            return tfds.core.DatasetInfo(
                builder=self,
                description=self._source.description,
                features=schema.features(),
                disable_shuffling=True,  # the order means something: prefixes, tracks; training shuffles itself
                metadata=tfds.core.MetadataDict(
                    digest=self._source.digest(), options=self._source.options(), summary=self._summary
                ),
            )

        def _example_writer(self) -> writer.ExampleWriter:
            file_format: Any = self.info.file_format
            return SameBytesWriter(file_format)

        def _split_generators(self, _: tfds.download.DownloadManager) -> dict[str, Iterator]:
            return {split: self._generate_examples(split) for split in self._examples}

        def _generate_examples(self, split: str) -> Iterator[tuple[int, Example]]:
            yield from enumerate(self._examples[split])

    class SameBytesWriter(writer.ExampleWriter):
        """Writes an example's features in order of their names; protobuf's own order is another in every process."""

        def write(self, path: PathLike, examples: Iterable[tuple[object, bytes]]) -> object:
            ordered: Any = ((key, in_order(example)) for key, example in examples)
            return super().write(path, ordered)

    def in_order(example: bytes) -> bytes:
        return tf_example_pb2.Example.FromString(  # pyright: ignore[reportAttributeAccessIssue]: made at run time
            example
        ).SerializeToString(deterministic=True)

    return ArrayRecordBuilder


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """Keep TFDS from printing: our own bar has shown the work."""
    import tensorflow_datasets as tfds  # there, or `_builder_class` would have said so

    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(None):
            yield
    finally:
        tfds.enable_progress_bar()
