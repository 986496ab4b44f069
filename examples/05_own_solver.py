"""An optimiser of your own: Gauss-Newton without a matrix, its system solved by a few conjugate gradients.

A solver takes the `problem.Problem` of ONE person and returns a `descent.Solution`; vmap, jit, starts, stopping and the
choice of the best start are the project's. Nothing has to be registered for the binary: the path of the function is its
name, and keywords of its own are its arguments:

  python -m experiments.register --optimizer='examples.custom_optimizer:newton_cg(iterations=60)' --steps=20 ...

As a script (from the project's folder) it fits eight people and compares:

  python -m examples.custom_optimizer
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.sparse import linalg

from dal_jax.body import cameras, kinematics, parameters, skinning
from dal_jax.body.formats import load
from dal_jax.body.template import Template
from dal_jax.observations.observation import Observation
from dal_jax.registration import energy, register
from dal_jax.registration.energy import Objective
from dal_jax.registration.register import RegistrationConfig
from dal_jax.registration.solvers import descent
from dal_jax.registration.solvers.problem import Problem


def newton_cg(problem: Problem, *, steps, learning_rate, tolerance, iterations=40, damping=0.1):
    """Solve (J'J + damping I) d = -J'r by conjugate gradients: J and J' are only ever applied to a vector."""
    del learning_rate

    def step(unknowns, memory):
        residual, push = jax.linearize(problem.residuals, unknowns)
        pull = jax.linear_transpose(push, unknowns)
        downhill = jax.tree.map(jnp.negative, pull(residual)[0])

        def normal(direction):
            return jax.tree.map(lambda a, b: a + damping * b, pull(push(direction))[0], direction)

        move, _ = linalg.cg(normal, downhill, maxiter=iterations)
        return jnp.sum(residual**2), jax.tree.map(jnp.add, unknowns, move), memory

    return descent.run(step, problem.energy, problem.start, (), steps=steps, tolerance=tolerance, window=1)


COMPARED = (("lm", 20), ("examples.custom_optimizer:newton_cg", 20), ("adam(learning_rate=0.03)", 200))


def main() -> None:
    """Print the mean energy that optimisers reach from the closed-form start of eight made-up people."""
    template = load.load_body()
    observed = made_up_people(template, count=8)
    for optimizer, steps in COMPARED:
        config = RegistrationConfig(optimizer, steps, starts="closed_form", batch=8)
        fit = register.register(template, observed, config, Objective(energy.stiff_weights()))
        print(f"{optimizer:40s} {steps:4d} steps: energy {np.mean(fit.energy):.3f}")


def made_up_people(template: Template, count: int, points: int = 60) -> Observation:
    """Return what an annotator would mark on people in random poses: dense points alone."""
    rng = np.random.default_rng(0)
    pose = rng.normal(0, 0.2, (count, 23, 3)).astype(np.float32)
    face = rng.integers(0, len(template.faces), (count, points))
    barycentric = rng.dirichlet(np.ones(3), (count, points)).astype(np.float32)

    def mark(pose, face, barycentric):
        upright = parameters.t_pose().rotation
        segments = kinematics.pose_skeleton(template, upright, pose, jnp.ones(24))
        seen = skinning.skin_points(template, segments, skinning.surface_points(template, face, barycentric))
        return cameras.project(seen, 0.9, jnp.zeros(2))

    return Observation(
        point_position=np.asarray(jax.vmap(mark)(pose, face, barycentric)),
        point_face=face,
        point_barycentric=barycentric,
        point_confidence=np.ones((count, points), np.float32),
        keypoint_position=np.zeros((count, 17, 2), np.float32),
        keypoint_confidence=np.zeros((count, 17), np.float32),
        depth=np.zeros((count, 17), np.float32),
        depth_confidence=np.zeros((count, 17), np.float32),
        box_px=np.tile(np.float32([0, 0, 256, 256]), (count, 1)),
    )


if __name__ == "__main__":
    main()
