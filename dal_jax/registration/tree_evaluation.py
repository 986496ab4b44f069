"""The energy of eq. 2 over world transforms: its value, exact gradient and the blocks of its majoriser.

State and results are structures of arrays with the batch axis LAST; targets come with the batch axis first, because
the two products over points (weights 24 x n by 24 x 8) are matrix products an image. Lengths are in crop units: the
camera's scale is part of the segment scales.
"""

import flax.struct
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.body import parameters as parameters_lib, rotations, template as template_lib
from dal_jax.registration import energy

_SQUARES = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


@flax.struct.dataclass
class TreeState:
    """rotation: G_k, segment to camera; log_scale: log(s s_k), crop units a metre; translation: of the pelvis."""

    rotation: Float[Array, "24 3 3 ..."]
    log_scale: Float[Array, "24 ..."]
    translation: Float[Array, "2 ..."]


@flax.struct.dataclass
class Increments:
    """A step: world rotation vectors, log scales, translation of the pelvis."""

    rotation: Float[Array, "3 24 ..."]
    log_scale: Float[Array, "24 ..."]
    translation: Float[Array, "2 ..."]


@flax.struct.dataclass
class Problem:
    """What stays fixed while images are fitted: targets, weights and moments about the joints, batch last.

    planar_moments, depth_moments: rows 1, v - J (3), (v - J)(v - J)' (6), weighted by what pulls on x and y or on z.
    """

    target: energy.Target
    planar_moments: Float[Array, "10 24 ..."]
    depth_moments: Float[Array, "10 24 ..."]
    dense_weight: Float[Array, ""]
    keypoint_weight: Float[Array, ""]
    joint_weight: Float[Array, ""]
    scale_weight: Float[Array, ""]


@flax.struct.dataclass
class Value:
    """energy: eq. 2; moment_gradient: sum over points of a_k [v, 1] (W r)', all that the gradient needs of them.

    pull: G_p log A_j in world axes, zero for the root.
    """

    energy: Float[Array, "..."]
    moment_gradient: Float[Array, "24 4 3 ..."]
    pull: Float[Array, "3 24 ..."]


def from_parameters(template: template_lib.Template, parameters: parameters_lib.BodyParameters) -> TreeState:
    """Return the state at given parameters (batch axis first; proper rotations)."""
    relative = rotations.axis_angle_to_matrix(parameters.pose)
    world = [parameters.rotation]
    for node in range(1, len(template.parents)):
        world.append(world[template.parents[node]] @ relative[:, node - 1])
    log_scale = jnp.log(parameters.segment_scale) + jnp.log(parameters.camera_scale)[:, None]
    return TreeState(
        rotation=jnp.moveaxis(jnp.stack(world), 1, -1),
        log_scale=log_scale.T,
        translation=parameters.translation.T,
    )


def to_parameters(template: template_lib.Template, state: TreeState) -> parameters_lib.BodyParameters:
    """Return parameters (batch axis first): relative rotations as axis-angle, mean log s = 0."""
    world = jnp.moveaxis(state.rotation, -1, 0)
    parents = np.array(template.parents[1:])
    relative = jnp.swapaxes(world[:, parents], -1, -2) @ world[:, 1:]
    common = jnp.mean(state.log_scale, axis=0)
    return parameters_lib.BodyParameters(
        pose=rotations.matrix_to_axis_angle(relative),
        segment_scale=jnp.exp(state.log_scale - common[None]).T,
        rotation=world[:, 0],
        camera_scale=jnp.exp(common),
        translation=state.translation.T,
    )


def retract(state: TreeState, increments: Increments) -> TreeState:
    """Move a state by a step: G <- exp(w) G, s <- s exp(q)."""
    turn = rotations.axis_angle_to_matrix(jnp.moveaxis(increments.rotation, 0, -1))
    turn = jnp.moveaxis(turn, (-2, -1), (1, 2))
    rotation = jnp.stack([
        jnp.stack([sum(turn[:, i, k] * state.rotation[:, k, j] for k in range(3)) for j in range(3)], axis=1)
        for i in range(3)
    ], axis=1)  # fmt: skip
    return TreeState(rotation, state.log_scale + increments.log_scale, state.translation + increments.translation)


def keypoint_moments(template: template_lib.Template) -> np.ndarray:
    """Return each Human3.6M joint's ten moments a segment about the origin, (17, 24, 10), on the host.

    Weights enter by magnitude, times their sum, which keeps (2) of `tree_lm` a majoriser for signed regressors too.
    """
    vertices = np.asarray(template.vertices, np.float64)
    moments = np.concatenate(
        [np.ones_like(vertices[:, :1]), vertices, np.stack([vertices[:, i] * vertices[:, j] for i, j in _SQUARES], 1)],
        axis=1,
    )
    magnitude = np.abs(np.asarray(template.h36m_regressor, np.float64))
    magnitude = magnitude * magnitude.sum(axis=1, keepdims=True)
    spread = np.asarray(template.skin_weight)[:, :, None] * moments[:, None, :]
    return (magnitude @ spread.reshape(len(vertices), -1)).reshape(-1, 24, 10).astype(np.float32)


def make_problem(
    template: template_lib.Template,
    target: energy.Target,
    weights: energy.EnergyWeights,
    joint_moments: Float[Array, "17 24 10"],
) -> Problem:
    """Sum the moments of a batch of targets (batch axis first), once for all steps."""
    rest = target.points.rest
    squares = jnp.stack([rest[..., i] * rest[..., j] for i, j in _SQUARES], axis=-1)
    moments = jnp.concatenate([jnp.ones_like(rest[..., :1]), rest, squares], axis=-1)
    weighted = (weights.dense * target.point_confidence)[..., None] * moments
    dense = jnp.einsum("bpk,bpm->bkm", target.points.weight, weighted)
    planar = dense + jnp.einsum("bj,jkm->bkm", weights.keypoint * target.keypoint_confidence, joint_moments)
    depth = jnp.einsum("bj,jkm->bkm", weights.keypoint * target.depth_confidence, joint_moments)
    return Problem(
        target=target,
        planar_moments=jnp.moveaxis(_about_joints(template, planar), 0, -1),
        depth_moments=jnp.moveaxis(_about_joints(template, depth), 0, -1),
        dense_weight=jnp.asarray(weights.dense),
        keypoint_weight=jnp.asarray(weights.keypoint),
        joint_weight=jnp.asarray(weights.joint),
        scale_weight=jnp.asarray(weights.scale),
    )


def _about_joints(template: template_lib.Template, moments: Float[Array, "batch 24 10"]) -> Float[Array, "batch 10 24"]:
    """Shift moments about the origin to moments about each segment's joint."""
    joint = jnp.asarray(template.joints)[None]
    mass, first = moments[..., 0], moments[..., 1:4]
    shifted = first - joint * mass[..., None]
    squares = [
        moments[..., 4 + n] - joint[..., i] * first[..., j] - first[..., i] * joint[..., j]
        + joint[..., i] * joint[..., j] * mass
        for n, (i, j) in enumerate(_SQUARES)
    ]  # fmt: skip
    return jnp.concatenate([mass[:, None], jnp.moveaxis(shifted, -1, 1), jnp.stack(squares, axis=1)], axis=1)


def bone_offsets(template: template_lib.Template, state: TreeState) -> Float[Array, "3 24 ..."]:
    """Return o = s_p G_p (J_c - J_p), the present offset of each joint from its parent (zero for the root)."""
    parents = np.array((0, *template.parents[1:]))
    bone = jnp.asarray(template.joints) - jnp.asarray(template.joints)[parents]
    scale = jnp.exp(state.log_scale)[parents]
    rotation = state.rotation[parents]
    return jnp.stack([scale * sum(rotation[:, i, j] * bone[:, j, None] for j in range(3)) for i in range(3)])


def evaluate(template: template_lib.Template, problem: Problem, state: TreeState) -> Value:
    """Return the energy of eq. 2 at a state and what its exact gradient needs."""
    affine = _affine_maps(template, state)
    dense_energy, dense_gradient = _dense_term(problem, affine)
    joint_energy, joint_gradient = _keypoint_term(template, problem, affine)
    angle_squared, pull = _relative_turns(template, state)
    parents = np.array(template.parents[1:])
    stretch = state.log_scale[1:] - state.log_scale[parents]
    total = (
        dense_energy
        + joint_energy
        + problem.joint_weight * jnp.sum(angle_squared, axis=0)
        + problem.scale_weight * jnp.sum(stretch**2, axis=0)
    )
    return Value(total, dense_gradient + joint_gradient, pull)


def _affine_maps(template: template_lib.Template, state: TreeState) -> Float[Array, "24 4 3 batch"]:
    """Return [s G | p - s G J]' of every segment, crop units."""
    offsets = bone_offsets(template, state)
    position = [jnp.concatenate([state.translation, jnp.zeros_like(state.translation[:1])])]
    for node in range(1, len(template.parents)):
        position.append(position[template.parents[node]] + offsets[:, node])
    linear = jnp.exp(state.log_scale)[:, None, None] * jnp.swapaxes(state.rotation, 1, 2)  # (24, column, row, batch)
    joints = jnp.asarray(template.joints)
    constant = jnp.stack(position) - sum(linear[:, c] * joints[:, c, None, None] for c in range(3))
    return jnp.concatenate([linear, constant[:, None]], axis=1)


def _dense_term(problem: Problem, affine):
    """Eq. 3 and its moments; two matrix products an image with the (points x 24) weights."""
    target = problem.target
    batch = affine.shape[-1]
    planar = jnp.moveaxis(affine[:, :, :2].reshape(24, 8, batch), -1, 0)
    blended = (target.points.weight @ planar).reshape(batch, -1, 4, 2)
    homogeneous = jnp.concatenate([target.points.rest, jnp.ones_like(target.points.rest[..., :1])], axis=-1)
    projected = sum(homogeneous[..., c, None] * blended[:, :, c] for c in range(4))
    residual = projected - target.point_position
    pull = problem.dense_weight * target.point_confidence[..., None] * residual
    moments = (homogeneous[..., :, None] * pull[..., None, :]).reshape(batch, -1, 8)
    gradient = jnp.moveaxis(jnp.swapaxes(target.points.weight, 1, 2) @ moments, 0, -1).reshape(24, 4, 2, batch)
    padded = jnp.concatenate([gradient, jnp.zeros_like(gradient[:, :, :1])], axis=2)
    return jnp.sum(pull * residual, axis=(1, 2)), padded


def _keypoint_term(template: template_lib.Template, problem: Problem, affine):
    """Eq. 4 and its moments; the joints are a constant 17 x 96 matrix times the maps."""
    target = problem.target
    batch = affine.shape[-1]
    matrix = jnp.asarray(template.h36m_matrix)
    joints = (matrix @ affine.reshape(96, 3 * batch)).reshape(17, 3, batch)
    goal = jnp.concatenate([target.keypoint_position, target.depth[..., None]], axis=-1)
    confidence = jnp.concatenate(
        [jnp.repeat(target.keypoint_confidence[..., None], 2, axis=-1), target.depth_confidence[..., None]], axis=-1
    )
    residual = joints - jnp.moveaxis(goal, 0, -1)
    pull = problem.keypoint_weight * jnp.moveaxis(confidence, 0, -1) * residual
    gradient = (matrix.T @ pull.reshape(17, 3 * batch)).reshape(24, 4, 3, batch)
    return jnp.sum(pull * residual, axis=(0, 1)), gradient


def _relative_turns(template: template_lib.Template, state: TreeState):
    """Return |log A_j|^2 (23, batch) and G_p log A_j = log(G_j G_p') in world axes (3, 24, batch; root zero).

    Half turns lose the direction of the pull (its length is kept in the energy); no joint gets there.
    """
    parents = np.array(template.parents[1:])
    child, parent = state.rotation[1:], state.rotation[parents]
    turn = [[sum(child[:, i, k] * parent[:, j, k] for k in range(3)) for j in range(3)] for i in range(3)]
    sine = [0.5 * (turn[2][1] - turn[1][2]), 0.5 * (turn[0][2] - turn[2][0]), 0.5 * (turn[1][0] - turn[0][1])]
    sine_length = jnp.sqrt(sine[0] ** 2 + sine[1] ** 2 + sine[2] ** 2)
    angle = jnp.arctan2(sine_length, 0.5 * (turn[0][0] + turn[1][1] + turn[2][2] - 1.0))
    factor = jnp.where(sine_length < 1e-4, 1.0, angle / jnp.maximum(sine_length, 1e-4))
    pull = jnp.stack([factor * component for component in sine])
    return angle**2, jnp.concatenate([jnp.zeros_like(pull[:, :1]), pull], axis=1)


def pull_gradient(template: template_lib.Template, problem: Problem, state: TreeState, value: Value):
    """Return half the gradient of the joint and scale terms on u_j - u_parent, (4, 24, batch)."""
    parents = np.array((0, *template.parents[1:]))
    stretch = state.log_scale - state.log_scale[parents]
    return jnp.concatenate([problem.joint_weight * value.pull, problem.scale_weight * stretch[None]])


def segment_quadratic(
    template: template_lib.Template, problem: Problem, state: TreeState, value: Value
) -> Float[Array, "8 8 24 ..."]:
    """Return the data terms' half quadratic of every segment over (dp_k, u_k, 1): majoriser blocks, exact gradient.

    The last row and column hold the gradient; their corner, a constant, is left at zero.
    """
    linear = [[jnp.exp(state.log_scale) * state.rotation[:, i, j] for j in range(3)] for i in range(3)]
    planar, depth = _turned_moments(problem.planar_moments, linear), _turned_moments(problem.depth_moments, linear)
    gradient = _segment_gradient(template, value, linear)
    block = _blocks(planar, depth)
    rows = [[*row, entry] for row, entry in zip(block, gradient, strict=True)]
    rows.append([*gradient, jnp.zeros_like(gradient[0])])
    return jnp.stack([jnp.stack(row) for row in rows])


def _turned_moments(moments, linear):
    """Return (sum 1, sum y, sum y y') with y = s G (v - J) from rest moments about the joint."""
    first = [sum(linear[i][c] * moments[1 + c] for c in range(3)) for i in range(3)]
    square = {pair: moments[4 + n] for n, pair in enumerate(_SQUARES)}
    half = [[sum(linear[i][c] * square[min(c, d), max(c, d)] for c in range(3)) for d in range(3)] for i in range(3)]
    second = {(i, j): sum(half[i][d] * linear[j][d] for d in range(3)) for i, j in _SQUARES}
    return moments[0], first, second


def _blocks(planar, depth):
    """Return sum J' W J over (p, w, q), J = [I, -[y]x, y]: rows x and y weighted by `planar`, row z by `depth`."""
    a, (ax, ay, az), aa = planar
    c, (cx, cy, cz), cc = depth
    zero = jnp.zeros_like(a)
    wqx, wqy = cc[1, 2] - aa[1, 2], aa[0, 2] - cc[0, 2]
    wxy, wxz, wyz = -cc[0, 1], -aa[0, 2], -aa[1, 2]
    return [
        [a, zero, zero, zero, az, -ay, ax],
        [zero, a, zero, -az, zero, ax, ay],
        [zero, zero, c, cy, -cx, zero, cz],
        [zero, -az, cy, aa[2, 2] + cc[1, 1], wxy, wxz, wqx],
        [az, zero, -cx, wxy, aa[2, 2] + cc[0, 0], wyz, wqy],
        [-ay, ax, zero, wxz, wyz, aa[0, 0] + aa[1, 1], zero],
        [ax, ay, cz, wqx, wqy, zero, aa[0, 0] + aa[1, 1] + cc[2, 2]],
    ]


def _segment_gradient(template: template_lib.Template, value: Value, linear):
    """Return force, torque and stretch on every segment: sums of W r, y x W r and y . W r over its points."""
    joints = jnp.asarray(template.joints)
    moment = value.moment_gradient
    force = [moment[:, 3, j] for j in range(3)]
    local = [[moment[:, c, j] - joints[:, c, None] * force[j] for j in range(3)] for c in range(3)]
    y = [[sum(linear[i][c] * local[c][j] for c in range(3)) for j in range(3)] for i in range(3)]
    torque = [y[1][2] - y[2][1], y[2][0] - y[0][2], y[0][1] - y[1][0]]
    return [*force, *torque, y[0][0] + y[1][1] + y[2][2]]
