"""The body as the tree solver sees it: constants of the template, and a state that steps move and points are mapped by.

The constants are built once on the host. A state is world rotations, log scales and the pelvis:
structure of arrays, segment first, then components, then any number of batch axes LAST, so that every operation is
elementwise over the batch. Lengths are in crop units: the camera's scale is part of the segment scales.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.body import rotations
from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.template import Template, keypoint_rows
from dal_jax.runtime import struct


@struct.dataclass
class TreeModel:
    """Constants of a template.

    joints, bones: J_k and J_k - J_parent (zero for the root), metres.
    parent_of: one-hot rows that pick a segment's parent (the root: itself).
    path_to: row k marks the bones between the root and joint k, so that joint positions are one matrix product.
    incidence: row e is +1 at segment k and -1 at segment l of the edge e = (k, l).
    across_bones: P_k of `Template.across_bones`.
    girth_axes: [e, -e' J] of the two girth axes: a homogeneous rest point's coordinate along each, from the joint.
    keypoint_matrix: the key points as a linear function of the stacked affine maps of the segments.
    keypoint_moments: sums of v v' a segment over what makes up each key point.
    edges: pairs of segments that share a triangle of the skin.
    """

    joints: Float[Array | np.ndarray, "24 3"]
    bones: Float[Array | np.ndarray, "24 3"]
    parent_of: Float[Array | np.ndarray, "24 24"]
    path_to: Float[Array | np.ndarray, "24 24"]
    incidence: Float[Array | np.ndarray, "edges 24"]
    across_bones: Float[Array | np.ndarray, "24 3 3"]
    girth_axes: Float[Array | np.ndarray, "24 2 4"]
    keypoint_matrix: Float[Array | np.ndarray, "k 96"]
    keypoint_moments: Float[Array | np.ndarray, "k 24 4 4"]
    parents: tuple[int, ...] = struct.static()
    edges: tuple[tuple[int, int], ...] = struct.static()


def build_model(template: Template, keypoint_set: str = "h36m") -> TreeModel:
    """Return the constants of a template (concrete arrays) and of a set of key points, in the template's precision."""
    parents = np.maximum(template.parents, 0)
    joints = np.asarray(template.joints)
    kind = joints.dtype
    parent_of = np.eye(len(parents))[parents]
    path_to = np.zeros_like(parent_of)
    for node in range(1, len(parents)):
        path_to[node] = path_to[parents[node]] + np.eye(len(parents))[node]
    axes = np.swapaxes(np.asarray(template.bone_axes, np.float64)[:, :, 1:], 1, 2)
    edges = _edges(template)
    incidence = np.array([np.eye(len(parents))[k] - np.eye(len(parents))[m] for k, m in edges]).reshape(
        -1, len(parents)
    )
    return TreeModel(
        joints=joints,
        bones=joints - joints[parents],
        parent_of=parent_of.astype(kind),
        path_to=path_to.astype(kind),
        incidence=incidence.astype(kind),
        across_bones=np.asarray(template.across_bones),
        girth_axes=np.concatenate([axes, -axes @ joints.astype(float)[:, :, None]], axis=2).astype(kind),
        keypoint_matrix=np.asarray(template.keypoint_matrix)[keypoint_rows(keypoint_set)],
        keypoint_moments=_keypoint_moments(template, keypoint_set).astype(kind),
        parents=template.parents,
        edges=edges,
    )


def _edges(template: Template) -> tuple[tuple[int, int], ...]:
    """Return the pairs of segments that move some point of the skin together."""
    moves = (np.asarray(template.skin_weight) > 0) @ (1 << np.arange(24, dtype=np.int32))  # a bit a segment
    of_faces = np.unique(np.bitwise_or.reduce(moves[np.asarray(template.faces)], axis=1))  # a few hundred kinds
    moved = of_faces[:, None] >> np.arange(24) & 1
    together = np.triu(moved.T @ moved, k=1)
    return tuple((int(k), int(m)) for k, m in np.argwhere(together))


def _keypoint_moments(template: Template, keypoint_set: str) -> Float[np.ndarray, "k 24 4 4"]:
    """Return each key point's moments v v' a segment, v homogeneous, as if its vertices were points.

    Weights enter by magnitude, times their sum, which keeps the majoriser one for signed regressors too.
    """
    magnitude = np.abs(np.asarray(template.regressor(keypoint_set), np.float64))
    used = magnitude.any(axis=0)  # a few hundred vertices of thousands
    magnitude = magnitude[:, used] * magnitude.sum(axis=1, keepdims=True)
    vertices = np.asarray(template.vertices, np.float64)[used]
    rest = np.concatenate([vertices, np.ones_like(vertices[:, :1])], axis=1)
    squares = (rest[:, :, None] * rest[:, None]).reshape(len(rest), 1, 16)
    spread = (np.asarray(template.skin_weight)[used][:, :, None] * squares).reshape(len(rest), -1)
    return (magnitude @ spread).reshape(len(magnitude), -1, 4, 4)


# [o]x of a vector o is sum_c CROSS[:, :, c] o_c
CROSS = np.zeros((3, 3, 3), np.float32)
for _i, _j, _c in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
    CROSS[_i, _j, _c], CROSS[_j, _i, _c] = -1.0, 1.0


@struct.dataclass
class TreeState:
    """axes: [k, c, i] is component i of segment k's body axis c in the camera frame, the columns of G_k.

    log_scale: log(s s_k), crop units a metre; translation: of the pelvis, crop units, with its depth in several views.
    log_girth: None where girth is no unknown. log_segment_girth: None where scales are isotropic.
    """

    axes: Float[Array, "24 3 3 ..."]
    log_scale: Float[Array, "24 ..."]
    translation: Float[Array, "axes ..."]
    log_girth: Float[Array, "..."] | None = None
    log_segment_girth: Float[Array, "24 2 ..."] | None = None


def from_parameters(model: TreeModel, parameters: BodyParameters) -> TreeState:
    """Return the state at given parameters (batch axes first; proper rotations)."""
    relative = rotations.axis_angle_to_matrix(parameters.pose)
    world = [parameters.rotation]
    for node in range(1, len(model.parents)):
        world.append(_matmul(world[model.parents[node]], relative[..., node - 1, :, :]))
    axes = jnp.swapaxes(jnp.stack(world), -1, -2)
    log_scale = jnp.log(parameters.segment_scale) + jnp.log(parameters.camera_scale)[..., None]
    return TreeState(
        axes=jnp.moveaxis(axes, (-2, -1), (1, 2)),
        log_scale=jnp.moveaxis(log_scale, -1, 0),
        translation=jnp.moveaxis(parameters.translation, -1, 0),
        log_girth=None if parameters.girth is None else jnp.log(parameters.girth),
        log_segment_girth=(
            None
            if parameters.segment_girth is None
            else jnp.moveaxis(jnp.log(parameters.segment_girth), (-2, -1), (0, 1))
        ),
    )


def to_parameters(model: TreeModel, state: TreeState) -> BodyParameters:
    """Return parameters (batch axes first): relative rotations as axis-angle, mean log s = 0."""
    world = jnp.moveaxis(state.axes, (2, 1), (-2, -1))  # (24, ..., 3, 3), columns are body axes
    relative = [_matmul(jnp.swapaxes(world[model.parents[k]], -1, -2), world[k]) for k in range(1, len(model.parents))]
    common = jnp.mean(state.log_scale, axis=0)
    return BodyParameters(
        pose=jnp.moveaxis(rotations.matrix_to_axis_angle(jnp.stack(relative)), 0, -2),
        segment_scale=jnp.moveaxis(jnp.exp(state.log_scale - common[None]), 0, -1),
        rotation=world[0],
        camera_scale=jnp.exp(common),
        translation=jnp.moveaxis(state.translation, 0, -1),
        girth=None if state.log_girth is None else jnp.exp(state.log_girth),
        segment_girth=(
            None
            if state.log_segment_girth is None
            else jnp.moveaxis(jnp.exp(state.log_segment_girth), (0, 1), (-2, -1))
        ),
    )


def retract(
    state: TreeState,
    control: Float[Array, "24 4 ..."],
    translation: Float[Array, "axes ..."],
    log_girth: Float[Array, "..."] | None = None,
    log_segment_girth: Float[Array, "24 2 ..."] | None = None,
) -> TreeState:
    """Move a state by a step: G <- exp(w) G by Rodrigues' formula, s <- s exp(q), g <- g exp(t), b <- b exp(c).

    Args:
      state: where the step begins.
      control: world rotation vector and log scale of every segment, (w, q).
      translation: of the pelvis. log_girth: t; None leaves the girth. log_segment_girth: c, likewise.
    """
    vector = control[:, :3]
    square = jnp.sum(vector**2, axis=1)
    angle = jnp.sqrt(square + 1e-16)
    sine, half = (
        (jnp.sin(angle) / angle)[:, None, None],
        0.5 * (jnp.sin(0.5 * angle) / (0.5 * angle))[:, None, None] ** 2,
    )
    cross = cross_matrix(vector)
    once = _rotate_axes(cross, state.axes)
    axes = state.axes + sine * once + half * _rotate_axes(cross, once)
    girth = None if log_girth is None or state.log_girth is None else state.log_girth + log_girth
    widths = state.log_segment_girth
    if log_segment_girth is not None and widths is not None:
        widths = widths + log_segment_girth
    return TreeState(axes, state.log_scale + control[:, 3], state.translation + translation, girth, widths)


def cross_matrix(vector: Float[Array, "k 3 ..."]) -> Float[Array, "k 3 3 ..."]:
    """Return [o]x of vectors whose components are axis 1."""
    return contract(CROSS, vector)


def contract(constant: np.ndarray, values: Float[Array, "k ..."], axes: int = 1) -> Float[Array, "k ..."]:
    """Return the sum over the first `axes` axes after the segments' of values times constant[..., c, d].

    A constant linear map, elementwise over the batch; coefficients that are all zero cost nothing.
    """
    shape, inner, batch = constant.shape[:-axes], constant.shape[-axes:], values.shape[1 + axes :]
    terms: list[Array] = []
    for index in np.ndindex(inner):
        coefficient = constant[(..., *index)]
        if np.any(coefficient):
            here = values[(slice(None), *index)].reshape(-1, *(1,) * len(shape), *batch)
            terms.append(jnp.asarray(coefficient, values.dtype).reshape(1, *shape, *(1,) * len(batch)) * here)
    return sum_of(terms)


def _rotate_axes(cross: Float[Array, "k 3 3 ..."], axes: Float[Array, "k 3 3 ..."]) -> Float[Array, "k 3 3 ..."]:
    """Return [w]x times each body axis."""
    return sum_of(cross[:, None, :, j] * axes[:, :, None, j] for j in range(3))


_SINE = 0.5 * CROSS.transpose(2, 0, 1)  # vector of the antisymmetric part of a matrix


def rotation_vector(parent: Float[Array, "24 3 3 ..."], axes: Float[Array, "24 3 3 ..."]):
    """Return log(G_j G_p') of segments against the frames of their parents, and its length.

    Rotations by 180 degrees lose its direction (not its length); no joint gets there.
    """
    rotation = sum_of(axes[:, c, :, None] * parent[:, c, None] for c in range(3))  # G_j G_p'
    sine = contract(_SINE, rotation, axes=2)
    sine_length = jnp.sqrt(jnp.sum(sine**2, axis=1) + 1e-30)  # the root has none, and still a derivative
    angle = jnp.arctan2(sine_length, 0.5 * (rotation[:, 0, 0] + rotation[:, 1, 1] + rotation[:, 2, 2] - 1.0))
    small = sine_length < 1e-4
    angle = jnp.where(small, sine_length, angle)
    return jnp.where(small, 1.0, angle / jnp.maximum(sine_length, 1e-4))[:, None] * sine, angle


def by_rotation(local: Float[Array, "24 3 ..."], angle: Float[Array, "24 ..."], force: Float[Array, "24 3 ..."]):
    """Take a derivative by a = log A to one by a rotation r, A <- exp(r) A, both in the axes of a.

    r moves a by the inverse left Jacobian of the rotation, I - [a]x / 2 + k [a]x^2; this is its transpose.
    """
    half = jnp.maximum(0.5 * angle, 1e-2)
    k = jnp.where(angle**2 < 4e-4, 1.0 / 12.0, (1.0 - half / jnp.tan(half)) / (4.0 * half**2))[:, None]
    once = jnp.cross(local, force, axis=1)
    return force + 0.5 * once + k * jnp.cross(local, once, axis=1)


def bone_offsets(model: TreeModel, state: TreeState) -> Float[Array, "24 3 ..."]:
    """Return o = s_p G_p (J_c - J_p), the present offset of each joint from its parent (zero for the root)."""
    parent = over_segments(model.parent_of, jnp.exp(state.log_scale)[:, None, None] * state.axes)
    bones = jnp.asarray(model.bones).reshape(*model.bones.shape, *(1,) * (state.axes.ndim - 3))
    return sum_of(parent[:, c] * bones[:, c, None] for c in range(3))


def levers(model: TreeModel, state: TreeState) -> Float[Array, "24 4 3 ..."]:
    """Return [L | -L J]': what takes a homogeneous rest point to y = L (v - J). Row c: coordinate c's image.

    L = s G (1 + (g - 1) P), P of `across_bones`; of anisotropic scales s G (1 + sum_a (b_a - 1) e_a e_a'), e_a the
    girth axes.
    """
    linear = jnp.exp(state.log_scale)[:, None, None] * state.axes
    if state.log_girth is not None:
        linear = linear + (jnp.exp(state.log_girth) - 1.0)[None, None, None] * _across(model, linear)
    if state.log_segment_girth is not None:
        across = across_images(model, linear) * (jnp.exp(state.log_segment_girth) - 1.0)[:, :, None]
        axes = jnp.asarray(model.girth_axes)[:, :, :3].reshape(24, 2, 3, *(1,) * (linear.ndim - 3))
        linear = linear + sum_of(axes[:, a, :, None] * across[:, a, None] for a in range(2))
    return _about_joint(model, linear)


def across_images(model: TreeModel, linear: Float[Array, "24 3 3 ..."]) -> Float[Array, "24 2 3 ..."]:
    """Return where linear maps (row c: coordinate c's image) take the girth axes of the segments."""
    axes = jnp.asarray(model.girth_axes)[:, :, :3].reshape(24, 2, 3, *(1,) * (linear.ndim - 3))
    return sum_of(axes[:, :, c, None] * linear[:, None, c] for c in range(3))


def girth_levers(model: TreeModel, state: TreeState) -> Float[Array, "24 4 3 ..."]:
    """Return the derivative of `levers` by log g: [s G g P | -s G g P J]'."""
    assert state.log_girth is not None
    size = jnp.exp(state.log_scale + state.log_girth[None])
    return _about_joint(model, size[:, None, None] * _across(model, state.axes))


def _across(model: TreeModel, linear: Float[Array, "24 3 3 ..."]) -> Float[Array, "24 3 3 ..."]:
    across = jnp.asarray(model.across_bones).reshape(24, 3, 3, *(1,) * (linear.ndim - 3))
    return sum_of(across[:, :, d, None] * linear[:, d, None] for d in range(3))


def _about_joint(model: TreeModel, linear: Float[Array, "24 3 3 ..."]) -> Float[Array, "24 4 3 ..."]:
    joints = jnp.asarray(model.joints).reshape(*model.joints.shape, *(1,) * (linear.ndim - 3))
    constant = -sum_of(linear[:, c] * joints[:, c, None] for c in range(3))
    return jnp.concatenate([linear, constant[:, None]], axis=1)


def affine_maps(model: TreeModel, state: TreeState) -> Float[Array, "24 4 3 ..."]:
    """Return [s G | p - s G J]' of every segment, crop units: where it takes homogeneous rest points."""
    position = over_segments(model.path_to, bone_offsets(model, state))
    root = jnp.concatenate([state.translation, jnp.zeros_like(state.translation[:1])])[:3]
    position = (position + root[None])[:, None]
    return levers(model, state) + jnp.pad(position, [(0, 0), (3, 0)] + [(0, 0)] * (position.ndim - 2))


def sum_of(terms: Iterable[Array]) -> Array:
    """Return the sum of arrays, one after the other; 0 of none."""
    return sum(terms)  # pyright: ignore[reportReturnType]: the int that it starts from is not all that is left


def product(left: Float[Array, "k ..."], right: Float[Array, "k ..."]) -> Float[Array, "k ..."]:
    """Return the matrix product over axes 1 and 2, elementwise over segments and batch."""
    return sum_of(left[:, :, c, None] * right[:, None, c] for c in range(left.shape[2]))


def over_segments(
    matrix: Float[Array | np.ndarray, "rows 24"], values: Float[Array, "24 ..."]
) -> Float[Array, "rows ..."]:
    """Return a constant matrix times everything that is one number a segment."""
    flat = values.reshape(values.shape[0], -1)
    return jnp.matmul(jnp.asarray(matrix), flat, precision="highest").reshape(-1, *values.shape[1:])


def _matmul(a: Float[Array | np.ndarray, "... 3 3"], b: Float[Array, "... 3 3"]) -> Float[Array, "... 3 3"]:
    return jnp.matmul(a, b, precision="highest")


# --- Borders in a chain of small steps: what is computed behind one is computed once ---


def stage(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return function(*arguments), computed once and kept, however many users the result has.

    XLA's fusion on CPU computes cheap producers anew in each of their users, which is exponential in a chain of small
    steps (measured on the elimination: 100 times slower), and computes shapes inside the loops of a fused reshape. The
    branch of a conditional is a border that it respects; the condition always holds, which the compiler cannot know.
    On other platforms this is a plain call.
    """
    traced_once = jax.jit(function)
    result = jax.eval_shape(traced_once, *arguments)
    probe = jax.tree.leaves(arguments)[0].ravel()[0]
    always = (probe < 1) | (probe >= 0) | jnp.isnan(probe)

    def never(*_):
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), result)

    return jax.lax.platform_dependent(
        *arguments, cpu=lambda *a: jax.lax.cond(always, traced_once, never, *a), default=traced_once
    )
