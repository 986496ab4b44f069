"""A model of SMPL or SMPL-H as a body: our frame, our 24 joints; what SMPL lacks comes from the free body."""

import pathlib

import numpy as np
from jaxtyping import Float, Int

from dal_jax.body import body_file, carry_over, skeleton, smpl_file
from dal_jax.runtime import errors

_FINGERS = {"index": "hand", "middle": "hand", "pinky": "hand", "ring": "hand", "thumb": "wrist"}
_HANDS = tuple(f"{side}_{finger}" for side in ("left", "right") for finger in _FINGERS for _ in range(3))
_SMPLH_NAMES = skeleton.SMPL_JOINT_NAMES[:22] + _HANDS
_SMPLH_PARENTS = skeleton.SMPL_PARENTS[:22] + tuple(
    wrist if bone == 0 else 22 + 15 * hand + 3 * finger + bone - 1
    for hand, wrist in enumerate((20, 21)) for finger in range(5) for bone in range(3)
)  # fmt: skip
_BODY_FEATURES = 9 * 21  # of the pose blendshapes: those of the joints that SMPL and SMPL-H share


def read(path: pathlib.Path, pose_blendshapes: bool = False, betas: tuple[float, ...] = ()) -> body_file.Fields:
    """Read a model as the fields of a body file: its mean shape, or the shape of `betas`, as far as it has such.

    The skeleton is `J_regressor` times the shape; the pelvis goes to the origin; SMPL's axes are ours. `mirror` is the
    vertex nearest to the mirror image. `part`, `uv` and `h36m_regressor`, which SMPL has not, are the free body's,
    carried over by the map of SMPL's vertices (`carry_over`): annotation in DensePose's own chart needs --chart.

    Note: SMPL-H has no hand joints but fifteen finger joints a hand. Our choice: `hand` lies midway between the bases
    of the index and the middle finger, fingers go with it and the thumb with the wrist (as the free body's), and
    fingers do not move; of the pose blendshapes the fingers' are dropped and the hands' are zero.

    Raises:
      errors.InputError: as `smpl_file.read`, or the tree is another; one line with file and field.
    """
    model = smpl_file.read(path, pose_blendshapes, len(betas))
    _check_tree(path, model["kintree_table"])
    vertices = model["v_template"].astype(np.float64)
    if betas:
        vertices = vertices + model["shapedirs"] @ np.array(betas[: model["shapedirs"].shape[2]])
    joints = model["J_regressor"].astype(np.float64) @ vertices
    weights = model["weights"].astype(np.float64)
    if len(joints) > len(skeleton.SMPL_PARENTS):
        joints, weights = _without_fingers(joints, weights)
    vertices, joints = vertices - joints[0], joints - joints[0]
    faces = model["f"].astype(np.int64)
    fields = carry_over.body_fields(vertices, faces, joints, weights, carry_over.smpl_placement())
    if pose_blendshapes:
        fields["pose_blendshapes"] = _body_blendshapes(model["posedirs"])
    return fields


def _check_tree(path: pathlib.Path, table: Int[np.ndarray, "2 joints"]) -> None:
    expected = skeleton.SMPL_PARENTS if table.shape[1] == len(skeleton.SMPL_PARENTS) else _SMPLH_PARENTS
    parents = table[0].astype(np.int64)
    if parents[0] in (2**32 - 1, 2**16 - 1):  # -1 in unsigned numbers
        parents[0] = -1
    if tuple(parents.tolist()) != expected or not np.array_equal(table[1], np.arange(len(expected))):
        joint = next((k for k, (a, b) in enumerate(zip(parents, expected, strict=True)) if a != b), 0)
        raise errors.InputError(
            f"{path}: field 'kintree_table' gives joint {table[1, joint]} the parent {table[0, joint]}, "
            f"expected {expected[joint]}: another tree than SMPL's"
        )


def _without_fingers(joints: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the 24 joints and their weights of SMPL-H's 52."""
    names = skeleton.SMPL_JOINT_NAMES
    owner = [names.index(_segment(name)) for name in _SMPLH_NAMES]
    folded = np.zeros((len(weights), len(names)))
    np.add.at(folded.T, owner, weights.T)
    hands = [
        (joints[_SMPLH_NAMES.index(f"{side}_index")] + joints[_SMPLH_NAMES.index(f"{side}_middle")]) / 2
        for side in ("left", "right")
    ]
    return np.concatenate([joints[:22], hands]), folded


def _segment(name: str) -> str:
    side, _, finger = name.partition("_")
    return f"{side}_{_FINGERS[finger]}" if finger in _FINGERS else name


def _body_blendshapes(posedirs: Float[np.ndarray, "n 3 features"]) -> Float[np.ndarray, "n 3 207"]:
    if posedirs.shape[2] == 207:
        return posedirs
    kept = np.zeros((*posedirs.shape[:2], 207))
    kept[..., :_BODY_FEATURES] = posedirs[..., :_BODY_FEATURES]
    return kept
