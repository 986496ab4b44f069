"""Fits as meshes that other programs open: one .glb or .obj a person, y up."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float, Int

from dal_jax.body.parameters import BodyParameters
from dal_jax.body.template import Template
from dal_jax.fits import overlays
from dal_jax.runtime import files
from dal_jax.runtime.errors import InputError, needs_extra

FORMATS = ("glb", "obj")

_VIEWER_FROM_CAMERA = np.diag([1.0, -1.0, -1.0])  # camera: y down, z away; viewers and glTF: y up, z towards the eye
_LONGEST_NAME = 100  # a file system takes 255 bytes; temporary names need some of them


def parse_formats(flag: str) -> tuple[str, ...]:
    """Return the formats that a flag such as 'glb,obj' names; '' names none.

    Raises:
      errors.InputError: a format is unknown; the line names it.
    """
    wanted = tuple(dict.fromkeys(part.strip().lower() for part in flag.split(",") if part.strip()))
    for name in wanted:
        if name not in FORMATS:
            raise InputError(f"--export={flag}: '{name}' is not one of {', '.join(FORMATS)}")
    return wanted


def file_names(names: Iterable[str]) -> list[str]:
    """Return distinct file names without extension, safe inside one folder, for names from outside (paths, ids).

    Anything but ASCII letters, digits, '.', '_' and '-' becomes '_'; a name cannot begin with a dot, be empty or be
    too long; equal names get '-2', '-3', ..., also where only the case differs.
    """
    taken: set[str] = set()
    result = []
    for name in names:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "_", str(name)).strip("._-")[:_LONGEST_NAME] or "person"
        candidate, number = stem, 1
        while candidate.lower() in taken:
            number += 1
            candidate = f"{stem}-{number}"
        taken.add(candidate.lower())
        result.append(candidate)
    return result


def mesh_bytes(vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"], file_format: str) -> bytes:
    """Return a mesh as the content of a .glb or .obj file, vertices and faces in their order, with normals."""
    with needs_extra("viewing"):
        import trimesh

    mesh = trimesh.Trimesh(vertices, faces, process=False)
    content = mesh.export(file_type=file_format, include_normals=True)
    return content if isinstance(content, bytes) else str(content).encode()


def export_fits(
    directory: str | os.PathLike[str],
    names: Sequence[str],
    parameters: BodyParameters,
    template: Template,
    formats: Sequence[str],
) -> list[pathlib.Path]:
    """Write every fit into `directory`, as the camera sees it: metres, pelvis at the origin, y up, z to the viewer.

    Args:
      directory: made if missing.
      names: one a person; see `file_names`.
      parameters: batched, (n, ...).
      template: the body.
      formats: of `FORMATS`.

    Returns:
      The paths written. A fit that is not finite has no mesh and is left out.
    """
    written = []
    for index, stem in enumerate(file_names(names)):
        vertices = viewer_vertices(template, overlays.select(parameters, index))
        if not np.isfinite(vertices).all():
            continue
        for file_format in formats:
            path = pathlib.Path(directory) / f"{stem}.{file_format}"
            files.write_bytes(path, mesh_bytes(vertices, np.asarray(template.faces), file_format))
            written.append(path)
    return written


def viewer_vertices(template: Template, parameters: BodyParameters) -> Float[np.ndarray, "n 3"]:
    """Return one posed mesh in metres, pelvis at the origin, y up, z towards the viewer."""
    metric = dataclasses.replace(
        parameters,
        camera_scale=np.ones_like(parameters.camera_scale),
        translation=np.zeros_like(parameters.translation),
    )
    return overlays.posed_vertices(template, metric) @ _VIEWER_FROM_CAMERA
