"""What fitting people leaves behind: file names, overlays, summary.json's rows, a table for the terminal."""

import collections
import math
import pathlib
import typing
from typing import Any

import numpy as np

from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.template import Template
from dal_jax.evaluation import metrics
from dal_jax.fits import export, overlays
from dal_jax.fits.file import FitRows
from dal_jax.observations import photographs
from dal_jax.observations.observation import Observation
from dal_jax.observations.person import Annotations
from dal_jax.runtime import files, progress
from dal_jax.runtime.files import PathLike
from dal_jax.uncertainty.verdict import Verdict

NAMES = ("index.html", "overlays", "meshes", "scenes", "motion", "summary.json", "fits.npz")
"""What is written; fits.npz comes last, so a folder that has it is complete."""


def draw(
    folder: pathlib.Path, template: Template, annotations: Annotations, observation: Observation, bodies: BodyParameters
) -> None:
    """Draw every fitted person over the photograph; a picture that is there already (of a killed run) stays.

    Args:
      folder: for the pictures, one a person.
      template: the body.
      annotations: with `images`; without them nothing is drawn.
      observation: of `annotations.people`, stacked.
      bodies: likewise.
    """
    if not annotations.images:
        return
    people = annotations.people
    names = export.file_names(f"{pathlib.PurePath(one.file_name).stem}_{one.annotation_id}" for one in people)
    read = annotations.reader()
    for index, one in enumerate(progress.bar("overlays", people, unit="picture")):
        if (path := folder / f"{names[index]}.png").exists():
            continue
        seen, body = overlays.select(observation, index), overlays.select(bodies, index)
        crop = photographs.crop(read(one), np.asarray(seen.box_px), overlays.VIEW_PX)
        files.write_bytes(path, photographs.png(overlays.fit_picture(crop, template, body, seen), effort=4))


def written(out: PathLike) -> str:
    """Return one line for the terminal on what lies in a folder of results."""
    out = pathlib.Path(out)
    there = [name for name in reversed(NAMES) if (out / name).exists()]
    look = f"; to look at them open {out / 'index.html'}" if "index.html" in there else ""
    return f"wrote {', '.join(there)} in {out}{look}"


def summary_row(fits: FitRows, row: int, points: int, held_out_px: float | None) -> dict[str, Any]:
    """Return what summary.json says first of a person; None is "not measured".

    Args:
      fits: the rows.
      row: of the person.
      points: how many dense points the person has.
      held_out_px: root mean square error at points left out of a fit.
    """
    side = float(max(fits.bbox_px[row, 2:]))
    dense, held_out = float(fits.dense_error_px[row]), math.nan if held_out_px is None else float(held_out_px)
    numbers = {
        "bbox_longer_side_px": side,
        "dense_error_px": dense,
        "dense_error_percent": 100 * dense / side,
        "held_out_error_px": held_out,
        "held_out_error_percent": 100 * held_out / side,
        "keypoint_error_px": float(fits.keypoint_error_px[row]),
        "energy": float(fits.energy[row]),
    }
    identity = {name: getattr(fits, name)[row].item() for name in ("image_id", "annotation_id", "file_name")}
    measured = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
    return identity | {"points": points, "valid": bool(fits.valid[row])} | measured


_SHOWN_FLAGS = 2
_COLUMNS = {
    "verdict": "verdict",
    "expected_error_mm": "expected mm",
    "points": "points",
    "dense_error_px": "dense px",
    "dense_error_percent": "% of box",
    "held_out_error_px": "held out px",
    "held_out_error_percent": "% of box",
    "keypoint_error_px": "key points px",
    "energy": "energy",
}


def table(summary: list[dict], limit: int) -> str:
    """Return the first `limit` people of a summary as text, the first flags of their quality reports below.

    What is said of everybody is said once.
    """

    def cell(row: dict, name: str) -> str:
        value = row[name] if name in row else (row.get("quality") or {}).get(name)
        decimals = 0 if name == "expected_error_mm" else 2
        return "-" if value is None else f"{value:.{decimals}f}" if isinstance(value, float) else str(value)

    cells = [
        [f"{row['file_name']} #{row['annotation_id']}", *(cell(row, name) for name in _COLUMNS)]
        for row in summary[:limit]
    ]
    verdicts = collections.Counter((row.get("quality") or {}).get("verdict") for row in summary)
    counts = ", ".join(f"{verdicts[name]} {name}" for name in typing.get_args(Verdict) if verdicts[name])
    lines = [f"verdicts: {counts}"] if counts else []
    lines.append(metrics.text_table(["person", *_COLUMNS.values()], cells))
    flagged = [(row.get("quality") or {}).get("flags", []) for row in summary]
    common = [flag for flag in flagged[0] if all(flag in flags for flags in flagged)] if len(flagged) > 1 else []
    lines += [f"everybody: {'; '.join(common)}"] if common else []
    for row, every in zip(summary[:limit], flagged, strict=False):
        flags = [flag for flag in every if flag not in common]
        more = f"; and {len(flags) - _SHOWN_FLAGS} more in summary.json" if len(flags) > _SHOWN_FLAGS else ""
        shown = "; ".join(flags[:_SHOWN_FLAGS]) + more
        lines += [f"{row['file_name']} #{row['annotation_id']}: {shown}"] if flags else []
    if len(summary) > limit:
        lines.append(f"... and {len(summary) - limit} more in summary.json")
    return "\n".join([*lines, "errors are root mean squares; % of the longer side of the person's box"])
