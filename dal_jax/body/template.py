"""The rigged template: mean shape, skeleton, skinning weights and chart, as section 3 of the paper has them."""

import numpy as np
from jaxtyping import Array, Float, Int

from dal_jax.body import skeleton
from dal_jax.runtime import struct

Fields = dict[str, np.ndarray]
"""What a body file holds, by name; the other formats are read into the same fields."""

_SAME_GIRTH = ("neck", "head", "ankle", "foot", "wrist", "hand")  # flesh and clothes hardly widen these
_TOWARDS = {"pelvis": "spine1", "spine3": "neck"}  # of several bones the one along the trunk
_OF_ARMS = ("collar", "shoulder", "elbow", "wrist", "hand")


@struct.dataclass
class Template:
    """A rigged human in its rest pose: metres, y up, facing +z, its left towards +x, pelvis at the origin.

    keypoint_regressor holds the key points of all sets, one after the other (`keypoint_rows`); NaN where a body file
    has no such set. across_bones are the projections along which a girth widens (`across_bones`), bone_axes the axes of
    each segment's rest frame along which it is scaled (`bone_axes`).
    skinning_matrix and keypoint_matrix are the constants W (x) [v, 1] that make skinning and regression one matrix
    product each (see `skinning.stacked_transforms`). pose_blendshapes (see `skinning`) are None where the template was
    loaded without them, and applied wherever it has them; keypoint_blendshapes is what they do to the key points:
    regressor x weights x basis, segment by segment. smpl is the gender of the model of SMPL that the template was read
    from, and SMPL's own place of the pelvis, metres; None of other bodies.
    """

    vertices: Float[Array | np.ndarray, "n 3"]
    faces: Int[Array | np.ndarray, "m 3"]
    joints: Float[Array | np.ndarray, "24 3"]
    skin_weight: Float[Array | np.ndarray, "n 24"]
    keypoint_regressor: Float[Array | np.ndarray, "42 n"]
    mirror: Int[Array | np.ndarray, "n"]
    part: Int[Array | np.ndarray, "m"]
    uv: Float[Array | np.ndarray, "m 3 2"]
    skinning_matrix: Float[Array | np.ndarray, "n 96"]
    keypoint_matrix: Float[Array | np.ndarray, "42 96"]
    across_bones: Float[Array | np.ndarray, "24 3 3"]
    bone_axes: Float[Array | np.ndarray, "24 3 3"]
    pose_blendshapes: Float[Array | np.ndarray, "n 3 207"] | None = None
    keypoint_blendshapes: Float[Array | np.ndarray, "42 24 3 207"] | None = None
    parents: tuple[int, ...] = struct.static(default=skeleton.SMPL_PARENTS)
    smpl: tuple[str, tuple[float, float, float]] | None = struct.static(default=None)

    def regressor(self, keypoint_set: str) -> Float[Array | np.ndarray, "k n"]:
        """Return the regressor of a set of key points, a name of `skeleton.KEYPOINT_SETS`."""
        return self.keypoint_regressor[keypoint_rows(keypoint_set)]

    @property
    def h36m_regressor(self) -> Float[Array | np.ndarray, "17 n"]:
        """The regressor of Human3.6M's 17 joints, the metrics' joints."""
        return self.regressor("h36m")


def keypoint_rows(keypoint_set: str) -> slice:
    """Return where a set's key points are in `keypoint_regressor`.

    Raises:
      ValueError: there is no such set.
    """
    first = 0
    for name, names in skeleton.KEYPOINT_SETS.items():
        if name == keypoint_set:
            return slice(first, first + len(names))
        first += len(names)
    raise ValueError(f"key point set '{keypoint_set}' is not one of {', '.join(skeleton.KEYPOINT_SETS)}")


def assemble(fields: Fields, pose_blendshapes: bool = False) -> Template:
    """Make a template of a body file's fields (checked: `formats.load.check_fields`)."""
    vertices = fields["vertices"].astype(np.float32)
    unknown = np.full((len(skeleton.BODY_25B_NAMES), len(vertices)), np.nan)
    regressor = np.concatenate([fields["h36m_regressor"], fields.get("body25b_regressor", unknown)]).astype(np.float32)
    weight = np.zeros((len(vertices), len(skeleton.SMPL_PARENTS)), np.float32)
    np.add.at(weight, (np.arange(len(vertices))[:, None], fields["skin_index"]), fields["skin_weight"])
    homogeneous = np.concatenate([vertices, np.ones_like(vertices[:, :1])], axis=1)
    skinning_matrix = (weight[:, :, None] * homogeneous[:, None, :]).reshape(len(vertices), -1)
    used = regressor.any(axis=0)  # a few hundred vertices of thousands
    basis = fields["pose_blendshapes"].astype(np.float32) if pose_blendshapes else None
    return Template(
        vertices=vertices,
        faces=fields["faces"].astype(np.int32),
        joints=fields["joints"].astype(np.float32),
        skin_weight=weight,
        keypoint_regressor=regressor,
        mirror=fields["mirror"].astype(np.int32),
        part=fields["part"].astype(np.int32),
        uv=fields["uv"].astype(np.float32),
        skinning_matrix=skinning_matrix,
        keypoint_matrix=(regressor[:, used].astype(np.float64) @ skinning_matrix[used]).astype(np.float32),
        across_bones=across_bones(fields["joints"]).astype(np.float32),
        bone_axes=bone_axes(fields["joints"]).astype(np.float32),
        pose_blendshapes=basis,
        keypoint_blendshapes=None if basis is None else _regress(regressor, weight, basis),
    )


def across_bones(joints: Float[np.ndarray, "24 3"]) -> Float[np.ndarray, "24 3 3"]:
    """Return P_k, the projection of the rest pose on what is at right angles to the bone of segment k.

    Zero for neck, head, hands and feet, whose girth stays. joints: in the rest pose, NumPy.
    """
    joints = np.asarray(joints, np.float64)
    across = np.zeros((len(joints), 3, 3))
    for segment in np.flatnonzero(WIDENED):
        start, end = _ends(int(segment))
        bone = joints[end] - joints[start]
        across[segment] = np.eye(3) - np.outer(bone, bone) / max(np.sum(bone**2), 1e-12)
    return across


def bone_axes(joints: Float[np.ndarray, "*batch 24 3"]) -> Float[np.ndarray, "*batch 24 3 3"]:
    """Return E_k, whose columns are a segment's axes in the rest pose: along its bone, then its two girth axes.

    The first girth axis is at right angles to the bone in the plane of the bone and the body's x (trunk, legs, head:
    their width) or y (arms); the second at right angles to both. A segment without a child goes on as the one above.
    joints: in the rest pose, NumPy.
    """
    joints = np.asarray(joints, np.float64)
    axes = np.zeros((*joints.shape, 3))
    for segment, name in enumerate(skeleton.SMPL_JOINT_NAMES):
        start, end = _ends(segment)
        bone = _unit(joints[..., end, :] - joints[..., start, :])
        sideways = np.eye(3)[1 if name.endswith(_OF_ARMS) else 0]
        first = _unit(sideways - bone * (bone @ sideways)[..., None])
        axes[..., segment, :, :] = np.stack([bone, first, np.cross(bone, first)], axis=-1)
    return axes


WIDENED = np.array([not name.endswith(_SAME_GIRTH) for name in skeleton.SMPL_JOINT_NAMES])
"""Which segments a girth widens."""


def _ends(segment: int) -> tuple[int, int]:
    """Return the joints at both ends of a segment's bone."""
    names, name = skeleton.SMPL_JOINT_NAMES, skeleton.SMPL_JOINT_NAMES[segment]
    if name in _TOWARDS:
        return segment, names.index(_TOWARDS[name])
    if segment not in skeleton.SMPL_PARENTS:
        return skeleton.SMPL_PARENTS[segment], segment
    return segment, skeleton.SMPL_PARENTS.index(segment)


def _unit(vector: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
    return vector / np.maximum(np.linalg.norm(vector, axis=-1, keepdims=True), 1e-6)


def _regress(regressor: np.ndarray, weight: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return sum_i r_hi w_ik B_i: joint h, segment k, axis, pose feature."""
    shares = (regressor[:, None, :] * weight.T[None]).reshape(-1, len(weight)).astype(np.float64)
    return (shares @ basis.reshape(len(weight), -1)).astype(np.float32).reshape(len(regressor), -1, *basis.shape[1:])
