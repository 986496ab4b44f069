"""The pose that L_joint pulls to, and how hard in which direction: not in the paper, which pulls to the T-pose.

    L_joint = sum_j d_j' P_j d_j,        d_j = log(Abar_j' A_j)

Abar_j is the mean turn of joint j over people and P_j the inverse covariance about it, as a Gaussian prior has them: a
limb that no pixel shows then hangs where limbs hang, and a knee bends about one axis only. Both are learned from fits
to 2D annotation (`noise.estimate`). The paper's |a_j|^2 is Abar = 1, P = 1.
"""

import functools
import pathlib

import flax.struct
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.body import rotations, skeleton


@flax.struct.dataclass
class RestPose:
    """turn: Abar_j as axis-angle, radians; root: R_j with R_j' R_j = P_j, 1 / radians where w_joint is 1."""

    turn: Float[Array, "23 3"]
    root: Float[Array, "23 3 3"]


def pose_deviation(pose: Float[Array, "*batch 23 3"], turn: Float[Array, "23 3"]) -> Float[Array, "*batch 23 3"]:
    """Return d_j: what is left of a pose's joints beyond the turns of a rest pose, in their axes, radians."""
    rest = rotations.axis_angle_to_matrix(turn)
    relative = jnp.matmul(jnp.swapaxes(rest, -1, -2), rotations.axis_angle_to_matrix(pose), precision="highest")
    return rotations.matrix_to_axis_angle(relative)


def residual(pose: Float[Array, "23 3"], rest: RestPose) -> Float[Array, "23 3"]:
    """Return R_j d_j, whose squares sum up to L_joint."""
    return jnp.einsum("kij,kj->ki", rest.root, pose_deviation(pose, rest.turn), precision="highest")


# How people hold their joints, joint by joint: a mean turn and the covariance about it, learned from fits to 2D.
#
# They make L_joint a Gaussian prior (`rest_pose`), and say how far a joint may be that no pixel shows.

FILE = pathlib.Path(__file__).parent / "assets" / "poses.npz"
"""Of synthetic people, made by `experiments.learn_poses`."""

_BROAD_SD = 0.5  # radians, about the T-pose
_SMALLEST_SD = 0.03  # radians: a prior that leaves no room could not be corrected
_MIRRORED = np.array([1.0, -1.0, -1.0])  # a turn (a, b, c) in the mirror x = 0 is (a, -b, -c)


@flax.struct.dataclass
class Poses:
    """mean: axis-angle; covariance: of deviations from it, in the axes of the joint so turned; radians."""

    mean: Float[Array, "23 3"]
    covariance: Float[Array, "23 3 3"]

    def moment_about(self, turn: Float[Array, "23 3"]) -> Float[Array, "23 3 3"]:
        """Return the mean of d d' over people, d their deviations from any rest pose."""
        apart = pose_deviation(jnp.asarray(self.mean), jnp.asarray(turn))
        return jnp.asarray(self.covariance) + apart[:, :, None] * apart[:, None]

    def rest_pose(self) -> RestPose:
        """Return what L_joint with weight 1 pulls to, if it is to be the Gaussian's negative log likelihood."""
        lower = np.linalg.cholesky(np.linalg.inv(np.asarray(self.covariance, np.float64)))
        return RestPose(np.asarray(self.mean), np.swapaxes(lower, 1, 2).astype(np.float32))


def broad() -> Poses:
    """Return the T-pose, give or take 30 degrees: what is said of a body whose poses nobody has seen."""
    covariance = np.tile(_BROAD_SD**2 * np.eye(3, dtype=np.float32), (23, 1, 1))
    return Poses(np.zeros((23, 3), np.float32), covariance)


@functools.cache
def usual() -> Poses:
    """Return how synthetic people of the training subjects hold their joints, at any heading, by 2D alone."""
    with np.load(FILE, allow_pickle=False) as archive:
        return Poses(archive["mean"], archive["covariance"])


def learned(
    deviation: Float[np.ndarray, "23 3"],
    moment: Float[np.ndarray, "23 3 3"],
    turn: Float[np.ndarray, "23 3"],
    people: float,
    prior: Poses,
    prior_people: float,
) -> Poses:
    """Return the poses of people, whose mirror images count alike, with a prior that counts as so many of them.

    Args:
      deviation, moment: means over people of d and of E[d d'], d deviations from the rest pose of these turns, which is
        its own mirror image.
    """
    other = np.array(skeleton.SMPL_MIRROR[1:]) - 1
    mean = (deviation + _MIRRORED * deviation[other]) / 2.0
    moment = (moment + _MIRRORED[:, None] * _MIRRORED * moment[other]) / 2.0
    before = np.asarray(pose_deviation(jnp.asarray(prior.mean), jnp.asarray(turn)), np.float64)
    share = people / (people + prior_people)
    mean = share * mean + (1.0 - share) * before
    about = moment - mean[:, :, None] * mean[:, None]
    values, vectors = np.linalg.eigh(share * about + (1.0 - share) * prior.covariance)
    covariance = np.einsum("kij,kj,klj->kil", vectors, np.maximum(values, _SMALLEST_SD**2), vectors)
    turned = rotations.axis_angle_to_matrix(jnp.asarray(np.stack([turn, mean]), jnp.float32))
    together = jnp.matmul(turned[0], turned[1], precision="highest")
    return Poses(np.asarray(rotations.matrix_to_axis_angle(together)), covariance.astype(np.float32))
