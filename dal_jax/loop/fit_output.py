"""What a command that fits people leaves behind: fits.npz, summary.json, overlays/ and meshes/."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from dal_jax.body import parameters as parameters_lib, template as template_lib
from dal_jax.correspondences import observations as observations_lib, person as person_lib
from dal_jax.data import pictures
from dal_jax.registration import fits_file
from dal_jax.runtime import atomic, progress
from dal_jax.viewing import export, fit_pictures, overlay

NAMES = ("overlays", "meshes", "summary.json", "fits.npz")
"""What is written; fits.npz last: where it stands, all is there."""

PathOf = Callable[[person_lib.AnnotatedPerson], pathlib.Path]
"""Says where the photograph lies that shows a person."""


def write(
    building: pathlib.Path,
    template: template_lib.Template,
    found: person_lib.Annotations,
    observations: observations_lib.Observation,
    fits: fits_file.Fits,
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
    good = [row for row, entry in enumerate(found.entries) if isinstance(entry, person_lib.AnnotatedPerson)]
    parameters = jax.tree.map(lambda leaf: leaf[good], fits.parameters)
    if path_of is not None:
        _draw(building / "overlays", names, template, found.people, observations, parameters, path_of)
    if formats:
        export.export_fits(building / "meshes", names, parameters, template, formats)
    skipped = [dataclasses.asdict(entry) for entry in found.rejected]
    atomic.write_json(building / "summary.json", {"people": rows, "skipped": skipped})
    fits_file.write(building / "fits.npz", fits, extra)


def _draw(
    folder: pathlib.Path,
    names: list[str],
    template: template_lib.Template,
    people: list[person_lib.AnnotatedPerson],
    observations: observations_lib.Observation,
    parameters: parameters_lib.BodyParameters,
    path_of: PathOf,
) -> None:
    read = functools.lru_cache(1)(pictures.read_picture)  # people of one photograph follow each other
    for index, one in enumerate(progress.bar("overlays", people, unit="picture")):
        if (path := folder / f"{names[index]}.png").exists():
            continue
        seen, body = overlay.select(observations, index), overlay.select(parameters, index)
        crop = pictures.crop(read(path_of(one), one.picture_size), seen.box_px, fit_pictures.VIEW_PX)
        atomic.write_bytes(path, pictures.png(fit_pictures.fit_picture(crop, template, body, seen)))
