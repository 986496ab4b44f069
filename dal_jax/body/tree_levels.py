"""The kinematic tree by levels: all nodes of a depth are handled together. Static Python: no array decides here."""

import functools


@functools.cache
def levels(parents: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Return the nodes of each depth, the root first."""
    depth = [0] * len(parents)
    for node in range(1, len(parents)):
        depth[node] = depth[parents[node]] + 1
    return tuple(tuple(n for n in range(len(parents)) if depth[n] == d) for d in range(max(depth) + 1))


def parent_rows(parents: tuple[int, ...], by_level: tuple[tuple[int, ...], ...], depth: int) -> list[int]:
    """Return for each node of a level the row of its parent in the level above."""
    return [by_level[depth - 1].index(parents[node]) for node in by_level[depth]]


def children_rows(parents: tuple[int, ...], by_level: tuple[tuple[int, ...], ...], depth: int) -> list[list[int]]:
    """Return for each node of the level above `depth` the rows of its children in the level `depth`."""
    return [
        [row for row, node in enumerate(by_level[depth]) if parents[node] == parent] for parent in by_level[depth - 1]
    ]
