"""Linear blend skinning: x = sum_k w_k (p_k + s_k G_k (v - J_k)), for the whole mesh or for named points only.

A point of the surface is (face, barycentric) on disk, and rest position v and skinning weights w in the kernels. The
segments' (p, s, G) are `kinematics.Segments`. Of a template with pose blendshapes v is the rest shape in that pose:

    v(a) = v + B vec(R_j - I),      j = 1..23, R_j relative to the parent

B is in SMPL's files (optional in the paper). Templates without it pay nothing for it.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from dal_jax.body.kinematics import Segments
from dal_jax.body.template import Template, keypoint_rows
from dal_jax.runtime import struct

_BLOCK_VERTICES = 128  # smaller: more calls of small products; larger: more zeros multiplied
_WORTHWHILE = 0.5  # share of the whole matrix that the blocks may hold; above it one product is as cheap


@struct.dataclass
class SurfacePoints:
    """What skinning needs to know of surface points (leading axes batch).

    rest: position in the rest pose, metres.
    weight: their 24 skinning weights, which sum to 1.
    pose_blendshapes: B at the points, metres; None where the template has none.
    """

    rest: Float[Array | np.ndarray, "*batch points 3"]
    weight: Float[Array | np.ndarray, "*batch points 24"]
    pose_blendshapes: Float[Array | np.ndarray, "*batch points 3 207"] | None = None


def surface_points(
    template: Template,
    face: Int[Array | np.ndarray, "*batch points"],
    barycentric: Float[Array | np.ndarray, "*batch points 3"],
) -> SurfacePoints:
    """Interpolate rest position and skinning weights (and pose blendshapes) inside triangles.

    Note: the paper matches pixels to vertices, the special case barycentric = (1, 0, 0), which is exact. Inside a
    triangle, blending the weights is not quite the same as blending three skinned corners; on the free body they
    differ by less than 0.1 mm on average, and by 3 mm at most, on an elbow bent by 130 degrees
    (`tests/body/test_surface.py`): far below a click.
    """
    corners = [jnp.asarray(template.faces)[:, corner][face] for corner in range(3)]

    def blend(values: Float[Array | np.ndarray, "n columns"]) -> Float[Array, "*batch points columns"]:
        # corner by corner: one gather of all three is laid out badly, and twice as slow on CPU
        first, second, third = (jnp.asarray(values)[corners[k]] * barycentric[..., k, None] for k in range(3))
        return first + second + third

    points = SurfacePoints(blend(template.vertices), blend(template.skin_weight))
    if template.pose_blendshapes is None:
        return points
    basis = blend(template.pose_blendshapes.reshape(len(template.vertices), -1))
    return dataclasses.replace(points, pose_blendshapes=basis.reshape(*face.shape, 3, -1))


def skin_points(template: Template, segments: Segments, points: SurfacePoints) -> Float[Array, "points 3"]:
    """Return the posed positions of surface points, in camera axes relative to the pelvis, metres.

    Only the named points are skinned: weights are applied to the 24 transforms (n x 24 by 24 x 12), never to the mesh.
    """
    rest = points.rest
    if points.pose_blendshapes is not None:
        rest = rest + jnp.matmul(points.pose_blendshapes, pose_feature(template, segments), precision="highest")
    affine = stacked_transforms(template, segments).reshape(len(template.parents), 12)
    blended = jnp.matmul(points.weight, affine, precision="highest").reshape(-1, 4, 3)
    return jnp.einsum("pi,pij->pj", rest, blended[:, :3], precision="highest") + blended[:, 3]


def skin_vertices(template: Template, segments: Segments) -> Float[Array, "vertices 3"]:
    """Return all posed vertices: the template's constant `skinning_matrix` times the stacked transforms.

    With pose blendshapes nothing is constant, and the vertices are skinned as points are.
    """
    if template.pose_blendshapes is not None:
        points = SurfacePoints(template.vertices, template.skin_weight, template.pose_blendshapes)
        return skin_points(template, segments, points)
    stacked = stacked_transforms(template, segments)
    if isinstance(template.skinning_matrix, Tracer):  # its zeros are not known
        return _product(template.skinning_matrix, stacked)
    return _constant_product(np.asarray(template.skinning_matrix), stacked)


def h36m_joints(template: Template, segments: Segments) -> Float[Array, "17 3"]:
    """Return Human3.6M's 17 joints, see `keypoints`."""
    return keypoints(template, segments, "h36m")


def keypoints(template: Template, segments: Segments, keypoint_set: str) -> Float[Array, "k 3"]:
    """Return the key points of a set (`skeleton.KEYPOINT_SETS`), regressed from the posed vertices.

    Both the regression and the skinning are linear in the transforms, so they collapse to a constant k x 96 matrix;
    what pose blendshapes add collapses to a constant too.
    """
    rows = keypoint_rows(keypoint_set)
    stacked = stacked_transforms(template, segments)
    joints = jnp.matmul(template.keypoint_matrix[rows], stacked, precision="highest")
    if template.keypoint_blendshapes is None:
        return joints
    moved = jnp.matmul(template.keypoint_blendshapes[rows], pose_feature(template, segments), precision="highest")
    linear = stacked.reshape(-1, 4, 3)[:, :3]
    return joints + jnp.einsum("hki,kij->hj", moved, linear, precision="highest")


def stacked_transforms(template: Template, segments: Segments) -> Float[Array, "96 3"]:
    """Return the segments' affine maps of rest points, stacked: row 4k+i is column i of [L_k | p_k - L_k J_k].

    L_k = G_k S_k (1 + (g - 1) P_k): rotation, scales and girth, as in `kinematics`.

    A skinned point is then linear in them: (w (x) [v, 1]) @ stacked.
    """
    linear = segments.scale[:, None, None] * segments.rotation
    if segments.girth is not None:
        wider = (segments.girth - 1.0) * jnp.asarray(template.across_bones)
        linear = linear + jnp.matmul(linear, wider, precision="highest")
    if segments.segment_girth is not None:
        across = jnp.asarray(template.bone_axes)[:, :, 1:]
        columns = jnp.matmul(linear, across, precision="highest") * (segments.segment_girth - 1.0)[:, None]
        linear = linear + jnp.matmul(columns, jnp.swapaxes(across, 1, 2), precision="highest")
    offset = segments.position - jnp.einsum("kij,kj->ki", linear, template.joints, precision="highest")
    affine = jnp.concatenate([jnp.swapaxes(linear, -1, -2), offset[:, None, :]], axis=1)
    return affine.reshape(-1, 3)


def pose_feature(template: Template, segments: Segments) -> Float[Array, "207"]:
    """Return vec(R_j - I) of the joints below the pelvis, R_j = G_p' G_j: the global rotation has no part in it."""
    above = segments.rotation[np.array(template.parents[1:])]
    relative = jnp.einsum("jki,jkl->jil", above, segments.rotation[1:], precision="highest")
    return (relative - jnp.eye(3, dtype=relative.dtype)[None]).ravel()


# --- the product with the constant matrix ---

_Blocks = tuple[Int[np.ndarray, "blocks"], Int[np.ndarray, "blocks k"], Float[np.ndarray, "blocks 4*k vertices"]]
"""Blocks of consecutive vertices that hang on equally many segments: the only parts of the matrix not zero.

The first vertex of each; the segments it hangs on; its part of the matrix, transposed.
"""


def _constant_product(matrix: Float[np.ndarray, "n 96"], stacked: Float[Array, "96 3"]) -> Float[Array, "n 3"]:
    """Return matrix @ stacked; on CPU without most of its zeros, which leaves a quarter of the arithmetic.

    Derivatives are those of the one product.
    """
    kinds = _kinds_of_blocks(matrix)
    if sum(part.size for _, _, part in kinds) > _WORTHWHILE * matrix.size:
        return _product(matrix, stacked)

    @jax.custom_jvp
    @jax.custom_batching.custom_vmap
    def multiply(stacked):
        return jax.lax.platform_dependent(
            stacked, cpu=lambda s: _block_products(kinds, len(matrix), s), default=lambda s: _product(matrix, s)
        )

    multiply.fun.def_vmap(lambda axis_size, batched, every: (multiply.fun(every), True))  # leading axes batch
    multiply.defjvp(lambda primals, tangents: (multiply(*primals), _product(matrix, *tangents)))
    return multiply(stacked)


def _product(
    matrix: Float[Array | np.ndarray, "n 96"], stacked: Float[Array, "*batch 96 3"]
) -> Float[Array, "*batch n 3"]:
    return jnp.matmul(matrix, stacked, precision="highest")


def _block_products(
    kinds: list[_Blocks], count: int, stacked: Float[Array, "*batch 96 3"]
) -> Float[Array, "*batch n 3"]:
    """Write block by block x_block = M_block [the stacked transforms of its segments], all bodies at once.

    Laid out for XLA on CPU: a product (3 bodies x 4k) @ (4k x vertices) that stays in cache, transposed while it is
    written. A loop, because unrolled blocks are all multiplied before the first is written.
    """
    bodies = stacked.reshape(-1, *stacked.shape[-2:])
    by_segment = jnp.swapaxes(bodies, 1, 2).reshape(len(bodies), 3, -1, 4)

    def write(vertices, block):
        start, segment, transposed = block
        own = by_segment.at[:, :, segment].get(mode="promise_in_bounds").reshape(3 * len(bodies), -1)
        posed = jnp.matmul(own, transposed, precision="highest").reshape(len(bodies), 3, -1)
        return jax.lax.dynamic_update_slice(vertices, jnp.swapaxes(posed, 1, 2), (0, start, 0)), None

    vertices = jnp.zeros((len(bodies), count, 3), jnp.result_type(stacked, kinds[0][2]))
    for blocks in kinds:
        vertices, _ = jax.lax.scan(write, vertices, blocks)
    return vertices.reshape(*stacked.shape[:-2], count, 3)


def _kinds_of_blocks(matrix: Float[np.ndarray, "n 96"]) -> list[_Blocks]:
    """Cut the matrix into blocks, the last of which overlaps its neighbour, by how many segments they hang on."""
    count, size = len(matrix), min(_BLOCK_VERTICES, len(matrix))
    start = np.minimum(np.arange(0, count, size), count - size)
    parts = np.stack([matrix[first : first + size] for first in start]).reshape(len(start), size, -1, 4)
    used = (parts != 0).any(axis=(1, 3))  # blocks x segments
    needed = used.sum(axis=1)
    segment = np.argsort(~used, axis=1, kind="stable").astype(np.int32)
    found: list[_Blocks] = []
    for width in np.unique(needed):  # a loop each
        alike = needed == width
        own, chosen = parts[alike], segment[alike, :width]
        own = np.take_along_axis(own, chosen[:, None, :, None], axis=2).reshape(len(own), size, -1)
        transposed = np.ascontiguousarray(np.swapaxes(own, 1, 2))
        found.append((start[alike].astype(np.int32), chosen, transposed))
    return found
