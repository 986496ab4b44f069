"""Forward kinematics with segment scales: parameters -> one similarity transform a segment (paper, section 3)."""

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float

from dal_jax.body import rotations, template as template_lib


@flax.struct.dataclass
class Segments:
    """The posed skeleton: `x = position_k + scale_k rotation_k (v - J_k)` carries a rest point v with segment k.

    rotation: segment to camera, G_k; position: of joint k, camera axes, relative to the pelvis, metres; scale: s_k.
    """

    rotation: Float[Array, "*batch 24 3 3"]
    position: Float[Array, "*batch 24 3"]
    scale: Float[Array, "*batch 24"]


def pose_skeleton(
    template: template_lib.Template,
    rotation: Float[Array, "3 3"],
    pose: Float[Array, "23 3"],
    segment_scale: Float[Array, "24"],
    *,
    scale_moves_children: bool = True,
) -> Segments:
    """Walk the tree from the pelvis: G_c = G_p A_c, p_c = p_p + s_p G_p (J_c - J_p).

    Note: the paper writes T_j = A_j S_j and does not say whether s_j moves the child joint. Our choice: s_j lengthens
    the bones to its children and does not compound down the chain. `scale_moves_children=False` is the literal
    reading: s_j scales the flesh of segment j about its joint and leaves the skeleton alone.
    """
    relative = rotations.axis_angle_to_matrix(pose)
    world_rotation = [rotation]
    world_position = [jnp.zeros_like(rotation[0])]
    for child in range(1, len(template.parents)):
        parent = template.parents[child]
        bone = template.joints[child] - template.joints[parent]
        stretch = segment_scale[parent] if scale_moves_children else 1.0
        step = stretch * jnp.matmul(world_rotation[parent], bone, precision="highest")
        world_position.append(world_position[parent] + step)
        world_rotation.append(jnp.matmul(world_rotation[parent], relative[child - 1], precision="highest"))
    return Segments(jnp.stack(world_rotation), jnp.stack(world_position), segment_scale)
