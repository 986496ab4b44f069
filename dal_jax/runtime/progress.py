"""What a long run tells while it goes on: on the screen how much is left, in a file its numbers.

bar        a bar on a terminal, a line every ten seconds in a log file
MetricLog  `metrics.jsonl`: one object a line, `step` first
"""

import importlib.util
import json
import math
import numbers
import pathlib
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

import tqdm

from dal_jax.runtime import door, files, mesh
from dal_jax.runtime.errors import InputError
from dal_jax.runtime.files import PathLike

LOG_INTERVAL_S = 10.0


def bar(
    title: str, iterable: Iterable | None = None, total: int | None = None, unit: str = "it", shown: bool = True
) -> tqdm.tqdm:
    """Make a tqdm bar on stderr, to iterate over or to update, as in `with progress.bar("fit", total=9) as shown`.

    Work that ends sooner than the first update (a second on a terminal, ten in a log) shows nothing.

    Args:
      title: what is being done, a few words.
      iterable: wrapped, if given.
      total: number of units, if the iterable has no length.
      unit: the name of one unit, as in '12.3 image/s'.
      shown: False shows nothing; nor do processes other than the first.
    """
    if not (shown and mesh.is_first()):
        return tqdm.tqdm(iterable, total=total, disable=True)
    if sys.stderr.isatty():
        return tqdm.tqdm(iterable, title, total, unit=unit, delay=1.0, dynamic_ncols=True, leave=False)
    form = "{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
    return tqdm.tqdm(
        iterable,
        title,
        total,
        unit=unit,
        file=_line_each(sys.stderr),
        delay=LOG_INTERVAL_S,
        mininterval=LOG_INTERVAL_S,
        bar_format=form,
    )


def _line_each(stream: TextIO) -> Any:
    """Return a text stream on which each redrawing of a bar becomes a line of its own."""

    def write(text: str) -> None:
        if line := text.strip("\r\n "):
            stream.write(line + "\n")

    return types.SimpleNamespace(write=write, flush=stream.flush)


class MetricLog:
    """Append to a `metrics.jsonl`; a context manager. Also feeds TensorBoard where tensorboardX is installed.

    A killed run has logged steps that its last checkpoint does not know; they are dropped when it goes on, so a killed
    and resumed log reads like an undisturbed one.
    """

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


def read_metrics(path: PathLike) -> list[dict[str, Any]]:
    """Read a `metrics.jsonl`, one dict a line; a half-written last line is left out.

    Raises:
      InputError: another line is no JSON object with an integer `step`.
    """
    path = pathlib.Path(path)
    whole = door.contents(path).split(b"\n")[:-1]
    return [_parse(line, f"{path}: line {number}") for number, line in enumerate(whole, start=1)]


def _lines_to_keep(path: pathlib.Path, last_step: int) -> list[str]:
    if not path.exists():
        return []
    return [json.dumps(entry) + "\n" for entry in read_metrics(path) if entry["step"] <= last_step]


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
