"""A fitted body as a rig: joints that rotate, leaf nodes that scale, a mesh in its rest pose; for one moment or many.

Segment scales do not compound down our chain, yet in every scene format a node's scale is passed on to its children. So
a joint has two nodes. NAME rotates, and carries the joints below. Its leaf NAME_scale, at the same place, has the scale
and moves the skin. Mesh and bind pose are the template's. A vertex v is then skinned as

    x = sum_k w_k  N_k E_k diag(d_k) E_k^T (v - J_k)

with N_k the joint's node, J_k its place in the rest pose, and E_k the axes along and across its bone, along which a
segment scale s and a girth g scale by d = s or s g; of anisotropic scales by s, s b1 and s b2. No node hangs on one
that scales, so a scale that differs between axes shears no child. That is the product of `kinematics`, so the skin is
ours in every pose. The other way, 24 plain joints and a mesh baked at the person's proportions, is exact in the baked
pose alone: in others the skin differs where segments of different scales meet.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from dal_jax.body import skeleton
from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.template import WIDENED, Template
from dal_jax.fits import overlays

VIEWER_FROM_CAMERA = np.diag([1.0, -1.0, -1.0])  # camera: y down, z away; scene formats: y up, z towards the viewer
NAMES, PARENTS = skeleton.SMPL_JOINT_NAMES, skeleton.SMPL_PARENTS
SCALE_NAMES = tuple(f"{name}_scale" for name in NAMES)
COLOUR = tuple(value**2.2 for value in overlays.BODY_COLOUR)  # linear, as materials have it


class Rig(NamedTuple):
    """A body over frames (one: a still), metres, y up, z towards the viewer. Quaternions are x, y, z, w.

    vertices: the mesh in its rest pose. joints: J_k. translation, rotation: of joint nodes, relative to the parent's;
    the pelvis' in the scene. axes: E_k, of the scale nodes; scale: d_k.
    """

    vertices: Float[np.ndarray, "n 3"]
    joints: Float[np.ndarray, "24 3"]
    translation: Float[np.ndarray, "frames 24 3"]
    rotation: Float[np.ndarray, "frames 24 4"]
    axes: Float[np.ndarray, "24 4"]
    scale: Float[np.ndarray, "frames 24 3"]


def make(template: Template, parameters: BodyParameters, position: Float[np.ndarray, "frames 3"] | None = None) -> Rig:
    """Return the rig of a body whose parameters are stacked over frames.

    Args:
      template: the body. Its pose blendshapes, if it has any, are baked into the mesh as in the first frame.
      parameters: (frames, ...).
      position: of the pelvis, camera axes, metres; left out: the origin.
    """
    pose, frames = np.asarray(parameters.pose, np.float64), len(parameters.pose)
    parents, joints = np.array(template.parents[1:]), np.asarray(template.joints, np.float64)
    segment_scale = np.asarray(parameters.segment_scale, np.float64)
    bones = segment_scale[:, parents, None] * (joints[1:] - joints[parents])
    root = np.zeros((frames, 1, 3)) if position is None else np.asarray(position)[:, None] @ VIEWER_FROM_CAMERA
    upright = VIEWER_FROM_CAMERA @ np.asarray(parameters.rotation, np.float64)
    rotation = np.concatenate(
        [
            Rotation.from_matrix(upright).as_quat()[:, None],
            Rotation.from_rotvec(pose.reshape(-1, 3)).as_quat().reshape(frames, -1, 4),
        ],
        axis=1,
    )
    across, axes = _axes(template, parameters.segment_girth)
    girth = np.ones(frames) if parameters.girth is None else np.asarray(parameters.girth, np.float64)
    scale = segment_scale[..., None] * (1.0 + (girth - 1.0)[:, None, None] * across)
    if parameters.segment_girth is not None:
        scale[..., 1:] *= np.asarray(parameters.segment_girth, np.float64)
    return Rig(
        vertices=_rest(template, pose[0]),
        joints=joints,
        translation=np.concatenate([root, bones], axis=1),
        rotation=_continuous(rotation),
        axes=Rotation.from_matrix(axes).as_quat(),
        scale=scale,
    )


def _axes(template: Template, segment_girth) -> tuple[Float[np.ndarray, "24 3"], Float[np.ndarray, "24 3 3"]]:
    """Return which axes of each segment a girth widens (1, else 0), and the axes: columns of a proper rotation."""
    if segment_girth is not None:
        return WIDENED[:, None] * np.array([0.0, 1.0, 1.0]), np.asarray(template.bone_axes, np.float64)
    across, axes = np.linalg.eigh(np.asarray(template.across_bones, np.float64))  # 0 along the bone, 1 across
    return np.rint(across), axes * np.linalg.det(axes)[:, None, None]


def texture(template: Template) -> Float[np.ndarray, "m 3 2"]:
    """Return the texture coordinates of each face's corners in DensePose's atlas: x to the right, y down, in [0, 1].

    The atlas has 24 square tiles in 4 columns of 6, part by part down the first column and on; in each tile u runs to
    the right and v up.
    """
    part = np.asarray(template.part)[:, None] - 1
    u, v = np.moveaxis(np.asarray(template.uv, np.float64), -1, 0)
    return np.stack([(part // 6 + u) / 4, (part % 6 + 1 - v) / 6], axis=-1)


def still(parameters: BodyParameters) -> BodyParameters:
    """Return one body's parameters as those of a single frame."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[None], parameters)


def _rest(template: Template, pose: Float[np.ndarray, "23 3"]) -> Float[np.ndarray, "n 3"]:
    vertices = np.asarray(template.vertices, np.float64)
    if template.pose_blendshapes is None:
        return vertices
    feature = Rotation.from_rotvec(pose).as_matrix() - np.eye(3)
    return vertices + np.asarray(template.pose_blendshapes, np.float64) @ feature.ravel()


def _continuous(rotation: Float[np.ndarray, "frames joints 4"]) -> Float[np.ndarray, "frames joints 4"]:
    """Return the same rotations, each quaternion of the sign that is nearer to that of the frame before."""
    flips = np.sum(rotation[1:] * rotation[:-1], axis=-1, keepdims=True) < 0
    signs = np.cumprod(np.where(flips, -1.0, 1.0), axis=0)
    return np.concatenate([rotation[:1], rotation[1:] * signs])


# --- Other forms of the same rig: BVH, and SMPL's parameters ---

_BVH_ORDER = "ZXY"  # R = Rz Rx Ry


def bvh(rig: Rig, frame_s: float) -> str:
    """Return the skeleton and its motion as Biovision's text: metres, degrees, y up; bones as long as the person's.

    Channels: Xposition Yposition Zposition of the pelvis, and Zrotation Xrotation Yrotation of every joint. A joint
    without children ends half its bone further.

    Raises:
      ValueError: the bones change from frame to frame; a BVH file has one skeleton.
    """
    offset = rig.translation[0].copy()
    offset[0] = 0.0
    if not np.allclose(rig.translation[:, 1:], offset[1:], rtol=0, atol=1e-6):
        raise ValueError("segment_scale differs between frames: a BVH file has one skeleton")
    lines, order = ["HIERARCHY"], []

    def line(depth: int, text: str) -> None:
        lines.append("  " * depth + text)

    def write(joint: int, depth: int) -> None:
        order.append(joint)
        children = [child for child, parent in enumerate(PARENTS) if parent == joint]
        position = "" if joint else "Xposition Yposition Zposition "
        rotation = " ".join(f"{axis}rotation" for axis in _BVH_ORDER)
        line(depth, f"{'JOINT' if joint else 'ROOT'} {NAMES[joint]}")
        line(depth, "{")
        line(depth + 1, _numbers("OFFSET", offset[joint]))
        line(depth + 1, f"CHANNELS {3 if joint else 6} {position}{rotation}")
        for child in children:
            write(child, depth + 1)
        if not children:
            line(depth + 1, "End Site")
            line(depth + 1, "{")
            line(depth + 2, _numbers("OFFSET", offset[joint] / 2))
            line(depth + 1, "}")
        line(depth, "}")

    write(0, 0)
    frames = len(rig.rotation)
    angles = Rotation.from_quat(rig.rotation[:, order].reshape(-1, 4)).as_euler(_BVH_ORDER, degrees=True)
    values = np.concatenate([rig.translation[:, 0], angles.reshape(frames, -1)], axis=1)
    lines += ["MOTION", f"Frames: {frames}", f"Frame Time: {frame_s:.8f}", *(_numbers("", row) for row in values)]
    return "\n".join(lines) + "\n"


def _numbers(word: str, values: np.ndarray) -> str:
    return " ".join([word, *(f"{value:.6f}" for value in values)]).strip()


def smpl(template: Template, rig: Rig) -> dict[str, np.ndarray]:
    """Return a body that is SMPL's as `poses` (frames, 72), `trans`, `betas` and `gender`, in the scene's axes.

    Posed with them SMPL has our joint rotations and our pelvis. It knows no segment scales, which are beside them under
    their own name, with the girth that they hold: `scale` (frames, 24, 3), along and across the bones.

    Raises:
      ValueError: the body was not read from a model of SMPL.
    """
    if template.smpl is None:
        raise ValueError("the body was not read from a model of SMPL")
    gender, pelvis = template.smpl
    vectors = Rotation.from_quat(rig.rotation.reshape(-1, 4)).as_rotvec()
    return {
        "poses": vectors.reshape(len(rig.rotation), -1),
        "trans": rig.translation[:, 0] - np.array(pelvis),
        "betas": np.zeros(10),
        "gender": np.array(gender),
        "scale": rig.scale,
    }
