"""What a command that fits people leaves behind: fits.npz, summary.json, overlays/ and meshes/."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from dal_jax.body.parameters import BodyParameters
from dal_jax.body.template import Template
from dal_jax.fits import export, file, overlays
from dal_jax.fits.file import Fits
from dal_jax.observations import photographs
from dal_jax.observations.observation import Observation
from dal_jax.observations.person import AnnotatedPerson, Annotations
from dal_jax.runtime import files, progress

NAMES = ("overlays", "meshes", "summary.json", "fits.npz")
"""What is written; fits.npz last: where it stands, all is there."""

PathOf = Callable[[AnnotatedPerson], pathlib.Path]
"""Says where the photograph lies that shows a person."""


def write(
    building: pathlib.Path,
    template: Template,
    found: Annotations,
    observations: Observation,
    fits: Fits,
    rows: list[dict],
    *,
    path_of: PathOf | None,
    formats: Sequence[str],
    extra: dict[str, np.ndarray] | None = None,
) -> None:
    """Write everything into a folder; a picture that is there already (of a killed run) is not drawn again.

    Args:
      observations: of `found.people`, stacked.
      fits: one row an entry of `found`.
      rows: what summary.json says, one a person.
      path_of: where photographs lie; None: no overlays.
      formats: of meshes, `export.FORMATS`.
      extra: further fields of fits.npz.
    """
    names = export.file_names(f"{pathlib.PurePath(one.file_name).stem}_{one.annotation_id}" for one in found.people)
    good = [row for row, entry in enumerate(found.entries) if isinstance(entry, AnnotatedPerson)]
    parameters = jax.tree.map(lambda leaf: leaf[good], fits.parameters)
    if path_of is not None:
        _draw(building / "overlays", names, template, found.people, observations, parameters, path_of)
    if formats:
        export.export_fits(building / "meshes", names, parameters, template, formats)
    skipped = [dataclasses.asdict(entry) for entry in found.rejected]
    files.write_json(building / "summary.json", {"people": rows, "skipped": skipped})
    file.write(building / "fits.npz", fits, extra)


def _draw(
    folder: pathlib.Path,
    names: list[str],
    template: Template,
    people: list[AnnotatedPerson],
    observations: Observation,
    parameters: BodyParameters,
    path_of: PathOf,
) -> None:
    read = functools.lru_cache(1)(photographs.read_picture)  # people of one photograph follow each other
    for index, one in enumerate(progress.bar("overlays", people, unit="picture")):
        if (path := folder / f"{names[index]}.png").exists():
            continue
        seen, body = overlays.select(observations, index), overlays.select(parameters, index)
        crop = photographs.crop(read(path_of(one), one.picture_size), seen.box_px, overlays.VIEW_PX)
        files.write_bytes(path, photographs.png(overlays.fit_picture(crop, template, body, seen)))
