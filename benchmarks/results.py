"""Rows of results: printed and written as JSON; those that cost minutes stored one a file, for a killed benchmark."""

import hashlib
import json
import math
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from dal_jax.runtime import files
from dal_jax.runtime.errors import InputError

Row = dict[str, Any]


def check_out(out: str | None, overwrite: bool) -> None:
    """Refuse the file of --out where it exists, unless `overwrite`.

    Raises:
      errors.InputError: it exists.
    """
    if out and pathlib.Path(out).exists() and not overwrite:
        raise InputError(f"--out={out} exists; --overwrite replaces it")


def seeds(texts: list[str]) -> list[int]:
    """Return the seeds of --seeds.

    Raises:
      errors.InputError: they are not different whole numbers.
    """
    if not texts or not all(text.isdecimal() for text in texts) or len(set(texts)) < len(texts):
        raise InputError(f"--seeds={','.join(texts)}: different whole numbers, as in --seeds=0,1,2")
    return [int(text) for text in texts]


def names(flag: str, texts: list[str], known: Sequence[str]) -> list[str]:
    """Return the names that a flag lists.

    Raises:
      errors.InputError: there are none, or one is not known.
    """
    if not texts or not set(texts) <= set(known):
        raise InputError(f"--{flag}={','.join(texts)}: of {', '.join(known)}")
    return texts


def emit(rows: Iterable[Row], out: str | None) -> None:
    """Print each row as one JSON object a line, as soon as it is there; at the end write them all as one list."""
    printed = []
    for row in rows:
        printed.append(plain(row))
        print(json.dumps(printed[-1], allow_nan=False), flush=True)
    if out:
        files.write_json(out, printed)


def plain(row: Row) -> Row:
    """Make strict JSON of a row: six digits, and null for what is not finite."""
    return {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    if not isinstance(value, float | np.floating):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


def kept(path: pathlib.Path, settings: dict[str, Any], make: Callable[[], Row], overwrite: bool = False) -> Row:
    """Return the row in a file, or make it and write the file.

    Args:
      path: the file; its folder is made if missing.
      settings: everything the row depends on, as JSON values; stored beside it.
      make: measures the row.
      overwrite: replace a row that was made with other settings.

    Raises:
      errors.InputError: the row was made with other settings (names the first value that differs), or the file is
        damaged.
    """
    wanted = json.loads(json.dumps(settings, allow_nan=False))
    if path.exists():
        found = _read(path)
        if found is not None and found["made_of"] == wanted:
            return found["row"]
        if not overwrite:
            message = "is no kept row" if found is None else _difference(found["made_of"], wanted)
            raise InputError(f"{path}: {message}; --overwrite makes it anew")
    row = make()
    files.write_json(path, {"made_of": wanted, "row": row})
    return row


def digest(tree: Any) -> str:
    """Return a name for the content of a pytree of arrays, to say what a row depends on."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        found.update(f"{leaf.dtype}{leaf.shape}".encode())
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()


def _read(path: pathlib.Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None
    whole = isinstance(content, dict) and all(isinstance(content.get(name), dict) for name in ("made_of", "row"))
    return content if whole else None


def _difference(found: dict[str, Any], wanted: dict[str, Any], group: str = "") -> str:
    key = next(key for key in sorted(found.keys() | wanted.keys()) if found.get(key) != wanted.get(key))
    one, other = found.get(key), wanted.get(key)
    if isinstance(one, dict) and isinstance(other, dict):
        return _difference(one, other, f"{group}{key}.")
    return f"was made with {group}{key}={one}, not {other}"
