"""An energy term of your own: the left and the right half of a body are alike.

A term is a name, a weight and a function of one person's posed body that returns a vector; the energy is weight times
the sum of its squares. It needs no edit of the library, and works with every solver but `lm`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from dal_jax.body import kinematics, skeleton, skinning
from dal_jax.body.formats.load import load_body
from dal_jax.observations.observation import Observation
from dal_jax.registration import energy, register
from dal_jax.registration.energy import EnergyWeights, Objective, PosedBody, Term
from dal_jax.registration.register import RegistrationConfig


def asymmetry(posed: PosedBody) -> jax.Array:
    """Return how much longer each bone is than the one on the other side, metres."""
    parents = np.array(posed.template.parents[1:])
    length_m = jnp.linalg.norm(posed.joints[1:] - posed.joints[parents], axis=1)
    return length_m - length_m[np.array(skeleton.SMPL_MIRROR[1:]) - 1]


SYMMETRY = Term("symmetry", weight=1e5, residual=asymmetry)


def main() -> None:
    """Fit eight made-up people, of whom 60 noisy surface points are known, with the term and without."""
    body, rng = load_body(), np.random.default_rng(0)
    face, corners = rng.integers(0, len(body.faces), (8, 60)), rng.dirichlet(np.ones(3), (8, 60))

    def mark(pose, face, corners):
        posed = energy.pose_body(body, energy.from_parameters(kinematics.t_pose(0.9).replace(pose=pose)))
        return posed.project(skinning.skin_points(body, posed.segments, skinning.surface_points(body, face, corners)))

    points = jax.jit(jax.vmap(mark))(rng.normal(0, 0.2, (8, 23, 3)), face, corners)
    points += rng.normal(0, 0.02, points.shape)
    no = np.zeros((8, 17))
    people = Observation(points, face, corners, np.ones((8, 60)), np.zeros((8, 17, 2)), no, no, no, np.ones((8, 4)))
    config = RegistrationConfig("dense_lm", steps=15, starts="closed_form", batch=8)
    differences = jax.jit(jax.vmap(lambda person: asymmetry(energy.pose_body(body, energy.from_parameters(person)))))
    for terms in ((), (SYMMETRY,)):
        fit = register.register(body, people, config, Objective(EnergyWeights(joint=1.0), terms=terms))
        found_mm = 1000 * np.abs(differences(fit.parameters)).mean()
        print(f"{len(terms)} own terms: left and right differ by {found_mm:.1f} mm")


if __name__ == "__main__":
    main()
