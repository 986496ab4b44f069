"""What a data set must say of itself to be recorded: its units of work, and the people found in each."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from dal_jax.correspondences import person as person_lib

Example = dict[str, object]
"""One person, a value for each of `schema.features()`."""


class Noted(NamedTuple):
    """Something to count that is no person: a grey photograph, a crowd, a box over the border."""

    kind: str


class Source(Protocol):
    """A data set in its owner's files; it is sent to other processes, so it holds paths and options, not contents.

    name, config: how tensorflow-datasets calls it; an empty config where there is only one.
    description: a sentence or two.
    unit: what a unit of work is called, as in '12.3 photograph/s'.
    units_a_chunk: how many are done and kept together; a killed run loses the chunks that were under way.
    """

    name: str
    config: str
    description: str
    unit: str
    units_a_chunk: int

    def digest(self) -> str:
        """Return a short name of everything the people depend on: input files, options, versions of code."""

    def options(self) -> dict[str, Any]:
        """Return what is worth knowing later, as JSON: kept in the data set's metadata."""

    def splits(self) -> Mapping[str, Sequence[Any]]:
        """Return each split's units of work, in order, the same whenever they are listed; a unit can be pickled.

        Raises:
          errors.InputError: the files are not those of this data set; one line.
        """

    def read(self, unit: Any) -> Iterator[Example | person_lib.Rejected | Noted]:
        """Yield a unit's people, what is wrong with those who are left out, and what else is worth counting.

        The same whenever and in whatever process it is read.
        """
