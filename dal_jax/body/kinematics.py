"""theta = [a, S, R, s, t], the unknowns of the method, and forward kinematics (paper, sections 3 and 4).

`pose_segments` makes of the parameters one similarity transform a segment, with segment scales:

    G_c = G_p A_c,      p_c = p_p + s_p G_p (J_c - J_p),      x = p_k + G_k S_k (1 + (g - 1) P_k) (v - J_k)

for a joint c below its parent p: A are the joints' rotations, S the segments' scales, J the rest joints, and g
the girth, which widens trunk and limbs across their bones: P_k projects on what is at right angles to the bone of k.

The paper's S_k is a number s_k. A body with `segment_girth` b has S_k = s_k E_k diag(1, b_k1, b_k2) E_k^T, E_k the axes
of the segment's rest frame, along its bone and across it: s_k, which lengthens the bone, is its length scale, and
what a segment is wider moves no child. S_k acts on the segment alone, so that no child is sheared.
All joints of a depth are handled together. The tree is static Python; no array decides anything here.
"""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.body import rotations
from dal_jax.body.template import WIDENED, Template
from dal_jax.runtime import struct

UPRIGHT_FACING_CAMERA = ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0))
"""Rotation of a person who stands upright and faces the camera (body y up, camera y down)."""


@struct.dataclass
class BodyParameters:
    """Pose, segment scales and weak-perspective camera of one person (leading axes batch).

    pose: axis-angle of the 23 joints below the pelvis, relative to the parent, radians.
    segment_scale: scale of each of the 24 segments, positive; gauge mean log = 0 (see `fix_gauge`).
    rotation: body to camera. Nine free numbers while Adam or a ConvNet handles them (`rotations.gram_schmidt`),
      a proper rotation in every finished fit.
    camera_scale: crop units a metre.
    translation: of the pelvis, in the crop's [-1, 1]; of a body in several views three numbers, in the frame that these
      share (`cameras.Views`), whose axes `rotation` then leads to.
    girth: how much wider than the template trunk and limbs are across their bones (`Template.across_bones`), for flesh
      or clothes; None: 1, the paper's body.
    segment_girth: how much wider than long each segment is, along the two girth axes of its own rest frame
      (`Template.bone_axes`); None: 1, one scale a segment, as in the paper.
    """

    pose: Float[Array | np.ndarray, "*batch 23 3"]
    segment_scale: Float[Array | np.ndarray, "*batch 24"]
    rotation: Float[Array | np.ndarray, "*batch 3 3"]
    camera_scale: Float[Array | np.ndarray, "*batch"]
    translation: Float[Array | np.ndarray, "*batch axes"]
    girth: Float[Array | np.ndarray, "*batch"] | None = None
    segment_girth: Float[Array | np.ndarray, "*batch 24 2"] | None = None


def t_pose(camera_scale: float = 1.0) -> BodyParameters:
    """Return a = 0, S = 1, upright and facing the camera: where the first registration starts."""
    return BodyParameters(
        pose=jnp.zeros((23, 3)),
        segment_scale=jnp.ones(24),
        rotation=jnp.array(UPRIGHT_FACING_CAMERA),
        camera_scale=jnp.asarray(camera_scale, jnp.float32),
        translation=jnp.zeros(2),
    )


def fix_gauge(parameters: BodyParameters) -> BodyParameters:
    """Move the common factor of the segment scales into the camera: mean log s = 0; the projection is unchanged."""
    common = jnp.exp(jnp.mean(jnp.log(parameters.segment_scale), axis=-1))
    return dataclasses.replace(
        parameters,
        segment_scale=parameters.segment_scale / common[..., None],
        camera_scale=parameters.camera_scale * common,
    )


def with_segment_girth(
    parameters: BodyParameters, usual: Float[Array | np.ndarray, "48"] | None = None
) -> BodyParameters:
    """Return parameters of anisotropic scales, whose segment girths are their own, times their girth.

    usual: log girths of bodies that have neither; None: 0.
    """
    own, girth = parameters.segment_girth, parameters.girth
    if own is None and girth is None and usual is not None:
        own = jnp.exp(jnp.asarray(usual).reshape(24, 2))
    own = jnp.broadcast_to(1.0 if own is None else own, (*jnp.shape(parameters.camera_scale), 24, 2))
    if girth is not None:
        own = own * jnp.asarray(girth)[..., None, None] ** np.broadcast_to(WIDENED[:, None], own.shape)
    return dataclasses.replace(parameters, girth=None, segment_girth=own)


@struct.dataclass
class Segments:
    """The posed skeleton: `x = position_k + scale_k rotation_k (v - J_k)` carries a rest point v with segment k.

    With a girth g, v - J_k is (1 + (g - 1) P_k)(v - J_k), P_k of `Template.across_bones`; with segment girths b,
    E_k diag(1, b_k) E_k^T (v - J_k), E_k of `Template.bone_axes`.

    rotation: segment to camera, G_k.
    position: of joint k, camera axes, relative to the pelvis, metres.
    scale: s_k.
    girth: g; segment_girth: b; None: 1.
    """

    rotation: Float[Array, "*batch 24 3 3"]
    position: Float[Array, "*batch 24 3"]
    scale: Float[Array | np.ndarray, "*batch 24"]
    girth: Float[Array | np.ndarray, "*batch"] | None = None
    segment_girth: Float[Array | np.ndarray, "*batch 24 2"] | None = None


def pose_segments(template: Template, parameters: BodyParameters) -> Segments:
    """Return the posed segments of one person's body."""
    segments = pose_skeleton(template, parameters.rotation, parameters.pose, parameters.segment_scale)
    return dataclasses.replace(segments, girth=parameters.girth, segment_girth=parameters.segment_girth)


def pose_skeleton(
    template: Template,
    rotation: Float[Array | np.ndarray, "3 3"],
    pose: Float[Array | np.ndarray, "23 3"],
    segment_scale: Float[Array | np.ndarray, "24"],
) -> Segments:
    """Walk the tree from the pelvis, as `turn_skeleton`, with the joints' rotations as axis-angles (radians)."""
    return turn_skeleton(template, rotation, rotations.axis_angle_to_matrix(pose), segment_scale)


def turn_skeleton(
    template: Template,
    rotation: Float[Array | np.ndarray, "3 3"],
    joint_rotation: Float[Array | np.ndarray, "23 3 3"],
    segment_scale: Float[Array | np.ndarray, "24"],
) -> Segments:
    """Walk the tree from the pelvis: G_c = G_p A_c, p_c = p_p + s_p G_p (J_c - J_p), A_c the joints' rotations.

    All joints of a depth are carried together, by one product G_p [A_c | s_p (J_c - J_p)].

    Note: the paper writes T_j = A_j S_j and does not say whether s_j moves the child joint. Our choice: s_j lengthens
    the bones to its children and does not compound down the chain.
    """
    levels = nodes_by_depth(template.parents)
    parents = np.array(template.parents[1:])
    bones = segment_scale[parents, None] * (template.joints[1:] - template.joints[parents])
    relative = jnp.concatenate([joint_rotation, bones[..., None]], axis=-1)  # [A_c | s_p bone_c]
    world, position = [rotation[None]], [jnp.zeros_like(rotation[:1])]
    for depth in range(1, len(levels)):
        above = np.array(parent_rows(template.parents, levels, depth))
        below = relative[np.array(levels[depth]) - 1]
        carried = jnp.matmul(world[-1][above], below, precision="highest")
        world.append(carried[..., :3])
        position.append(position[-1][above] + carried[..., 3])
    in_order = np.argsort([node for level in levels for node in level])
    return Segments(jnp.concatenate(world)[in_order], jnp.concatenate(position)[in_order], segment_scale)


@functools.cache
def nodes_by_depth(parents: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Return the nodes of each depth, the root first; a node's parent has a smaller number than the node."""
    depth = [0] * len(parents)
    for node in range(1, len(parents)):
        depth[node] = depth[parents[node]] + 1
    return tuple(tuple(n for n in range(len(parents)) if depth[n] == d) for d in range(max(depth) + 1))


def parent_rows(parents: tuple[int, ...], by_level: tuple[tuple[int, ...], ...], depth: int) -> list[int]:
    """Return for each node of a level the row of its parent in the level above."""
    return [by_level[depth - 1].index(parents[node]) for node in by_level[depth]]
