"""Progress with the time that is left: a bar on a terminal, a line every ten seconds in a log file."""

import sys
from collections.abc import Iterable
from typing import TextIO

import tqdm

from dal_jax.runtime import mesh

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
        file=_LineEach(sys.stderr),
        delay=LOG_INTERVAL_S,
        mininterval=LOG_INTERVAL_S,
        bar_format=form,
    )


class _LineEach:
    """A text stream on which each redrawing of a bar becomes a line of its own."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> None:
        if line := text.strip("\r\n "):
            self._stream.write(line + "\n")

    def flush(self) -> None:
        self._stream.flush()
