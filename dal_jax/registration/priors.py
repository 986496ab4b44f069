"""What is known of people before they are seen: how they hold their joints, and how their proportions vary.

A Gaussian prior on joint rotations, in place of the paper's pull to the T-pose:

    L_joint = sum_j d_j' P_j d_j,        d_j = log(Abar_j' A_j)

Abar_j is the mean rotation of joint j over people and P_j the inverse covariance about it. A limb that no pixel shows
then hangs where limbs hang, and a knee bends about one axis only. Both are learned from fits to 2D annotation
(`uncertainty.noise.estimate`). The paper's |a_j|^2 is Abar = 1, P = 1.

A Gaussian prior on proportions, in place of the paper's L_scale, which counts every edge of the skeleton alike:

    L_shape = (r - m)' (L L' + D)^-1 (r - m) = min_z sum_e (r_e - m_e - (L z)_e)^2 / D_e + |z|^2

r_e = log s_child - log s_parent over the 23 edges, D diagonal, L a few factors that people have in common. Legs are
long or short together, and left as right, so both cost as much as one factor; one hand alone costs its small D.

Of anisotropic scales r has 48 numbers more, how much wider than long the segments are along their girth axes. So the
belly is wide where the thighs are, and length says something of girth.

The girth g of a person, which trunk and limbs share, is one more number of it: ((log g - m_g) / sd_g)^2.

Neither prior is in the paper.
"""

import dataclasses
import functools
import pathlib

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.body import rotations, skeleton
from dal_jax.body.template import WIDENED
from dal_jax.runtime import door, programs, struct

FILE = pathlib.Path(__file__).parent / "assets" / "poses.npz"
"""Mean and covariance of synthetic people, made by `experiments.learn_poses`."""
SHAPES = FILE.with_name("proportions.npz")
"""Mean, factors and variance of `ShapePrior`, made by `body.build.people.proportions`: MakeHuman's bodies, CC0."""

DRESSED_GIRTH = np.array([np.log(1.12), 0.1], np.float32)
"""`ShapePrior.girth` of people in clothes, which are 10 to 25% wider than the naked body. Note: our choice, broad:
hundreds of points say more about a person's girth than it does, and key points alone say nothing. Of anisotropic scales
`dressed` gives it to the segments that a girth widens."""

_BROAD_SD = 0.5  # radians, about the T-pose
_SMALLEST_SD = 0.03  # radians: a narrower prior could not be corrected
_MIRRORED = np.array([1.0, -1.0, -1.0])  # the axis-angle (a, b, c) in the mirror x = 0 is (a, -b, -c)


@struct.dataclass
class PosePrior:
    """A Gaussian over the rotations of the 23 joints, each independent of the others.

    mean: Abar_j as axis-angle, radians.
    covariance: of the deviations d_j from the mean, in the axes of the joint rotated by it, radians squared.
    root: R_j with R_j' R_j = covariance_j^-1, 1 / radians. `gaussian` computes it.
    """

    mean: Float[Array | np.ndarray, "23 3"]
    covariance: Float[Array | np.ndarray, "23 3 3"]
    root: Float[Array | np.ndarray, "23 3 3"]

    def residual(self, pose: Float[Array | np.ndarray, "23 3"]) -> Float[Array, "23 3"]:
        """Return R_j d_j, whose squares sum up to L_joint."""
        return jnp.einsum("kij,kj->ki", self.root, pose_deviation(pose, self.mean), precision="highest")

    def moment_about(self, rotation: Float[Array | np.ndarray, "23 3"]) -> Float[Array, "23 3 3"]:
        """Return the mean of d d' over people, d their deviations from any given pose (axis-angle, radians)."""
        apart = pose_deviation(jnp.asarray(self.mean), jnp.asarray(rotation))
        return jnp.asarray(self.covariance) + apart[:, :, None] * apart[:, None]


def gaussian(mean: Float[np.ndarray, "23 3"], covariance: Float[np.ndarray, "23 3 3"]) -> PosePrior:
    """Return the prior of this mean and covariance, in float32; its root is computed in float64 on the host."""
    lower = np.linalg.cholesky(np.linalg.inv(np.asarray(covariance, np.float64)))
    root = np.swapaxes(lower, 1, 2).astype(np.float32)
    return PosePrior(np.asarray(mean, np.float32), np.asarray(covariance, np.float32), root)


def broad() -> PosePrior:
    """Return a broad prior for bodies without learned poses: the T-pose with a spread of 30 degrees."""
    covariance = np.tile(_BROAD_SD**2 * np.eye(3, dtype=np.float32), (23, 1, 1))
    return gaussian(np.zeros((23, 3), np.float32), covariance)


@struct.dataclass
class ShapePrior:
    """A Gaussian over r, the log scales of the 23 segments that have a parent, against those of their parents.

    Of anisotropic scales r goes on with the 48 log segment girths, segment by segment (`energy.scale_residual`).

    mean: of r against the template.
    factors: L; r moves by L z, z standard normal.
    variance: D, of each edge apart from the factors.
    root: R with R' R = (L L' + D)^-1. `shape_gaussian` computes it.
    girth: mean and standard deviation of the log girth, apart from the proportions; None: nobody is wider or thinner
      than the template's proportions make them.
    """

    mean: Float[Array | np.ndarray, "r"]
    factors: Float[Array | np.ndarray, "r factors"]
    variance: Float[Array | np.ndarray, "r"]
    root: Float[Array | np.ndarray, "r r"]
    girth: Float[Array | np.ndarray, "2"] | None = None

    @property
    def scales(self) -> str:
        """Of which `energy.SCALES` it is."""
        return "isotropic" if len(self.mean) == 23 else "anisotropic"

    def residual(
        self, stretch: Float[Array | np.ndarray, "r"], log_girth: Float[Array | np.ndarray, ""] | None = None
    ) -> Float[Array, "residuals"]:
        """Return R (r - m) and, of a prior on girths, (log g - m_g) / sd_g: their squares sum up to L_shape.

        A log_girth of None is 0.
        """
        proportions = jnp.matmul(jnp.asarray(self.root), stretch - self.mean, precision="highest")
        if self.girth is None:
            return proportions
        mean, sd = jnp.asarray(self.girth)
        girth = ((0.0 if log_girth is None else log_girth) - mean) / sd
        return jnp.concatenate([proportions, girth[None]])

    def covariance(self) -> Float[np.ndarray, "r r"]:
        """Return L L' + D, in float64 on the host."""
        return _covariance(self.factors, self.variance)


def shape_gaussian(
    mean: Float[np.ndarray, "r"], factors: Float[np.ndarray, "r factors"], variance: Float[np.ndarray, "r"]
) -> ShapePrior:
    """Return the prior of this mean and covariance, in float32; its root is computed in float64 on the host."""
    mean, factors, variance = (np.asarray(each, np.float32) for each in (mean, factors, variance))
    lower = np.linalg.cholesky(np.linalg.inv(_covariance(factors, variance)))
    return ShapePrior(mean, factors, variance, lower.T.astype(np.float32))


def _covariance(factors, variance) -> Float[np.ndarray, "r r"]:
    factors = np.asarray(factors, np.float64)
    return factors @ factors.T + np.diag(np.asarray(variance, np.float64))


@functools.cache
def population() -> PosePrior:
    """Return the shipped prior: synthetic people of the training subjects, at any azimuth, learned from 2D alone."""
    fields = door.read_npz(FILE)
    return gaussian(fields["mean"], fields["covariance"])


@functools.cache
def population_shapes(scales: str = "isotropic") -> ShapePrior:
    """Return the shipped prior on proportions: adults that the free body's generator makes, no image among them.

    scales: of which `energy.SCALES`.
    """
    fields = door.read_npz(SHAPES)
    of = "axes_" if scales == "anisotropic" else ""
    return shape_gaussian(*(fields[f"{of}{name}"] for name in ("mean", "factors", "variance")))


@functools.cache
def dressed_population_shapes(scales: str = "isotropic") -> ShapePrior:
    """Return that prior of people in clothes: with a girth, or of anisotropic scales with one more factor for it."""
    if scales == "isotropic":
        return dataclasses.replace(population_shapes(), girth=DRESSED_GIRTH)
    naked, (dressed, sd) = population_shapes(scales), DRESSED_GIRTH
    mean, factors, variance = (np.asarray(each) for each in (naked.mean, naked.factors, naked.variance))
    widened = np.concatenate([np.zeros(23), np.repeat(WIDENED, 2)])
    return shape_gaussian(mean + dressed * widened, np.column_stack([factors, sd * widened]), variance)


def pose_deviation(
    pose: Float[Array | np.ndarray, "*batch 23 3"], mean: Float[Array | np.ndarray, "23 3"]
) -> Float[Array, "*batch 23 3"]:
    """Return d_j = log(Abar_j' A_j): the rotation from the mean to the pose, in the axes of the mean, radians."""
    rest = rotations.axis_angle_to_matrix(mean)
    relative = jnp.matmul(jnp.swapaxes(rest, -1, -2), rotations.axis_angle_to_matrix(pose), precision="highest")
    return rotations.matrix_to_axis_angle(relative)


def learned(
    deviation: Float[np.ndarray, "23 3"],
    moment: Float[np.ndarray, "23 3 3"],
    rotation: Float[Array | np.ndarray, "23 3"],
    people: int | float,
    prior: PosePrior,
    prior_people: int | float,
) -> PosePrior:
    """Return the prior that people's poses speak for; their mirror images count alike.

    Args:
      deviation, moment: means over people of d and of E[d d'], d their deviations from the pose `rotation`.
      rotation: a pose that is its own mirror image, axis-angle, radians.
      people: how many there are.
      prior: known beforehand.
      prior_people: how many people the prior counts as.
    """
    other = np.array(skeleton.SMPL_MIRROR[1:]) - 1
    mean = (deviation + _MIRRORED * deviation[other]) / 2.0
    moment = (moment + _MIRRORED[:, None] * _MIRRORED * moment[other]) / 2.0
    rotation = np.asarray(rotation, np.float32)
    before = np.asarray(_deviation(np.asarray(prior.mean, np.float32), rotation), np.float64)
    share = people / (people + prior_people)
    mean = share * mean + (1.0 - share) * before
    about = moment - mean[:, :, None] * mean[:, None]
    values, vectors = np.linalg.eigh(share * about + (1.0 - share) * prior.covariance)
    covariance = np.einsum("kij,kj,klj->kil", vectors, np.maximum(values, _SMALLEST_SD**2), vectors)
    return gaussian(np.asarray(_composed(rotation, mean.astype(np.float32))), covariance.astype(np.float32))


_deviation = programs.kept(pose_deviation)  # whole: operation by operation they would be eighty programs


@programs.kept
def _composed(first: Float[Array, "23 3"], second: Float[Array, "23 3"]) -> Float[Array, "23 3"]:
    first, second = rotations.axis_angle_to_matrix(first), rotations.axis_angle_to_matrix(second)
    return rotations.matrix_to_axis_angle(jnp.matmul(first, second, precision="highest"))
