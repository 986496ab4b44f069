"""Which bones of a rig are SMPL's joints: by the names of known rigs, or by the user's table beside the file."""

import functools
import pathlib
import re

import numpy as np
import yaml

from dal_jax.body import body_file, gltf_file, skeleton
from dal_jax.runtime import errors

RIGS = body_file.ASSETS / "rigs.yaml"
_LIMBS = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
REQUIRED = ("pelvis", "head", *(f"{side}_{joint}" for joint in _LIMBS for side in ("left", "right")))
"""Joints that every rig must have; for the others there are rules (`rig_joints`)."""

Table = dict[str, list[str]]
"""SMPL's joint to the names of the bones at whose heads it lies."""


def find(path: pathlib.Path, mesh: gltf_file.SkinnedMesh) -> dict[str, list[int]]:
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
    else:
        tables = _known()
        candidates = [_matched(table, bones) for table in tables.values()]
        if mesh.humanoid:
            humanoid = {_plain(name): [node] for name, node in mesh.humanoid.items()}
            candidates.insert(0, _matched(tables["vrm"], humanoid))
        found = max(candidates, key=_completeness)
        _require_one_rig(path, mesh, found)
    taken: dict[int, str] = {}
    for joint, nodes in found.items():
        for node in nodes:
            if taken.setdefault(node, joint) != joint:
                both = f"'{taken[node]}' and '{joint}'"
                raise errors.InputError(f"{own}: bone '{mesh.bones[node]}' is both {both}, expected one joint")
    for joint in REQUIRED:
        if joint not in found:
            raise errors.InputError(
                f"{path}: no bone is joint '{joint}' ({len(found)} of 24 found by the names of known rigs); "
                f"say which is which in {own.name} beside it"
                if not own.exists()
                else f"{own}: joint '{joint}' is missing"
            )
    return found


def _bones(mesh: gltf_file.SkinnedMesh) -> dict[str, list[int]]:
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


def _require_one_rig(path: pathlib.Path, mesh: gltf_file.SkinnedMesh, found: dict[str, list[int]]) -> None:
    """Refuse a file with two people, whose bones have the same names."""
    for joint, nodes in found.items():
        names = [_plain(mesh.bones[node]) for node in nodes]
        if len(set(names)) < len(names):
            raise errors.InputError(f"{path}: joint '{joint}': several bones are called '{mesh.bones[nodes[0]]}'")


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
                raise errors.InputError(f"{own}: joint '{joint}': {count} bones are called '{name}', expected one")
    return _matched(table, bones)


def _read(path: pathlib.Path) -> Table:
    """Read a user's table: SMPL's joint names to a bone or a list of bones."""
    try:
        content = yaml.safe_load(path.read_bytes())
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise errors.InputError(f"{path}: not a readable table: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(content, dict):
        raise errors.InputError(f"{path}: expected a table such as 'left_knee: LeftLeg', a joint a line")
    for joint, bones in content.items():
        if joint not in skeleton.SMPL_JOINT_NAMES:
            names = ", ".join(skeleton.SMPL_JOINT_NAMES)
            raise errors.InputError(f"{path}: '{str(joint)[:40]}' is no joint of {names}")
        if not all(isinstance(name, str) and name for name in _listed(bones)) or not _listed(bones):
            raise errors.InputError(f"{path}: joint '{joint}': expected a bone's name or a list of them")
    return {joint: _listed(bones) for joint, bones in content.items()}


@functools.cache
def _known() -> dict[str, Table]:
    tables = yaml.safe_load(RIGS.read_text(encoding="utf-8"))
    return {rig: {joint: _listed(bones) for joint, bones in table.items()} for rig, table in tables.items()}


def _listed(bones: object) -> list:
    return bones if isinstance(bones, list) else [bones]
