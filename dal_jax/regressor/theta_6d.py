"""theta with six numbers for each of the 24 rotations (Zhou et al. 2019), 171 in all, and their statistics.

An axis-angle jumps: near a half turn, neighbouring rotations have opposite vectors, and a network that regresses them
must be wrong in between. Six numbers, of which Gram-Schmidt makes a rotation, follow it without a jump.

A rotation is told relative to the statistics' `frame`, the mean of the registrations: R = frame GS(six), six being the
first two columns of frame' R, which are e1 and e2 at the mean itself. R of the whole body is one of the 24.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.body import rotations
from dal_jax.body.parameters import UPRIGHT_FACING_CAMERA, BodyParameters, fix_gauge
from dal_jax.regressor import theta as theta_lib
from dal_jax.regressor.theta import TurnedBody

_SPLITS = (144, 144 + 24, 144 + 24 + 1)
SIZE = 171


@flax.struct.dataclass
class Statistics:
    """theta = mean + sd * output of the network; a constant of training, kept beside the weights.

    theta: six numbers of the whole body's rotation and of each joint's, 24 log segment scales, the log camera scale,
    2 of the translation. frame: the rotation that stands at an output of zero, whole body first.
    """

    frame: Float[Array, "24 3 3"]
    mean: Float[Array, "171"]
    sd: Float[Array, "171"]

    def encode(self, parameters: BodyParameters) -> Float[Array, "*batch 171"]:
        """Return theta of bodies: eq. 6's target.

        Note: eq. 6 compares these numbers as they are, as it does the paper's nine, and not the matrices made of them.
        It is then the same for both axis-angles of a half turn; a small error costs what it costs in axis-angles (twice
        that about the third axis); and it pulls on the columns' lengths, which Gram-Schmidt does not see, so
        predictions stay away from where that is singular.
        """
        batch = parameters.camera_scale.shape
        relative = jnp.einsum("kji,...kjl->...kil", self.frame, _all_rotations(parameters), precision="highest")
        return jnp.concatenate(
            [
                rotations.two_columns(relative).reshape(*batch, 144),
                jnp.log(parameters.segment_scale),
                jnp.log(parameters.camera_scale)[..., None],
                parameters.translation,
            ],
            axis=-1,
        )

    def decode(self, theta: Float[Array, "*batch 171"]) -> TurnedBody:
        """Return the body that is projected, every rotation proper: the inverse of `encode`."""
        six, log_segment_scale, log_camera_scale, translation = jnp.split(theta, _SPLITS, axis=-1)
        relative = rotations.from_two_columns(six.reshape(*theta.shape[:-1], 24, 6))
        turned = jnp.einsum("kij,...kjl->...kil", self.frame, relative, precision="highest")
        return TurnedBody(
            turns=turned[..., 1:, :, :],
            segment_scale=jnp.exp(log_segment_scale),
            rotation=turned[..., 0, :, :],
            camera_scale=jnp.exp(log_camera_scale[..., 0]),
            translation=translation,
        )

    def finish(self, theta: Float[Array, "*batch 171"]) -> BodyParameters:
        """Return the body as registration returns them: axis-angles of at most pi, mean log S = 0."""
        body = self.decode(theta)
        return fix_gauge(
            BodyParameters(
                pose=rotations.matrix_to_axis_angle(body.turns),
                segment_scale=body.segment_scale,
                rotation=body.rotation,
                camera_scale=body.camera_scale,
                translation=body.translation,
            )
        )


def plain_statistics() -> Statistics:
    """Return sd = 1 about the T-pose that faces the camera: outputs are theta but for a constant."""
    mean = np.concatenate([np.tile(_AT_FRAME, 24), np.zeros(27, np.float32)])
    return Statistics(jnp.asarray(_T_POSE), jnp.asarray(mean), jnp.ones(SIZE))


def measured_statistics(fits: BodyParameters) -> Statistics:
    """Return the mean rotations, and the mean and the spread of registered bodies (leading axis people), by dimension.

    Note: a rotation's six numbers spread about e1 and e2, which they are at the frame, and not about their own mean,
    which is no rotation's. The least deviation, and all that is no rotation, is as in `theta`.
    """
    others = theta_lib.measured_statistics(fits)
    every = np.asarray(jax.jit(_all_rotations)(jax.tree.map(jnp.asarray, fits)))
    frame = _mean_rotations(every)
    six = np.einsum("kji,nkjc->nkci", frame, every[..., :2]).reshape(len(every), 144)
    mean = np.tile(_AT_FRAME, 24)
    sd = np.maximum(np.sqrt(np.mean((six - mean[None]) ** 2, axis=0)), theta_lib.LEAST_SD)
    return Statistics(
        jnp.asarray(frame),
        jnp.concatenate([mean, others.mean[_OTHERS]]),
        jnp.concatenate([sd, others.sd[_OTHERS]]),
    )


def _all_rotations(parameters: BodyParameters) -> Float[Array, "*batch 24 3 3"]:
    """Return the whole body's rotation, then the joints'."""
    turns = rotations.axis_angle_to_matrix(parameters.pose)
    return jnp.concatenate([parameters.rotation[..., None, :, :], turns], axis=-3)


def _mean_rotations(every: Float[np.ndarray, "people 24 3 3"]) -> Float[np.ndarray, "24 3 3"]:
    """Return the rotation nearest to the mean matrix; the T-pose's where others are as near (people who face anywhere).

    The nearest is unique where the second singular value exceeds the third, taken negative where the determinant is.
    """
    mean = every.mean(axis=0)
    singular = np.linalg.svd(mean, compute_uv=False)
    unique = singular[:, 1] + np.sign(np.linalg.det(mean)) * singular[:, 2] > _LEAST_UNIQUE
    nearest = np.asarray(jax.jit(rotations.nearest_rotation)(mean))
    return np.where(unique[:, None, None], nearest, _T_POSE)


_T_POSE = np.float32([UPRIGHT_FACING_CAMERA, *[np.eye(3)] * 23])
_AT_FRAME = np.float32([1, 0, 0, 0, 1, 0])  # e1 and e2
_OTHERS = np.r_[69:93, 102:105]  # of `theta`'s dimensions: segment scales, the camera's scale, translation
_LEAST_UNIQUE = 0.05
