"""What a solver is given: the registration of one person as a function of free numbers, and where it starts."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from dal_jax.body import rotations
from dal_jax.body.template import Template
from dal_jax.observations.residuals import Target
from dal_jax.registration import energy as energy_lib
from dal_jax.registration.energy import Objective, Unknowns

TANGENT_SIZE = 69 + 24 + 3 + 1 + 2
"""Joint rotations, log segment scales, rotation of the body, log camera scale, translation.

After them a log girth, if any, and 48 log segment girths, if any. A translation in several views has one number more.
"""


def tangent_size(unknowns: Unknowns) -> int:
    """Return how many numbers `move` takes for these unknowns."""
    girths = (unknowns.log_girth is not None) + 48 * (unknowns.log_segment_girth is not None)
    return TANGENT_SIZE - 2 + jnp.shape(unknowns.translation)[-1] + girths


@dataclasses.dataclass(frozen=True)
class Problem:
    """Minimise `energy` from `start`; `residuals` and `move` are there for Gauss-Newton methods."""

    template: Template
    target: Target
    objective: Objective
    start: Unknowns

    def residuals(self, unknowns: Unknowns) -> Float[Array, "residuals"]:
        """Return the weighted residuals: `energy` is the sum of their squares."""
        terms = energy_lib.residuals(self.template, self.target, unknowns, self.objective)
        return energy_lib.weighted_residuals(terms, self.objective)

    def energy(self, unknowns: Unknowns) -> Float[Array, ""]:
        """Return L_regist of eq. 2."""
        return energy_lib.energy(self.template, self.target, unknowns, self.objective)


def move(unknowns: Unknowns, delta: Float[Array, "tangent"]) -> Unknowns:
    """Retract: rotations move by exponentials (A <- exp(d) A), sizes in logarithms, the translation adds."""
    ends = [69, 93, 96, 97, 97 + jnp.shape(unknowns.translation)[-1]]
    pose, scale, rotation, camera_scale, translation, girths = jnp.split(delta, ends)
    log_girth, log_segment_girth = unknowns.log_girth, unknowns.log_segment_girth
    if log_girth is not None and girths.size % 48:  # the posterior holds it
        log_girth, girths = log_girth + girths[0], girths[1:]
    if log_segment_girth is not None and girths.size:
        log_segment_girth = log_segment_girth + girths.reshape(24, 2)
    relative = rotations.axis_angle_to_matrix(pose.reshape(23, 3)) @ rotations.axis_angle_to_matrix(unknowns.pose)
    return Unknowns(
        pose=rotations.matrix_to_axis_angle(relative),
        log_segment_scale=unknowns.log_segment_scale + scale,
        raw_rotation=rotations.axis_angle_to_matrix(rotation) @ unknowns.raw_rotation,
        log_camera_scale=unknowns.log_camera_scale + camera_scale[0],
        translation=unknowns.translation + translation,
        log_girth=log_girth,
        log_segment_girth=log_segment_girth,
    )
