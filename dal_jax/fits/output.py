"""What fitting people leaves behind: fits.npz, summary.json, overlays/ and meshes/, and a table for the terminal."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jaxtyping import Float

from dal_jax.body.parameters import BodyParameters
from dal_jax.body.template import Template
from dal_jax.evaluation import tables
from dal_jax.fits import export, file, overlays
from dal_jax.fits.file import Fits
from dal_jax.observations import photographs
from dal_jax.observations.observation import Observation
from dal_jax.observations.person import AnnotatedPerson, Annotations
from dal_jax.runtime import files, progress

NAMES = ("overlays", "meshes", "summary.json", "fits.npz")
"""What is written; fits.npz comes last, so a folder that has it is complete."""

PathOf = Callable[[AnnotatedPerson], pathlib.Path]
"""Returns the path of the photograph that shows a person."""


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """The people of an annotation and their fits.

    observations: of `annotations.people`, stacked. fits: one row an entry of `annotations`. summary: one dict a person
    (`summarise`), for summary.json. extra: further fields of fits.npz.
    """

    template: Template
    annotations: Annotations
    observations: Observation
    fits: Fits
    summary: list[dict]
    extra: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


def write(folder: pathlib.Path, results: Results, path_of: PathOf | None, formats: Sequence[str]) -> None:
    """Write all of NAMES into a folder; a picture that is there already (of a killed run) is not drawn again.

    Args:
      folder: usually a temporary one that is published as a whole.
      results: what was fitted.
      path_of: finds the photographs; None: no overlays.
      formats: of meshes, `export.FORMATS`.
    """
    annotations = results.annotations
    names = export.file_names(
        f"{pathlib.PurePath(one.file_name).stem}_{one.annotation_id}" for one in annotations.people
    )
    rows = [row for row, entry in enumerate(annotations.entries) if isinstance(entry, AnnotatedPerson)]
    parameters = jax.tree.map(lambda leaf: leaf[rows], results.fits.parameters)
    if path_of is not None:
        _draw(folder / "overlays", names, results, parameters, path_of)
    if formats:
        export.export_fits(folder / "meshes", names, parameters, results.template, formats)
    skipped = [dataclasses.asdict(entry) for entry in annotations.rejected]
    files.write_json(folder / "summary.json", {"people": results.summary, "skipped": skipped})
    file.write(folder / "fits.npz", results.fits, dict(results.extra))


def _draw(
    folder: pathlib.Path, names: list[str], results: Results, parameters: BodyParameters, path_of: PathOf
) -> None:
    read = functools.lru_cache(1)(photographs.read_picture)  # people of one photograph follow each other
    for index, one in enumerate(progress.bar("overlays", results.annotations.people, unit="picture")):
        if (path := folder / f"{names[index]}.png").exists():
            continue
        observation, body = overlays.select(results.observations, index), overlays.select(parameters, index)
        crop = photographs.crop(read(path_of(one), one.picture_size), np.asarray(observation.box_px), overlays.VIEW_PX)
        picture = overlays.fit_picture(crop, results.template, body, observation)
        files.write_bytes(path, photographs.png(picture))


def summarise(
    annotations: Annotations, fits: Fits, held_out_px: Float[np.ndarray, "people"] | None = None
) -> list[dict]:
    """Return one dict a fitted person, fit for JSON: how far the fit lies from the annotation; None: not measured.

    Args:
      annotations: entry by entry as in `fits`.
      fits: the rows.
      held_out_px: error at points left out of the fit (`quality.held_out_error_px`), of the fitted people alone.
    """
    rows = []
    for row, entry in enumerate(annotations.entries):
        if not isinstance(entry, AnnotatedPerson):
            continue
        side = float(max(entry.bbox_px[2:]))
        dense, held_out = fits.dense_error_px[row], math.nan if held_out_px is None else held_out_px[len(rows)]
        numbers = {
            "bbox_longer_side_px": side,
            "dense_error_px": dense,
            "dense_error_percent": 100 * dense / side,
            "held_out_error_px": held_out,
            "held_out_error_percent": 100 * held_out / side,
            "keypoint_error_px": fits.keypoint_error_px[row],
            "energy": fits.energy[row],
        }
        identity = {"image_id": entry.image_id, "annotation_id": entry.annotation_id, "file_name": entry.file_name}
        measured = {name: float(value) if math.isfinite(value) else None for name, value in numbers.items()}
        rows.append(identity | {"points": len(entry.part), "valid": bool(fits.valid[row])} | measured)
    return rows


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


def table(summary: list[dict], limit: int) -> str:
    """Return the first `limit` people of a summary as text, the first flags of their quality reports below."""

    def cell(row: dict, name: str) -> str:
        value = row[name]
        return "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)

    cells = [
        [f"{row['file_name']} #{row['annotation_id']}", *(cell(row, name) for name in _COLUMNS)]
        for row in summary[:limit]
    ]
    lines = [tables.text_table(["person", *_COLUMNS.values()], cells)]
    for row in summary[:limit]:
        flags = (row.get("quality") or {}).get("flags", [])
        more = f"; and {len(flags) - _SHOWN_FLAGS} more in summary.json" if len(flags) > _SHOWN_FLAGS else ""
        shown = "; ".join(flags[:_SHOWN_FLAGS]) + more
        lines += [f"{row['file_name']} #{row['annotation_id']}: {shown}"] if flags else []
    if len(summary) > limit:
        lines.append(f"... and {len(summary) - limit} more in summary.json")
    return "\n".join([*lines, "errors are root mean squares; % of the longer side of the person's box"])
