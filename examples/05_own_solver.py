"""A solver of your own: Gauss-Newton without a matrix, its system solved by a few conjugate gradients.

A solver takes one person's problem and returns a solution; vmap, jit, starts and the choice of the best start are the
library's. Its name is the path of the function, here and in `--optimizer=` of experiments.register.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.sparse import linalg

from dal_jax.body import kinematics, skinning
from dal_jax.body.formats.load import load_body
from dal_jax.observations.observation import Observation
from dal_jax.registration import energy, register
from dal_jax.registration.energy import Objective
from dal_jax.registration.register import RegistrationConfig
from dal_jax.registration.solvers import descent
from dal_jax.registration.solvers.descent import Problem, Solution, SolverOptions


def newton_cg(problem: Problem, options: SolverOptions) -> Solution:
    """Solve (J'J + 0.1 I) d = -J'r by conjugate gradients: J and J' are only ever applied to a vector."""

    def step(unknowns, memory):
        residual, push = jax.linearize(problem.residuals, unknowns)
        pull = jax.linear_transpose(push, unknowns)

        def normal(direction):
            return jax.tree.map(lambda a, b: a + 0.1 * b, pull(push(direction))[0], direction)

        delta, _ = linalg.cg(normal, jax.tree.map(jnp.negative, pull(residual)[0]), maxiter=60)
        return jnp.sum(residual**2), jax.tree.map(jnp.add, unknowns, delta), memory

    return descent.run(step, problem.energy, problem.start, (), options, window=1)


def main() -> None:
    """Print the mean energy that two solvers reach for eight made-up people, of whom 60 surface points are known."""
    body, rng = load_body(), np.random.default_rng(0)
    face, corners = rng.integers(0, len(body.faces), (8, 60)), rng.dirichlet(np.ones(3), (8, 60))

    def mark(pose, face, corners):
        posed = energy.pose_body(body, energy.from_parameters(kinematics.t_pose(0.9).replace(pose=pose)))
        return posed.project(skinning.skin_points(body, posed.segments, skinning.surface_points(body, face, corners)))

    points = jax.jit(jax.vmap(mark))(rng.normal(0, 0.2, (8, 23, 3)), face, corners)
    no = np.zeros((8, 17))
    people = Observation(points, face, corners, np.ones((8, 60)), np.zeros((8, 17, 2)), no, no, no, np.ones((8, 4)))
    for name in ("dense_lm", "examples.05_own_solver:newton_cg"):
        config = RegistrationConfig(name, steps=10, starts="closed_form", batch=8)
        fit = register.register(body, people, config, Objective(energy.stiff_weights()))
        print(f"{name:40s} energy {np.mean(fit.energy):.3f}")


if __name__ == "__main__":
    main()
