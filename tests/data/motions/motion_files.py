"""Small motion files in their true formats: .bvh, .asf with .amc, AMASS's .npz."""

import numpy as np

from dal_jax.body import skeleton
from dal_jax.body.formats import load

MIXAMO = {
    "pelvis": "Hips", "left_hip": "LeftUpLeg", "right_hip": "RightUpLeg", "spine1": "Spine", "left_knee": "LeftLeg",
    "right_knee": "RightLeg", "spine2": "Spine1", "left_ankle": "LeftFoot", "right_ankle": "RightFoot",
    "spine3": "Spine2", "left_foot": "LeftToeBase", "right_foot": "RightToeBase", "neck": "Neck",
    "left_collar": "LeftShoulder", "right_collar": "RightShoulder", "head": "Head", "left_shoulder": "LeftArm",
    "right_shoulder": "RightArm", "left_elbow": "LeftForeArm", "right_elbow": "RightForeArm", "left_wrist": "LeftHand",
    "right_wrist": "RightHand", "left_hand": "LeftHandMiddle1", "right_hand": "RightHandMiddle1",
}  # fmt: skip
"""SMPL's joints as Mixamo names them."""

STYLE100 = {
    "left_hip": "LeftHip", "right_hip": "RightHip", "left_knee": "LeftKnee", "right_knee": "RightKnee",
    "left_ankle": "LeftAnkle", "right_ankle": "RightAnkle", "neck": "Neck", "head": "Head",
    "left_collar": "LeftCollar", "right_collar": "RightCollar", "left_shoulder": "LeftShoulder",
    "right_shoulder": "RightShoulder", "left_elbow": "LeftElbow", "right_elbow": "RightElbow",
    "left_wrist": "LeftWrist", "right_wrist": "RightWrist",
}  # fmt: skip

ACCLAIM = {
    "left_hip": "lhipjoint", "left_knee": "lfemur", "left_ankle": "ltibia", "left_foot": "lfoot", "right_hip":
    "rhipjoint", "right_knee": "rfemur", "right_ankle": "rtibia", "right_foot": "rfoot", "spine1": "lowerback",
    "spine2": "upperback", "neck": "thorax", "head": "upperneck", "left_shoulder": "lclavicle", "left_elbow":
    "lhumerus", "left_wrist": "lradius", "right_shoulder": "rclavicle", "right_elbow": "rhumerus", "right_wrist":
    "rradius",
}  # fmt: skip
"""SMPL's joints as the bones of CMU's skeletons that end there; `head` goes on from `upperneck`."""

Y_UP = np.eye(3)


def free_body_offsets():
    """Return each of SMPL's joints relative to its parent, on the free body."""
    joints = np.asarray(load.load_body().joints, np.float64)
    parents = np.array(skeleton.SMPL_PARENTS)
    return np.where(parents[:, None] < 0, 0.0, joints - joints[parents])


def write_bvh(path, angles_deg, order="ZXY", names=MIXAMO, prefix="mixamorig:", unit=100.0, root=None, world=Y_UP):
    """Write the free body's skeleton; angles_deg: (frames, 24, 3), in the order in which `order` lists the axes.

    world: maps axes of its world (y up) to axes of the file's, or to their opposites.
    """
    offsets = unit * free_body_offsets() @ world.T
    axes = world[:, ["XYZ".index(axis) for axis in order]]
    order, angles_deg = ["XYZ"[axis] for axis in np.argmax(np.abs(axes), axis=0)], angles_deg * axes.sum(axis=0)
    parents, smpl = skeleton.SMPL_PARENTS, skeleton.SMPL_JOINT_NAMES
    lines, columns = ["HIERARCHY"], []

    def joint(row, depth):
        pad, children = "\t" * depth, [k for k, parent in enumerate(parents) if parent == row]
        kind = "ROOT" if row == 0 else "JOINT"
        lines.append(f"{pad}{kind} {prefix}{names.get(smpl[row], smpl[row])}")
        lines.append(pad + "{")
        lines.append(f"{pad}\tOFFSET " + " ".join(f"{x:.9f}" for x in offsets[row]))
        rotations = " ".join(f"{axis}rotation" for axis in order)
        place = "Xposition Yposition Zposition " if row == 0 else ""
        lines.append(f"{pad}\tCHANNELS {6 if row == 0 else 3} {place}{rotations}")
        columns.append(row)
        for child in children:
            joint(child, depth + 1)
        if not children:
            lines.extend([f"{pad}\tEnd Site", pad + "\t{", f"{pad}\t\tOFFSET 0.0 5.0 0.0", pad + "\t}"])
        lines.append(pad + "}")

    joint(0, 0)
    frames = len(angles_deg)
    root = np.zeros((frames, 3)) if root is None else root @ world.T
    lines += ["MOTION", f"Frames: {frames}", f"Frame Time: {1 / 30:.9f}"]
    for frame in range(frames):
        values = [*root[frame], *angles_deg[frame][columns].ravel()]
        lines.append(" ".join(f"{value:.9f}" for value in values))
    path.write_text("\n".join(lines) + "\n")
    return columns


ASF_HEAD = """# AST/ASF file
:version 1.10
:name VICON
:units
  mass 1.0
  length 0.45
  angle deg
:documentation
   a made-up skeleton
:root
   order TX TY TZ RX RY RZ
   axis XYZ
   position 0 0 0
   orientation 0 0 0
:bonedata
"""


def acclaim_bones():
    """Return (name, parent name, offset) of CMU's bones with the free body's proportions, parents first."""
    joints = dict(zip(skeleton.SMPL_JOINT_NAMES, np.asarray(load.load_body().joints, np.float64), strict=True))
    chains = (
        ("left_hip", "left_knee", "left_ankle", "left_foot"), ("right_hip", "right_knee", "right_ankle", "right_foot"),
        ("spine1", "spine2", "neck"), ("neck", "head"), ("neck", "left_shoulder", "left_elbow", "left_wrist"),
        ("neck", "right_shoulder", "right_elbow", "right_wrist"),
    )  # fmt: skip
    bones = []
    for chain in chains:
        at, parent = ("neck", "thorax") if chain[0] == "neck" and len(bones) > 8 else ("pelvis", "root")
        for end in chain if parent == "root" else chain[1:]:
            bones.append((ACCLAIM[end], parent, joints[end] - joints[at]))
            at, parent = end, ACCLAIM[end]
    bones.append(("head", "upperneck", np.array([0.0, 0.2, 0.0])))
    return bones


def write_acclaim(folder, motion_deg, axes_deg, unit=1 / 0.0254 * 0.45):
    """Write 07.asf and 07_01.amc; motion_deg and axes_deg: bone name -> (frames, 3), (3,)."""
    bones = acclaim_bones()
    text = ASF_HEAD
    for number, (name, _, offset) in enumerate(bones, start=1):
        length = np.linalg.norm(offset)
        direction = " ".join(f"{x:.9f}" for x in offset / length)
        axis = " ".join(f"{x:.6f}" for x in axes_deg[name])
        text += f"  begin\n     id {number}\n     name {name}\n     direction {direction}\n"
        text += f"     length {unit * length:.9f}\n     axis {axis}  XYZ\n    dof rx ry rz\n"
        text += "    limits (-160.0 20.0)\n           (-70.0 70.0)\n           (-60.0 70.0)\n  end\n"
    text += ":hierarchy\n  begin\n"
    for parent in dict.fromkeys(parent for _, parent, _ in bones):
        text += f"    {parent} " + " ".join(name for name, own, _ in bones if own == parent) + "\n"
    (folder / "07.asf").write_text(text + "  end\n")
    lines = ["#!OML:ASF made up", ":FULLY-SPECIFIED", ":DEGREES"]
    for frame in range(len(motion_deg["root"])):
        lines.append(str(frame + 1))
        for name in ("root", *(bone[0] for bone in bones)):
            lines.append(f"{name} " + " ".join(f"{x:.9f}" for x in motion_deg[name][frame]))
    (folder / "07_01.amc").write_text("\n".join(lines) + "\n")
    return folder / "07_01.amc"


def write_amass(path, root, pose, rate=120.0, width=156):
    """Write AMASS's layout; root: (frames, 3), pose: (frames, 23, 3)."""
    poses = np.zeros((len(root), width))
    poses[:, :3] = root
    poses[:, 3:66] = pose[:, :21].reshape(len(root), -1)
    if width == 72:
        poses[:, 66:] = pose[:, 21:].reshape(len(root), -1)
    np.savez(
        path,
        poses=poses,
        trans=np.zeros((len(root), 3)),
        betas=np.zeros(16),
        dmpls=np.zeros((len(root), 8)),
        gender=np.array("female"),
        mocap_framerate=np.array(rate),
    )
    return path
