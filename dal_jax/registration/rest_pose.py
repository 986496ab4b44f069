"""The pose that L_joint pulls to, and how hard in which direction: not in the paper, which pulls to the T-pose.

    L_joint = sum_j d_j' P_j d_j,        d_j = log(Abar_j' A_j)

Abar_j is the mean turn of joint j over people and P_j the inverse covariance about it, as a Gaussian prior has them: a
limb that no pixel shows then hangs where limbs hang, and a knee bends about one axis only. Both are learned from fits
to 2D annotation (`noise.estimate`). The paper's |a_j|^2 is Abar = 1, P = 1.
"""

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float

from dal_jax.body import rotations


@flax.struct.dataclass
class RestPose:
    """turn: Abar_j as axis-angle, radians; root: R_j with R_j' R_j = P_j, 1 / radians where w_joint is 1."""

    turn: Float[Array, "23 3"]
    root: Float[Array, "23 3 3"]


def deviation(pose: Float[Array, "*batch 23 3"], turn: Float[Array, "23 3"]) -> Float[Array, "*batch 23 3"]:
    """Return d_j: what is left of a pose's joints beyond the turns of a rest pose, in their axes, radians."""
    rest = rotations.axis_angle_to_matrix(turn)
    relative = jnp.matmul(jnp.swapaxes(rest, -1, -2), rotations.axis_angle_to_matrix(pose), precision="highest")
    return rotations.matrix_to_axis_angle(relative)


def residual(pose: Float[Array, "23 3"], rest: RestPose) -> Float[Array, "23 3"]:
    """Return R_j d_j, whose squares sum up to L_joint."""
    return jnp.einsum("kij,kj->ki", rest.root, deviation(pose, rest.turn), precision="highest")
