"""What a person who registers wants to know first: how far the fits lie from the annotation, as rows and as a table."""

import math

import numpy as np
from jaxtyping import Float

from dal_jax.evaluation import tables
from dal_jax.fits.file import Fits
from dal_jax.observations.person import Annotations, Rejected

_SHOWN_FLAGS = 2
_COLUMNS = {
    "points": "points",
    "dense_error_px": "dense px",
    "dense_error_percent": "% of box",
    "held_out_error_px": "held out px",
    "held_out_error_percent": "% of box",
    "keypoint_error_px": "key points px",
    "energy": "energy",
}


def summarise(found: Annotations, fits: Fits, held_out_px: Float[np.ndarray, "people"] | None) -> list[dict]:
    """Return one dict a person who was fitted, fit for JSON; None is "not measured".

    Args:
      found: the annotation, entry by entry as in `fits`.
      held_out_px: error at points left out of the fit, of the fitted people alone.
    """
    rows = []
    for row, entry in enumerate(found.entries):
        if isinstance(entry, Rejected):
            continue
        side = float(max(entry.bbox_px[2:]))
        dense, left_out = fits.dense_error_px[row], math.nan if held_out_px is None else held_out_px[len(rows)]
        numbers = {
            "bbox_longer_side_px": side,
            "dense_error_px": dense,
            "dense_error_percent": 100 * dense / side,
            "held_out_error_px": left_out,
            "held_out_error_percent": 100 * left_out / side,
            "keypoint_error_px": fits.keypoint_error_px[row],
            "energy": fits.energy[row],
        }
        identity = {"image_id": entry.image_id, "annotation_id": entry.annotation_id, "file_name": entry.file_name}
        measured = {name: float(value) if math.isfinite(value) else None for name, value in numbers.items()}
        rows.append(identity | {"points": len(entry.part), "valid": bool(fits.valid[row])} | measured)
    return rows


def table(rows: list[dict], limit: int) -> str:
    """Return the first `limit` people as text."""

    def cell(row: dict, name: str) -> str:
        value = row[name]
        return "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)

    cells = [
        [f"{row['file_name']} #{row['annotation_id']}", *(cell(row, name) for name in _COLUMNS)] for row in rows[:limit]
    ]
    lines = [tables.text_table(["person", *_COLUMNS.values()], cells)]
    for row in rows[:limit]:
        flags = (row.get("quality") or {}).get("flags", [])
        more = f"; and {len(flags) - _SHOWN_FLAGS} more in summary.json" if len(flags) > _SHOWN_FLAGS else ""
        told = "; ".join(flags[:_SHOWN_FLAGS]) + more
        lines += [f"{row['file_name']} #{row['annotation_id']}: {told}"] if flags else []
    if len(rows) > limit:
        lines.append(f"... and {len(rows) - limit} more in summary.json")
    return "\n".join([*lines, "errors are root mean squares; % of the longer side of the person's box"])
