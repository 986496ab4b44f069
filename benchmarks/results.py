"""Rows that cost minutes each, kept one a file: a killed benchmark goes on with those that are finished."""

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from dal_jax.runtime import files
from dal_jax.runtime.errors import InputError

Row = dict[str, Any]


def kept(path: pathlib.Path, made_of: dict[str, Any], make: Callable[[], Row], overwrite: bool = False) -> Row:
    """Return the row in a file, or make it and write the file.

    Args:
      made_of: what the row depends on, as JSON values; kept beside it.
      overwrite: make it anew where the file's row was made of something else.

    Raises:
      errors.InputError: it was, or the file is no such file; names the first value that differs.
    """
    wanted = json.loads(json.dumps(made_of, allow_nan=False))
    if path.exists():
        found = _read(path)
        if found is not None and found["made_of"] == wanted:
            return found["row"]
        if not overwrite:
            told = "is no kept row" if found is None else _difference(found["made_of"], wanted)
            raise InputError(f"{path}: {told}; --overwrite makes it anew")
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
