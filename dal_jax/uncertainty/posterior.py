"""How far the joints of a fit may be from the truth: a Laplace posterior, mm along the camera's x, y and z.

Variance of a joint, relative to the pelvis, after the pose is given a person's average size (as scores do it):

    Y Cov(d) Y'        what the fit leaves open (`sandwich`), Y the derivative of joints and size together
  + 2 shape^2          joints of another body lie beside the template's, as its skin does: at both ends of a difference
  + (size y)^2         people differ in size by `SizePrior.spread`, and one image does not show it
  + (y z / D)^2        in x and y: what is z nearer to a camera at distance D is larger, which the weak perspective of
                       eq. 1 leaves out
  + sum_k p_k (y_k - y)^2    alternative modes, p_k = 1 / (1 + exp((E_k - E) / 2)), E in units of noise; annotated
                       points are points that were seen, so each on the side away from the camera adds to a mode's E

No 3D truth of the people in question enters. How well it is calibrated: `experiments/calibrate.py`.

Sample weights, how much each fit counts in training, in [0, 1], come from the annotation alone, too:

    residual    1 / (1 + (z / 2)^2) for dense points, and once more for key points; z how many robust standard
                deviations the logarithm of a fit's root mean square error lies above the median over people (0 below)
    posterior   that times `certainty`, 1 / (1 + (d / 100 mm)^2), d the root mean square over joints of their standard
                deviations in a Laplace posterior, whose noise levels come from all people's residuals

Errors are compared as shares of the crop and between people, so that no scale has to be known beforehand.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.body import skeleton, skinning
from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.template import Template
from dal_jax.observations import residuals
from dal_jax.observations.observation import Observation
from dal_jax.registration import energy, register
from dal_jax.registration.energy import Objective, Unknowns
from dal_jax.runtime import programs, struct
from dal_jax.uncertainty import noise as noise_lib, sandwich
from dal_jax.uncertainty.noise import NoiseLevels, estimate, initial, robust_weights
from dal_jax.uncertainty.sandwich import Precisions, Scalar

SIZE_SPREAD = 0.08
"""Standard deviation of people's size over the size that `predict` gives them.

Adults' stature, women and men together, spreads by 6% (NHANES: 10 cm of 169 cm). Note: our choice is what five training
subjects that spread by 5.3% say of a sixth, and of the average they give: 5.3% sqrt(1 + 1/5) sqrt(4 / (4 - 2)).
"""

CAMERA_DISTANCE_MM = 5000.0
"""How far a camera stands from a person. Note: an assumption; Human3.6M's stand at 4 to 6 m."""

_FAR_POINT = 2.0 * np.log(1.0 / 0.02)
"""What a point on the far side costs, shared as its error is: 2% of those of right fits are there."""

_DIFFERENT_MM = 50.0  # root mean square distance over joints from which a mode is another pose
_FULL_CERTAINTY_MM = 100.0


@struct.dataclass
class SizePrior:
    """How large and how far away people are, which one image does not show.

    bone_sum_mm: size of a person, the sum of all bones of Human3.6M's skeleton; None: the template's.
    spread: relative standard deviation of people's size about it; 0 where the size is known.
    camera_distance_mm: inf where weak perspective holds exactly.
    """

    bone_sum_mm: Scalar | None = None
    spread: Scalar = SIZE_SPREAD
    camera_distance_mm: Scalar = CAMERA_DISTANCE_MM


@struct.dataclass
class Posterior:
    """Joints relative to the pelvis and their standard deviations (leading axis: people).

    h36m_mm: Human3.6M's joints of the fit, hip at the origin, at the size asked for.
    h36m_sd_mm, smpl_sd_mm: along x, y, z.
    mode_gap: energy of each alternative mode above the fit, in units of noise (twice the log odds); inf where the mode
      is the same pose as the fit or as a mode before it. mode_probability: against the fit alone.
    mode_distance_mm: root mean square over joints.
    shape_covariance: of the 24 log segment scales and the log girth, whose row and column are 0 of fits without one; of
      anisotropic scales, of the 24 and the 48 log segment girths.
    """

    h36m_mm: Float[Array | np.ndarray, "*people 17 3"]
    h36m_sd_mm: Float[Array | np.ndarray, "*people 17 3"]
    smpl_sd_mm: Float[Array | np.ndarray, "*people 24 3"]
    mode_gap: Float[Array | np.ndarray, "*people modes"]
    mode_probability: Float[Array | np.ndarray, "*people modes"]
    mode_distance_mm: Float[Array | np.ndarray, "*people modes"]
    shape_covariance: Float[Array | np.ndarray, "*people sizes sizes"]


def laplace_posterior(
    template: Template,
    observations: Observation,
    parameters: BodyParameters,
    noise: NoiseLevels,
    used: Precisions,
    modes: BodyParameters | None = None,
    size: SizePrior | None = None,
) -> Posterior:
    """Return what is known of the joints of fits (leading axis: people), as host arrays.

    Args:
      template: the body.
      observations: as annotated and lifted, not `noise.reweighted`.
      parameters: the fits.
      noise: how wrong observations and template are.
      used: what the fits were weighted with, such as `noise.precisions(noise)`.
      modes: alternative modes (`modes.find`), axes (people, modes, ...); left out: the fit's own mode is described.
      size: left out: `SizePrior()`.
    """
    size = SizePrior() if size is None else size
    if size.bone_sum_mm is None:
        size = dataclasses.replace(size, bone_sum_mm=template_bone_sum_mm(template))
    if modes is None:  # the fit itself, which is no other pose
        gap, modes = np.zeros((len(observations.point_face), 1)), jax.tree.map(lambda leaf: leaf[:, None], parameters)
    else:
        gap = _energy_gap(template, observations, parameters, noise, modes)
    found = _predict(template, struct.filled_up((observations, parameters, gap, modes)), noise, used, size)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(gap)], found)


def template_bone_sum_mm(template: Template) -> float:
    """Return the bone-length sum of the template's own Human3.6M skeleton, mm."""
    return float(1000.0 * _template_bone_sum(np.asarray(template.h36m_regressor @ template.vertices)))


def expected_error_mm(posterior: Posterior) -> Float[np.ndarray, "people"]:
    """Return the root mean square over joints of their 3D standard deviations."""
    return np.sqrt(np.mean(np.sum(np.asarray(posterior.h36m_sd_mm) ** 2, axis=-1), axis=-1))


def certainty(expected_mm: Float[np.ndarray, "people"]) -> Float[np.ndarray, "people"]:
    """Return 1 / (1 + (d / 100 mm)^2) of expected errors d."""
    return 1.0 / (1.0 + (expected_mm / _FULL_CERTAINTY_MM) ** 2)


def _energy_gap(template, observations, parameters, noise, modes: BodyParameters) -> np.ndarray:
    """Return by how much each mode lies above the fit, in units of noise: twice the log of its odds."""
    reweighted, objective = noise_lib.reweighted(observations, noise), noise_lib.objective(noise)
    unseen = _FAR_POINT / float(noise.point_sharing)

    def cost(bodies: BodyParameters) -> np.ndarray:
        far = residuals.far_points(template, bodies, observations)
        return register.score(template, reweighted, bodies, objective) + unseen * far

    count = modes.camera_scale.shape[1]
    each = [cost(jax.tree.map(lambda leaf, k=k: leaf[:, k], modes)) for k in range(count)]
    return np.stack(each, axis=1) - cost(parameters)[:, None]


@programs.kept
def _predict(template, people, noise: NoiseLevels, used: Precisions, size: SizePrior) -> Posterior:
    observations, parameters, gap, modes = people

    def one(person):
        with jax.default_matmul_precision("highest"):
            return _predict_one(template, person, noise, used, size)

    def joints_of_mode(body):
        return _joints_mm(template, energy.from_parameters(body), size.bone_sum_mm)[0]

    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), modes)
    joints = jax.lax.map(joints_of_mode, flat, batch_size=64).reshape(*gap.shape, -1, 3)
    return jax.lax.map(one, (observations, parameters, gap, joints), batch_size=8)  # fits the second-level cache


def _predict_one(template, person, noise: NoiseLevels, used: Precisions, size: SizePrior) -> Posterior:
    observation, parameters, gap, modes = person
    linear = sandwich.linearise(template, residuals.make_target(template, observation), parameters, used)
    score = sandwich.score_covariance(linear, noise.variances(), noise.pose_prior.moment_about(used.mean_pose))

    def joints(delta):
        moved = _joints_mm(template, sandwich.move(parameters, delta), size.bone_sum_mm)
        return moved, moved

    zero = jnp.zeros(sandwich.unknowns(parameters), parameters.pose.dtype)
    slope, (place, mm_per_crop_unit) = jax.jacfwd(joints, has_aux=True)(zero)
    through = linear.inverse_hessian @ slope[0].reshape(-1, len(zero)).T
    variance = jnp.sum(through * (score @ through), axis=0).reshape(place.shape)
    beside = 2.0 * (noise.shape * mm_per_crop_unit) ** 2 * (jnp.arange(len(place)) % 17 > 0)[:, None]
    gap, distance, between = _mixture(place, gap, modes)
    variance = variance + beside + between
    tilted = place**2 * (place[:, 2:] ** 2 + variance[:, 2:]) / size.camera_distance_mm**2
    variance = variance + tilted * jnp.array([[1.0, 1.0, 0.0]]) + (size.spread * place) ** 2
    deviation = jnp.sqrt(variance)
    shape = linear.inverse_hessian[sandwich.sizes(parameters)]
    room = max(len(shape), 25)
    covariance = jnp.zeros((room, room)).at[: len(shape), : len(shape)].set(shape @ score @ shape.T)
    return Posterior(place[:17], deviation[:17], deviation[17:], gap, _probability(gap), distance, covariance)


def _mixture(place: Float[Array, "41 3"], gap: Float[Array, "modes"], modes: Float[Array, "modes 41 3"]):
    """Return the modes' gaps (inf: no other pose) and distances, and the variance that they add."""
    apart = modes - place[None]
    distance = _rms(apart[:, :17])
    different = distance > _DIFFERENT_MM
    between = _rms(apart[:, None, :17] - apart[None, :, :17])
    # of modes that ended in one minimum only the first counts
    again = jnp.any(jnp.tril(between <= _DIFFERENT_MM, -1) & different[None], axis=1)
    gap = jnp.where(different & ~again, gap, jnp.inf)
    return gap, distance, jnp.einsum("k,kja->ja", _probability(gap), apart**2)


def _probability(gap: Float[Array, "modes"]) -> Float[Array, "modes"]:
    return jax.nn.sigmoid(-gap / 2.0)


def _joints_mm(template, unknowns: Unknowns, bone_sum_mm):
    """Return Human3.6M's and SMPL's joints relative to their pelvises (41, 3), and what a crop unit is worth, mm."""
    segments = energy.segments_at(template, unknowns, unknowns.raw_rotation)
    joints = skinning.h36m_joints(template, segments)
    scale = bone_sum_mm / _bone_sum(joints)
    both = jnp.concatenate([joints - joints[:1], segments.position - segments.position[:1]])
    return scale * both, scale * jnp.exp(-unknowns.log_camera_scale)


@programs.kept
def _template_bone_sum(joints: Float[Array, "17 3"]) -> Float[Array, ""]:
    return _bone_sum(joints)


def _bone_sum(joints: Float[Array, "17 3"]) -> Float[Array, ""]:
    bones = joints[1:] - joints[np.array(skeleton.H36M_PARENTS[1:])]
    return jnp.sum(jnp.linalg.norm(bones, axis=-1))


def _rms(apart: Float[Array, "... j 3"]) -> Float[Array, "..."]:
    return jnp.sqrt(jnp.mean(jnp.sum(apart**2, axis=-1), axis=-1))


SAMPLE_WEIGHTS = ("none", "residual", "posterior")
"""none: all people count alike, as in the paper."""

_HALVED_AT = 2.0  # robust standard deviations above the median
_MAD_TO_SD = 1.4826  # of a median absolute deviation, for a normal distribution
_GOOD = 0.5
_LEAST_SPREAD = 0.1  # of log errors: rounding does not tell people apart who are fitted equally well
_CHUNK = 1024


def sample_weights(
    name: str,
    template: Template,
    observations: Observation,
    parameters: BodyParameters,
    objective: Objective,
) -> Float[np.ndarray, "people"]:
    """Return each person's weight in training; 0 where nothing was observed or the fit is not finite.

    Args:
      name: of SAMPLE_WEIGHTS; on two cores `residual` takes 0.01 ms a person, `posterior` 3 ms.
      template: the body.
      observations: as annotated and lifted; leading axis: people, host arrays.
      parameters: the fits.
      objective: of the fits.

    Raises:
      ValueError: another name.
    """
    if name not in SAMPLE_WEIGHTS:
        raise ValueError(f"sample_weight '{name}' is not one of {', '.join(SAMPLE_WEIGHTS)}")
    if name == "none":
        return np.ones(len(observations.point_face), np.float32)
    usable = _usable(observations, parameters)
    weight = _by_residual(template, observations, parameters)
    if name == "posterior":
        good = np.flatnonzero(usable & (weight >= _GOOD))
        weight = weight * _by_posterior(template, observations, parameters, objective, good)
    return np.where(usable, np.nan_to_num(weight), 0.0).astype(np.float32)


def relative_weight(error: Float[np.ndarray, "people"]) -> Float[np.ndarray, "people"]:
    """Return 1 / (1 + (z / 2)^2) of errors against those of all people; 1 where an error is NaN (nothing observed)."""
    known = np.isfinite(error) & (error > 0)
    if not known.any():
        return np.ones_like(error)
    log_error = np.log(np.where(known, error, 1.0))
    median = np.median(log_error[known])
    spread = max(_MAD_TO_SD * np.median(np.abs(log_error[known] - median)), _LEAST_SPREAD)
    above = np.where(known, np.maximum(log_error - median, 0.0) / spread, 0.0)
    return 1.0 / (1.0 + (above / _HALVED_AT) ** 2)


def _by_residual(template, observations, parameters) -> np.ndarray:
    people = len(observations.point_face)
    size = min(_CHUNK, people)
    parts = []
    for first in range(0, people, size):
        rows = np.minimum(np.arange(first, first + size), people - 1)  # filled up: one program serves all chunks
        bodies, observed = jax.tree.map(lambda leaf, rows=rows: np.asarray(leaf)[rows], (parameters, observations))
        dense, keypoint = residuals.errors_px(template, bodies, observed)
        side = np.asarray(observed.box_px)[:, 2] / 2.0
        parts.append((
            residuals.root_mean_square(dense, observed.point_confidence) / side,
            residuals.root_mean_square(keypoint, observed.keypoint_confidence) / side,
        ))  # fmt: skip
    dense, keypoint = (np.concatenate(each)[:people] for each in zip(*parts, strict=True))
    return relative_weight(dense) * relative_weight(keypoint)


def _by_posterior(template, observations, parameters, objective: Objective, good: np.ndarray) -> np.ndarray:
    """Note: noise levels come from good fits alone; one lost person in 24 made everyone's deviations metres."""
    used = Precisions.of_objective(objective)
    robust = robust_weights(template, observations, parameters, objective.weights.outlier)
    noise = initial()
    if len(good):
        few, bodies = jax.tree.map(lambda leaf: np.asarray(leaf)[good], (robust, parameters))
        noise = estimate(template, few, bodies, used, noise)
    joints = laplace_posterior(template, robust, parameters, noise, used)
    return certainty(expected_error_mm(joints))


def _usable(observations, parameters) -> np.ndarray:
    people = len(observations.point_face)
    observed = np.any(np.asarray(observations.point_confidence) > 0, axis=1)
    observed = observed | np.any(np.asarray(observations.keypoint_confidence) > 0, axis=1)
    finite = [np.all(np.isfinite(np.reshape(leaf, (people, -1))), axis=1) for leaf in jax.tree.leaves(parameters)]
    return observed & np.all(finite, axis=0)
