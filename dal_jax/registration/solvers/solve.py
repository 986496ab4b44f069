"""The swap: every optimiser minimises the same energy from the same starts behind one function.

By name (`--optimizer=`):

    lm                        Levenberg-Marquardt by elimination on the kinematic tree
    dense_lm                  the same with an autodiff Jacobian: any energy term, and the reference of `lm`
    gauss_newton              full steps with that Jacobian
    adam, lbfgs               optax.adam (the paper's) and optax.lbfgs with its line search
    optax.NAME                any other transformation of optax, as in optax.adabelief(learning_rate=0.05, b1=0.9)
    package.module:function   a solver of your own: see examples/05_own_solver.py

A solver of your own is a function (descent.Problem, descent.SolverOptions) -> descent.Solution whose state is the best
energy.Unknowns. It is written for ONE person, in pure JAX: it is vmapped and jitted.
"""

import dataclasses
import importlib
import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.body.kinematics import BodyParameters, t_pose
from dal_jax.body.template import Template
from dal_jax.observations.residuals import Target
from dal_jax.registration.energy import Objective, from_parameters, parameter_energy, to_parameters
from dal_jax.registration.solvers import descent, optax_solver
from dal_jax.registration.solvers.descent import Problem, Solution, SolverOptions, move, tangent_size
from dal_jax.registration.solvers.optax_solver import nearest, wrong
from dal_jax.registration.solvers.tree import lm, state as state_lib
from dal_jax.registration.solvers.tree.state import TreeModel
from dal_jax.runtime import struct

Solver = Callable[[Problem, SolverOptions], Solution]


@dataclasses.dataclass(frozen=True)
class Batch:
    """The problems of many people.

    tree: constants of the template (`tree.state.build_model`), which `lm` alone reads.
    target: people first. start: people first, or starts and people: (starts, people, ...).
    """

    template: Template
    tree: TreeModel
    target: Target
    objective: Objective
    start: BodyParameters


@struct.dataclass
class Information:
    """How well images tell bodies (leading axis: people): energy a squared unit; see `tree.lm.information`.

    segments: over the rotation (camera axes, radians) and the log scale of each segment, given its parent's.
    place: of the pelvis, x and y in crop units, and of the log scale of its segment. Both None of several views.
    shape_slope, shape: half the gradient by a body's shape, and its matrix, with all that is not shape at its best:
      over the log scale of the root, the stretches of the others, and the log girth or log segment girths.
    """

    segments: Float[Array | np.ndarray, "people 24 4 4"] | None
    place: Float[Array | np.ndarray, "people 3"] | None
    shape_slope: Float[Array | np.ndarray, "people m"]
    shape: Float[Array | np.ndarray, "people m m"]


def solve(optimizer: str, batch: Batch, options: SolverOptions) -> Solution:
    """Run an optimiser on people from one start each, or several.

    Returns:
      a solution whose state are finished body parameters (gauge fixed, proper rotations), axes as those of the starts.

    Raises:
      ValueError: as `check`; `lm` on a template with pose blendshapes or with terms of your own.
    """
    solver = _find(optimizer)
    one = batch.start.camera_scale.ndim == 1
    start = batch.objective.start_from(batch.start)
    start = jax.tree.map(lambda leaf: leaf[None], start) if one else start
    # a whole number among the weights would be of another type for every solver
    objective = jax.tree.map(lambda number: jnp.asarray(number, start.camera_scale.dtype), batch.objective)
    solution = solver(dataclasses.replace(batch, start=start, objective=objective), options)
    return jax.tree.map(lambda leaf: leaf[0], solution) if one else solution


def check(optimizer: str) -> None:
    """Refuse what `solve` could not run.

    Raises:
      ValueError: an unknown name, module or argument, or a value that is no literal or is refused; one line.
    """
    _find(optimizer)
    text = _in_full(optimizer)
    if text.startswith("optax."):
        optax_solver.check(text, jax.eval_shape(lambda: from_parameters(t_pose())))


def information(batch: Batch) -> Information:
    """Return how well images tell the bodies that a batch starts from (one start each), by elimination on the tree."""
    start = jax.tree.map(lambda leaf: leaf[None], batch.objective.start_from(batch.start))
    state = state_lib.from_parameters(batch.tree, start)
    found = lm.information(batch.tree, batch.target, state, batch.objective)
    (segments, place), (slope, shape) = jax.tree.map(lambda each: jnp.moveaxis(each[..., 0, :], -1, 0), found)
    return Information(segments, place, slope, shape)


# --- by name ---

_OPTAX = {"adam": "optax.adam", "lbfgs": "optax.lbfgs"}


def _in_full(optimizer: str) -> str:
    word, bracket, rest = optimizer.strip().partition("(")
    return _OPTAX.get(word, word) + bracket + rest


def _find(optimizer: str) -> Callable[[Batch, SolverOptions], Solution]:
    """Return the solver of a batch."""
    text = _in_full(optimizer)
    if text.startswith("optax."):
        optax_solver.make(text, 0.1)
        return _each_person(lambda problem, options: _optax(text, problem, options))
    if ":" in text:
        return _each_person(_imported(text))
    if text not in SOLVERS:
        known = [*SOLVERS, *_OPTAX]
        name, bracket, _ = text.partition("(")
        if name in SOLVERS and bracket:
            raise wrong(optimizer, f"{name} takes no arguments")
        there = f"there is {', '.join(known)}, optax.NAME, package.module:function"
        raise wrong(optimizer, f"unknown; {nearest(name, [*known, *optax_solver.names()], there)}")
    return SOLVERS[text]


def _imported(text: str) -> Solver:
    path, _, name = text.rpartition(":")
    if "(" in text:
        raise wrong(text, "a function of a module takes no arguments; write package.module:function")
    try:
        module = importlib.import_module(path)
    except (ImportError, ValueError, TypeError) as error:
        raise wrong(text, error) from error
    functions = [key for key, value in vars(module).items() if inspect.isfunction(value)]
    if name not in functions:
        raise wrong(text, f"{path} has no function '{name}'; {nearest(name, functions)}")
    solver = getattr(module, name)
    try:
        inspect.signature(solver).bind("problem", "options")
    except TypeError as error:
        raise wrong(text, f"{name} is no solver: it does not take (problem, options)") from error
    return solver


# --- solvers ---


def _each_person(solver: Solver) -> Callable[[Batch, SolverOptions], Solution]:
    """Lift a solver of one person's problem to a batch, and finish what it returns."""

    def solve_batch(batch: Batch, options: SolverOptions) -> Solution:
        def solve_one(target: Target, start: BodyParameters) -> Solution:
            solution = solver(Problem(batch.template, target, batch.objective, from_parameters(start)), options)
            parameters = to_parameters(solution.state)
            value = parameter_energy(batch.template, target, parameters, batch.objective)
            return dataclasses.replace(solution, state=parameters, energy=value)

        # one flat axis: XLA's verifier refuses some products of two nested ones
        starts, people = batch.start.camera_scale.shape
        start = jax.tree.map(lambda leaf: leaf.reshape(starts * people, *leaf.shape[2:]), batch.start)
        target = jax.tree.map(lambda leaf: jnp.tile(leaf, (starts,) + (1,) * (leaf.ndim - 1)), batch.target)
        solved = jax.vmap(solve_one)(target, start)
        return jax.tree.map(lambda leaf: leaf.reshape(starts, people, *leaf.shape[1:]), solved)

    return solve_batch


def _optax(text: str, problem: Problem, options: SolverOptions) -> Solution:
    transformation = optax_solver.make(text, options.learning_rate)
    return optax_solver.minimise(problem.energy, problem.start, transformation, options)


def _gauss_newton(problem: Problem, options: SolverOptions) -> Solution:
    return descent.gauss_newton(problem.residuals, move, problem.start, tangent_size(problem.start), options)


def _dense_lm(problem: Problem, options: SolverOptions) -> Solution:
    return descent.levenberg_marquardt(problem.residuals, move, problem.start, tangent_size(problem.start), options)


def _tree_lm(batch: Batch, options: SolverOptions) -> Solution:
    if batch.template.pose_blendshapes is not None:
        raise ValueError("optimizer 'lm' knows no pose blendshapes; dense_lm does, or load the body without them")
    if batch.objective.terms:
        own = ", ".join(term.name for term in batch.objective.terms)
        raise ValueError(f"optimizer 'lm' takes no terms but eq. 2's, not {own}; all other optimizers do, as dense_lm")
    state = state_lib.from_parameters(batch.tree, batch.start)
    solution = lm.minimise(batch.tree, batch.target, state, batch.objective, options)
    return dataclasses.replace(solution, state=state_lib.to_parameters(batch.tree, solution.state))


SOLVERS: dict[str, Callable[[Batch, SolverOptions], Solution]] = {
    "lm": _tree_lm,
    "dense_lm": _each_person(_dense_lm),
    "gauss_newton": _each_person(_gauss_newton),
}
"""All solvers by name that are not optax's."""
