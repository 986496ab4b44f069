"""Levenberg-Marquardt by elimination on the kinematic tree: the energy of eq. 2 without a 105 x 105 matrix.

Increments of node k: a rotation w_k (world axes: G_k <- exp(w_k) G_k) and a log scale q_k; u_k = (w_k, q_k). With o_c
the present offset of child c from its parent k, a step moves the joints by

    dp_c = dp_k + w_k x o_c + q_k o_c = dp_k + M(o_c) u_k                                   (1)

so the step is a linear-quadratic problem on a tree: the state that reaches node c is (dp_c, u_k), 7 numbers, and its
control is r_c = u_c - u_k, 4 numbers: the turn and stretch of joint c itself.

Data terms. A point is a blend x = sum_k a_k (p_k + y_k), y_k = s_k G_k (v - J_k); its derivative is sum_k a_k J_k with
J_k = [I, -[y_k]x, y_k]. J'J couples the segments of a point. By Jensen (a_k >= 0, sum 1)

    J'WJ <= sum_k a_k J_k' W J_k                                                            (2)

which has no fill-in. We step with the right-hand side and the exact gradient: a majoriser, so the fixed points are
those of Gauss-Newton. Its blocks need only the ten moments (1, v - J_k, (v - J_k)(v - J_k)') of a segment's points,
summed once an image: the Hessian of a step does not depend on the number of points.

Pull terms act on r alone: |log A_j|^2 has the exact gradient 2 G_p log A_j, and we take its curvature as that of its
tangent, 2; (log s_j - log s_p)^2 is quadratic.

Elimination. A quadratic function is an 8 x 8 symmetric matrix over (dp, u, 1). From the leaves: the children's value
functions, carried to their parent by (1), are added to the segment's own Q; replacing u by u_parent + r and minimising
over r leaves

    V = Q - R' (Q_uu + D + damping)^-1 R,      R = rows u of Q, plus the pull's gradient in the last column    (3)

over (dp, u_parent, 1): Featherstone's articulated inertia, with springs. The root has 6 unknowns (its depth is free
under weak perspective, and stays). Substituting back from the root gives every r. The camera's scale is the common
factor of the segment scales here, and is split off by the caller; all lengths are in crop units.

Layout: structure of arrays, node and batch axes last, so that every operation is elementwise over the batch.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.body import template as template_lib
from dal_jax.registration import dense_lm, energy, tree_evaluation as evaluation, tree_levels

_MAX_TURN = 1.0  # radians a step; beyond it the linearisation of a rotation is worthless
_MAX_LOG_SCALE = 0.5
ABSOLUTE_DAMPING = 1e-3  # crop units squared: keeps twists that no point sees at rest
_DAMPING_RANGE = (1e-7, 1e7)


@flax.struct.dataclass
class Solution:
    """state: the best found; energy: eq. 2 there; relative_decrease: of the last accepted step."""

    state: evaluation.TreeState
    energy: Float[Array, "..."]
    relative_decrease: Float[Array, "..."]


def minimise(
    template: template_lib.Template,
    target: energy.Target,
    start: evaluation.TreeState,
    weights: energy.EnergyWeights,
    joint_moments: Float[Array, "17 24 10"],
    *,
    steps: int,
) -> Solution:
    """Minimise eq. 2 from `start`; `target` has the batch axis first, the state last.

    `joint_moments` comes from `tree_evaluation.keypoint_moments`. Each image has its own damping and accepts or
    rejects its own step.
    """
    problem = evaluation.make_problem(template, target, weights, joint_moments)
    first = evaluation.evaluate(template, problem, start)

    def step(_, carry):
        state, value, damping, decrease = carry
        increments = solve_step(template, problem, state, value, damping)
        candidate = evaluation.retract(state, increments)
        new = evaluation.evaluate(template, problem, candidate)
        accept = new.energy < value.energy
        gain = (value.energy - new.energy) / jnp.maximum(value.energy, 1e-12)
        decrease = jnp.where(accept, gain, decrease)
        factor = jnp.where(accept, dense_lm.ACCEPTED_FACTOR, dense_lm.REJECTED_FACTOR)
        state, value = _select(accept, (candidate, new), (state, value))
        return state, value, jnp.clip(damping * factor, *_DAMPING_RANGE), decrease

    carry = (
        start,
        first,
        jnp.full_like(first.energy, dense_lm.INITIAL_DAMPING),
        jnp.full_like(first.energy, jnp.inf),
    )
    state, value, _, decrease = jax.lax.fori_loop(0, steps, step, carry)
    return Solution(state, value.energy, decrease)


def _select(accept: Float[Array, "..."], new, old):
    """Take each image's leaves (batch axis last) from `new` where it accepts, else from `old`."""

    def select(a, b):
        return jnp.where(accept.reshape((1,) * (a.ndim - accept.ndim) + accept.shape), a, b)

    return jax.tree.map(select, new, old)


def solve_step(
    template: template_lib.Template,
    problem: evaluation.Problem,
    state: evaluation.TreeState,
    value: evaluation.Value,
    damping: Float[Array, "..."],
) -> evaluation.Increments:
    """Return the step of the majorised, damped system: up the tree (eliminate), down the tree (substitute)."""
    levels = tree_levels.levels(template.parents)
    quadratic = evaluation.segment_quadratic(template, problem, state, value)
    pull = evaluation.pull_gradient(template, problem, state, value)
    offset = evaluation.bone_offsets(template, state)
    curvature = jnp.stack([problem.joint_weight] * 3 + [problem.scale_weight])

    factors, inherited = {}, 0.0
    for depth in reversed(range(1, len(levels))):
        nodes = np.array(levels[depth])
        here = quadratic[:, :, nodes] + inherited
        factors[depth], handed_up = _eliminate(here, pull[:, nodes], curvature, damping)
        moved = _move_to_parent(handed_up, offset[:, nodes])
        inherited = _sum_children(moved, tree_levels.children_rows(template.parents, levels, depth))
    root_p, root_u = _solve_root(quadratic[:, :, :1] + inherited, damping)

    joint_step, increment = {0: root_p}, {0: root_u}
    for depth in range(1, len(levels)):
        parent = np.array(tree_levels.parent_rows(template.parents, levels, depth))
        parent_u = increment[depth - 1][:, parent]
        moved_by = _along(_motion(offset[:, np.array(levels[depth])]), parent_u)
        joint_step[depth] = joint_step[depth - 1][:, parent] + moved_by
        increment[depth] = parent_u + _substitute(factors[depth], joint_step[depth], parent_u)
    order = np.argsort([node for level in levels for node in level])
    all_nodes = jnp.concatenate([increment[depth] for depth in range(len(levels))], axis=1)[:, order]
    return evaluation.Increments(all_nodes[:3], all_nodes[3], root_p[:2, 0])


def _eliminate(here, pull, curvature, damping):
    """Minimise over the controls of a level's nodes, eq. 3: return what `_substitute` needs, and V."""
    system = here[3:7, 3:7] + _diagonal(curvature[:, None, None])
    rows = here[3:7] + pull[:, None] * _CONSTANT_COLUMN
    pivots = _factorise(_damp(system, damping), rows)
    return pivots, here - sum(inverse[None, None] * row[:, None] * row[None] for inverse, _, row in pivots)


_CONSTANT_COLUMN = np.eye(8, dtype=np.float32)[7][None, :, None, None]


def _factorise(system, rows):
    """Eliminate the unknowns of `system` x = -`rows` one by one: (1 / pivot, later columns, row) of each.

    V = Q - rows' system^-1 rows is then Q minus the sum of row' row / pivot.
    """
    pivots = []
    while len(system):
        # rounding can push a pivot of a nearly singular block below zero; the damping makes the true one positive
        inverse = 1.0 / jnp.maximum(system[0, 0], 1e-12)
        later, row = system[0, 1:], rows[0]
        pivots.append((inverse, later, row))
        factor = inverse[None] * later
        system = system[1:, 1:] - factor[:, None] * later[None]
        rows = rows[1:] - factor[:, None] * row[None]
    return pivots


def _back_substitute(pivots, known):
    """Return the unknowns of a factorised system, given the vector that its rows multiply."""
    solution: list[Array] = []
    for inverse, later, row in reversed(pivots):
        coupled = sum(later[i] * entry for i, entry in enumerate(solution))
        solution.insert(0, -inverse * (jnp.sum(row * known, axis=0) + coupled))
    return jnp.stack(solution)


def _substitute(pivots, joint_step, parent_u):
    """Return the controls r of a level, turns limited to what the linearisation can bear."""
    known = jnp.concatenate([joint_step, parent_u, jnp.ones_like(joint_step[:1])])
    return _limit(_back_substitute(pivots, known))


def _move_to_parent(value, offset):
    """Express a child's value function over its parent's (dp, u, 1) through eq. 1: congruence with dp + M u."""
    motion = _motion(offset)
    empty = jnp.zeros_like(motion[:, :3])
    wide = jnp.concatenate([empty, motion, empty[:, :1]], axis=1)
    rows = value + sum(wide[k][:, None] * value[k][None] for k in range(3))
    return rows + sum(rows[:, k][:, None] * wide[k][None] for k in range(3))


def _motion(offset):
    """Return M(o) = [-[o]x, o] of eq. 1, (3, 4, ...)."""
    x, y, z = offset
    zero = jnp.zeros_like(x)
    return jnp.stack([jnp.stack([zero, z, -y, x]), jnp.stack([-z, zero, x, y]), jnp.stack([y, -x, zero, z])])


def _along(matrix, vector):
    return jnp.sum(matrix * vector[None], axis=1)


def _sum_children(moved, rows):
    """Return for each parent the sum over the rows of its children; zero for a leaf."""
    zero = jnp.zeros_like(moved[:, :, 0])
    return jnp.stack([sum((moved[:, :, row] for row in children), zero) for children in rows], axis=2)


def _solve_root(root, damping):
    """Solve the root's 6 x 6 system over (dp_x, dp_y, u); dp_z stays. Return dp (3, 1, ...) and u (4, 1, ...)."""
    unknown = np.array([0, 1, 3, 4, 5, 6])
    system = _damp(root[unknown][:, unknown], damping)
    solution = _back_substitute(_factorise(system, root[unknown, 7:]), jnp.ones_like(root[:1, 0]))
    return jnp.concatenate([solution[:2], jnp.zeros_like(solution[:1])]), _limit(solution[2:])


def _damp(system, damping):
    """Add lambda diag(system), and a little that keeps twists which no point sees at rest."""
    size = len(system)
    diagonal = jnp.stack([system[i, i] for i in range(size)])
    return system + _diagonal(damping[None, None] * diagonal + ABSOLUTE_DAMPING)


def _diagonal(entries):
    """Return a diagonal matrix whose entries are arrays, (n, n, ...)."""
    unit = np.eye(len(entries), dtype=np.float32).reshape(len(entries), len(entries), *(1,) * (entries.ndim - 1))
    return unit * entries[None]


def _limit(control):
    turn = control[:3]
    angle = jnp.sqrt(jnp.sum(turn**2, axis=0) + 1e-12)
    return jnp.concatenate([
        turn * jnp.minimum(1.0, _MAX_TURN / angle)[None], jnp.clip(control[3:], -_MAX_LOG_SCALE, _MAX_LOG_SCALE)
    ])  # fmt: skip
