"""Any body file to a template: our own .npz, models of SMPL, rigged glTF humans."""

import functools
import pathlib

from dal_jax.body import template
from dal_jax.body.formats import gltf, npz, smpl
from dal_jax.body.formats.npz import Fields
from dal_jax.body.template import Template

template.ASSETS, FREE_BODY = npz.ASSETS, npz.FREE_BODY


@functools.cache
def load_body(path: str | pathlib.Path = FREE_BODY, *, pose_blendshapes: bool = False) -> Template:
    """Read a body: our own file (`.npz`), SMPL's or SMPL-H's (`.npz`, `.pkl`), a rigged human's glTF (`.glb`, `.gltf`).

    Args:
      pose_blendshapes: read and use them; SMPL's files have them, few others do; they are left alone otherwise.

    Raises:
      errors.InputError: the file is missing or a field is missing, misshaped or out of range; names file and field.
    """
    path = pathlib.Path(path)
    return template.assemble(_read(path, pose_blendshapes), pose_blendshapes)


def load_smpl_shape(path: str | pathlib.Path, betas: tuple[float, ...]) -> Template:
    """Read a model of SMPL or SMPL-H in a person's shape, with its pose blendshapes.

    Raises:
      errors.InputError: as `load_body`; the file is no such model.
    """
    path = pathlib.Path(path)
    fields = smpl.read(path, True, betas)
    npz.check(path, fields, True)
    return template.assemble(fields, True)


def is_smpl(path: str | pathlib.Path) -> bool:
    """Return whether a body file is a model of SMPL or SMPL-H, whose shape follows betas."""
    path = pathlib.Path(path)
    return path.suffix.lower() == ".pkl" or smpl.is_smpl(path)


def _read(path: pathlib.Path, pose_blendshapes: bool) -> Fields:
    """Read the fields by the reader of the file's format."""
    if path.suffix.lower() in (".glb", ".gltf", ".vrm"):
        fields = gltf.read(path)
    elif is_smpl(path):
        fields = smpl.read(path, pose_blendshapes)
    else:
        return npz.read(path, pose_blendshapes)
    npz.check(path, fields, pose_blendshapes)
    return fields
