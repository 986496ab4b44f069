"""The body file (`.npz`): its fields, and one line for everything that can be wrong with them."""

import pathlib

import numpy as np

from dal_jax.body import skeleton
from dal_jax.runtime import archives
from dal_jax.runtime.errors import InputError

Fields = dict[str, np.ndarray]
"""What a body file holds, by name; the other formats are read into the same fields."""

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


def read(path: pathlib.Path, pose_blendshapes: bool = False) -> Fields:
    """Read and check a body file (`.npz`; fields in the README of `dal_jax/body/assets`).

    Raises:
      errors.InputError: the file is missing or a field is missing, misshaped or out of range; names file and field.
    """
    fields = archives.read(path, _shapes(pose_blendshapes))
    check(path, fields, pose_blendshapes)
    return fields


def check(path: pathlib.Path, fields: Fields, pose_blendshapes: bool = False) -> None:
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
