"""Results as aligned text for a terminal, a log or a README."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

Cell = str | int | float | None

HISTORY_COLUMNS = {
    "round": "round",
    "registration_train_mpjpe_mm": "registration train",
    "regressor_train_mpjpe_mm": "regressor train",
    "regressor_test_mpjpe_mm": "regressor test",
    "regressor_test_pa_mpjpe_mm": "regressor test PA",
    "lifting_train_mpjpe_mm": "lifting train",
    "lifting_test_mpjpe_mm": "lifting test",
    "seconds": "seconds",
}
"""Fields of a round's entry in history.json that are shown, and their headings."""


def cell_text(cell: Cell) -> str:
    """Return a value as shown in every table: floats with one decimal, None as a dash."""
    if cell is None:
        return "-"
    return f"{cell:.1f}" if isinstance(cell, float | np.floating) else str(cell)


def text_table(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Return rows as aligned columns: numbers to the right with one decimal, text to the left, None as a dash."""
    cells = [[cell_text(cell) for cell in row] for row in rows]
    columns = list(zip(*([list(header)] + cells), strict=True))
    widths = [max(map(len, column)) for column in columns]
    numeric = [all(not isinstance(row[index], str) for row in rows) for index in range(len(header))]
    lines = [list(header), ["-" * width for width in widths], *cells]
    return "\n".join(
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )


def history_table(history: Sequence[Mapping[str, Cell]]) -> str:
    """Return the rounds of history.json as text, MPJPE in mm; a field that an entry lacks shows as a dash."""
    rows = [[entry.get(field) for field in HISTORY_COLUMNS] for entry in history]
    return "MPJPE in mm (17 joints, pelvis aligned, bone-sum scaled; PA: Procrustes)\n" + text_table(
        list(HISTORY_COLUMNS.values()), rows
    )


def mean(values: Float[np.ndarray, " n"]) -> float | None:
    """Return the mean of what is known of a score (the rest is NaN), or None where nothing is."""
    known = values[~np.isnan(values)]
    return float(np.mean(known)) if len(known) else None


def per_action_table(scores: Mapping[str, Float[np.ndarray, " n"]], actions: Sequence[str]) -> str:
    """Return the mean of every score by action, in alphabetical order, with the mean over all examples last.

    Args:
      scores: per-example values by name, as `metrics.human36m_protocol_1` returns them.
      actions: what each example does.
    """
    label = np.asarray(actions, str)
    groups = [(action, label == action) for action in sorted(set(actions))] + [("all", np.ones(len(label), bool))]
    rows = [
        [action, int(chosen.sum()), *(mean(values[chosen]) for values in scores.values())] for action, chosen in groups
    ]
    return text_table(["action", "images", *scores], rows)
