"""The rigged template: mean shape, skeleton, skinning weights, chart; and the file it lives in."""

import functools
import pathlib
import zipfile

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
    product each (see `skinning.stacked_transforms`).
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
    parents: tuple[int, ...] = flax.struct.field(pytree_node=False, default=skeleton.SMPL_PARENTS)


@functools.cache
def load_template(path: str | pathlib.Path = FREE_BODY) -> Template:
    """Read and check a body file (`.npz`; fields in the README of `dal_jax/body/assets`).

    Raises:
      errors.InputError: the file is missing or a field is missing, misshaped or out of range; names file and field.
    """
    fields = _read(pathlib.Path(path))
    problem = _first_problem(fields)
    if problem:
        raise errors.InputError(f"{path}: {problem}")
    vertices = fields["vertices"].astype(np.float32)
    regressor = fields["h36m_regressor"].astype(np.float32)
    weight = np.zeros((len(vertices), len(skeleton.SMPL_PARENTS)), np.float32)
    np.add.at(weight, (np.arange(len(vertices))[:, None], fields["skin_index"]), fields["skin_weight"])
    homogeneous = np.concatenate([vertices, np.ones_like(vertices[:, :1])], axis=1)
    skinning_matrix = (weight[:, :, None] * homogeneous[:, None, :]).reshape(len(vertices), -1)
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
    )


_SHAPES = {
    "vertices": ("n", 3), "faces": ("m", 3), "joints": (24, 3), "parents": (24,), "skin_index": ("n", 4),
    "skin_weight": ("n", 4), "mirror": ("n",), "part": ("m",), "uv": ("m", 3, 2), "h36m_regressor": (17, "n"),
}  # fmt: skip


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise errors.InputError(f"{path}: not a readable body file (.npz): {error}") from error


def _first_problem(fields: dict[str, np.ndarray]) -> str | None:
    sizes: dict[str, int] = {}
    for name, shape in _SHAPES.items():
        if name not in fields:
            return f"field '{name}' is missing"
        found = fields[name].shape
        if len(found) != len(shape):
            return f"field '{name}' has shape {found}, expected {shape}"
        for size, expected in zip(found, shape, strict=True):
            if size != (sizes.setdefault(expected, size) if isinstance(expected, str) else expected):
                return f"field '{name}' has shape {found}, expected {shape} with {sizes}"
        if not np.issubdtype(fields[name].dtype, np.number) or not np.all(np.isfinite(fields[name])):
            return f"field '{name}' holds values that are not finite numbers"
    if tuple(fields["parents"].tolist()) != skeleton.SMPL_PARENTS:
        return f"field 'parents' is {fields['parents'].tolist()}, expected SMPL's {list(skeleton.SMPL_PARENTS)}"
    for name, bound in (("faces", sizes["n"]), ("mirror", sizes["n"]), ("skin_index", 24)):
        values = fields[name]
        if values.min() < 0 or values.max() >= bound:
            return f"field '{name}' names an index outside 0..{bound - 1}"
    if np.abs(fields["skin_weight"].sum(axis=1) - 1).max() > 1e-3 or fields["skin_weight"].min() < 0:
        return "field 'skin_weight' has a row that is negative or does not sum to 1"
    if np.abs(fields["h36m_regressor"].sum(axis=1) - 1).max() > 1e-3:
        return "field 'h36m_regressor' has a row that does not sum to 1"
    if fields["part"].min() < 1 or fields["part"].max() > 24:
        return "field 'part' has a value outside 1..24"
    return None
