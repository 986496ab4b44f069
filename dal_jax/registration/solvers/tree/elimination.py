"""The step of the majorised, damped system: up the tree (eliminate), down the tree (substitute).

Quadratics have columns (dp, u, 1), and after them those of what all segments share, where there is a prior on
proportions: the log girth t, if it is an unknown, and the factors z. Segment girths c move no other segment, and are
eliminated at once.
Nodes of a level are handled together; batch axes come last.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.body import kinematics
from dal_jax.registration.solvers.tree import quadratics, state as state_lib
from dal_jax.registration.solvers.tree.evaluation import TreeProblem, Value
from dal_jax.registration.solvers.tree.pulls import ShapeTerm
from dal_jax.registration.solvers.tree.state import (
    TreeModel,
    TreeState,
    bone_offsets,
    contract,
    product,
    stage,
    sum_of,
)

_MAX_ROTATION = 1.0  # radians a step; beyond it the linearisation of a rotation is worthless
_MAX_LOG_SCALE = 0.5
_MAX_LOG_GIRTH = 0.2
ABSOLUTE_DAMPING = 1e-3  # crop units squared: keeps twists that no point sees at rest
_SMALLEST_PIVOT = 1e-12  # rounding can push that of a nearly singular block below zero; damping makes it positive


def solve_step(
    model: TreeModel,
    problem: TreeProblem,
    state: TreeState,
    value: Value,
    damping: Float[Array, "..."],
) -> tuple[
    Float[Array, "24 4 ..."], Float[Array, "axes ..."], Float[Array, "..."] | None, Float[Array, "24 2 ..."] | None
]:
    """Return the minimiser of the majoriser plus damping: the step that `state.retract` takes."""
    rows, _, motion, here, shared, of_girths = eliminate(model, problem, state, value, damping)
    axes = len(state.translation)
    move, control, shared = _solve_root(here, shared, damping, axes)

    moves, controls, levels = [move], [control], _levels(model)
    for depth in range(1, len(levels)):
        is_child = _is_child(model.parents, depth).T
        arrive = functools.partial(_arrive, is_child)
        move, parent = stage(arrive, motion[levels[depth]], move, control)
        control = stage(_follow, rows[depth], move, parent, shared)
        moves.append(move)
        controls.append(control)
    log_girth, log_segment_girth, every = None, None, jnp.concatenate(controls)
    if shared is not None and problem.shape is not None and problem.shape.girth is not None:
        log_girth = jnp.clip(shared[0, 0], -_MAX_LOG_GIRTH, _MAX_LOG_GIRTH)
    if of_girths is not None:
        known = jnp.concatenate([jnp.concatenate(moves), every], axis=1)
        log_segment_girth = jnp.clip(stage(_substitute, of_girths, known, shared), -_MAX_LOG_GIRTH, _MAX_LOG_GIRTH)
    return every, moves[0][0, :axes], log_girth, log_segment_girth


def _levels(model: TreeModel) -> list[slice]:
    return [slice(level[0], level[-1] + 1) for level in kinematics.nodes_by_depth(model.parents)]


def eliminate(model: TreeModel, problem: TreeProblem, state: TreeState, value: Value, damping: Float[Array, "..."]):
    """Eliminate the controls from the leaves to the root.

    Return by level the factors and (a list, the root's missing) the systems of the controls, the motions of the bones,
    the quadratic left at the root, that of what all segments share, and the factors of the segment girths.
    """
    levels = _levels(model)
    levers, shape = stage(functools.partial(state_lib.levers, model), state), problem.shape
    quadratic = quadratics.segment_quadratic(problem, levers, value)
    girth = quadratics.girth_quadratic(model, problem, state, value, levers)
    if girth is not None:
        with_segments, _, _ = girth
        quadratic = jnp.concatenate([quadratic, with_segments[:, :, None]], axis=2)
    widen = functools.partial(_widen, 0 if shape is None else shape.factors.shape[1])
    of_girths, taken = None, None
    if state.log_segment_girth is not None:
        rows, system = quadratics.segment_girth_quadratic(model, problem, state, value, levers)
        coupling = None if shape is None else shape.coupling()[24:].reshape(24, 2, -1)
        of_girths = factorise(stage(_girth_rows, rows, system, coupling, damping))
        quadratic, taken = stage(minimum, widen(quadratic), of_girths)
        widen = functools.partial(_widen, 0)
    motion = stage(functools.partial(contract, quadratics.MOTION), bone_offsets(model, state))

    rows, systems, here = {}, [], widen(quadratic[levels[-1]])
    shared = None if shape is None else _shared_alone(shape, girth, damping)
    if shared is not None and taken is not None:
        shared = shared - taken
    for depth in reversed(range(1, len(levels))):
        nodes, is_child = levels[depth], _is_child(model.parents, depth)
        curvatures = jax.tree.map(lambda each, nodes=nodes: each[nodes], (value.curvature, value.prior_curvature))
        coupling = None if shape is None else shape.coupling()[:24][nodes]
        coupling = None if coupling is None else jnp.pad(coupling, ((0, 0), (int(girth is not None), 0)))
        system = stage(_control_rows, here, value.pull[nodes], *curvatures, coupling, damping)
        systems.insert(0, system[:, :, :4])
        rows[depth] = factorise(system)
        left, taken = stage(minimum, here, rows[depth])
        if shared is not None:
            shared = shared - taken
        columns = stage(move_columns, left, motion[nodes])
        here = stage(functools.partial(hand_up, is_child), widen(quadratic[levels[depth - 1]]), columns, motion[nodes])
    return rows, systems, motion, here, shared, of_girths


def _widen(factors: int, quadratic):
    """Return a quadratic over (dp, u, 1) or (dp, u, 1, t) as one that has z after these."""
    return (
        jnp.pad(quadratic, [(0, 0), (0, 0), (0, factors)] + [(0, 0)] * (quadratic.ndim - 3)) if factors else quadratic
    )


def _shared_alone(shape: ShapeTerm, girth: tuple[Array, Array, Array] | None, damping):
    """Return rows (t, z), columns (1, t, z) of what they cost by themselves, (1, m, 1 + m, ...); z's is least at 0.

    Damping multiplies the whole quadratic of the prior, so that a move along the factors is damped by what it costs.
    """
    block = jnp.pad(shape.stiffness(), ((0, 0), (1, 0)))
    block = block.reshape(1, *block.shape, *(1,) * damping.ndim) * (1.0 + damping[None, None, None])
    if girth is None:
        return block
    batch = [(0, 0)] * damping.ndim
    _, gradient, curvature = girth
    own = jnp.stack([jnp.broadcast_to(gradient, damping.shape), curvature * (1.0 + damping)])
    top = jnp.pad(own[None, None], [(0, 0), (0, 0), (0, block.shape[1]), *batch])
    return jnp.concatenate([top, jnp.insert(block, 1, 0.0, axis=2)], axis=1)


def _control_rows(here, pull, curvature, prior_curvature, coupling, damping):
    """Return [system | rows] of the controls r of a level's nodes, (3) of `lm`, (n, 4, 12 + m, ...)."""
    width = here.shape[2]
    rows = here[:, 3:] + pull[:, :, None] * _constant(np.eye(width)[7:8], here)
    if coupling is not None:
        of_stretch = _constant(np.eye(4)[:, 3:], here) * jnp.pad(coupling, ((0, 0), (8, 0))).reshape(
            -1, 1, width, *(1,) * (here.ndim - 3)
        )
        rows = rows + of_stretch * (1.0 + damping[None, None, None])
    system = here[:, 3:, 3:7] + _constant(np.eye(4), here) * curvature[:, :, None]
    if prior_curvature is not None:
        system = system + jnp.pad(prior_curvature, [(0, 0), (0, 1), (0, 1)] + [(0, 0)] * (here.ndim - 3))
    return jnp.concatenate([damp(system, damping), rows], axis=2)


def _girth_rows(rows, system, coupling, damping):
    """Return [system | rows] of the segment girths, (3) of `lm`, (24, 2, 10 + m, ...)."""
    system = damp(system, damping)
    if coupling is None:
        return jnp.concatenate([system, rows], axis=2)
    of_factors = coupling.reshape(*coupling.shape, *(1,) * (rows.ndim - 3)) * (1.0 + damping[None, None, None])
    return jnp.concatenate([system, rows, of_factors], axis=2)


def factorise(system):
    """Return L' | L^-1 rows of the Cholesky factorisation system = L L', row by row.

    Row by row, not by explicit inverses of blocks: in float32 those lose what a nearly singular twist has to say.
    """
    rows = []
    while system.shape[1]:
        row, system = stage(_pivot, system)
        rows.append(row)
    return rows


def _pivot(system):
    row = system[:, 0] / jnp.sqrt(jnp.maximum(system[:, :1, 0], _SMALLEST_PIVOT))
    size = system.shape[1]
    return row, system[:, 1:, 1:] - row[:, 1:size, None] * row[:, None, 1:]


def minimum(here, rows):
    """Return the quadratic after minimising over the controls: here - (L^-1 rows)' (L^-1 rows).

    And what that takes from the rows and columns of what all nodes share, the constant's column first; None without.
    """
    size, width = here.shape[1:3]
    solved = [row[:, -width:] for row in rows]
    left = here - sum_of(row[:, :size, None] * row[:, None] for row in solved)
    if width == 8:
        return left, None
    return left, jnp.sum(sum_of(row[:, 8:, None] * row[:, None, 7:] for row in solved), axis=0, keepdims=True)


def _follow(rows, move, parent, shared):
    """Return u = u_parent + r of a level from dp, u_parent, t and z, r limited to what the linearisation can bear."""
    known = jnp.concatenate([move, parent], axis=1)
    return parent + _limit(_substitute(rows, known, shared))


def _substitute(rows, known, shared):
    """Solve L' r = -(L^-1 rows)(known, 1, shared) from the last unknown to the first."""
    solution: list[Array] = []
    width = 8 if shared is None else 8 + shared.shape[1]
    for row in reversed(rows):
        later, solved = row[:, 1 : len(solution) + 1], row[:, -width:]
        given = solved[:, 7] + sum_of(solved[:, i] * known[:, i] for i in range(known.shape[1]))
        if shared is not None:
            given = given + sum_of(solved[:, 8 + i] * shared[:, i] for i in range(shared.shape[1]))
        coupled = sum_of(later[:, i] * entry for i, entry in enumerate(solution))
        solution.insert(0, -(given + coupled) / row[:, 0])
    return jnp.stack(solution, axis=1)


def _arrive(is_child, motion, move, control):
    """Return the moves (dp of the node, u of its parent) that reach a level from the one above, (1) of `lm`."""
    parent = _over_nodes(is_child, control)
    return _over_nodes(is_child, move) + _times(motion, parent), parent


def move_columns(value, motion):
    """Replace dp by dp + M u in the columns of a quadratic, (1) of `lm`."""
    moved = value[:, :, 3:7] + product(value[:, :, :3], motion)
    return jnp.concatenate([value[:, :, :3], moved, value[:, :, 7:]], axis=2)


def hand_up(is_child, above, value, motion):
    """Do the same to its rows, and add the children to the quadratics of their parents."""
    rows = [value[:, :3], value[:, 3:] + product(jnp.swapaxes(motion, 1, 2), value[:, :3])]
    return above + _over_nodes(is_child, jnp.concatenate(rows, axis=1))


def _solve_root(root, shared, damping, axes):
    """Solve the root's system over (dp_x, dp_y, u, t, z); dp_z stays, unless several views tell it (3 axes).

    Return dp (1, 3, ...), u (1, 4, ...), and (t, z) or None.
    """
    unknown = np.array([*range(axes), 3, 4, 5, 6])

    def assemble(root, shared):
        system, given = damp(root[:, unknown][:, :, unknown], damping), root[:, unknown]
        if shared is None:
            return jnp.concatenate([system, given], axis=2)
        upper = jnp.concatenate([system, given[:, :, 8:], given[:, :, :8]], axis=2)
        left = [jnp.swapaxes(given[:, :, 8:], 1, 2), shared[:, :, 1:]]
        right = [jnp.zeros_like(shared[:, :, :1])] * 7 + [shared[:, :, :1]]
        return jnp.concatenate([upper, jnp.concatenate(left + right, axis=2)], axis=1)

    solution = _substitute(factorise(stage(assemble, root, shared)), root[:, 0, :0], None)
    move = jnp.concatenate([solution[:, :axes], jnp.zeros_like(solution[:, :1])], axis=1)[:, :3]
    controls = axes + 4
    return move, _limit(solution[:, axes:controls]), None if shared is None else solution[:, controls:]


def damp(system, damping):
    """Add lambda diag(system), and a little that keeps twists which no point sees at rest."""
    unit = _constant(np.eye(system.shape[1]), system)
    return system * (1.0 + unit * damping[None, None, None]) + ABSOLUTE_DAMPING * unit


def _constant(matrix: np.ndarray, like) -> Array:
    """Return a constant matrix with axes for the nodes and the batch."""
    return jnp.asarray(matrix, like.dtype).reshape(1, *matrix.shape, *(1,) * (like.ndim - 3))


def _times(matrix, vector):
    return sum_of(matrix[:, :, k] * vector[:, k, None] for k in range(matrix.shape[2]))


def _is_child(parents: tuple[int, ...], depth: int) -> np.ndarray:
    """Return a matrix (nodes of the level above, nodes of the level `depth`) that is 1 for parent and child."""
    rows = kinematics.parent_rows(parents, kinematics.nodes_by_depth(parents), depth)
    return np.eye(len(kinematics.nodes_by_depth(parents)[depth - 1]))[:, rows]


def _over_nodes(matrix: np.ndarray, values):
    """Return a constant matrix times the nodes' values: sums over children, or copies for them."""
    if np.array_equal(matrix, np.eye(len(matrix))):
        return values
    return sum_of(
        jnp.asarray(column, values.dtype).reshape(-1, *(1,) * (values.ndim - 1)) * values[k][None]
        for k, column in enumerate(matrix.T)
    )


def _limit(control):
    rotation = control[:, :3]
    angle = jnp.sqrt(jnp.sum(rotation**2, axis=1) + 1e-12)
    rotation = rotation * jnp.minimum(1.0, _MAX_ROTATION / angle)[:, None]
    return jnp.concatenate([rotation, jnp.clip(control[:, 3:], -_MAX_LOG_SCALE, _MAX_LOG_SCALE)], axis=1)
