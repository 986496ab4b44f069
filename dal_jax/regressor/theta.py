"""theta = [a, S, R, s, t] as the 105 numbers a ConvNet regresses (paper, section 5), and their statistics.

What stands for the rotations is a choice (`heads`): these are the paper's axis-angles and nine numbers; `theta_6d` has
six numbers for each. Both have a SIZE, `plain_statistics` and `measured_statistics`; the statistics encode and decode.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.body import rotations
from dal_jax.body.parameters import UPRIGHT_FACING_CAMERA, BodyParameters, fix_gauge, t_pose

_SPLITS = (69, 69 + 24, 69 + 24 + 9, 69 + 24 + 9 + 1)
SIZE = 105


def from_parameters(parameters: BodyParameters) -> Float[Array, "*batch 105"]:
    """Return 69 radians, 24 log segment scales, 9 numbers of the rotation, the log camera scale, 2 of the translation.

    Note: the paper regresses S and s themselves; as logarithms they cannot be predicted negative.
    """
    batch = parameters.camera_scale.shape
    return jnp.concatenate(
        [
            parameters.pose.reshape(*batch, 69),
            jnp.log(parameters.segment_scale),
            parameters.rotation.reshape(*batch, 9),
            jnp.log(parameters.camera_scale)[..., None],
            parameters.translation,
        ],
        axis=-1,
    )


def to_parameters(theta: Float[Array, "*batch 105"]) -> BodyParameters:
    """Return the parameters with R's nine numbers as they are: the inverse of `from_parameters`."""
    batch = theta.shape[:-1]
    pose, log_segment_scale, rotation, log_camera_scale, translation = jnp.split(theta, _SPLITS, axis=-1)
    return BodyParameters(
        pose=pose.reshape(*batch, 23, 3),
        segment_scale=jnp.exp(log_segment_scale),
        rotation=rotation.reshape(*batch, 3, 3),
        camera_scale=jnp.exp(log_camera_scale[..., 0]),
        translation=translation,
    )


def finish(parameters: BodyParameters) -> BodyParameters:
    """Turn predicted parameters into a body as registration returns them: a proper rotation, mean log S = 0."""
    return fix_gauge(parameters.replace(rotation=proper_rotation(parameters.rotation)))


def proper_rotation(rows: Float[Array, "*batch 3 3"]) -> Float[Array, "*batch 3 3"]:
    """Orthonormalise R's nine numbers: the first two rows by Gram-Schmidt, the third at right angles to both.

    Note: where the determinant is positive this is the paper's Gram-Schmidt of three rows. Where it is negative that
    returns a reflection, which eq. 5, unlike eq. 2, has no L_det against: with three rows a ConvNet learned mirrored
    bodies (people at any heading: 5 of 32), which fit every loss and are no prediction.
    """
    six = rows[..., :2, :].reshape(*rows.shape[:-2], 6)
    return jnp.swapaxes(rotations.from_two_columns(six), -1, -2)


@flax.struct.dataclass
class TurnedBody:
    """`BodyParameters` with matrices throughout, so that no logarithm stands between theta and a projected point.

    turns: rotations of the 23 joints below the pelvis, relative to the parent; rotation: orthonormal, body to camera.
    """

    turns: Float[Array, "*batch 23 3 3"]
    segment_scale: Float[Array, "*batch 24"]
    rotation: Float[Array, "*batch 3 3"]
    camera_scale: Float[Array, "*batch"]
    translation: Float[Array, "*batch 2"]


@flax.struct.dataclass
class Statistics:
    """theta = mean + sd * output of the network; a constant of training, kept beside the weights."""

    mean: Float[Array, "105"]
    sd: Float[Array, "105"]

    def encode(self, parameters: BodyParameters) -> Float[Array, "*batch 105"]:
        """Return theta of bodies: eq. 6's target."""
        return from_parameters(parameters)

    def decode(self, theta: Float[Array, "*batch 105"]) -> TurnedBody:
        """Return the body that is projected."""
        body = to_parameters(theta)
        return TurnedBody(
            turns=rotations.axis_angle_to_matrix(body.pose),
            segment_scale=body.segment_scale,
            rotation=proper_rotation(body.rotation),
            camera_scale=body.camera_scale,
            translation=body.translation,
        )

    def finish(self, theta: Float[Array, "*batch 105"]) -> BodyParameters:
        """Return the body as registration returns them."""
        return finish(to_parameters(theta))


def plain_statistics() -> Statistics:
    """Return sd = 1 about the T-pose that faces the camera, so that the network's outputs are theta but for a constant.

    Note: at an output of zero R must be a rotation, because Gram-Schmidt cannot orthonormalise nine zeros.
    """
    return Statistics(from_parameters(t_pose()), jnp.ones(SIZE))


def measured_statistics(fits: BodyParameters) -> Statistics:
    """Return mean and standard deviation of registered bodies (leading axis people), by dimension.

    Note: a deviation below 0.05 (3 degrees, 5%) is annotation noise, not worth a unit of output. Where the mean of the
    rotations is nearly singular (people who face anywhere), the T-pose's stands for it: an output of zero must be
    something that Gram-Schmidt can orthonormalise.
    """
    theta = np.asarray(jax.jit(from_parameters)(jax.tree.map(jnp.asarray, fits)))
    if not np.all(np.isfinite(theta)):
        raise ValueError("the statistics of theta need finite parameters of all people")
    mean, sd = theta.mean(axis=0), np.maximum(theta.std(axis=0), LEAST_SD)
    rotation = mean[_SPLITS[1] : _SPLITS[2]].reshape(3, 3)
    if np.linalg.svd(rotation, compute_uv=False)[-1] < _LEAST_SINGULAR_VALUE:
        mean[_SPLITS[1] : _SPLITS[2]] = np.ravel(UPRIGHT_FACING_CAMERA)
    return Statistics(jnp.asarray(mean), jnp.asarray(sd))


LEAST_SD = 0.05
_LEAST_SINGULAR_VALUE = 0.05
