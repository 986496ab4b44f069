"""How many people were recorded and how many were not, by kind."""

import collections
import dataclasses
from collections.abc import Iterable
from typing import Any

from dal_jax.correspondences import person as person_lib
from dal_jax.data.recording import source as source_lib


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


def count(split: str, items: Iterable[source_lib.Example | person_lib.Rejected | source_lib.Noted]) -> Summary:
    """Count what a source has yielded."""
    prepared, first = 0, {}
    skipped, noted = collections.Counter(), collections.Counter()
    for item in items:
        if isinstance(item, person_lib.Rejected):
            skipped[item.kind] += 1
            first.setdefault(item.kind, item.message)
        elif isinstance(item, source_lib.Noted):
            noted[item.kind] += 1
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
