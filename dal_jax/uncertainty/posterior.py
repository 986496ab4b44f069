"""How far the joints of a fit may be from the truth: a Laplace posterior, mm along the camera's x, y and z.

Variance of a joint, relative to the pelvis, after the pose is given a person's average size (as scores do it):

    Y Cov(d) Y'        what the fit leaves open (`sandwich`), Y the derivative of joints and size together
  + 2 shape^2          joints of another body lie beside the template's, as its skin does: at both ends of a difference
  + (size y)^2         people differ in size by SIZE_SPREAD, and one image does not show it
  + (y z / D)^2        in x and y: what is z nearer to a camera at distance D is larger, which the weak perspective of
                       eq. 1 leaves out
  + sum_k p_k (y_k - y)^2    other minima (`rivals`), p_k = 1 / (1 + exp((E_k - E) / 2)), E in units of noise

No 3D truth of the people in question enters. How far it can be believed: `experiments/calibrate.py`.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.body import kinematics, skeleton, skinning
from dal_jax.body.parameters import BodyParameters
from dal_jax.body.template import Template
from dal_jax.observations import residuals
from dal_jax.observations.observation import Observation
from dal_jax.registration import energy, register
from dal_jax.registration.energy import Unknowns
from dal_jax.uncertainty import noise as noise_lib, sandwich
from dal_jax.uncertainty.modes import Rivals
from dal_jax.uncertainty.noise import NoiseLevels
from dal_jax.uncertainty.sandwich import Precisions

SIZE_SPREAD = 0.08
"""Standard deviation of people's size over the size that `predict` gives them.

Adults' stature, women and men together, spreads by 6% (NHANES: 10 cm of 169 cm). Note: our choice is what five training
subjects that spread by 5.3% say of a sixth, and of the average they give: 5.3% sqrt(1 + 1/5) sqrt(4 / (4 - 2)).
"""

CAMERA_DISTANCE_MM = 5000.0
"""How far a camera stands from a person. Note: an assumption; Human3.6M's stand at 4 to 6 m."""

_DIFFERENT_M = 0.05  # root mean square distance over joints from which a rival is another pose


@flax.struct.dataclass
class Posterior:
    """Joints relative to the pelvis and their standard deviations (leading axis: people).

    h36m_mm: Human3.6M's joints of the fit, hip at the origin, at the size asked for.
    rival_gap: energy of each rival above the fit, in units of noise; inf where it ended in the same pose as the fit or
      as a rival before it. rival_probability: against the fit alone.
    rival_distance_mm: root mean square over joints.
    """

    h36m_mm: Float[Array, "people 17 3"]
    h36m_sd_mm: Float[Array, "people 17 3"]
    smpl_sd_mm: Float[Array, "people 24 3"]
    rival_gap: Float[Array, "people rivals"]
    rival_probability: Float[Array, "people rivals"]
    rival_distance_mm: Float[Array, "people rivals"]


def laplace_posterior(
    template: Template,
    observations: Observation,
    parameters: BodyParameters,
    noise: NoiseLevels,
    used: Precisions | None = None,
    rivals: Rivals | None = None,
    bone_sum_mm: float | None = None,
    size_spread: float = SIZE_SPREAD,
    camera_distance_mm: float = CAMERA_DISTANCE_MM,
) -> Posterior:
    """Return what is known of the joints of fits (leading axis: people).

    Args:
      observations: as annotated and lifted, not as `noise.trusted`.
      used: what the fits were weighted with; left out: `noise.pulls(noise)`.
      rivals: other minima; left out, none is looked for and only the fit's own is described.
      bone_sum_mm: size of a person, the sum of all bones of Human3.6M's skeleton; left out: the template's.
      size_spread: standard deviation of people's size over that; 0 where the size is known.
      camera_distance_mm: inf where the perspective is weak indeed.
    """
    pulls = noise_lib.precisions(noise) if used is None else used
    if bone_sum_mm is None:
        bone_sum_mm = template_bone_sum_mm(template)
    if rivals is None:  # nothing but itself, which is no other pose
        others = np.zeros((len(observations.point_face), 1)), jax.tree.map(lambda leaf: leaf[:, None], parameters)
    else:
        others = _energy_above(template, observations, parameters, noise, rivals), rivals.parameters
    known = bone_sum_mm, size_spread, camera_distance_mm
    return jax.tree.map(np.asarray, _predict(template, observations, parameters, noise, pulls, others, known))


def template_bone_sum_mm(template: Template) -> float:
    """Return the bone-length sum of the template's own Human3.6M skeleton, mm."""
    return float(1000.0 * _bone_sum(jnp.asarray(template.h36m_regressor @ template.vertices)))


def _energy_above(template, observations, parameters, noise, rivals: Rivals) -> np.ndarray:
    """Return by how much each rival lies above the fit, in units of noise: twice the log of its odds."""
    trusted, objective = noise_lib.reweighted(observations, noise), noise_lib.objective(noise)
    own = register.score(template, trusted, parameters, objective)
    each = [
        register.score(template, trusted, jax.tree.map(lambda leaf, k=k: leaf[:, k], rivals.parameters), objective)
        for k in range(rivals.energy.shape[1])
    ]
    return np.stack(each, axis=1) - own[:, None]


@jax.jit
def _predict(template, observations, parameters, noise, pulls, others, known) -> Posterior:
    above, bodies = others

    def one(person):
        with jax.default_matmul_precision("highest"):
            return _predict_one(template, *person, noise, pulls, *known)

    def of_rival(body):
        return _joints_mm(template, energy.from_parameters(body), known[0])[0]

    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), bodies)
    rivals = jax.lax.map(of_rival, flat, batch_size=64).reshape(*above.shape, -1, 3)
    return jax.lax.map(one, (observations, parameters, above, rivals), batch_size=8)  # fits the second-level cache


def _predict_one(
    template, observation, body, above, rivals, noise, pulls, bone_sum_mm, size_spread, camera_distance_mm
) -> Posterior:
    target = residuals.make_target(template, observation)
    linear = sandwich.linearise(template, target, body, pulls.rest)
    shape, limb = sandwich.shape_covariance(target), sandwich.limb_covariance(template, target)
    sides = sandwich.bread(linear, shape, limb, pulls)
    filling = sandwich.filling(sides, noise.variances(), noise.poses.moment_about(pulls.rest))

    def joints(delta):
        moved = _joints_mm(template, sandwich.move(body, delta), bone_sum_mm)
        return moved, moved

    zero = jnp.zeros(sandwich.UNKNOWNS, body.pose.dtype)
    slope, (place, mm_per_crop_unit) = jax.jacfwd(joints, has_aux=True)(zero)
    through = sides.inverse @ slope[0].reshape(-1, sandwich.UNKNOWNS).T
    variance = jnp.sum(through * (filling @ through), axis=0).reshape(place.shape)
    beside = 2.0 * (noise.shape * mm_per_crop_unit) ** 2 * (jnp.arange(len(place)) % 17 > 0)[:, None]
    gap, distance, added = _modes(place, above, rivals)
    variance = variance + beside + added
    tilted = place**2 * (place[:, 2:] ** 2 + variance[:, 2:]) / camera_distance_mm**2
    variance = variance + tilted * jnp.array([[1.0, 1.0, 0.0]]) + (size_spread * place) ** 2
    deviation = jnp.sqrt(variance)
    return Posterior(place[:17], deviation[:17], deviation[17:], gap, _odds(gap), distance)


def _modes(place: Float[Array, "41 3"], above: Float[Array, "rivals"], rivals: Float[Array, "rivals 41 3"]):
    """Return rivals' gaps (inf: no other pose) and distances, and the variance that they add."""
    apart = rivals - place[None]
    distance = _rms(apart[:, :17])
    different = distance > 1000.0 * _DIFFERENT_M
    between = _rms(apart[:, None, :17] - apart[None, :, :17])
    # of rivals that ended in one minimum only the first counts
    again = jnp.any(jnp.tril(between <= 1000.0 * _DIFFERENT_M, -1) & different[None], axis=1)
    gap = jnp.where(different & ~again, above, jnp.inf)
    return gap, distance, jnp.einsum("k,kja->ja", _odds(gap), apart**2)


def _odds(gap: Float[Array, "rivals"]) -> Float[Array, "rivals"]:
    return jax.nn.sigmoid(-gap / 2.0)


def _joints_mm(template, unknowns: Unknowns, bone_sum_mm):
    """Return Human3.6M's and SMPL's joints relative to their pelvises (41, 3), and what a crop unit is worth, mm."""
    segments = kinematics.pose_skeleton(
        template, unknowns.raw_rotation, unknowns.pose, jnp.exp(unknowns.log_segment_scale)
    )
    joints = skinning.h36m_joints(template, segments)
    scale = bone_sum_mm / _bone_sum(joints)
    both = jnp.concatenate([joints - joints[:1], segments.position - segments.position[:1]])
    return scale * both, scale * jnp.exp(-unknowns.log_camera_scale)


def _bone_sum(joints: Float[Array, "17 3"]) -> Float[Array, ""]:
    bones = joints[1:] - joints[np.array(skeleton.H36M_PARENTS[1:])]
    return jnp.sum(jnp.linalg.norm(bones, axis=-1))


def _rms(apart: Float[Array, "... j 3"]) -> Float[Array, "..."]:
    return jnp.sqrt(jnp.mean(jnp.sum(apart**2, axis=-1), axis=-1))
