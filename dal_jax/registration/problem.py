"""What a solver is given: the registration of one person as a function of free numbers, and where it starts."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from dal_jax.body import rotations, template as template_lib
from dal_jax.registration import energy as energy_lib

TANGENT_SIZE = 69 + 24 + 3 + 1 + 2


@dataclasses.dataclass(frozen=True)
class Problem:
    """Minimise `energy` from `start`; `residuals` and `move` are there for Gauss-Newton methods."""

    template: template_lib.Template
    target: energy_lib.Target
    weights: energy_lib.EnergyWeights
    start: energy_lib.Unknowns

    def residuals(self, unknowns: energy_lib.Unknowns) -> Float[Array, "residuals"]:
        """Return the weighted residuals: `energy` is the sum of their squares."""
        terms = energy_lib.residuals(self.template, self.target, unknowns, self.weights)
        return energy_lib.weighted_residuals(terms, self.weights)

    def energy(self, unknowns: energy_lib.Unknowns) -> Float[Array, ""]:
        """Return L_regist of eq. 2."""
        return energy_lib.energy(self.template, self.target, unknowns, self.weights)


def move(unknowns: energy_lib.Unknowns, delta: Float[Array, "99"]) -> energy_lib.Unknowns:
    """Retract: rotations move by exponentials (tangent space), scales in logarithms, the translation adds."""
    turn, scale, root, camera_scale, translation = jnp.split(delta, [69, 93, 96, 97])
    relative = rotations.axis_angle_to_matrix(turn.reshape(23, 3)) @ rotations.axis_angle_to_matrix(unknowns.pose)
    return energy_lib.Unknowns(
        pose=rotations.matrix_to_axis_angle(relative),
        log_segment_scale=unknowns.log_segment_scale + scale,
        raw_rotation=rotations.axis_angle_to_matrix(root) @ unknowns.raw_rotation,
        log_camera_scale=unknowns.log_camera_scale + camera_scale[0],
        translation=unknowns.translation + translation,
    )
