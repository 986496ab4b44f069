"""Examples in one .npz file: features stacked, those whose length varies laid end to end; and their counts."""

import dataclasses
import json
import pathlib
from collections.abc import Iterator

import numpy as np

from dal_jax.data import schema
from dal_jax.data.recording import source as source_lib, summary as summary_lib
from dal_jax.runtime import atomic

_ENDS = "__ends"
_COUNTS = "__counts"


def write(path: pathlib.Path, examples: list[source_lib.Example], counts: summary_lib.Summary) -> None:
    """Write a file that is whole or absent.

    Raises:
      ValueError: an example lacks a feature of the schema or has one of its own.
    """
    text = json.dumps(dataclasses.asdict(counts))
    atomic.savez(path, **_pack(examples), **{_COUNTS: np.frombuffer(text.encode(), np.uint8)})


def read(path: pathlib.Path) -> Iterator[source_lib.Example]:
    """Yield a file's examples."""
    with np.load(path, allow_pickle=False) as archive:
        packed = {name: archive[name] for name in archive.files if name != _COUNTS}
    columns = {}
    for name in (key for key in packed if not key.endswith(_ENDS)):
        values = packed[name]
        ends = packed.get(name + _ENDS)
        if ends is None:
            columns[name] = values
            continue
        pieces = np.split(values, ends[:-1])
        columns[name] = [piece.tobytes() for piece in pieces] if schema.is_bytes(name) else pieces
    for row in range(len(columns.get("name", ()))):
        yield {name: _plain(values[row]) for name, values in columns.items()}


def read_counts(path: pathlib.Path) -> summary_lib.Summary:
    """Return a file's counts, without reading its examples."""
    with np.load(path, allow_pickle=False) as archive:
        return summary_lib.Summary(**json.loads(archive[_COUNTS].tobytes()))


def _pack(examples: list[source_lib.Example]) -> dict[str, np.ndarray]:
    packed, names = {}, schema.features().keys()
    for one in examples:
        if different := one.keys() ^ names:
            raise ValueError(f"the example and the schema differ in '{min(different)}'")
    for name in names if examples else ():
        values = [one[name] for one in examples]
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
