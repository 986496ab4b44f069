"""theta: the numbers that stand for a body [a, S, R, s, t] while the regressor learns it (paper, section 5).

`axis_angle` is the paper's: 69 radians of the joints, 24 log segment scales, nine numbers of R, the log camera scale,
two of the translation; 105 in all. `6d` has six numbers for each of the 24 rotations (Zhou et al. 2019), 171 in all. An
axis-angle jumps: near a half turn, neighbouring rotations have opposite vectors, and a network that regresses them must
be wrong in between. Six numbers follow a rotation without a jump; Gram-Schmidt makes a rotation of them.

Of anisotropic scales theta ends with 48 log segment girths.

Note: the paper regresses S and s themselves; as logarithms they cannot be predicted negative.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.body import rotations
from dal_jax.body.kinematics import UPRIGHT_FACING_CAMERA, BodyParameters, fix_gauge, t_pose
from dal_jax.runtime import struct

Rotations = Literal["axis_angle", "6d"]
SIZES = {"axis_angle": 105, "6d": 171}
"""How many numbers theta has of isotropic scales."""
_GIRTHS = 48

LEAST_SD = 0.05
_LEAST_SINGULAR_VALUE = 0.05
_LEAST_UNIQUE = 0.05

_SPLITS = (69, 69 + 24, 69 + 24 + 9, 69 + 24 + 9 + 1)
_SPLITS_6D = (144, 144 + 24, 144 + 24 + 1)
_OTHERS = np.r_[69:93, 102:105]  # dimensions of the paper's theta that are no rotation's
_AT_FRAME = np.array([1, 0, 0, 0, 1, 0], np.float32)  # e1 and e2
_T_POSE = np.stack([np.array(UPRIGHT_FACING_CAMERA), *[np.eye(3)] * 23]).astype(np.float32)


@struct.dataclass
class ThetaCodec:
    """Encodes bodies as theta, decodes theta, and standardises it: theta = mean + sd * output of the network.

    A constant of training, kept beside the weights.
    mean, sd: of theta, by dimension.
    frame: of 6d, the rotations that an output of zero decodes to, the whole body's first. A rotation is encoded
      relative to it: R = frame GS(six), six being the first two columns of frame' R. None: axis-angles.
    """

    mean: Float[Array, "theta"]
    sd: Float[Array, "theta"]
    frame: Float[Array, "24 3 3"] | None = None

    @property
    def anisotropic(self) -> bool:
        """Whether theta has segment girths."""
        return self.mean.shape[-1] > SIZES["axis_angle" if self.frame is None else "6d"]

    def from_output(self, output: Float[Array, "n theta"]) -> Float[Array, "n theta"]:
        """Return theta of the network's outputs."""
        return self.mean[None] + self.sd[None] * output

    def encode(self, parameters: BodyParameters) -> Float[Array, "*batch theta"]:
        """Return theta of bodies: eq. 6's target.

        Note: eq. 6 compares six numbers as they are, as it does the paper's nine, and not the matrices made of them. It
        is then the same for both axis-angles of a half turn. A small error costs what it costs in axis-angles (twice
        that about the third axis). And it pulls on the columns' lengths, which Gram-Schmidt does not see, so
        predictions stay away from where that is singular.
        """
        theta = _axis_angle(parameters) if self.frame is None else _six_numbers(self.frame, parameters)
        return jnp.concatenate([theta, _log_girths(parameters)], axis=-1) if self.anisotropic else theta

    def decode(self, theta: Float[Array, "*batch theta"]) -> tuple[BodyParameters, Float[Array, "*batch 23 3 3"]]:
        """Return the body, every rotation proper, and the rotations of its joints as matrices.

        Points are projected through the matrices, so that no logarithm stands between them and theta.
        """
        segment_girth = None
        if self.anisotropic:
            theta, log_girths = theta[..., :-_GIRTHS], theta[..., -_GIRTHS:]
            segment_girth = jnp.exp(log_girths).reshape(*theta.shape[:-1], 24, 2)
        if self.frame is None:
            raw = _raw_parameters(theta)
            body = dataclasses.replace(raw, rotation=proper_rotation(raw.rotation), segment_girth=segment_girth)
            return body, rotations.axis_angle_to_matrix(raw.pose)
        six, log_segment_scale, log_camera_scale, translation = jnp.split(theta, _SPLITS_6D, axis=-1)
        relative = rotations.from_two_columns(six.reshape(*theta.shape[:-1], 24, 6))
        rotation = jnp.einsum("kij,...kjl->...kil", self.frame, relative, precision="highest")
        joint_rotation = rotation[..., 1:, :, :]
        body = BodyParameters(
            pose=rotations.matrix_to_axis_angle(joint_rotation),
            segment_scale=jnp.exp(log_segment_scale),
            rotation=rotation[..., 0, :, :],
            camera_scale=jnp.exp(log_camera_scale[..., 0]),
            translation=translation,
            segment_girth=segment_girth,
        )
        return body, joint_rotation

    def to_parameters(self, theta: Float[Array, "*batch theta"]) -> BodyParameters:
        """Return the body as registration returns it: a proper rotation, mean log S = 0; axis-angles below pi of 6d."""
        body, _ = self.decode(theta)
        return fix_gauge(body)


def size(kind: Rotations, scales: str = "isotropic") -> int:
    """Return how many numbers theta has."""
    return SIZES[kind] + _GIRTHS * (scales == "anisotropic")


def plain_codec(kind: Rotations, scales: str = "isotropic") -> ThetaCodec:
    """Return the codec before any registration: sd = 1 about the T-pose that faces the camera.

    Note: at an output of zero R must be a rotation, because Gram-Schmidt cannot orthonormalise nine zeros.
    """
    every, room = size(kind, scales), size(kind, scales) - SIZES[kind]
    if kind == "axis_angle":
        return ThetaCodec(jnp.pad(_axis_angle(t_pose()), (0, room)), jnp.ones(every))
    mean = np.concatenate([np.tile(_AT_FRAME, 24), np.zeros(27 + room, np.float32)])
    return ThetaCodec(jnp.asarray(mean), jnp.ones(every), jnp.asarray(_T_POSE))


def measured_codec(kind: Rotations, fits: BodyParameters) -> ThetaCodec:
    """Return the codec of registered bodies (leading axis people): an output of zero is their mean.

    Note: a deviation below 0.05 (3 degrees, 5%) is annotation noise, not worth a unit of output. Where the mean of the
    rotations is nearly singular (people at any azimuth), the T-pose's stands for it: an output of zero must be
    something that Gram-Schmidt can orthonormalise. Six numbers of a rotation spread about e1 and e2, which they are at
    the frame, and not about their own mean, which belongs to no rotation.

    Raises:
      ValueError: a parameter is not finite.
    """
    on_device = jax.tree.map(jnp.asarray, fits)
    theta = np.asarray(jax.jit(_axis_angle)(on_device))
    if fits.segment_girth is not None:
        theta = np.concatenate([theta, np.asarray(jax.jit(_log_girths)(on_device))], axis=1)
    if not np.all(np.isfinite(theta)):
        raise ValueError("the mean and the spread of theta need finite parameters of all people")
    mean, sd = theta.mean(axis=0), np.maximum(theta.std(axis=0), LEAST_SD)
    if kind == "axis_angle":
        rotation = mean[_SPLITS[1] : _SPLITS[2]].reshape(3, 3)
        if np.linalg.svd(rotation, compute_uv=False)[-1] < _LEAST_SINGULAR_VALUE:
            mean[_SPLITS[1] : _SPLITS[2]] = np.ravel(UPRIGHT_FACING_CAMERA)
        return ThetaCodec(jnp.asarray(mean), jnp.asarray(sd))
    every = np.asarray(jax.jit(_all_rotations)(on_device))
    frame = _mean_rotations(every)
    six = np.einsum("kji,nkjc->nkci", frame, every[..., :2]).reshape(len(every), 144)
    at_frame, others = np.tile(_AT_FRAME, 24), np.append(_OTHERS, np.arange(SIZES["axis_angle"], len(mean)))
    six_sd = np.maximum(np.sqrt(np.mean((six - at_frame[None]) ** 2, axis=0)), LEAST_SD)
    return ThetaCodec(
        jnp.asarray(np.concatenate([at_frame, mean[others]])),
        jnp.asarray(np.concatenate([six_sd, sd[others]])),
        jnp.asarray(frame),
    )


def proper_rotation(rows: Float[Array | np.ndarray, "*batch 3 3"]) -> Float[Array, "*batch 3 3"]:
    """Orthonormalise R's nine numbers: the first two rows by Gram-Schmidt, the third at right angles to both.

    Note: where the determinant is positive this is the paper's Gram-Schmidt of three rows. Where it is negative that
    returns a reflection, which eq. 5, unlike eq. 2, has no L_det against: with three rows a regressor learned mirrored
    bodies (people at any azimuth: 5 of 32), which fit every loss and are no prediction.
    """
    six = rows[..., :2, :].reshape(*rows.shape[:-2], 6)
    return jnp.swapaxes(rotations.from_two_columns(six), -1, -2)


def _axis_angle(parameters: BodyParameters) -> Float[Array, "*batch 105"]:
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


def _log_girths(parameters: BodyParameters) -> Float[Array, "*batch 48"]:
    """Return the log segment girths; 0 of a body without any."""
    batch = parameters.camera_scale.shape
    if parameters.segment_girth is None:
        return jnp.zeros((*batch, _GIRTHS))
    return jnp.log(parameters.segment_girth).reshape(*batch, _GIRTHS)


def _raw_parameters(theta: Float[Array, "*batch 105"]) -> BodyParameters:
    """Return the parameters with R's nine numbers as they are: the inverse of `_axis_angle`."""
    batch = theta.shape[:-1]
    pose, log_segment_scale, rotation, log_camera_scale, translation = jnp.split(theta, _SPLITS, axis=-1)
    return BodyParameters(
        pose=pose.reshape(*batch, 23, 3),
        segment_scale=jnp.exp(log_segment_scale),
        rotation=rotation.reshape(*batch, 3, 3),
        camera_scale=jnp.exp(log_camera_scale[..., 0]),
        translation=translation,
    )


def _six_numbers(frame: Float[Array, "24 3 3"], parameters: BodyParameters) -> Float[Array, "*batch 171"]:
    batch = parameters.camera_scale.shape
    relative = jnp.einsum("kji,...kjl->...kil", frame, _all_rotations(parameters), precision="highest")
    return jnp.concatenate(
        [
            rotations.two_columns(relative).reshape(*batch, 144),
            jnp.log(parameters.segment_scale),
            jnp.log(parameters.camera_scale)[..., None],
            parameters.translation,
        ],
        axis=-1,
    )


def _all_rotations(parameters: BodyParameters) -> Float[Array, "*batch 24 3 3"]:
    """Return the whole body's rotation, then the joints'."""
    joints = rotations.axis_angle_to_matrix(parameters.pose)
    return jnp.concatenate([parameters.rotation[..., None, :, :], joints], axis=-3)


def _mean_rotations(every: Float[np.ndarray, "people 24 3 3"]) -> Float[np.ndarray, "24 3 3"]:
    """Return the rotation nearest to each mean matrix; the T-pose's where others are as near (people at any azimuth).

    The nearest is unique where the second singular value exceeds the third, taken negative where the determinant is.
    """
    mean = every.mean(axis=0)
    singular = np.linalg.svd(mean, compute_uv=False)
    unique = singular[:, 1] + np.sign(np.linalg.det(mean)) * singular[:, 2] > _LEAST_UNIQUE
    nearest = np.asarray(jax.jit(rotations.nearest_rotation)(mean))
    return np.where(unique[:, None, None], nearest, _T_POSE)
