"""The majoriser's blocks: the half quadratic of the data terms of every segment, from moments and levers."""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.registration.solvers.tree import state as state_lib, views
from dal_jax.registration.solvers.tree.evaluation import TreeProblem, Value
from dal_jax.registration.solvers.tree.state import TreeModel, TreeState

# The derivative of a point at lever y by the control u = (w, q): [-[y]x, y] = sum_c MOTION[:, :, c] y_c.
MOTION = np.concatenate([-state_lib.CROSS, np.eye(3, dtype=np.float32)[:, None, :]], axis=1)
_PLANAR, _DEPTH = np.diag([1.0, 1.0, 0.0]), np.diag([0.0, 0.0, 1.0])
_PLACE_OF = {pair: place for place, axes in enumerate(views.AXES) for pair in (axes, axes[::-1])}
_VIEW_METRICS = tuple(np.zeros((3, 3)) for _ in views.AXES)
for _pair, _place in _PLACE_OF.items():
    _VIEW_METRICS[_place][_pair] = 1.0


def _mixed(metric: np.ndarray) -> np.ndarray:
    """Return the block dp u' of sum_ij W_ij [e_i, J_i]' [e_j, J_j] by the first moments."""
    return np.einsum("ij,jlc->ilc", metric, MOTION)


def _control(metric: np.ndarray) -> np.ndarray:
    """Return its block u u' by the second moments."""
    return np.einsum("ijc,ik,kld->jlcd", MOTION, metric, MOTION)


def segment_quadratic(
    problem: TreeProblem, levers: Float[Array, "24 4 3 ..."], value: Value
) -> Float[Array, "24 7 8 ..."]:
    """Return the half quadratic of every segment over (dp_k, u_k, 1): majoriser blocks, exact gradient.

    Of the data terms, and of what tracks expect.

    Rows (dp, u) of its symmetric 8 x 8 matrix, the constant's column last.
    """
    if problem.view_moments is None:
        blocks = state_lib.stage(_data_blocks, problem.planar_moments, problem.depth_moments, levers, value.gradient)
    else:
        of_pairs = [state_lib.stage(_lever_moments, of_pair, levers) for of_pair in problem.view_moments]
        blocks = state_lib.stage(_view_blocks, of_pairs, levers, value.gradient)
    quadratic = state_lib.stage(_assemble, *blocks)
    if problem.expected is None or value.expected is None:
        return quadratic
    gradient = value.expected[:, :, None]
    curvature = jnp.broadcast_to(problem.expected.curvature, (*gradient.shape[:2], 7, *gradient.shape[3:]))
    return quadratic + jnp.concatenate([curvature, gradient], axis=2)


def girth_quadratic(
    model: TreeModel,
    problem: TreeProblem,
    state: TreeState,
    value: Value,
    levers: Float[Array, "24 4 3 ..."],
) -> tuple[Float[Array, "24 7 ..."], Float[Array, "..."], Float[Array, "..."]] | None:
    """Return what the data terms' majoriser and the prior say of the log girth t; None where it is no unknown.

    Its coupling with (dp, u) of every segment; half gradient and curvature by t.
    """
    if problem.shape is None or problem.shape.girth is None or state.log_girth is None:
        return None
    mean, precision = problem.shape.girth
    of_girth = state_lib.stage(functools.partial(state_lib.girth_levers, model), state)
    if problem.view_moments is None:
        half, moments = _half, (problem.planar_moments, problem.depth_moments)
    else:
        half, moments = _view_half, (problem.view_moments,)
    blocks = functools.partial(_girth_blocks, half)
    coupling, gradient, curvature = state_lib.stage(blocks, moments, levers, of_girth, value.gradient)
    stiffness = problem.shape.weight * precision
    gradient, curvature = gradient + stiffness * (state.log_girth - mean), curvature + stiffness
    if problem.expected is not None:
        mean, stiffness = problem.expected.girth
        gradient, curvature = gradient + stiffness * (state.log_girth - mean), curvature + stiffness
    return coupling, gradient, curvature


def segment_girth_quadratic(
    model: TreeModel,
    problem: TreeProblem,
    state: TreeState,
    value: Value,
    levers: Float[Array, "24 4 3 ..."],
) -> tuple[Float[Array, "24 2 8 ..."], Float[Array, "24 2 2 ..."]]:
    """Return what data terms' majoriser, prior and L_scale say of the segment girths c of every segment.

    Rows c of the quadratic over (dp, u, 1); and c c.
    """
    if problem.view_moments is None:
        metrics, moments = (_PLANAR, _DEPTH), (problem.planar_moments, problem.depth_moments)
    else:
        metrics, moments = _VIEW_METRICS, tuple(problem.view_moments)
    blocks = functools.partial(_segment_girth_blocks, model, metrics)
    rows, control = state_lib.stage(blocks, moments, levers, state, value.gradient)
    assert value.girth_pull is not None
    rows = rows + jnp.pad(value.girth_pull[:, :, None], [(0, 0), (0, 0), (7, 0)] + [(0, 0)] * (rows.ndim - 3))
    stiffness = jnp.full((24, 2), problem.scale_weight)
    if problem.shape is not None:
        stiffness = stiffness + problem.shape.weight * problem.shape.precision[24:].reshape(24, 2)
    stiffness = stiffness.reshape(24, 2, *(1,) * (control.ndim - 3))
    if problem.expected is not None:
        stiffness = stiffness + problem.expected.girth[1]
    return rows, control + stiffness[:, :, None] * jnp.eye(2).reshape(1, 2, 2, *(1,) * (control.ndim - 3))


def _segment_girth_blocks(model, metrics, moments, levers, state, gradient):
    """Return the rows c over (dp, u, 1), and c c, from the moments of each metric.

    The derivative of y by c_a is h_a = n_a' v f_a, n_a a constant row (`TreeModel.girth_axes`) and f_a = b_a s G e_a
    the image of a girth axis: of the moments only M n_a is needed, which no step changes.
    """
    axes = jnp.asarray(model.girth_axes).reshape(24, 2, 4, *(1,) * (levers.ndim - 3))
    size = jnp.exp(state.log_scale[:, None] + state.log_segment_girth)[:, :, None]
    images = size * state_lib.across_images(model, state.axes)  # f_a
    force, torque, inner = [], [], []
    for metric, of_metric in zip(metrics, moments, strict=True):
        first = state_lib.sum_of(axes[:, :, c, None] * of_metric[:, None, c] for c in range(4))  # M n_a
        lever = state_lib.sum_of(levers[:, None, c] * first[:, :, c, None] for c in range(4))  # y' M n_a
        both = state_lib.sum_of(axes[:, :, c, None] * first[:, None, :, c] for c in range(4))  # n_b' M n_a
        seen = jnp.stack([state_lib.contract(metric, images[:, a]) for a in range(2)], axis=1)
        force.append(first[:, :, 3, None] * seen)
        torque.append(lever[:, :, :, None] * seen[:, :, None])  # sum of y_j h_i
        inner.append(both * jnp.sum(images[:, :, None] * seen[:, None], axis=3))
    by_u = [state_lib.contract(np.einsum("ijc->jci", MOTION), state_lib.sum_of(torque)[:, a], axes=2) for a in range(2)]
    along = state_lib.sum_of(axes[:, :, c, None] * gradient[:, None, c] for c in range(4))
    slope = jnp.sum(along * images, axis=2)
    rows = jnp.concatenate([state_lib.sum_of(force), jnp.stack(by_u, axis=1), slope[:, :, None]], axis=2)
    return rows, state_lib.sum_of(inner)


def _half(planar_moments, depth_moments, of_girth):
    product = state_lib.product
    return jnp.concatenate([product(planar_moments, of_girth[:, :, :2]), product(depth_moments, of_girth[:, :, 2:])], 2)


def _view_half(moments, of_girth):
    """Return the same where each pair of axes has moments of its own."""

    def row(i):
        return state_lib.sum_of(state_lib.product(moments[_PLACE_OF[i, j]], of_girth[:, :, j, None]) for j in range(3))

    return jnp.concatenate([row(i) for i in range(3)], axis=2)


def _girth_blocks(half_of, moments, levers, of_girth, gradient):
    """Return the blocks (dp, u) t, the half gradient by t and t t, h = `girth_levers` v the derivative of y by t."""
    half = half_of(*moments, of_girth)
    both = state_lib.sum_of(levers[:, c, :, None] * half[:, c, None] for c in range(4))  # sum of y h'
    control = state_lib.contract(np.einsum("ijc->jci", MOTION), both, axes=2)
    force = jnp.sum(of_girth * gradient, axis=(0, 1, 2))
    return jnp.concatenate([half[:, 3], control], axis=1), force, jnp.sum(of_girth * half, axis=(0, 1, 2))


def _data_blocks(planar_moments, depth_moments, levers, gradient):
    """Return the blocks dp dp', dp u', u u' and the gradient by dp and u."""
    planar_mass, planar_first, planar_second = _lever_moments(planar_moments, levers)
    depth_mass, depth_first, depth_second = _lever_moments(depth_moments, levers)
    torque = state_lib.stage(
        lambda y, g: state_lib.sum_of(y[:, c, :, None] * g[:, c, None] for c in range(4)), levers, gradient
    )
    contract = state_lib.contract
    mixed = contract(_mixed(_PLANAR), planar_first) + contract(_mixed(_DEPTH), depth_first)
    control = contract(_control(_PLANAR), planar_second, axes=2)
    control = control + contract(_control(_DEPTH), depth_second, axes=2)
    position = contract(_PLANAR[..., None], planar_mass)
    position = position + contract(_DEPTH[..., None], depth_mass)
    position = jnp.broadcast_to(position, (*position.shape[:3], *mixed.shape[3:]))
    return position, mixed, control, gradient[:, 3], contract(np.einsum("ijc->jci", MOTION), torque, axes=2)


def _view_blocks(of_pairs, levers, gradient):
    """Return the same blocks where each pair of axes has moments of its own (`views`), seen from the levers."""
    contract, position, mixed, control = state_lib.contract, [], [], []
    for metric, (mass, first, second) in zip(_VIEW_METRICS, of_pairs, strict=True):
        position.append(contract(metric[..., None], mass))
        mixed.append(contract(_mixed(metric), first))
        control.append(contract(_control(metric), second, axes=2))
    torque = state_lib.sum_of(levers[:, c, :, None] * gradient[:, c, None] for c in range(4))
    torque = contract(np.einsum("ijc->jci", MOTION), torque, axes=2)
    blocks = (state_lib.sum_of(each) for each in (position, mixed, control))
    return *blocks, gradient[:, 3], torque


def _assemble(position, mixed, control, force, torque):
    upper = jnp.concatenate([position, mixed, force[:, :, None]], axis=2)
    lower = jnp.concatenate([jnp.swapaxes(mixed, 1, 2), control, torque[:, :, None]], axis=2)
    return jnp.concatenate([upper, lower], axis=1)


def _lever_moments(moments, levers):
    """Return sum 1, sum y and sum y y' of segments whose levers are y = B' v, from sum v v'."""
    half = state_lib.stage(state_lib.product, moments, levers)
    return (
        moments[:, 3, 3:],
        half[:, 3],
        state_lib.stage(
            lambda y, half: state_lib.sum_of(y[:, c, :, None] * half[:, c, None] for c in range(4)), levers, half
        ),
    )
