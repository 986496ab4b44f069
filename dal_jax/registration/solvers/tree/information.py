"""What an image tells of some unknowns once others are eliminated: of segments by themselves, and of a shape."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.registration.solvers.tree import elimination, quadratics, state as state_lib
from dal_jax.registration.solvers.tree.evaluation import TreeProblem, Value
from dal_jax.registration.solvers.tree.model import TreeModel
from dal_jax.registration.solvers.tree.state import TreeState, bone_offsets, contract, stage


def of_segments(
    model: TreeModel, problem: TreeProblem, state: TreeState, value: Value
) -> tuple[Float[Array, "24 4 4 ..."], Float[Array, "3 ..."]]:
    """Return how well each segment's rotation and log scale, and the body's place, are known: energy a squared unit.

    A segment's matrix over (w, q) is what the elimination has of it: its own points and those of all below it, whose
    controls are eliminated, its parent and the place of its joint held. Place: x and y of the pelvis and the log scale.
    """
    still = jnp.zeros_like(value.energy)
    _, systems, _, root, _, _ = elimination.eliminate(model, problem, state, value, still)
    return jnp.concatenate([root[:, 3:, 3:7], *systems]), jnp.stack([root[0, 0, 0], root[0, 1, 1], root[0, 6, 6]])


def of_shape(
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
