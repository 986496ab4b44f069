"""The swap: every optimiser minimises the same energy from the same starts behind one function.

By name (`--optimizer=`, all of them with arguments in brackets):

    lm                        Levenberg-Marquardt by elimination on the kinematic tree
    dense_lm                  the same with an autodiff Jacobian: any energy term, and the reference of `lm`
    gauss_newton              full steps with that Jacobian
    adam, lbfgs               optax.adam (the paper's) and optax.lbfgs with its line search
    optax.NAME                any other transformation of optax, as in optax.adabelief(learning_rate=0.05, b1=0.9)
    package.module:function   a solver of your own: see `add`, and examples/custom_optimizer.py
"""

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dal_jax.body.parameters import BodyParameters, t_pose
from dal_jax.body.template import Template
from dal_jax.observations.residuals import Target
from dal_jax.registration.energy import Objective, from_parameters, parameter_energy, to_parameters
from dal_jax.registration.solvers import dense, optax_solver
from dal_jax.registration.solvers.descent import Solution
from dal_jax.registration.solvers.problem import TANGENT_SIZE, Problem, move
from dal_jax.registration.solvers.spec import Spec, check_arguments, nearest, parse
from dal_jax.registration.solvers.tree import lm, state as state_lib
from dal_jax.registration.solvers.tree.model import TreeModel


@flax.struct.dataclass
class Solved:
    """A batch of finished fits.

    parameters: gauge fixed, proper rotation; energy: eq. 2 there; steps: taken until finished.
    relative_decrease: of the last accepted step (`lm`, `dense_lm`), or by what share the result lies below the highest
    energy of the last steps (all others, see `descent`); inf where there was no chance to tell, or a fit diverged.
    """

    parameters: BodyParameters
    energy: Float[Array, "*batch"]
    relative_decrease: Float[Array, "*batch"]
    steps: Int[Array, "*batch"]


@dataclasses.dataclass(frozen=True)
class Batch:
    """What there is to minimise.

    target: people first; start: starts and people first, (starts, people, ...); tree: constants of the template.
    """

    template: Template
    target: Target
    start: BodyParameters
    objective: Objective
    tree: TreeModel


def solve(
    spec: str,
    template: Template,
    target: Target,
    start: BodyParameters,
    objective: Objective,
    tree: TreeModel,
    *,
    steps: int,
    learning_rate: float,
    tolerance: float = 0.0,
) -> Solved:
    """Run an optimiser on people (axis first) from one start each, or several: (starts, people, ...).

    Args:
      tree: `tree.model.build(template)`, of a concrete template.
      learning_rate: of a first-order method whose spec gives none; may be traced.
      tolerance: a person is finished, and stays put, where a step (`lm`, `dense_lm`, `gauss_newton`) or the last
        `descent.WINDOW` steps (optax) gain less than this share; 0 runs all steps.

    Raises:
      ValueError: as `check`; `lm` on a template with pose blendshapes.
    """
    solver, arguments = _find(_parse(spec))
    one = start.camera_scale.ndim == 1
    if one:
        start = jax.tree.map(lambda leaf: leaf[None], start)
    # a whole number among the weights would be of another type for every solver
    objective = jax.tree.map(lambda number: jnp.asarray(number, start.camera_scale.dtype), objective)
    batch = Batch(template, target, start, objective, tree)
    solved = solver(batch, steps=steps, learning_rate=learning_rate, tolerance=tolerance, **arguments)
    return jax.tree.map(lambda leaf: leaf[0], solved) if one else solved


def check(spec: str) -> None:
    """Refuse what `solve` could not run.

    Raises:
      ValueError: an unknown name, module or argument, or a value that is no literal or is refused; one line.
    """
    parsed = _parse(spec)
    _find(parsed)
    if parsed.name.startswith("optax."):
        start = jax.eval_shape(lambda: from_parameters(t_pose()))
        optax_solver.check(parsed, start)


def add(name: str, solver: Callable[..., Solution]) -> None:
    """Make a solver known as `name`.

    Args:
      solver: (problem.Problem, *, steps, learning_rate, tolerance) -> descent.Solution whose state is the best
        energy.Unknowns. For ONE person and in pure JAX: it is vmapped and jitted. Further keywords are arguments that
        a spec may give.

    Raises:
      ValueError: the name is taken or is no word.
    """
    if not name.isidentifier() or name in SOLVERS or name in _OPTAX:
        raise ValueError(f"optimizer '{name}': the name is taken, or is not one word")
    SOLVERS[name] = _each_person(solver)


# --- by name ---

_OPTAX = {"adam": "optax.adam", "lbfgs": "optax.lbfgs"}
_SETTINGS = ("steps", "learning_rate", "tolerance")


def _parse(spec: str) -> Spec:
    parsed = parse(spec)
    return dataclasses.replace(parsed, name=_OPTAX.get(parsed.name, parsed.name))


def _find(spec: Spec) -> tuple[Callable[..., Solved], dict[str, Any]]:
    """Return the solver of a batch and the arguments that its spec adds, both checked."""
    if spec.name.startswith("optax."):
        optax_solver.make(spec, learning_rate=0.1)
        return _each_person(functools.partial(_optax, spec)), {}
    solver = _imported(spec) if ":" in spec.name else SOLVERS.get(spec.name)
    if solver is None:
        known = [*SOLVERS, *_OPTAX]
        there = f"there is {', '.join(known)}, optax.NAME, package.module:function"
        raise spec.wrong(f"unknown; {nearest(spec.name, [*known, *optax_solver.names()], there)}")
    _, *parameters = inspect.signature(solver).parameters.values()
    lacks = [name for name in _SETTINGS if name not in [parameter.name for parameter in parameters]]
    if lacks:
        raise spec.wrong(f"{spec.name} is no solver: it takes no {', '.join(lacks)}")
    own = [parameter for parameter in parameters if parameter.name not in _SETTINGS]
    check_arguments(spec, own)
    return solver, spec.arguments


def _imported(spec: Spec) -> Callable[..., Solved]:
    path, _, name = spec.name.rpartition(":")
    try:
        module = importlib.import_module(path)
    except ImportError as error:
        raise spec.wrong(error) from error
    functions = [key for key, value in vars(module).items() if inspect.isfunction(value)]
    if name not in functions:
        raise spec.wrong(f"{path} has no function '{name}'; {nearest(name, functions)}")
    return _each_person(getattr(module, name))


# --- solvers ---


def _each_person(solver: Callable[..., Solution]) -> Callable[..., Solved]:
    """Lift a solver of one person's problem to a batch, and finish what it returns."""

    @functools.wraps(solver)  # so that the arguments it takes can be read
    def solve_batch(batch: Batch, **settings) -> Solved:
        def solve_one(target: Target, start: BodyParameters) -> Solved:
            unknowns = from_parameters(start)
            solution = solver(Problem(batch.template, target, batch.objective, unknowns), **settings)
            parameters = to_parameters(solution.state)
            value = parameter_energy(batch.template, target, parameters, batch.objective)
            return Solved(parameters, value, solution.relative_decrease, solution.steps)

        # one flat axis: XLA's verifier refuses some products of two nested ones
        starts, people = batch.start.camera_scale.shape
        start = jax.tree.map(lambda leaf: leaf.reshape(starts * people, *leaf.shape[2:]), batch.start)
        target = jax.tree.map(lambda leaf: jnp.tile(leaf, (starts,) + (1,) * (leaf.ndim - 1)), batch.target)
        solved = jax.vmap(solve_one)(target, start)
        return jax.tree.map(lambda leaf: leaf.reshape(starts, people, *leaf.shape[1:]), solved)

    return solve_batch


def _optax(spec: Spec, problem: Problem, *, steps: int, learning_rate: float, tolerance: float) -> Solution:
    transformation = optax_solver.make(spec, learning_rate)
    return optax_solver.minimise(problem.energy, problem.start, transformation, steps=steps, tolerance=tolerance)


def _gauss_newton(problem: Problem, *, steps: int, learning_rate: float, tolerance: float):
    del learning_rate
    return dense.gauss_newton(
        problem.residuals, move, problem.start,
        unknowns=TANGENT_SIZE, steps=steps, tolerance=tolerance,
    )  # fmt: skip


def _dense_lm(problem: Problem, *, steps: int, learning_rate: float, tolerance: float):
    del learning_rate
    return dense.levenberg_marquardt(
        problem.residuals, move, problem.start,
        unknowns=TANGENT_SIZE, steps=steps, tolerance=tolerance,
    )  # fmt: skip


def _tree_lm(batch: Batch, *, steps: int, learning_rate: float, tolerance: float) -> Solved:
    del learning_rate
    if batch.template.pose_blendshapes is not None:
        raise ValueError("optimizer 'lm' knows no pose blendshapes; dense_lm does, or load the body without them")
    if batch.objective.terms:
        names = ", ".join(term.name for term in batch.objective.terms)
        raise ValueError(f"optimizer 'lm' takes no terms but eq. 2's (given: {names}); all other optimizers do")
    state = state_lib.from_parameters(batch.tree, batch.start)
    solution = lm.minimise(batch.tree, batch.target, state, batch.objective, steps=steps, tolerance=tolerance)
    parameters = state_lib.to_parameters(batch.tree, solution.state)
    return Solved(parameters, solution.energy, solution.relative_decrease, solution.steps)


SOLVERS: dict[str, Callable[..., Solved]] = {
    "lm": _tree_lm,
    "dense_lm": _each_person(_dense_lm),
    "gauss_newton": _each_person(_gauss_newton),
}
"""What is no optax transformation, by name; `add` adds."""
