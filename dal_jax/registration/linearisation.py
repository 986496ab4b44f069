"""The registration problem near a fit: residuals of eq. 2 and how they change with 98 tangent unknowns.

Unknowns: turns of the 23 joints (69), log segment scales (24), turn of the body (3), translation (2). The camera's
scale is held: it is redundant with a common segment scale, and poses are compared after their size is normalised.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dal_jax.body import parameters as parameters_lib, template as template_lib
from dal_jax.registration import energy, problem, rest_pose

UNKNOWNS = problem.TANGENT_SIZE - 1
_CAMERA_SCALE = 96  # its place among the unknowns of `problem.move`


@flax.struct.dataclass
class Linearisation:
    """Residuals r and Jacobians J of one person's fit, a confidence c entering both as sqrt(c); crop units, radians.

    `dense` and `keypoint` keep image x and y as their second axis; `pose` is how the joints deviate from a rest pose
    (`rest_pose.deviation`), radians.
    """

    dense: Float[Array, "points 2"]
    keypoint: Float[Array, "17 2"]
    depth: Float[Array, "17"]
    scale: Float[Array, "23"]
    pose: Float[Array, "69"]
    dense_jacobian: Float[Array, "points 2 98"]
    keypoint_jacobian: Float[Array, "17 2 98"]
    depth_jacobian: Float[Array, "17 98"]
    scale_jacobian: Float[Array, "23 98"]
    pose_jacobian: Float[Array, "69 98"]


def move(parameters: parameters_lib.BodyParameters, delta: Float[Array, "98"]) -> energy.Unknowns:
    """Return the unknowns at a step from finished parameters, the camera's scale held."""
    still = jnp.zeros_like(delta[:1])
    step = jnp.concatenate([delta[:_CAMERA_SCALE], still, delta[_CAMERA_SCALE:]])
    return problem.move(energy.from_parameters(parameters), step)


def linearise(
    template: template_lib.Template,
    target: energy.Target,
    parameters: parameters_lib.BodyParameters,
    rest: Float[Array, "23 3"],
) -> Linearisation:
    """Differentiate eq. 2's residuals at one person's fit (forward mode); `rest` is the rest pose's turns."""

    def residuals(delta):
        moved = move(parameters, delta)
        terms = energy.residuals(template, target, moved, energy.EnergyWeights())
        kept = {name: terms[name] for name in ("dense", "keypoint", "scale")}
        kept["pose"] = rest_pose.deviation(moved.pose, rest)
        return kept, kept

    zero = jnp.zeros(UNKNOWNS, parameters.pose.dtype)
    jacobian, value = jax.jacfwd(residuals, has_aux=True)(zero)
    return Linearisation(
        dense=value["dense"],
        keypoint=value["keypoint"][:, :2],
        depth=value["keypoint"][:, 2],
        scale=value["scale"],
        pose=value["pose"].reshape(-1),
        dense_jacobian=jacobian["dense"],
        keypoint_jacobian=jacobian["keypoint"][:, :2],
        depth_jacobian=jacobian["keypoint"][:, 2],
        scale_jacobian=jacobian["scale"],
        pose_jacobian=jacobian["pose"].reshape(-1, UNKNOWNS),
    )
