"""A data set in its owner's files: its units of work, the people in each, and their counts."""

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from dal_jax.observations.person import Rejected
from dal_jax.runtime.errors import InputError

Example = dict[str, object]
"""One person, a value for each of `schema.features()`."""

Item = Example | Rejected | str
"""A person, a rejected one, or the kind of something else to count: a grey photograph, a box over the border."""


class Source(Protocol):
    """A data set in its owner's files; it is sent to other processes, so it holds paths and options, not contents."""

    @property
    def name(self) -> str:
        """How tensorflow-datasets calls it."""
        ...

    @property
    def config(self) -> str:
        """Which of its configurations it is; empty where there is only one."""
        ...

    @property
    def description(self) -> str:
        """A sentence or two."""
        ...

    @property
    def unit(self) -> str:
        """What a unit of work is called, as in '12.3 photograph/s'."""
        ...

    @property
    def units_a_chunk(self) -> int:
        """How many units are read and kept together; a killed run loses the chunks that were under way."""
        ...

    def digest(self) -> str:
        """Return a short name of everything the people depend on: input files, options, versions of code."""
        ...

    def options(self) -> dict[str, Any]:
        """Return what is worth knowing later, as JSON: kept in the data set's metadata."""
        ...

    def splits(self) -> Mapping[str, Sequence[Any]]:
        """Return each split's units of work, in order, the same whenever they are listed; a unit can be pickled.

        Raises:
          errors.InputError: the files are not those of this data set; one line.
        """
        ...

    def read(self, unit: Any) -> Iterator[Item]:
        """Yield a unit's people, what is wrong with those who are left out, and what else is worth counting.

        The same whenever and in whatever process it is read.
        """
        ...


def check_choices(dataset: str, choices: Iterable[str], known: Iterable[str]) -> None:
    """Refuse options that a data set does not have, by an `errors.InputError` that names the flag."""
    for name in choices:
        if name not in known:
            raise InputError(f"--{name}: --dataset={dataset} has no such choice")


# --- How many people were prepared, and how many were left out, by kind ---


@dataclasses.dataclass(frozen=True)
class Summary:
    """Counts over a data set, or a part of it.

    prepared: people by split. skipped: rejected ones by kind. noted: other things by kind.
    first: one whole line for each kind that was skipped.
    """

    prepared: dict[str, int]
    skipped: dict[str, int]
    noted: dict[str, int]
    first: dict[str, str]

    def __str__(self) -> str:
        """Return one line: `prepared 1234, skipped 17: 9 without points, 8 box outside; noted 2 grey picture`."""
        line = f"prepared {sum(self.prepared.values())}, skipped {sum(self.skipped.values())}"
        if self.skipped:
            line += ": " + _listed(self.skipped)
        if self.noted:
            line += "; noted " + _listed(self.noted)
        return line

    def to_json(self) -> dict[str, Any]:
        """Return the counts for the data set's metadata; the lines, which name places, are left out."""
        return {name: dict(sorted(getattr(self, name).items())) for name in ("prepared", "skipped", "noted")}


def from_json(counts: dict[str, Any]) -> Summary:
    """Return the summary that `to_json` was made of, without its lines."""
    return Summary(counts["prepared"], counts["skipped"], counts["noted"], {})


def count(split: str, items: Iterable[Item]) -> Summary:
    """Count what a source has yielded."""
    prepared, first = 0, {}
    skipped, noted = collections.Counter(), collections.Counter()
    for item in items:
        if isinstance(item, Rejected):
            skipped[item.kind] += 1
            first.setdefault(item.kind, item.message)
        elif isinstance(item, str):
            noted[item] += 1
        else:
            prepared += 1
    return Summary({split: prepared}, dict(skipped), dict(noted), first)


def total(parts: Iterable[Summary]) -> Summary:
    """Add the counts of parts; of the lines the first of each kind stays."""
    prepared, skipped, noted = collections.Counter(), collections.Counter(), collections.Counter()
    first: dict[str, str] = {}
    for part in parts:
        prepared.update(part.prepared)
        skipped.update(part.skipped)
        noted.update(part.noted)
        first = part.first | first
    return Summary(dict(prepared), dict(skipped), dict(noted), first)


def _listed(counts: dict[str, int]) -> str:
    """List kinds, the most frequent first."""
    return ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items(), key=lambda one: (-one[1], one[0])))
