"""Any body file to a template: our own .npz, models of SMPL, rigged glTF humans.

The readers of SMPL's and glTF's files are imported where such a file is read: they need SciPy, trimesh, pygltflib and
yaml, which take longer to import than the free body takes to load. All are read into the fields of the body file
(`.npz`), and there is one line for everything that can be wrong with them.
"""

import dataclasses
import functools
import pathlib
import re
import zipfile

import numpy as np

from dal_jax.body import skeleton, template
from dal_jax.body.template import Fields, Template
from dal_jax.runtime import door
from dal_jax.runtime.errors import InputError, needs_extra

ASSETS = pathlib.Path(__file__).parent / "assets"
FREE_BODY = ASSETS / "free_body.npz"

_SHAPES = {
    "vertices": ("n", 3), "faces": ("m", 3), "joints": (24, 3), "parents": (24,), "skin_index": ("n", 4),
    "skin_weight": ("n", 4), "mirror": ("n",), "part": ("m",), "uv": ("m", 3, 2), "h36m_regressor": (17, "n"),
    "body25b_regressor": (25, "n"),
}  # fmt: skip
_OPTIONAL = ("body25b_regressor",)  # without it the body cannot be fitted to COCO's key points
_BLENDSHAPES = {"pose_blendshapes": ("n", 3, 207)}
_INDICES = ("faces", "parents", "skin_index", "mirror", "part")


def read_fields(path: pathlib.Path, pose_blendshapes: bool = False) -> Fields:
    """Read and check a body file (`.npz`; fields in the README of `dal_jax/body/assets`).

    Raises:
      errors.InputError: the file is missing or a field is missing, misshaped or out of range; names file and field.
    """
    fields = door.read_npz(path, _shapes(pose_blendshapes))
    check_fields(path, fields, pose_blendshapes)
    return fields


def check_fields(path: pathlib.Path, fields: Fields, pose_blendshapes: bool = False) -> None:
    """Refuse fields that are no body's, wherever they came from, by an `errors.InputError` that names the file."""
    problem = _first_problem(fields, _shapes(pose_blendshapes))
    if problem:
        raise InputError(f"{path}: {problem}")


def _shapes(pose_blendshapes: bool) -> dict[str, tuple[int | str, ...]]:
    return _SHAPES | (_BLENDSHAPES if pose_blendshapes else {})


def _first_problem(fields: Fields, shapes: dict[str, tuple[int | str, ...]]) -> str | None:
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        if name not in fields:
            if name in _OPTIONAL:
                continue
            return f"field '{name}' is missing"
        problem = _shape_problem(fields[name].shape, shape, sizes) or _type_problem(name, fields[name])
        if problem:
            return f"field '{name}' {problem}"
    return _value_problem(fields, sizes["n"])


def _shape_problem(found: tuple[int, ...], expected: tuple[int | str, ...], sizes: dict[str, int]) -> str | None:
    """Compare shapes; a letter stands for the size that the first field with it has, which `sizes` remembers."""
    if len(found) != len(expected) or 0 in found:
        return f"has shape {found}, expected {expected}"
    for size, name in zip(found, expected, strict=True):
        if size != (sizes.setdefault(name, size) if isinstance(name, str) else name):
            return f"has shape {found}, expected {expected} with {sizes}"
    return None


def _type_problem(name: str, values: np.ndarray) -> str | None:
    if name in _INDICES and values.dtype.kind not in "iu":
        return f"holds {values.dtype}, expected whole numbers"
    if values.dtype.kind not in "iuf" or not np.all(np.abs(values) <= np.finfo(np.float32).max):
        return "holds values that are not finite float32 numbers"
    return None


def _value_problem(fields: Fields, count: int) -> str | None:
    if tuple(fields["parents"].tolist()) != skeleton.SMPL_PARENTS:
        return f"field 'parents' is {fields['parents'].tolist()}, expected SMPL's {list(skeleton.SMPL_PARENTS)}"
    bounds = {"faces": (0, count - 1), "mirror": (0, count - 1), "skin_index": (0, 23), "part": (1, 24), "uv": (0, 1)}
    for name, (low, high) in bounds.items():
        if fields[name].min() < low or fields[name].max() > high:
            return f"field '{name}' has a value outside {low}..{high}"
    for name in ("skin_weight", "h36m_regressor", "body25b_regressor"):
        if name in fields and (fields[name].min() < 0 or np.abs(fields[name].sum(axis=1) - 1).max() > 1e-3):
            return f"field '{name}' has a row that is negative or does not sum to 1"
    return None


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
    return dataclasses.replace(body, smpl=(_gender(path), (x, y, z)))


def load_smpl_shape(path: str | pathlib.Path, betas: tuple[float, ...]) -> Template:
    """Read a model of SMPL or SMPL-H in a person's shape, with its pose blendshapes.

    Raises:
      errors.InputError: as `load_body`, or the file is not such a model.
    """
    from dal_jax.body.formats import smpl  # needs SciPy

    path = pathlib.Path(path)
    fields = smpl.read(path, True, betas)
    check_fields(path, fields, True)
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
        return read_fields(path, pose_blendshapes)
    check_fields(path, fields, pose_blendshapes)
    return fields
