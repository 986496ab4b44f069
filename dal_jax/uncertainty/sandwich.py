"""The registration problem near a fit: residuals of eq. 2 and how they change with 98 tangent unknowns.

Unknowns: turns of the 23 joints (69), log segment scales (24), turn of the body (3), translation (2). The camera's
scale is held: it is redundant with a common segment scale, and poses are compared after their size is normalised.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.body import skeleton
from dal_jax.body.parameters import BodyParameters
from dal_jax.body.template import Template
from dal_jax.observations.residuals import Target
from dal_jax.registration import energy, priors
from dal_jax.registration.energy import Objective, Unknowns
from dal_jax.registration.solvers import problem

UNKNOWNS = problem.TANGENT_SIZE - 1
_CAMERA_SCALE = 96  # its place among the unknowns of `problem.move`


@flax.struct.dataclass
class Linearisation:
    """Residuals r and Jacobians J of one person's fit, a confidence c entering both as sqrt(c); crop units, radians.

    `dense` and `keypoint` keep image x and y as their second axis; `pose` is how the joints deviate from a rest pose
    (`priors.pose_deviation`), radians.
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


def move(parameters: BodyParameters, delta: Float[Array, "98"]) -> Unknowns:
    """Return the unknowns at a step from finished parameters, the camera's scale held."""
    still = jnp.zeros_like(delta[:1])
    step = jnp.concatenate([delta[:_CAMERA_SCALE], still, delta[_CAMERA_SCALE:]])
    return problem.move(energy.from_parameters(parameters), step)


def linearise(
    template: Template,
    target: Target,
    parameters: BodyParameters,
    rest: Float[Array, "23 3"],
) -> Linearisation:
    """Differentiate eq. 2's residuals at one person's fit (forward mode); `rest` is the rest pose's turns."""

    def residuals(delta):
        moved = move(parameters, delta)
        terms = energy.residuals(template, target, moved, Objective())
        kept = {name: terms[name] for name in ("dense", "keypoint", "scale")}
        kept["pose"] = priors.pose_deviation(moved.pose, rest)
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


# --- The covariance of a weighted least-squares fit whose weights do not state its noise (Huber's sandwich) ---
#
# A fit that minimises sum_g w_g |r_g|^2 solves H d = -J'W r near its minimum, so errors e of covariance R move it by
#
#     d = -H^-1 J'W e,        H = J'W J,        Cov d = H^-1 M H^-1,        M = J'W R W J.
#
# R has six kinds of error, each with a variance of its own:
#
#     point      of every annotated point, independent
#     shape      of the template's surface: another person's lies beside it, and neighbouring points share that. Its
#                covariance is K_ij = (w_i . w_j) exp(-|v_i - v_j|^2 / 2 l^2), v rest positions, w skinning weights
#                (points on different segments turn apart), alike in x and y
#     keypoint, depth, scale    of their terms, independent
#     limb       of lifted depths, growing along the limbs: a bone whose tilt is misjudged takes all that hangs on it
#                along. Its covariance is the length of the way from the hip that two joints have in common, in metres
#
# and the pull to the rest pose, whose "error" is the pose itself: the spread of human poses about it, joint by joint.

KINDS = ("point", "shape", "keypoint", "depth", "limb", "scale")
SHARED_LENGTH_M = 0.15
"""l of the shape's covariance. Note: our choice, of 0.06 to 0.25 m alike on synthetic training people."""

_LOOSEST_JOINT_PULL = 0.3  # rad^-2: no joint spreads more; a looser pull leaves H singular in float32
_PLACE, _PLACE_PULL = 5, 1.0  # the body's turn and translation: known beforehand to a radian and a crop unit
_JITTER = 1e-6


@flax.struct.dataclass
class Precisions:
    """What a fit weighted its terms with: eq. 2's weights, depth apart from the key points' x and y.

    joint: of deviations from `rest`, which is the turns of the rest pose.
    """

    dense: Float[Array, ""]
    keypoint: Float[Array, ""]
    depth: Float[Array, ""]
    scale: Float[Array, ""]
    joint: Float[Array, "23 3 3"]
    rest: Float[Array, "23 3"]

    @classmethod
    def of_objective(cls, objective: Objective) -> "Precisions":
        """Return the pulls of a fit that used eq. 2's weights as they are."""
        joint, rest = np.eye(3, dtype=np.float32)[None].repeat(23, axis=0), np.zeros((23, 3), np.float32)
        weights = objective.weights
        if objective.prior is not None:
            rest, root = objective.prior.mean, np.asarray(objective.prior.root)
            joint = np.swapaxes(root, 1, 2) @ root
        joint = np.float32(weights.joint) * joint
        return cls(weights.dense, weights.keypoint, weights.keypoint, weights.scale, joint, rest)

    def of_kinds(self) -> Float[Array, "6"]:
        """Return the weight with which each kind of error acts."""
        each = (self.dense, self.dense, self.keypoint, self.depth, self.depth, self.scale)
        return jnp.stack([jnp.asarray(weight) for weight in each])


@flax.struct.dataclass
class Bread:
    """H^-1 of a fit and the matrices J'R_k J of every kind of error at unit variance (a confidence c divides it).

    pose_pull: the weights of joints times their Jacobian.
    """

    inverse: Float[Array, "98 98"]
    gram: Float[Array, "6 98 98"]
    pose_pull: Float[Array, "23 3 98"]
    pulls: Precisions


def shape_covariance(target: Target) -> Float[Array, "points points"]:
    """Return sqrt(c_i) K_ij sqrt(c_j) of one person's points."""
    rest, weight = target.points.rest, target.points.weight
    squared = jnp.sum((rest[:, None] - rest[None]) ** 2, axis=-1)
    root = jnp.sqrt(target.observation.point_confidence)
    return root[:, None] * (weight @ weight.T) * jnp.exp(-squared / (2.0 * SHARED_LENGTH_M**2)) * root[None]


def limb_covariance(template: Template, target: Target) -> Float[Array, "17 17"]:
    """Return sqrt(c_i) K_ij sqrt(c_j) of one person's lifted depths."""
    joints = jnp.asarray(template.h36m_regressor) @ jnp.asarray(template.vertices)
    bones = joints[1:] - joints[np.array(skeleton.H36M_PARENTS[1:])]
    length = jnp.concatenate([jnp.zeros(1), jnp.linalg.norm(bones, axis=1)])
    root = jnp.sqrt(target.observation.depth_confidence)
    return root[:, None] * ((_ways() * length[None]) @ _ways().T) * root[None]


def _ways() -> Float[np.ndarray, "17 17"]:
    """Return 1 where the way from the hip to a joint (row) ends at or passes another (column)."""
    passes = np.eye(len(skeleton.H36M_PARENTS), dtype=np.float32)
    for joint, parent in enumerate(skeleton.H36M_PARENTS):
        if parent >= 0:
            passes[joint] += passes[parent]
    return passes


def bread(
    linear: Linearisation,
    shape: Float[Array, "points points"],
    limb: Float[Array, "17 17"],
    pulls: Precisions,
) -> Bread:
    """Assemble H and invert it.

    Args:
      shape, limb: `shape_covariance`, `limb_covariance`.
    """
    dense, depth = linear.dense_jacobian.reshape(len(shape), -1), linear.depth_jacobian
    keypoint = linear.keypoint_jacobian.reshape(-1, UNKNOWNS)
    gram = jnp.stack([
        both_axes(dense, dense),
        both_axes(dense, shape @ dense),
        keypoint.T @ keypoint,
        depth.T @ depth,
        depth.T @ limb @ depth,
        linear.scale_jacobian.T @ linear.scale_jacobian,
    ])  # fmt: skip
    pose = linear.pose_jacobian.reshape(23, 3, UNKNOWNS)
    missing = jnp.maximum(0.0, _LOOSEST_JOINT_PULL - jnp.min(jnp.diagonal(pulls.joint, axis1=1, axis2=2)))
    pose_pull = jnp.einsum("kij,kjl->kil", pulls.joint + missing * jnp.eye(3)[None], pose)
    known = jnp.zeros(UNKNOWNS).at[-_PLACE:].set(_PLACE_PULL)
    of_data = pulls.of_kinds() * jnp.array([kind not in ("shape", "limb") for kind in KINDS])  # it knows no others
    pulled = jnp.einsum("kil,kim->lm", pose, pose_pull)
    normal = jnp.einsum("k,kij->ij", of_data, gram) + pulled + jnp.diag(known)
    return Bread(inverse=invert(normal), gram=gram, pose_pull=pose_pull, pulls=pulls)


def filling(sides: Bread, variance: Float[Array, "6"], pose_moment: Float[Array, "23 3 3"]) -> Float[Array, "98 98"]:
    """Return M = J'W R W J; `pose_moment` is the mean of d d' over people, d as in `priors`."""
    data = jnp.einsum("k,kij->ij", sides.pulls.of_kinds() ** 2 * variance, sides.gram)
    place = jnp.diag(jnp.zeros(UNKNOWNS).at[-_PLACE:].set(_PLACE_PULL))
    spread = jnp.einsum("kij,kjl->kil", pose_moment, sides.pose_pull)
    return data + jnp.einsum("kil,kim->lm", sides.pose_pull, spread) + place


def both_axes(left: Float[Array, "points 196"], right: Float[Array, "points 196"]) -> Float[Array, "98 98"]:
    """Return the sum of left' right over points and over image x and y."""
    left, right = (side.reshape(-1, UNKNOWNS) for side in (left, right))
    return left.T @ right


def invert(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Invert a positive definite matrix by Gauss-Jordan sweeps, its diagonal scaled to 1.

    Not LAPACK: programs with two independent solves were seen to hang on two CPU cores (jax 0.10.2).
    No pivoting: a sweep of a positive definite matrix needs none.
    """
    size = len(matrix)
    scale = jax.lax.rsqrt(jnp.diagonal(matrix))
    unit = matrix * scale[:, None] * scale[None] + _JITTER * jnp.eye(size, dtype=matrix.dtype)
    place = jnp.arange(size)

    def sweep(k, swept):
        here = place == k
        row, pivot = swept[k], 1.0 / swept[k, k]
        rest = jnp.where(here[:, None] | here[None], 0.0, swept)
        column = jnp.where(here, -1.0, swept[:, k]) * pivot
        return rest - column[:, None] * jnp.where(here, 1.0, row)[None]

    return jax.lax.fori_loop(0, size, sweep, unit) * scale[:, None] * scale[None]
