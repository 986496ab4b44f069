"""A folder of results that appears whole: made in a hidden folder beside them, which a killed command goes on with."""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

from dal_jax.runtime import atomic, errors

_UNFINISHED = ".unfinished"
_RUN = "run.json"


def refuse_taken(out: atomic.PathLike, names: Sequence[str], overwrite: bool) -> None:
    """Refuse a folder for results that is a file, or that holds one of `names` already.

    Raises:
      errors.InputError: names what is in the way.
    """
    out = pathlib.Path(out)
    if out.exists() and not out.is_dir():
        raise errors.InputError(f"--out={out}: exists and is no folder")
    taken = [name for name in names if (out / name).exists()]
    if taken and not overwrite:
        raise errors.InputError(f"{out / taken[-1]} exists; --overwrite replaces it")


def is_unfinished(out: atomic.PathLike) -> bool:
    """Return whether a killed run has left something in a folder to go on with."""
    return (pathlib.Path(out) / _UNFINISHED / _RUN).exists()


@contextlib.contextmanager
def making(out: atomic.PathLike, names: Sequence[str], run: dict[str, Any], overwrite: bool) -> Iterator[pathlib.Path]:
    """Yield a folder to make results in; they move to `out` when the block ends.

    The folder is empty, or what the same run has left there that was killed before the end. Old results stay until the
    new ones are whole. Bad input leaves nothing behind.

    Args:
      names: of the results (files and folders), the last one stands for the whole.
      run: what the results depend on, as JSON values; another value is another run.
      overwrite: start anew whatever is there.
    Raises:
      errors.InputError: results are there, or the unfinished ones of another run; names the first value that differs.
    """
    building = _opened(pathlib.Path(out), names, run, overwrite)
    try:
        yield building
    except errors.InputError:
        shutil.rmtree(building)
        if not any(pathlib.Path(out).iterdir()):
            pathlib.Path(out).rmdir()
        raise
    publish(building, out, names)
    shutil.rmtree(building)


def _opened(out: pathlib.Path, names: Sequence[str], run: dict[str, Any], overwrite: bool) -> pathlib.Path:
    building = out / _UNFINISHED
    if overwrite and building.exists():
        shutil.rmtree(building)
    if not is_unfinished(out):
        refuse_taken(out, names, overwrite)
        shutil.rmtree(building, ignore_errors=True)  # killed before it knew what it was
        atomic.write_json(building / _RUN, run)
        return building
    found, wanted = _read(building / _RUN), json.loads(json.dumps(run))
    for key in sorted(found.keys() | wanted.keys()):
        if found.get(key) != wanted.get(key):
            raise errors.InputError(
                f"{building}: holds an unfinished run with {key}={found.get(key)}, not {wanted.get(key)}; "
                "--overwrite starts anew"
            )
    return building


def publish(building: pathlib.Path, out: atomic.PathLike, names: Sequence[str]) -> None:
    """Move results into place, the last of `names` last; what an earlier run left there of the same kind goes first."""
    out = pathlib.Path(out)
    for name in reversed(names):
        if (out / name).is_dir():
            shutil.rmtree(out / name)
        else:
            (out / name).unlink(missing_ok=True)
    for name in names:
        if (building / name).exists():
            os.replace(building / name, out / name)


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise errors.InputError(f"{path}: is no JSON object; --overwrite starts anew")
    return content
