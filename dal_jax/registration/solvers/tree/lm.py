"""Levenberg-Marquardt by elimination on the kinematic tree: the energy of eq. 2 without a 105 x 105 matrix.

Increments of node k: a rotation w_k (world axes: G_k <- exp(w_k) G_k) and a log scale q_k; u_k = (w_k, q_k). With o_c
the present offset of child c from its parent k, a step moves the joints by

    dp_c = dp_k + w_k x o_c + q_k o_c = dp_k + M(o_c) u_k                                   (1)

so the step is a linear-quadratic problem on a tree: the state that reaches node c is (dp_c, u_k), 7 numbers, and its
control is r_c = u_c - u_k, 4 numbers: the rotation and stretch of joint c itself.

Data terms. A point is a blend x = sum_k a_k (p_k + y_k), y_k = s_k G_k (v - J_k); its derivative is sum_k a_k J_k with
J_k = [I, -[y_k]x, y_k]. J'J couples the segments of a point. By Jensen (a_k >= 0, sum 1)

    J'WJ <= sum_k a_k J_k' W J_k                                                            (2)

which has no fill-in. We step with the right-hand side and the exact gradient: a majoriser, so the fixed points are
those of Gauss-Newton. Its blocks need only the ten moments sum a_k v v' of a segment's points; with those of pairs of
segments that share skin, so does the exact gradient (`tree/points.py`): no step looks at the points, and 10,000 cost
what 120 do.

Pull terms act on r alone: |log A_j|^2 has the exact gradient 2 G_p log A_j, and we take its curvature as that of its
tangent, 2; (log s_j - log s_p)^2 is quadratic. The squared excess beyond joint limits is one more, stiff beyond. A
pose prior (`priors`) pulls by a matrix, whose Gauss-Newton blocks are used as they are.

Elimination. A quadratic function is an 8 x 8 symmetric matrix over (dp, u, 1). From the leaves: the children's value
functions, carried to their parent by (1), are added to the segment's own Q; replacing u by u_parent + r and minimising
over r leaves

    V = Q - R' (Q_uu + D + damping)^-1 R,      R = rows u of Q, plus the pull's gradient in the last column    (3)

over (dp, u_parent, 1): Featherstone's articulated inertia, with springs. The root has 6 unknowns (its depth is free
under weak perspective, and stays).

A prior on proportions couples all stretches, but through m factors z alone (`priors`). They are held while the tree is
eliminated, which gives every quadratic m more columns and adds up their own m x (m + 1) block, and are solved with the
root's unknowns: its Hessian is used as it is. Energy and gradient are those at the best z, by the constant inverse of
the covariance. A girth that all segments share (`kinematics`) is one more such column: y moves by h = s G g P (v - J)
a unit of t = log g, so (2) holds with [J_k, h_k] in place of J_k, and its blocks need the same moments.

Anisotropic scales. S_k = s_k E_k diag(1, b_k1, b_k2) E_k' (`kinematics`) has two unknowns more, c_ka = log b_ka: six
a node. y = G S (v - J) moves by h_ka = f_ka (n_ka' v) a unit of c_ka, f_ka = s b_ka G e_ka the image of a girth axis
and n_ka' v the coordinate of v along it, so (2) holds with [J_k, h_k1, h_k2], and its blocks need M n_ka of the same
moments M. As what a segment is wider moves no other segment, (1) stays as it is: c_k is coupled to (dp_k, u_k), by the
prior to z, and to nothing else, and is eliminated before the tree is climbed:

    Q_k <- Q_k - B' (C + w / D + damping)^-1 B,      B = rows c of the quadratic over (dp, u, 1, z)            (4)

What goes up the tree stays 7 wide, and after the way down c_k follows from (dp_k, u_k, z). The prior's 48 girths c are
rows of R, L and D beside the edges' (`priors`); L_scale pulls c to 0.

Substituting back from the root gives every r. The camera's scale is the common factor of the segment scales here, and
is split off by the caller; all lengths are in crop units.

Layout: structure of arrays, segments first and batch axes (starts, people) last, so that every operation is elementwise
over the batch. `points`, `evaluation` and `elimination` are the parts; this file is the damping, and which fits accept.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dal_jax.observations.residuals import Target
from dal_jax.registration.energy import Objective
from dal_jax.registration.solvers import descent
from dal_jax.registration.solvers.descent import Solution, SolverOptions
from dal_jax.registration.solvers.tree import elimination, evaluation, points, quadratics, state as state_lib
from dal_jax.registration.solvers.tree.evaluation import TreeProblem, Value
from dal_jax.registration.solvers.tree.state import TreeModel, TreeState, bone_offsets, contract, retract, stage
from dal_jax.runtime import struct

_STEPS_A_REFERENCE = 10  # after which float32 has lost some digits of a squared loss
_STEPS_A_WEIGHTING = 3  # of a robust loss or a pinhole, whose quadratic is good near its reference


@struct.dataclass
class _Iterate:
    """What a step changes, and how far the fits are."""

    state: TreeState
    value: Value
    damping: Float[Array, "starts people"]
    relative_decrease: Float[Array, "starts people"]
    steps: Int[Array, "starts people"]
    active: Array


def minimise(
    model: TreeModel,
    target: Target,
    start: TreeState,
    objective: Objective,
    options: SolverOptions,
) -> Solution:
    """Minimise eq. 2 from `start`; return a solution whose state is a TreeState.

    Each fit has its own damping, accepts or rejects its own steps, and is finished when an accepted step gains less
    than `tolerance` of its energy; `steps` bounds them all.

    Args:
      model: constants of the body.
      target: axes (people, ...).
      start: axes (..., starts, people).
      objective: has no terms but eq. 2's.
      options: steps and tolerance.
    """
    settled = points.alike_for_starts(target, objective.weights)
    round_steps = _STEPS_A_REFERENCE if settled else _STEPS_A_WEIGHTING
    problem = evaluation.make_problem(model, target, objective, start)
    first = evaluation.evaluate(model, problem, start, target, objective.weights)

    # carries are born from data: shard_map rejects constants that later vary over devices
    iterate = _Iterate(
        state=start,
        value=first,
        damping=jnp.full_like(first.energy, descent.INITIAL_DAMPING),
        relative_decrease=jnp.full_like(first.energy, jnp.inf),
        steps=jnp.zeros_like(first.energy, jnp.int32),
        active=jnp.full_like(first.energy, True, bool),
    )

    def another(carry):
        done, iterate = carry
        return (done < options.steps) & jnp.any(iterate.active)

    def recentred(one):
        here = evaluation.recentre(model, problem, target, objective.weights, one.state)
        if problem.dense is None:  # nothing is summed up about a reference: the value stays
            return here, one.value
        return here, evaluation.evaluate(model, here, one.state, target, objective.weights)

    def step(here, one):
        candidate = retract(one.state, *elimination.solve_step(model, here, one.state, one.value, one.damping))
        value = evaluation.evaluate(model, here, candidate, target, objective.weights)
        return _accepted(one, candidate, value, options.tolerance)

    def run_round(carry):
        done, iterate = carry
        here, value = jax.lax.cond(done > 0, recentred, lambda one: (problem, one.value), iterate)
        iterate = iterate.replace(value=value)
        count = jnp.minimum(round_steps, options.steps - done)
        iterate = jax.lax.fori_loop(0, count, lambda _, one: step(here, one), iterate)
        return done + count, iterate

    _, iterate = jax.lax.while_loop(another, run_round, (0, iterate))
    exact = evaluation.exact_energy(model, problem, target, objective.weights, iterate.state)
    return Solution(iterate.state, exact, iterate.relative_decrease, iterate.steps)


def _accepted(now: _Iterate, candidate: TreeState, value: Value, tolerance: float | Float[Array, ""]) -> _Iterate:
    """Return where a damped step leads: to the candidate where that lowers the energy of a fit that is not finished."""
    accept = (value.energy < now.value.energy) & now.active
    gain = (now.value.energy - value.energy) / jnp.maximum(now.value.energy, 1e-12)
    factor = jnp.where(accept, descent.ACCEPTED_FACTOR, descent.REJECTED_FACTOR)
    state, value = _select(accept, (candidate, value), (now.state, now.value))
    return _Iterate(
        state=state,
        value=value,
        damping=jnp.where(now.active, jnp.clip(now.damping * factor, *descent.DAMPING_RANGE), now.damping),
        relative_decrease=jnp.where(accept, gain, now.relative_decrease),
        steps=now.steps + now.active,
        active=now.active & ~(accept & (gain < tolerance)),
    )


def _select(accept: Array, new, old):
    """Take each fit's leaves (batch axes last) from `new` where it accepts, else from `old`."""
    return jax.tree.map(
        lambda a, b: jnp.where(accept.reshape((1,) * (a.ndim - accept.ndim) + accept.shape), a, b), new, old
    )


def information(
    model: TreeModel, target: Target, state: TreeState, objective: Objective
) -> tuple[tuple[Array, Array] | tuple[None, None], tuple[Array, Array]]:
    """Return how well an image tells the body at a state, other unknowns eliminated, without what tracks expect.

    Of segments and place (None of several views: nothing reads it), and of the shape.
    """
    target = dataclasses.replace(target, observation=dataclasses.replace(target.observation, expected=None))
    problem = evaluation.make_problem(model, target, objective, state)
    known = model, problem, state, evaluation.evaluate(model, problem, state, target, objective.weights)
    of_segments = (None, None) if target.observation.views is not None else information_of_segments(*known)
    return of_segments, information_of_shape(*known)


def information_of_segments(
    model: TreeModel, problem: TreeProblem, state: TreeState, value: Value
) -> tuple[Float[Array, "24 4 4 ..."], Float[Array, "3 ..."]]:
    """Return how well each segment's rotation and log scale, and the body's place, are known: energy a squared unit.

    A segment's matrix over (w, q) is what the elimination has of it: its own points and those of all below it, whose
    controls are eliminated, its parent and the place of its joint held. Place: x and y of the pelvis and the log scale.
    """
    still = jnp.zeros_like(value.energy)
    _, systems, _, root, _, _ = elimination.eliminate(model, problem, state, value, still)
    return jnp.concatenate([root[:, 3:, 3:7], *systems]), jnp.stack([root[0, 0, 0], root[0, 1, 1], root[0, 6, 6]])


def information_of_shape(
    model: TreeModel, problem: TreeProblem, state: TreeState, value: Value
) -> tuple[Float[Array, "m ..."], Float[Array, "m m ..."]]:
    """Return the half gradient by the shape, rotations and place eliminated, and its matrix in the step's majoriser.

    The shape: q of the root, the stretches of all other segments, and t or, segment after segment, both c. Climbing the
    tree, u_q = u_q,parent + r_j moves the column of a segment's log scale to that of its stretch r_j, which stays; the
    three rotations are eliminated as in a step.
    """
    still = jnp.zeros_like(value.energy)
    levers = stage(functools.partial(state_lib.levers, model), state)
    quadratic = quadratics.segment_quadratic(problem, levers, value)
    girths, own = stage(functools.partial(_girths, model), problem, state, value, levers)
    stretches = jnp.pad(girths, [(0, 0), (0, 0), (24, 0)] + [(0, 0)] * still.ndim)
    quadratic = jnp.concatenate([quadratic, stretches], axis=2)
    motion = stage(functools.partial(contract, quadratics.MOTION), bone_offsets(model, state))
    at = jnp.pad(jnp.eye(24, dtype=own.dtype), ((0, 0), (0, own.shape[1] - 24)))
    nodes, parents = (at, value.pull, value.curvature, value.prior_curvature, motion), jnp.array(model.parents)

    def climb(step, carry):  # node after node: in one program for all, which levels have not
        quadratic, own = carry
        node = 23 - step
        here = quadratic[node][None]
        place, pull, curvature, prior, moved = jax.tree.map(lambda each: each[node][None], nodes)
        here, own = stage(_keep_stretches, here, own, place)
        rows = elimination.factorise(stage(_rotation_rows, here, pull, curvature, prior, still))
        left, taken = stage(elimination.minimum, here, rows)
        columns = stage(elimination.move_columns, left, moved)
        hand_up = functools.partial(elimination.hand_up, np.eye(1))
        above = stage(hand_up, quadratic[parents[node]][None], columns, moved)
        return quadratic.at[parents[node]].set(above[0]), own - taken

    quadratic, own = jax.lax.fori_loop(0, 23, climb, (quadratic, own))
    here, own = stage(_keep_stretches, quadratic[:1], own, at[:1])
    unknown = np.array([*range(len(state.translation)), 3, 4, 5])
    system = jnp.concatenate([elimination.damp(here[:, unknown][:, :, unknown], still), here[:, unknown]], axis=2)
    own = own - stage(elimination.minimum, here, elimination.factorise(system))[1]
    return own[0, :, 0], own[0, :, 1:]


def _girths(model, problem, state, value, levers):
    """Return the columns of the girths in the segments' quadratics, (24, 7, girths, ...), and what is the shape's own.

    That is, (1, m, 1 + m, ...), girths by themselves, and pulls and priors on stretches and girths.
    """
    batch, shape = value.energy.shape, problem.shape
    columns = jnp.zeros((24, 7, 0, *batch), value.energy.dtype)
    slopes, block = value.pull[:, 3], jnp.zeros((0, 0, *batch), value.energy.dtype)
    girth = quadratics.girth_quadratic(model, problem, state, value, levers)
    if girth is not None:
        of_segments, slope, stiffness = girth
        columns, block = of_segments[:, :, None], stiffness[None, None]
        slopes = jnp.concatenate([slopes, jnp.broadcast_to(slope, batch)[None]])
    if state.log_segment_girth is not None:
        rows, system = quadratics.segment_girth_quadratic(model, problem, state, value, levers)
        each = jnp.eye(24)
        columns = jnp.einsum("kar...,km->krma...", rows[:, :, :7], each).reshape(24, 7, 48, *batch)
        block = jnp.einsum("kab...,km->kamb...", system, each).reshape(48, 48, *batch)
        slopes = jnp.concatenate([slopes, rows[:, :, 7].reshape(48, *batch)])
    count, of_stretches = len(slopes), value.curvature[:, 3].at[0].set(0.0)
    held = of_stretches[:, None] * jnp.eye(24).reshape(24, 24, *(1,) * len(batch))
    if shape is not None:  # whose factors are held in the curvatures
        free = shape.weight * (jnp.matmul(shape.root.T, shape.root, precision="highest") - jnp.diag(shape.precision))
        held = jnp.pad(held, [(0, len(free) - 24)] * 2 + [(0, 0)] * len(batch))
        held = held + free.reshape(*free.shape, *(1,) * len(batch))
    own = jnp.pad(held, [(0, count - len(held))] * 2 + [(0, 0)] * len(batch))
    own = own + jnp.pad(block, [(24, 0), (24, 0)] + [(0, 0)] * len(batch))
    own = jnp.broadcast_to(own, (count, count, *batch))
    return columns, jnp.concatenate([slopes[:, None], own], axis=1)[None]


def _keep_stretches(here, own, at):
    """Replace u_q by u_q,parent + r of nodes whose places in the shape are `at`."""
    coupled = jnp.einsum("n...,nm->m...", here[:, 6, 7], at)[:, None]
    across = jnp.einsum("nk...,nm->mk...", here[:, 6, 8:], at)
    itself = jnp.einsum("n...,nm,nk->mk...", here[:, 6, 6], at, at)
    own = own + jnp.concatenate([coupled, across + jnp.swapaxes(across, 0, 1) + itself], axis=1)[None]
    moved = jnp.einsum("nr...,nm->nrm...", here[:, :, 6], at)
    return jnp.concatenate([here[:, :, :8], here[:, :, 8:] + moved], axis=2), own


def _rotation_rows(here, pull, curvature, prior, still):
    """Return [system | rows] of the rotations of nodes, (n, 3, 11 + m, ...)."""
    unit = jnp.eye(3).reshape(1, 3, 3, *(1,) * still.ndim)
    system = here[:, 3:6, 3:6] + unit * curvature[:, :3, None]
    system = system if prior is None else system + prior
    rows = jnp.concatenate([here[:, 3:6, :7], here[:, 3:6, 7:8] + pull[:, :3, None], here[:, 3:6, 8:]], axis=2)
    return jnp.concatenate([elimination.damp(system, still), rows], axis=2)
