"""How wrong annotations, lifted depths and the template are: noise levels from the residuals of fits, without truth.

Residuals understate noise, because a fit follows its errors: with P = J H^-1 J'W, residuals of errors e are (I - P) e.
Every sum of squares q_k = r'A_k r then has the expectation sum_l v_l tr(A_k (I - P) R_l (I - P)'), linear in the
variances v_l of the kinds of error R_l (`sandwich`). With A_k = R_k, summed over people, those are as many equations as
variances: the method of moments (Rao's MINQUE), exact where the problem is linear. Errors that neighbouring points or
joints share show in the products of residuals, not only in their squares, and so count as few points, not many.

One kind is not estimated: of a common turn of lifted depths residuals say next to nothing; the body turns with them.

A person whose residuals or whose equations dwarf everybody's says nothing of the others' noise: such a person's
equations count as much less as they are larger than those of a typical person allow.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jaxtyping import Array, Float

from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.template import Template
from dal_jax.observations import residuals
from dal_jax.observations.observation import Observation, evenly
from dal_jax.observations.residuals import Target
from dal_jax.registration import priors, register
from dal_jax.registration.energy import EnergyWeights, Objective
from dal_jax.registration.priors import PosePrior
from dal_jax.registration.register import Fit, RegistrationConfig
from dal_jax.runtime import programs, struct
from dal_jax.uncertainty import sandwich
from dal_jax.uncertainty.sandwich import Linearisation, Precisions, Scalar

TURN = 0.11
"""`NoiseLevels.turn` of lifters, radians about the image's x. Note: our choice: one taught by MPII's 2D poses turns the
synthetic training people by 6 degrees about x and 19 about y."""

_LOOSENESS = 16.0
_INITIAL_PEOPLE = 2.0
_AT_MOST = 256
_LEAST_PEOPLE = 1e-6  # whose poses have a mean
_LEAST_EXPECTED = 1e-6  # of a sum of squares at unit variance: less is no data
_FARTHEST = 10.0  # a person's sums of squares over the typical person's, beyond which the person counts less
_TURN = sandwich.KINDS.index("turn")
_SMALLEST_SD = 1e-4  # crop units, radians: no division by a level of 0


@struct.dataclass
class NoiseLevels:
    """Standard deviations at confidence 1, crop units (one component) unless another unit is given.

    point: of an annotated point, independent of all others; shape: of the surface, shared by neighbouring points.
    keypoint: x or y; depth: z as lifted, independent of all others; limb: of z, grown along a metre of limb.
    turn: of lifted depths in common, radians about the image's x, `observation.HEADING` as much about y; not estimated.
    log_scale: of a segment against its parent, log.
    pose_prior: how people hold their joints.
    point_sharing, depth_sharing: points (joints) that share one's error `shape` (`limb`), itself included.
    """

    point: Scalar
    shape: Scalar
    keypoint: Scalar
    depth: Scalar
    limb: Scalar
    turn: Scalar
    log_scale: Scalar
    pose_prior: PosePrior
    point_sharing: Scalar
    depth_sharing: Scalar

    def variances(self) -> Float[Array, "7"]:
        """Return the variances of `sandwich.KINDS`."""
        each = (self.point, self.shape, self.keypoint, self.depth, self.limb, self.turn, self.log_scale)
        return jnp.stack([jnp.asarray(level) for level in each]) ** 2


def initial(pose_prior: PosePrior | None = None) -> NoiseLevels:
    """Return where estimation starts; it counts as two people's worth of data, so that one person has levels too.

    Args:
      pose_prior: left out: `priors.population`.
    """
    levels = {"point": 0.005, "shape": 0.01, "keypoint": 0.02, "depth": 0.1, "limb": 0.05, "turn": TURN}
    levels |= {"log_scale": 0.05, "point_sharing": 6.0, "depth_sharing": 3.0}
    return NoiseLevels(
        pose_prior=priors.population() if pose_prior is None else pose_prior,
        **{name: np.float32(level) for name, level in levels.items()},
    )


def precisions(noise: NoiseLevels) -> Precisions:
    """Return inverse variances: what a fit should weight its terms with.

    Note: two are not what they seem. A dense point, and a depth, counts as its share of what it shares. Log scales are
    weighted by a sixteenth of their inverse variance: with the whole of it more fits of synthetic training people ended
    in wrong minima (depth error 54 -> 70 mm, with a pull to the T-pose), and levels estimated from them were too low.
    """
    return Precisions(
        dense=1.0 / (noise.point**2 + noise.point_sharing * noise.shape**2),
        keypoint=1.0 / noise.keypoint**2,
        depth=1.0 / (noise.depth**2 + noise.depth_sharing * noise.limb**2),
        scale=1.0 / (_LOOSENESS * noise.log_scale**2),
        joint=np.linalg.inv(np.asarray(noise.pose_prior.covariance)),
        mean_pose=np.asarray(noise.pose_prior.mean),
    )


def objective(noise: NoiseLevels) -> Objective:
    """Return `precisions` as weights of eq. 2 and a pose prior, to be used on `reweighted` observations."""
    inverse = precisions(noise)
    weights = EnergyWeights(
        dense=float(inverse.dense), keypoint=float(inverse.keypoint), scale=float(inverse.scale), joint=1.0
    )
    return Objective(weights, noise.pose_prior)


def reweighted(observations: Observation, noise: NoiseLevels) -> Observation:
    """Return observations whose depths have as much less confidence than key points as they are noisier.

    Eq. 2 has one weight for key points and their depths; so the ratio of their precisions enters by the confidences.
    """
    inverse = precisions(noise)
    ratio = np.float32(inverse.depth / inverse.keypoint)
    return dataclasses.replace(observations, depth_confidence=np.asarray(observations.depth_confidence) * ratio)


def robust_weights(
    template: Template, observations: Observation, parameters: BodyParameters, outlier: float | None
) -> Observation:
    """Return observations whose points have the confidences of the last reweighted least squares of a robust fit.

    A fit with the robust loss ends where a fit with these weights and squares would (IRLS).

    Args:
      template: the body.
      observations: leading axis: people.
      parameters: their fits.
      outlier: scale of the robust loss, see `energy.EnergyWeights`; None: nothing changes.
    """
    if outlier is None:
        return observations
    distance = residuals.errors_px(template, parameters, observations)[0]
    half_side = np.asarray(observations.box_px)[:, 2:3] / 2.0
    mass = np.asarray(residuals.robust(jnp.asarray((distance / half_side) ** 2), outlier)[1])
    return dataclasses.replace(observations, point_confidence=np.asarray(observations.point_confidence) * mass)


def estimate(
    template: Template,
    observations: Observation,
    parameters: BodyParameters,
    used: Precisions,
    previous: NoiseLevels,
    prior: NoiseLevels | None = None,
) -> NoiseLevels:
    """Return noise levels from the residuals of fits (leading axis: people), of at most 256 of them.

    Args:
      template: the body.
      observations: as annotated and lifted, not `reweighted`.
      parameters: fits made with the weights `used`.
      used: what the fits were weighted with.
      previous: levels that the spread of poses starts from, and that stay where nothing was observed.
      prior: two people's worth of data; left out: `initial`.
    """
    rows = evenly(len(observations.point_face), _AT_MOST)
    few = jax.tree.map(lambda leaf: np.asarray(leaf)[rows], (observations, parameters))
    moments = _moments(template, *struct.filled_up(few), used, previous)
    each = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64)[: len(rows)], moments)
    before = np.asarray(previous.variances(), np.float64)
    share = _shares(each, before)
    people, start = share.sum(), initial() if prior is None else prior
    moments = {name: _sum(share, leaf) for name, leaf in each.items()}
    moments |= {name: moments[name] / max(people, _LEAST_PEOPLE) for name in ("deviation", "pose")}
    variances = _solve(moments["expected"], moments["squares"], before)
    weight = people + _INITIAL_PEOPLE
    mean = (people * variances + _INITIAL_PEOPLE * np.asarray(start.variances(), np.float64)) / weight
    levels = np.maximum(np.sqrt(mean).astype(np.float32), np.float32(_SMALLEST_SD))
    return NoiseLevels(
        *levels,
        pose_prior=priors.learned(
            moments["deviation"], moments["pose"], used.mean_pose, people, start.pose_prior, _INITIAL_PEOPLE
        ),
        point_sharing=_ratio(moments["shared_points"], start.point_sharing),
        depth_sharing=_ratio(moments["shared_depths"], start.depth_sharing),
    )


def _shares(moments: dict[str, np.ndarray], previous: Float[np.ndarray, "7"]) -> Float[np.ndarray, "people"]:
    """Return how much each person's equations count, in [0, 1]: 1 up to ten times the typical person's size.

    Sums of squares are compared over what the previous levels let expect of them, by the lower median of those people
    who have such data; never is less than expected the measure. What is expected is compared likewise, by the
    upper quartile: of people with hidden limbs much more is. A person with numbers that are not finite does not count.
    """
    expected, squares = moments["expected"], moments["squares"]
    finite = np.all([np.isfinite(leaf).reshape(len(leaf), -1).all(axis=1) for leaf in moments.values()], axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):  # of those who do not count, or have no such data
        row = np.abs(expected) @ previous
        known = np.einsum("pkk->pk", expected) > _LEAST_EXPECTED
        ratio = squares / row
    share = finite.astype(np.float64)
    for kind in range(len(previous)):
        has = finite & known[:, kind]
        if not has.any():
            continue
        for size, least, typical in ((ratio[:, kind], 1.0, 0.5), (row[:, kind], 0.0, 0.75)):
            most = _FARTHEST * max(float(np.quantile(size[has], typical, method="lower")), least)
            share[has] = np.minimum(share[has], most / np.maximum(size[has], most))
    return share


def _sum(share: Float[np.ndarray, "people"], each: Float[np.ndarray, "people *shape"]) -> Float[np.ndarray, "*shape"]:
    """Return a sum over people by their shares; what is no number counts nothing where its share is 0."""
    counts = (share > 0).reshape(-1, *[1] * (each.ndim - 1))
    return np.tensordot(share, np.where(counts, each, 0.0), axes=1)


def _ratio(sums: np.ndarray, otherwise: Scalar) -> Scalar:
    return np.float32(sums[0] / sums[1]) if sums[1] > 0 else otherwise


def alternate(
    template: Template,
    observations: Observation,
    config: RegistrationConfig,
    rounds: int = 3,
    outlier: float | None = None,
    progress: Callable[[int], object] | None = None,
    prior: NoiseLevels | None = None,
) -> tuple[Fit, NoiseLevels]:
    """Fit, estimate, and fit again with weights that come from the data; return the last fit and its noise levels.

    Args:
      template: the body.
      observations: as annotated and lifted.
      config: of every fit.
      rounds: of estimation; one more fit than that is made. Three settle.
      outlier: scale of the robust loss, see `energy.EnergyWeights`.
      progress: called with the number of fits done so far, of people * (rounds + 1).
      prior: levels of the first fit, and two people's worth of data; left out: `initial`.
    """
    people = len(observations.point_face)

    def refit(noise: NoiseLevels, done: int) -> Fit:
        report = (lambda n, call=progress: call(done * people + n)) if progress else None
        weighted = objective(noise).reweighted(outlier=outlier)
        return register.register(template, reweighted(observations, noise), config, weighted, progress=report)

    noise = initial() if prior is None else prior
    fit = refit(noise, 0)
    for done in range(1, rounds + 1):
        used, robust = precisions(noise), robust_weights(template, observations, fit.parameters, outlier)
        for _ in range(2):  # the spread of poses needs the variances, and they need it
            noise = estimate(template, robust, fit.parameters, used, noise, prior)
        fit = refit(noise, done)
    return fit, noise


@programs.kept
def _moments(template, observations, parameters, used: Precisions, previous: NoiseLevels):
    def one(person):
        with jax.default_matmul_precision("highest"):
            return _person_moments(template, person, used, previous)

    return jax.lax.map(one, (observations, parameters), batch_size=8)


def _person_moments(template, person, used: Precisions, previous: NoiseLevels):
    """Return one person's part of the equations, and of the second moments of poses."""
    observation, parameters = person
    target = residuals.make_target(template, observation)
    linear, target = sandwich.linearise(template, target, parameters, used), sandwich.one_image(target)
    inverse, gram, pose = linear.inverse_hessian, linear.gram, linear.pose
    pose_moment = previous.pose_prior.moment_about(used.mean_pose)
    followed = jnp.einsum("k,ij,kjl,lm->kim", used.by_kind() ** 2, inverse, gram, inverse)
    of_poses = inverse @ sandwich.score_covariance(linear, jnp.zeros(len(sandwich.KINDS)), pose_moment) @ inverse
    covariance = inverse @ sandwich.score_covariance(linear, previous.variances(), pose_moment) @ inverse
    spread = jnp.einsum("kai,ij,kbj->kab", linear.pose_jacobian, covariance, linear.pose_jacobian)
    return {
        "expected": jnp.einsum("kij,lij->kl", gram, followed) + _direct(target, linear),
        "squares": _squares(linear) - jnp.einsum("kij,ij->k", gram, of_poses),
        "deviation": pose,
        "pose": pose[:, :, None] * pose[:, None] + spread,
        "shared_points": _sharing(target.observation.point_confidence, linear.shape),
        "shared_depths": _sharing(target.observation.depth_confidence, linear.limb),
    }


def _sharing(confidence: Float[Array | np.ndarray, "n"], covariance: Float[Array, "n n"]) -> Float[Array, "2"]:
    """Return sum_ij c_i K_ij c_j and sum_i c_i."""
    root = jnp.sqrt(confidence)
    return jnp.stack([root @ covariance @ root, jnp.sum(confidence)])


def _direct(target: Target, linear: Linearisation) -> Float[Array, "7 7"]:
    """Return tr(A_k R_l) - 2 tr(A_k P R_l), which is 0 for kinds of error in different terms."""
    seen, weight = target.observation, linear.precisions.by_kind()

    def term(kind: str, jacobian: Float[Array, "n axes u"], kinds: list[Float[Array, "n n"]]):
        through, used = [jnp.tensordot(one, jacobian, 1) for one in kinds], weight[sandwich.KINDS.index(kind)]
        return jnp.array([[
            jacobian.shape[1] * jnp.sum(one * other)
            - 2.0 * used * jnp.sum(sandwich.both_axes(of_one, of_other) * linear.inverse_hessian)
            for other, of_other in zip(kinds, through, strict=True)
        ] for one, of_one in zip(kinds, through, strict=True)])  # fmt: skip

    marked = [jnp.diag(1.0 * (each > 0)) for each in (seen.point_confidence, seen.keypoint_confidence)]
    depths = _centred(seen.depth_confidence, [jnp.eye(len(linear.limb)), linear.limb, linear.turn])
    return jax.scipy.linalg.block_diag(
        term("point", linear.dense_jacobian, [marked[0], linear.shape]),
        term("keypoint", linear.keypoint_jacobian, [marked[1]]),
        term("depth", linear.depth_jacobian[:, None], depths),
        term("scale", linear.scale_jacobian[:, None], [jnp.eye(len(linear.scale))]),
    )


def _centred(
    confidence: Float[Array | np.ndarray, "k"], covariances: list[Float[Array, "k k"]]
) -> list[Float[Array, "k k"]]:
    """Return the covariances of depths less their mean under the confidences, as eq. 4 has them."""
    root, total = jnp.sqrt(confidence), jnp.sum(confidence)
    without_mean = jnp.diag(1.0 * (confidence > 0)) - root[:, None] * root[None] / jnp.where(total > 0, total, 1.0)
    return [without_mean @ one @ without_mean for one in covariances]


def _squares(linear: Linearisation) -> Float[Array, "7"]:
    """Return q_k = r'A_k r of every kind of error."""
    return jnp.stack([
        jnp.sum(linear.dense**2),
        jnp.sum(linear.dense * (linear.shape @ linear.dense)),
        jnp.sum(linear.keypoint**2),
        jnp.sum(linear.depth**2),
        linear.depth @ linear.limb @ linear.depth,
        linear.depth @ linear.turn @ linear.depth,
        jnp.sum(linear.scale**2),
    ])  # fmt: skip


def _solve(expected: np.ndarray, squares: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """Solve the equations for variances that are not negative; a kind without data keeps its own, as turns do."""
    row = np.maximum(np.abs(expected) @ previous, np.finfo(np.float64).tiny)  # equations in units of what they expect
    known = np.setdiff1d(np.flatnonzero(np.diag(expected) > _LEAST_EXPECTED), _TURN)
    squares, variances = (squares - expected[:, _TURN] * previous[_TURN]) / row, previous.copy()
    if len(known):  # of none SciPy 1.17's nnls frees its memory twice, and the process dies
        variances[known], _ = scipy.optimize.nnls((expected / row[:, None])[np.ix_(known, known)], squares[known])
    return variances
