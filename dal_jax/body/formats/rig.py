"""Which bones of a rig are SMPL's joints: by the names of known rigs, or by the user's table beside the file."""

import functools
import pathlib
import re

import numpy as np
import yaml
from jaxtyping import Float

from dal_jax.body import skeleton
from dal_jax.body.formats import carry_over, load
from dal_jax.body.formats.gltf_file import SkinnedMesh
from dal_jax.runtime import door
from dal_jax.runtime.errors import InputError

RIGS = load.ASSETS / "rigs.yaml"
_LIMBS = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
REQUIRED = ("pelvis", "head", *(f"{side}_{joint}" for joint in _LIMBS for side in ("left", "right")))
"""Joints that every rig must have; for the others there are rules (`rig_joints`)."""

Table = dict[str, list[str]]
"""SMPL's joint to the names of the bones at whose heads it lies."""


def find(path: pathlib.Path, mesh: SkinnedMesh) -> dict[str, list[int]]:
    """Return the nodes of each joint that the rig has.

    `NAME.yaml` beside `NAME.glb`, where there is one, says which (every bone it names must be there); else VRM's own
    table in the file; else of the tables of `assets/rigs.yaml` the one that finds most joints.

    Raises:
      errors.InputError: the table is damaged or names what does not exist, or a required joint has no bone.
    """
    own = path.with_suffix(".yaml")
    bones = _bones(mesh)
    if own.exists():
        found = _look_up(_read(own), bones, own)
        _require_all(found, mesh, str(own), "")
        return found
    if mesh.humanoid:
        found = _matched(_known()["vrm"], {_plain(name): [node] for name, node in mesh.humanoid.items()})
    else:
        found = max((_matched(table, bones) for table in _known().values()), key=_completeness)
    _require_one_rig(path, mesh, found)
    told = f" ({len(found)} of 24 found by the names of known rigs); say which is which in {own.name} beside it"
    _require_all(found, mesh, str(path), told)
    return found


def _require_all(found: dict[str, list[int]], mesh: SkinnedMesh, where: str, told: str) -> None:
    """Refuse a table that leaves a required joint out or gives a bone to two."""
    for joint in REQUIRED:
        if joint not in found:
            raise InputError(f"{where}: no bone is joint '{joint}'{told}")
    taken: dict[int, str] = {}
    for joint, nodes in found.items():
        for node in nodes:
            if taken.setdefault(node, joint) != joint:
                raise InputError(f"{where}: bone '{mesh.bones[node]}' is both '{taken[node]}' and '{joint}'")


def _bones(mesh: SkinnedMesh) -> dict[str, list[int]]:
    """Return by plain name the nodes that move skin, and those above them whose names no such node has."""
    above = set()
    for node in range(len(mesh.bones)):
        at = mesh.parents[node] if mesh.is_joint[node] else -1
        while at >= 0 and at not in above:
            above.add(at)
            at = mesh.parents[at]
    names: dict[str, list[int]] = {}
    for node in np.flatnonzero(mesh.is_joint).tolist():
        names.setdefault(_plain(mesh.bones[node]), []).append(node)
    for node in above:
        if not mesh.is_joint[node]:
            names.setdefault(_plain(mesh.bones[node]), [node])
    return names


def _require_one_rig(path: pathlib.Path, mesh: SkinnedMesh, found: dict[str, list[int]]) -> None:
    """Refuse a file with two people, whose bones have the same names."""
    for joint, nodes in found.items():
        names = [_plain(mesh.bones[node]) for node in nodes]
        if len(set(names)) < len(names):
            raise InputError(f"{path}: joint '{joint}': several bones are called '{mesh.bones[nodes[0]]}'")


def _plain(name: str) -> str:
    """Drop namespace, case and separators: 'mixamorig:LeftUpLeg' is 'leftupleg', 'DEF-upper_arm.L' 'upperarml'."""
    name = re.sub(r"^(.*[:|])?(mixamorig\d*)?(DEF-|[mf]_avg_)?", "", name)
    return re.sub(r"[ ._-]", "", name).lower()


def _completeness(found: dict[str, list[int]]) -> tuple[int, int]:
    return sum(joint in found for joint in REQUIRED), len(found)


def _matched(table: Table, bones: dict[str, list[int]]) -> dict[str, list[int]]:
    """Return the joints of a table of which at least one bone is there."""
    found = {joint: [node for name in names for node in bones.get(_plain(name), ())] for joint, names in table.items()}
    return {joint: nodes for joint, nodes in found.items() if nodes}


def _look_up(table: Table, bones: dict[str, list[int]], own: pathlib.Path) -> dict[str, list[int]]:
    for joint, names in table.items():
        for name in names:
            count = len(bones.get(_plain(name), ()))
            if count != 1:
                raise InputError(f"{own}: joint '{joint}': {count} bones are called '{name}', expected one")
    return _matched(table, bones)


def _read(path: pathlib.Path) -> Table:
    """Read a user's table: SMPL's joint names to a bone or a list of bones."""
    try:
        content = yaml.safe_load(door.contents(path, 1 << 20))
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a readable table: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a table such as 'left_knee: LeftLeg', a joint a line")
    for joint, bones in content.items():
        if joint not in skeleton.SMPL_JOINT_NAMES:
            names = ", ".join(skeleton.SMPL_JOINT_NAMES)
            raise InputError(f"{path}: '{str(joint)[:40]}' is no joint of {names}")
        if not all(isinstance(name, str) and name for name in _listed(bones)) or not _listed(bones):
            raise InputError(f"{path}: joint '{joint}': expected a bone's name or a list of them")
    return {joint: _listed(bones) for joint, bones in content.items()}


@functools.cache
def _known() -> dict[str, Table]:
    tables = yaml.safe_load(RIGS.read_text(encoding="utf-8"))
    return {rig: {joint: _listed(bones) for joint, bones in table.items()} for rig, table in tables.items()}


def _listed(bones: object) -> list:
    return bones if isinstance(bones, list) else [bones]


# --- A rig's bones to SMPL's 24 joints and segments: what skin hangs on, and where joints lie that the rig lacks ---

_NAMES, _PARENTS = skeleton.SMPL_JOINT_NAMES, skeleton.SMPL_PARENTS
_INSIDE = ("spine1", "spine2", "spine3", "neck", "left_collar", "right_collar")


def segment_weights(mesh: SkinnedMesh, nodes: dict[str, list[int]]) -> Float[np.ndarray, "n 24"]:
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
    free: dict[str, np.ndarray] = dict(zip(_NAMES, carry_over.free_body()["joints"], strict=True))
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
