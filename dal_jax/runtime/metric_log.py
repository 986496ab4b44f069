"""The numbers of a run as JSON lines: one object a line, `step` first, readable while the run goes on.

A killed run has logged steps that its last checkpoint does not know; they are dropped when it goes on, so a killed and
resumed log reads like an undisturbed one.
"""

import importlib.util
import json
import math
import numbers
import pathlib
from collections.abc import Mapping
from typing import Any

from dal_jax.runtime import door, files
from dal_jax.runtime.errors import InputError
from dal_jax.runtime.files import PathLike


class MetricLog:
    """Append to a `metrics.jsonl`; a context manager. Also feeds TensorBoard where tensorboardX is installed."""

    def __init__(self, path: PathLike, after_step: int | None = None):
        """Open the log to go on after a step.

        Args:
          path: the file; made if missing.
          after_step: the step of the checkpoint the run goes on from: lines of later steps are dropped. None: the run
            starts anew, all lines are dropped.

        Raises:
          InputError: a line (other than a half-written last one) is no JSON object with an integer `step`.
        """
        self._path = pathlib.Path(path)
        files.write_text(self._path, "".join(_lines_to_keep(self._path, -1 if after_step is None else after_step)))
        self._file = self._path.open("a", encoding="utf-8")
        self._board = _tensorboard(self._path.parent / "tensorboard", 0 if after_step is None else after_step + 1)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line and flush it.

        Args:
          step: counts as the checkpoints do.
          values: numbers (Python, NumPy or JAX scalars), strings or None; NaN and infinity become null, which JSON has.
        """
        plain = {name: _plain(value) for name, value in values.items()}
        self._file.write(json.dumps({"step": int(step), **plain}, allow_nan=False) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in plain.items():
                if isinstance(value, numbers.Real):
                    self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> "MetricLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read(path: PathLike) -> list[dict[str, Any]]:
    """Read a log, one dict a line; a half-written last line is left out.

    Raises:
      InputError: another line is no JSON object with an integer `step`.
    """
    path = pathlib.Path(path)
    whole = door.contents(path).split(b"\n")[:-1]
    return [_parse(line, f"{path}: line {number}") for number, line in enumerate(whole, start=1)]


def _lines_to_keep(path: pathlib.Path, last_step: int) -> list[str]:
    if not path.exists():
        return []
    return [json.dumps(entry) + "\n" for entry in read(path) if entry["step"] <= last_step]


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        entry = files.parse_json(line)
    except ValueError as error:
        raise InputError(f"{where}: is no JSON: {error}") from None
    if not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
        raise InputError(f"{where}: is no object with an integer 'step'")
    return entry


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    number = value.item() if hasattr(value, "item") else float(value)
    return number if isinstance(number, int) or math.isfinite(number) else None


def _tensorboard(folder: pathlib.Path, purge_step: int) -> Any:
    if importlib.util.find_spec("tensorboardX") is None:
        return None
    import tensorboardX  # pyright: ignore[reportMissingImports]: used where it is installed

    return tensorboardX.SummaryWriter(str(folder), purge_step=purge_step)
