"""The rigged template: mean shape, skeleton, skinning weights, chart; and the file it lives in."""

import functools
import pathlib
import tokenize
import zipfile
import zlib
from collections.abc import Iterable

import flax.struct
import numpy as np
from jaxtyping import Array, Float, Int

from dal_jax.body import skeleton
from dal_jax.runtime import errors

ASSETS = pathlib.Path(__file__).parent / "assets"
FREE_BODY = ASSETS / "free_body.npz"


@flax.struct.dataclass
class Template:
    """A rigged human in its rest pose: metres, y up, facing +z, its left towards +x, pelvis at the origin.

    skinning_matrix and h36m_matrix are the constants W (x) [v, 1] that make skinning and joint regression one matrix
    product each (see `skinning.stacked_transforms`). pose_blendshapes (see `blendshapes`) are None where the template
    was loaded without them, and applied wherever it has them; h36m_blendshapes is what they do to the regressed joints:
    regressor x weights x basis, segment by segment.
    """

    vertices: Float[Array, "n 3"]
    faces: Int[Array, "m 3"]
    joints: Float[Array, "24 3"]
    skin_weight: Float[Array, "n 24"]
    h36m_regressor: Float[Array, "17 n"]
    mirror: Int[Array, "n"]
    part: Int[Array, "m"]
    uv: Float[Array, "m 3 2"]
    skinning_matrix: Float[Array, "n 96"]
    h36m_matrix: Float[Array, "17 96"]
    pose_blendshapes: Float[Array, "n 3 207"] | None = None
    h36m_blendshapes: Float[Array, "17 24 3 207"] | None = None
    parents: tuple[int, ...] = flax.struct.field(pytree_node=False, default=skeleton.SMPL_PARENTS)


@functools.cache
def load_template(path: str | pathlib.Path = FREE_BODY, *, pose_blendshapes: bool = False) -> Template:
    """Read and check a body file (`.npz`; fields in the README of `dal_jax/body/assets`).

    Args:
      pose_blendshapes: read and use the field of that name, which few files have; they are left alone otherwise.

    Raises:
      errors.InputError: the file is missing or a field is missing, misshaped or out of range; names file and field.
    """
    shapes = _SHAPES | (_BLENDSHAPES if pose_blendshapes else {})
    fields = _read(pathlib.Path(path), shapes)
    problem = _first_problem(fields, shapes)
    if problem:
        raise errors.InputError(f"{path}: {problem}")
    vertices = fields["vertices"].astype(np.float32)
    regressor = fields["h36m_regressor"].astype(np.float32)
    weight = np.zeros((len(vertices), len(skeleton.SMPL_PARENTS)), np.float32)
    np.add.at(weight, (np.arange(len(vertices))[:, None], fields["skin_index"]), fields["skin_weight"])
    homogeneous = np.concatenate([vertices, np.ones_like(vertices[:, :1])], axis=1)
    skinning_matrix = (weight[:, :, None] * homogeneous[:, None, :]).reshape(len(vertices), -1)
    basis = fields["pose_blendshapes"].astype(np.float32) if pose_blendshapes else None
    return Template(
        vertices=vertices,
        faces=fields["faces"].astype(np.int32),
        joints=fields["joints"].astype(np.float32),
        skin_weight=weight,
        h36m_regressor=regressor,
        mirror=fields["mirror"].astype(np.int32),
        part=fields["part"].astype(np.int32),
        uv=fields["uv"].astype(np.float32),
        skinning_matrix=skinning_matrix,
        h36m_matrix=(regressor.astype(np.float64) @ skinning_matrix).astype(np.float32),
        pose_blendshapes=basis,
        h36m_blendshapes=None if basis is None else _regress(regressor, weight, basis),
    )


def _regress(regressor: np.ndarray, weight: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return sum_i r_hi w_ik B_i: joint h, segment k, axis, pose feature."""
    shares = (regressor[:, None, :] * weight.T[None]).reshape(-1, len(weight)).astype(np.float64)
    return (shares @ basis.reshape(len(weight), -1)).astype(np.float32).reshape(17, -1, *basis.shape[1:])


_SHAPES = {
    "vertices": ("n", 3), "faces": ("m", 3), "joints": (24, 3), "parents": (24,), "skin_index": ("n", 4),
    "skin_weight": ("n", 4), "mirror": ("n",), "part": ("m",), "uv": ("m", 3, 2), "h36m_regressor": (17, "n"),
}  # fmt: skip
_BLENDSHAPES = {"pose_blendshapes": ("n", 3, 207)}
_INDICES = ("faces", "parents", "skin_index", "mirror", "part")

# What NumPy, zipfile and zlib raise on damaged files (found by changing bytes at random), an absurd size included.
_UNREADABLE = (
    OSError, ValueError, TypeError, AttributeError, EOFError, RuntimeError, MemoryError, SyntaxError,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def _read(path: pathlib.Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    fields, entry = {}, ""
    try:
        # Opened here: given a path, NumPy leaves the file of a broken archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            for name in names:
                if name in archive.files:
                    entry = f"field '{name}': "
                    fields[name] = np.asarray(archive[name])
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise errors.InputError(f"{path}: {entry}not a readable body file (.npz): {reason}") from error
    return fields


def _first_problem(fields: dict[str, np.ndarray], shapes: dict[str, tuple[int | str, ...]]) -> str | None:
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        if name not in fields:
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


def _value_problem(fields: dict[str, np.ndarray], count: int) -> str | None:
    if tuple(fields["parents"].tolist()) != skeleton.SMPL_PARENTS:
        return f"field 'parents' is {fields['parents'].tolist()}, expected SMPL's {list(skeleton.SMPL_PARENTS)}"
    bounds = {"faces": (0, count - 1), "mirror": (0, count - 1), "skin_index": (0, 23), "part": (1, 24), "uv": (0, 1)}
    for name, (low, high) in bounds.items():
        if fields[name].min() < low or fields[name].max() > high:
            return f"field '{name}' has a value outside {low}..{high}"
    for name in ("skin_weight", "h36m_regressor"):
        if fields[name].min() < 0 or np.abs(fields[name].sum(axis=1) - 1).max() > 1e-3:
            return f"field '{name}' has a row that is negative or does not sum to 1"
    return None
