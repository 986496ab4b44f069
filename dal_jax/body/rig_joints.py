"""A rig's bones to SMPL's 24 joints and segments: what skin hangs on, and where joints lie that the rig lacks."""

import numpy as np
from jaxtyping import Float

from dal_jax.body import carry_over, gltf_file, skeleton

_NAMES, _PARENTS = skeleton.SMPL_JOINT_NAMES, skeleton.SMPL_PARENTS
_INSIDE = ("spine1", "spine2", "spine3", "neck", "left_collar", "right_collar")


def segment_weights(mesh: gltf_file.SkinnedMesh, nodes: dict[str, list[int]]) -> Float[np.ndarray, "n 24"]:
    """Sum a mesh's weights over the bones of each segment.

    A bone that is no joint of SMPL's goes with the nearest bone above it that is (fingers with the hand or, as the
    thumb, with the wrist; hair with the head), or with the pelvis where there is none.
    """
    owner = np.full(len(mesh.bones), -1)
    for joint, its in nodes.items():
        owner[its] = _NAMES.index(joint)
    for node in range(len(owner)):
        at = node
        while owner[at] < 0 and mesh.parents[at] >= 0:
            at = mesh.parents[at]
        owner[node] = max(owner[at], 0)
    weights = np.zeros((len(mesh.vertices), len(_NAMES)))
    np.add.at(weights, (np.arange(len(weights))[:, None], owner[mesh.skin_node]), mesh.skin_weight)
    return weights


def joints(heads: Float[np.ndarray, "bones 3"], nodes: dict[str, list[int]]) -> Float[np.ndarray, "24 3"]:
    """Return SMPL's joints, from bone heads in metres, y up, facing +z.

    Joints that a rig lacks: spine, neck and collar joints lie between the nearest ones above and below that it has, as
    far along and as far aside as on the free body; a foot joint lies ahead of the ankle as on the free body, in
    proportion to the shin; a hand joint goes on from the forearm, in proportion to it. No skin hangs on them.
    """
    place = {joint: heads[its].mean(axis=0) for joint, its in nodes.items()}
    free = dict(zip(_NAMES, carry_over.free_body()["joints"], strict=True))
    for joint in _NAMES:
        if joint not in place and joint in _INSIDE:
            place[joint] = _between(joint, place, free)
    for side in ("left", "right"):
        ankle, knee, elbow, wrist = (f"{side}_{joint}" for joint in ("ankle", "knee", "elbow", "wrist"))
        if f"{side}_foot" not in place:
            size = _length(place, knee, ankle) / _length(free, knee, ankle)
            place[f"{side}_foot"] = place[ankle] + size * (free[f"{side}_foot"] - free[ankle])
        if f"{side}_hand" not in place:
            share = _length(free, wrist, f"{side}_hand") / _length(free, elbow, wrist)
            place[f"{side}_hand"] = place[wrist] + share * (place[wrist] - place[elbow])
    return np.stack([place[joint] for joint in _NAMES])


def _between(joint: str, place: dict[str, np.ndarray], free: dict[str, np.ndarray]) -> Float[np.ndarray, "3"]:
    above = _NAMES[_PARENTS[_NAMES.index(joint)]]  # placed already: joints are in the tree's order
    below = joint
    while below not in place:
        below = _below(below)
    whole, part = free[below] - free[above], free[joint] - free[above]
    share = np.clip(part @ whole / (whole @ whole), 0, 1)
    size = _length(place, above, below) / _length(free, above, below)
    return place[above] + share * (place[below] - place[above]) + size * (part - share * whole)


def _below(joint: str) -> str:
    """Return the joint below in the chain to the head or to the shoulder."""
    children = [_NAMES[k] for k, parent in enumerate(_PARENTS) if parent == _NAMES.index(joint)]
    return children[0]  # of spine3's the neck: collars come after it


def _length(place: dict[str, np.ndarray], start: str, end: str) -> float:
    return float(np.linalg.norm(place[end] - place[start]))
