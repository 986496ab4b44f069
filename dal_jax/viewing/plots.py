"""Plots without a display: error and loss curves (Fig. 2 of the paper) as PNG, 3D poses as stick figures."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
import PIL.Image
import PIL.ImageDraw
from jaxtyping import Bool, Float, UInt8

from dal_jax.body import skeleton
from dal_jax.runtime.errors import needs_extra

VIEWS_DEG = (0.0, 45.0, 90.0, 180.0)
"""Rotations about the vertical of a sheet's figures: as seen, half from the side, from the side, from behind."""

FIGURE_2 = (
    # field of history.json, label, colour, line width: the paper's three curves, and one more, thin
    ("regressor_test_mpjpe_mm", "regressor, test people", "#1f6fd0", 2.6),
    ("lifting_test_mpjpe_mm", "lifter, test people", "#f07f13", 2.6),
    ("registration_train_mpjpe_mm", "registration, training people", "#7a7a7a", 2.6),
    ("regressor_train_mpjpe_mm", "regressor, training people", "#1f6fd0", 1.0),
)
_RIGHT, _LEFT, _MIDDLE = (214, 69, 47), (31, 111, 208), (40, 40, 40)
_FLAG, _PAPER, _LINE = (255, 176, 0), (255, 255, 255), (225, 225, 225)
_SUPERSAMPLE = 3
_MARGIN = 0.12  # of a cell, on each side


def plot_history(*histories: Sequence[Mapping[str, float | int | None]]) -> bytes:
    """Return Fig. 2 of the paper for a run: MPJPE against the round, as PNG.

    A field that is null everywhere (no truth) has no curve; a single null interrupts its curve.

    Args:
      histories: entries of history.json; of several runs of equal length the means are drawn, in a band from the
        lowest to the highest.
    """
    picture, axes = _axes("round", "MPJPE [mm]")
    rounds = [_number(entry["round"]) for entry in histories[0]]
    for field, label, colour, width in FIGURE_2:
        values = np.array([[_number(entry.get(field)) for entry in history] for history in histories])
        mean = values.mean(axis=0)
        if not np.isfinite(mean).any():
            continue
        style = "o-" if width > 1.5 else "o--"
        axes.plot(rounds, mean, style, label=label, color=colour, linewidth=width, markersize=2.0 + 1.5 * width)
        if len(histories) > 1:
            axes.fill_between(rounds, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, linewidth=0)
        last = np.flatnonzero(np.isfinite(mean))[-1]
        axes.annotate(
            f"{mean[last]:.0f}", (rounds[last], mean[last]), (8, 0), textcoords="offset points",
            va="center", color=colour, fontsize=9,
        )  # fmt: skip
    axes.locator_params(axis="x", integer=True)
    axes.margins(x=0.08)
    _from_zero(axes)
    _legend(axes)
    return _png(picture)


def plot_curves(
    curves: Mapping[str, tuple[Sequence[float | int], Sequence[float | int]]],
    x_label: str,
    y_label: str,
    logarithmic: bool = False,
) -> bytes:
    """Return named curves, each (x, y), in one plot as PNG: losses against steps, for instance.

    Args:
      curves: by name; x and y of equal length.
      x_label: with the unit.
      y_label: with the unit.
      logarithmic: of the y axis.
    """
    picture, axes = _axes(x_label, y_label)
    for name, (x, y) in curves.items():
        # A name that begins with an underscore would be left out of the legend.
        axes.plot(x, y, label=name.lstrip("_"), linewidth=1.4, marker="o" if len(x) == 1 else None)
    if logarithmic:
        axes.set_yscale("log")
    _legend(axes)
    return _png(picture)


def _axes(x_label: str, y_label: str):
    with needs_extra("viewing"):
        from matplotlib import figure
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


def _png(picture) -> bytes:
    buffer = io.BytesIO()
    # Metadata off: the same numbers give the same bytes.
    picture.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def sheet(
    joints: Float[np.ndarray, "n 17 3"],
    labels: Sequence[str] = (),
    flagged: Bool[np.ndarray, "n 17"] | None = None,
    cell_px: int = 120,
    poses_a_row: int = 3,
) -> UInt8[np.ndarray, "h w 3"]:
    """Return a contact sheet: each pose from the `VIEWS_DEG`, right limbs red, left ones blue, flagged joints ringed.

    Args:
      joints: x right, y down, z away from the camera, any unit; each pose is drawn as large as it fits.
      labels: written into each pose's first cell.
      flagged: joints to ring.
      cell_px: side of one view.
      poses_a_row: each takes as many cells as there are views.
    """
    rows = -(-len(joints) // poses_a_row)
    width = cell_px * len(VIEWS_DEG) * poses_a_row
    picture = PIL.Image.new("RGB", (max(width, 1), max(rows * cell_px, 1)), _PAPER)
    for number, pose in enumerate(joints):
        row, column = divmod(number, poses_a_row)
        rings = np.zeros(17, bool) if flagged is None else flagged[number]
        for place, angle in enumerate(VIEWS_DEG):
            cell = _figure(pose, np.radians(angle), rings, cell_px)
            picture.paste(cell, ((column * len(VIEWS_DEG) + place) * cell_px, row * cell_px))
        corner = (column * len(VIEWS_DEG) * cell_px, row * cell_px)
        draw = PIL.ImageDraw.Draw(picture)
        draw.rectangle((*corner, corner[0] + len(VIEWS_DEG) * cell_px - 1, corner[1] + cell_px - 1), outline=_LINE)
        if number < len(labels):
            draw.text((corner[0] + 4, corner[1] + 2), labels[number], fill=_MIDDLE)
    return np.asarray(picture)


def turntable(
    joints: Float[np.ndarray, "n 17 3"],
    frames: int = 36,
    cell_px: int = 160,
    poses_a_row: int = 6,
    seconds: float = 3.6,
) -> bytes:
    """Return an animated GIF of poses that rotate once about the vertical.

    Args:
      joints: as for `sheet`.
      frames: of the full rotation.
      cell_px: side of one pose's square.
      poses_a_row: at most.
      seconds: that the rotation takes.
    """
    rows = -(-len(joints) // poses_a_row)
    columns = min(len(joints), poses_a_row)
    pictures = []
    for angle in np.arange(frames) * 2 * np.pi / frames:
        picture = PIL.Image.new("RGB", (columns * cell_px, rows * cell_px), _PAPER)
        for number, pose in enumerate(joints):
            row, column = divmod(number, poses_a_row)
            picture.paste(_figure(pose, angle, np.zeros(17, bool), cell_px), (column * cell_px, row * cell_px))
        pictures.append(picture.quantize(32))
    stream = io.BytesIO()
    pictures[0].save(
        stream, "GIF", save_all=True, append_images=pictures[1:], duration=round(1000 * seconds / frames), loop=0
    )
    return stream.getvalue()


def _figure(pose: np.ndarray, angle: float, rings: np.ndarray, cell_px: int) -> PIL.Image.Image:
    """Draw one pose rotated about the vertical through its hip; the size does not change with the angle."""
    centred = np.asarray(pose, np.float64) - pose[:1]
    across = centred[:, 0] * np.cos(angle) + centred[:, 2] * np.sin(angle)
    depth = centred[:, 2] * np.cos(angle) - centred[:, 0] * np.sin(angle)
    middle = (centred[:, 1].min() + centred[:, 1].max()) / 2
    reach = max(np.hypot(centred[:, 0], centred[:, 2]).max(), np.ptp(centred[:, 1]) / 2, 1e-9)
    size = cell_px * _SUPERSAMPLE
    scale = size * (0.5 - _MARGIN) / reach
    place = np.stack([across * scale + size / 2, (centred[:, 1] - middle) * scale + size / 2], axis=-1)
    picture = PIL.Image.new("RGB", (size, size), _PAPER)
    draw = PIL.ImageDraw.Draw(picture)
    bones = [(joint, parent) for joint, parent in enumerate(skeleton.H36M_PARENTS) if parent >= 0]
    for joint, parent in sorted(bones, key=lambda bone: -(depth[bone[0]] + depth[bone[1]])):  # far ones first
        ends = place[[joint, parent]].ravel().tolist()
        draw.line(ends, fill=_PAPER, width=round(0.045 * size))  # a rim, so that crossings can be read
        draw.line(ends, fill=_colour(joint), width=round(0.022 * size))
    for x, y in place[rings]:
        radius = 0.04 * size
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=_FLAG, width=round(0.012 * size))
    return picture.resize((cell_px, cell_px), PIL.Image.Resampling.LANCZOS)


def _colour(joint: int) -> tuple[int, int, int]:
    side = skeleton.H36M_JOINT_NAMES[joint].split("_")[0]
    return {"right": _RIGHT, "left": _LEFT}.get(side, _MIDDLE)
