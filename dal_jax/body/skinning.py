"""Linear blend skinning: x = sum_k w_k (p_k + s_k G_k (v - J_k)), for the whole mesh or for named points only.

Of a template with pose blendshapes v is the rest shape in that pose (`blendshapes`); all others pay nothing for it.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from dal_jax.body import blendshapes, kinematics, surface, template as template_lib


def stacked_transforms(template: template_lib.Template, segments: kinematics.Segments) -> Float[Array, "96 3"]:
    """Return the segments' affine maps of rest points, stacked: row 4k+i is column i of [s_k G_k | p_k - s_k G_k J_k].

    A skinned point is then linear in them: (w (x) [v, 1]) @ stacked.
    """
    linear = segments.scale[:, None, None] * segments.rotation
    offset = segments.position - jnp.einsum("kij,kj->ki", linear, template.joints, precision="highest")
    affine = jnp.concatenate([jnp.swapaxes(linear, -1, -2), offset[:, None, :]], axis=1)
    return affine.reshape(-1, 3)


def skin_points(
    template: template_lib.Template, segments: kinematics.Segments, points: surface.SurfacePoints
) -> Float[Array, "points 3"]:
    """Return the posed positions of surface points, in camera axes relative to the pelvis, metres.

    Only the named points are skinned: weights are applied to the 24 transforms (n x 24 by 24 x 12), never to the mesh.
    """
    rest = points.rest
    if points.pose_blendshapes is not None:
        rest = blendshapes.shape_points(rest, points.pose_blendshapes, blendshapes.pose_feature(template, segments))
    affine = stacked_transforms(template, segments).reshape(len(template.parents), 12)
    blended = jnp.matmul(points.weight, affine, precision="highest").reshape(-1, 4, 3)
    return jnp.einsum("pi,pij->pj", rest, blended[:, :3], precision="highest") + blended[:, 3]


def skin_vertices(template: template_lib.Template, segments: kinematics.Segments) -> Float[Array, "vertices 3"]:
    """Return all posed vertices as ONE matrix product with the template's constant `skinning_matrix`.

    With pose blendshapes nothing is constant, and the vertices are skinned as points are.
    """
    if template.pose_blendshapes is not None:
        points = surface.SurfacePoints(template.vertices, template.skin_weight, template.pose_blendshapes)
        return skin_points(template, segments, points)
    return jnp.matmul(template.skinning_matrix, stacked_transforms(template, segments), precision="highest")


def h36m_joints(template: template_lib.Template, segments: kinematics.Segments) -> Float[Array, "17 3"]:
    """Return Human3.6M's 17 joints, regressed from the posed vertices.

    Both the regression and the skinning are linear in the transforms, so they collapse to a constant 17 x 96 matrix;
    what pose blendshapes add collapses to a constant too.
    """
    stacked = stacked_transforms(template, segments)
    joints = jnp.matmul(template.h36m_matrix, stacked, precision="highest")
    if template.h36m_blendshapes is None:
        return joints
    moved = jnp.matmul(template.h36m_blendshapes, blendshapes.pose_feature(template, segments), precision="highest")
    linear = stacked.reshape(-1, 4, 3)[:, :3]
    return joints + jnp.einsum("hki,kij->hj", moved, linear, precision="highest")
