"""Any body file to a template: our own .npz, models of SMPL, rigged glTF humans.

The readers of SMPL's and glTF's files are imported where such a file is read: they need SciPy, trimesh, pygltflib and
yaml, which take longer to import than the free body takes to load.
"""

import dataclasses
import functools
import pathlib
import re
import zipfile

import numpy as np

from dal_jax.body import template
from dal_jax.body.formats import npz
from dal_jax.body.formats.npz import Fields
from dal_jax.body.template import SmplModel, Template
from dal_jax.runtime import door
from dal_jax.runtime.errors import needs_extra

FREE_BODY = npz.FREE_BODY
_GLTF = (".glb", ".gltf", ".vrm")


@functools.cache
def load_body(path: str | pathlib.Path = FREE_BODY, *, pose_blendshapes: bool = False) -> Template:
    """Read a body: our own file (`.npz`), SMPL's or SMPL-H's (`.npz`, `.pkl`), a rigged human's glTF (`.glb`, `.gltf`).

    Args:
      path: the file; by default the free body, which is part of the package.
      pose_blendshapes: read and use them. SMPL's files have them, few others do.

    Raises:
      errors.InputError: the file is missing or a field is missing, misshaped or out of range; names file and field.
    """
    path = pathlib.Path(path)
    fields = _read(path, pose_blendshapes)
    body = template.assemble(fields, pose_blendshapes)
    if "smpl_pelvis" not in fields:
        return body
    x, y, z = np.round(fields["smpl_pelvis"].astype(np.float64), 6).tolist()
    return dataclasses.replace(body, smpl=SmplModel(_gender(path), (x, y, z)))


def load_smpl_shape(path: str | pathlib.Path, betas: tuple[float, ...]) -> Template:
    """Read a model of SMPL or SMPL-H in a person's shape, with its pose blendshapes.

    Raises:
      errors.InputError: as `load_body`, or the file is not such a model.
    """
    from dal_jax.body.formats import smpl  # needs SciPy

    path = pathlib.Path(path)
    fields = smpl.read(path, True, betas)
    npz.check(path, fields, True)
    return template.assemble(fields, True)


def is_smpl(path: str | pathlib.Path) -> bool:
    """Return whether a body file is a model of SMPL or SMPL-H, whose shape follows betas."""
    path = pathlib.Path(path)
    if path.suffix.lower() == ".pkl":
        return True
    try:
        with door.opened(path) as file, zipfile.ZipFile(file) as archive:
            return "v_template.npy" in archive.namelist()
    except door.UNREADABLE:
        return False


def _gender(path: pathlib.Path) -> str:
    """Return the gender in a model's name or its folder's: SMPL_MALE.pkl, basicModel_f_..., female/model.npz."""
    for name in (path.stem, path.parent.name):
        words = set(re.split(r"[^a-z]+", name.lower()))
        for gender in ("female", "male"):
            if words & {gender, gender[0]}:
                return gender
    return "neutral"


def _read(path: pathlib.Path, pose_blendshapes: bool) -> Fields:
    """Read the fields by the reader of the file's format."""
    if path.suffix.lower() in _GLTF:
        with needs_extra("gltf"):
            from dal_jax.body.formats import gltf  # needs pygltflib, trimesh, SciPy and yaml

        fields = gltf.read(path)
    elif is_smpl(path):
        from dal_jax.body.formats import smpl  # needs SciPy

        fields = smpl.read(path, pose_blendshapes)
    else:
        return npz.read(path, pose_blendshapes)
    npz.check(path, fields, pose_blendshapes)
    return fields
