"""Curves: Fig. 2 of the paper for this run, and the losses behind it. Drawn into PNG bytes, without a display."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import figure, ticker

FIGURE_2 = (
    # field of history.json, label, colour, line width: the paper's three curves, and one more, thin
    ("regressor_test_mpjpe_mm", "ConvNet, test people", "#1f6fd0", 2.6),
    ("lifting_test_mpjpe_mm", "cGAN, test people", "#f07f13", 2.6),
    ("registration_train_mpjpe_mm", "registration, training people", "#7a7a7a", 2.6),
    ("regressor_train_mpjpe_mm", "ConvNet, training people", "#1f6fd0", 1.0),
)


def plot_history(history: Sequence[Mapping[str, float | int | None]]) -> bytes:
    """Return Fig. 2 of the paper for this run: MPJPE against the round, as PNG.

    A field that is null everywhere (no truth) has no curve; single gaps interrupt theirs.
    """
    picture, axes = _axes("round", "MPJPE [mm]")
    rounds = [entry["round"] for entry in history]
    for field, label, colour, width in FIGURE_2:
        values = np.array([_number(entry.get(field)) for entry in history])
        if not np.isfinite(values).any():
            continue
        style = "o-" if width > 1.5 else "o--"
        axes.plot(rounds, values, style, label=label, color=colour, linewidth=width, markersize=2.0 + 1.5 * width)
        last = np.flatnonzero(np.isfinite(values))[-1]
        axes.annotate(
            f"{values[last]:.0f}", (rounds[last], values[last]), (8, 0), textcoords="offset points",
            va="center", color=colour, fontsize=9,
        )  # fmt: skip
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.margins(x=0.08)
    _from_zero(axes)
    _legend(axes)
    return _png(picture)


def plot_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], x_label: str, y_label: str, logarithmic: bool = False
) -> bytes:
    """Return named curves, each (x, y), in one plot as PNG: losses against steps, for instance."""
    picture, axes = _axes(x_label, y_label)
    for name, (x, y) in curves.items():
        # A name that begins with an underscore would be left out of the legend.
        axes.plot(x, y, label=name.lstrip("_"), linewidth=1.4, marker="o" if len(x) == 1 else None)
    if logarithmic:
        axes.set_yscale("log")
    _legend(axes)
    return _png(picture)


def _axes(x_label: str, y_label: str):
    picture = figure.Figure(figsize=(7.2, 4.4), dpi=120, layout="constrained")
    axes = picture.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(axis="y", color="#e4e4e4")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return picture, axes


def _from_zero(axes) -> None:
    """Let the errors start at 0: cut off, a fall of a tenth would look like one of a half."""
    axes.set_ylim(0.0, axes.get_ylim()[1] * 1.05)


def _legend(axes) -> None:
    if axes.get_legend_handles_labels()[1]:
        axes.figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)


def _number(value: float | int | None) -> float:
    return np.nan if value is None else float(value)


def _png(picture: figure.Figure) -> bytes:
    buffer = io.BytesIO()
    # Metadata off: the same numbers give the same bytes.
    picture.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
