"""The examples do what they say: a solver from outside the package, by its path, through everybody's door."""

import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from dal_jax.observations import residuals
from dal_jax.registration.energy import EnergyWeights, Objective
from dal_jax.registration.solvers import solve as solve_lib
from dal_jax.registration.solvers.tree import model
from examples import custom_optimizer
from tests.registration import small_problem

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
LINES = 20


def test_the_custom_optimizer_is_as_short_as_promised():
    source = (EXAMPLES / "custom_optimizer.py").read_text(encoding="utf-8")
    solver = source.partition("def newton_cg")[2].partition("\ndef ")[0]
    assert len([line for line in solver.splitlines() if line.strip()]) < LINES


def test_the_custom_optimizer_finds_the_minimum():
    """Conjugate gradients against a Cholesky factorisation of the same matrix: the same minimum."""
    template = small_problem.small_template()
    people = small_problem.random_people(2, seed=1, pose_sd=0.2, turn=0.5)
    target = residuals.make_target(template, small_problem.observe(people, seed=2))
    objective = Objective(EnergyWeights(keypoint=100.0, scale=10.0, joint=1.0))
    start = people.replace(segment_scale=np.ones_like(people.segment_scale))
    tree = model.build(template)

    def solve(spec):
        solve_lib.check(spec)
        run = lambda *seen: solve_lib.solve(spec, template, *seen, objective, tree, steps=12, learning_rate=0.0)  # noqa: E731
        return jax.jit(run, compiler_options={"xla_backend_optimization_level": 0})(target, start)

    own, reference = solve("examples.custom_optimizer:newton_cg(iterations=60)"), solve("dense_lm")
    np.testing.assert_allclose(own.energy, reference.energy, rtol=1e-3)
    assert np.all(own.relative_decrease < 1e-2)


@pytest.mark.slow
def test_the_script_runs():
    done = subprocess.run(
        [sys.executable, "-m", "examples.custom_optimizer"],
        cwd=EXAMPLES.parent, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    energies = {line.split()[0]: float(line.split()[-1]) for line in done.stdout.splitlines()}
    assert energies.keys() == {name for name, _ in custom_optimizer.COMPARED}
    assert energies["examples.custom_optimizer:newton_cg"] == pytest.approx(energies["lm"], rel=0.01)
