"""The rigged template: mean shape, skeleton, skinning weights and chart, as section 3 of the paper has them."""

import numpy as np
from jaxtyping import Array, Float, Int

from dal_jax.body import skeleton
from dal_jax.body.formats.npz import Fields
from dal_jax.runtime import struct


@struct.dataclass
class Template:
    """A rigged human in its rest pose: metres, y up, facing +z, its left towards +x, pelvis at the origin.

    skinning_matrix and h36m_matrix are the constants W (x) [v, 1] that make skinning and joint regression one matrix
    product each (see `skinning.stacked_transforms`). pose_blendshapes (see `skinning`) are None where the template
    was loaded without them, and applied wherever it has them; h36m_blendshapes is what they do to the regressed joints:
    regressor x weights x basis, segment by segment.
    """

    vertices: Float[Array | np.ndarray, "n 3"]
    faces: Int[Array | np.ndarray, "m 3"]
    joints: Float[Array | np.ndarray, "24 3"]
    skin_weight: Float[Array | np.ndarray, "n 24"]
    h36m_regressor: Float[Array | np.ndarray, "17 n"]
    mirror: Int[Array | np.ndarray, "n"]
    part: Int[Array | np.ndarray, "m"]
    uv: Float[Array | np.ndarray, "m 3 2"]
    skinning_matrix: Float[Array | np.ndarray, "n 96"]
    h36m_matrix: Float[Array | np.ndarray, "17 96"]
    pose_blendshapes: Float[Array | np.ndarray, "n 3 207"] | None = None
    h36m_blendshapes: Float[Array | np.ndarray, "17 24 3 207"] | None = None
    parents: tuple[int, ...] = struct.static(default=skeleton.SMPL_PARENTS)


def assemble(fields: Fields, pose_blendshapes: bool = False) -> Template:
    """Make a template of a body file's fields (checked: `formats.npz.check`)."""
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
