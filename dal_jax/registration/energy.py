"""The registration energy, eq. 2: one residual function a term, weights applied in one place.

    L = w_dense L_dense + w_KP L_KP + w_scale L_scale + w_joint L_joint + w_det L_det,   each L = sum of squares

and, of our own, w_limit L_limit (joint limits), w_shape L_shape (`priors.ShapePrior`) and, of a frame of a track,
L_expected (`tracks`), whose weights are its observation's.

Residual vectors rather than losses, so that first-order optimisers (sum of squares) and Gauss-Newton (Jacobian) share
them. A confidence c enters a residual as sqrt(c). A `Term` adds one of the user's own.

The optimiser `lm` has its own copy of the terms (`solvers.tree.evaluation`): an edit here does not reach it.
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.body import cameras, kinematics, rotations, skeleton, skinning
from dal_jax.body.cameras import Pinhole, Views
from dal_jax.body.kinematics import BodyParameters, Segments, fix_gauge
from dal_jax.body.template import Template
from dal_jax.observations.observation import Expected
from dal_jax.observations.residuals import Target, dense_residual, keypoint_residual, views_residual
from dal_jax.registration.priors import PosePrior, ShapePrior
from dal_jax.runtime import struct

SCALES = ("isotropic", "anisotropic")
TERMS = ("dense", "keypoint", "scale", "joint", "det", "limit", "shape", "expected")
_DET_MARGIN = 1.0


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class EnergyWeights:
    """Weights of eq. 2 in the crop's [-1, 1] units; the defaults are the paper's for every round but the first.

    A pytree, so that another set of weights needs no new compilation. A weight of None switches its term off; that is
    a static choice.
    limit: of the squared excess of joint angles beyond their anatomical limits, radians.
    outlier: distance in crop units at which a dense correspondence counts as wrong, the scale of Geman and McClure's
      robust loss r^2 / (1 + r^2 / outlier^2). None: the paper's squared loss.
    shape: of the squared deviation from the objective's shape prior, in its standard deviations.
    """

    dense: float = 1000.0
    keypoint: float = 1.0
    scale: float = 10.0
    joint: float = 0.001
    det: float = 1.0
    limit: float | None = None
    outlier: float | None = None
    shape: float | None = None


def stiff_weights() -> EnergyWeights:
    """Return the paper's weights of the first round: w_scale 100 and w_joint 1 "make the body model stiff"."""
    return EnergyWeights(scale=100.0, joint=1.0)


@dataclasses.dataclass(frozen=True)
class Term:
    """An energy term from outside: weight times the sum of squares of `residual`.

    name: of the term, and of its row among `residuals`.
    weight: multiplies the sum of squares, as the weights of eq. 2 do.
    residual: maps one person's `PosedBody` to a vector of any fixed length. Pure JAX, as it is vmapped, jitted and
      differentiated. A function, because a Term is hashed: the same function compiles once.

    Every solver takes it but `lm`, whose elimination on the tree is made for the terms of eq. 2.
    """

    name: str
    weight: float
    residual: Callable[["PosedBody"], Float[Array, "residuals"]]


@struct.dataclass
class Objective:
    """Everything of eq. 2 but the data: how terms are weighted, and what L_joint and L_shape pull to.

    prior: what L_joint pulls to; None: the T-pose, as in the paper.
    shape: what L_shape pulls to where the weights have a `shape`.
    terms: further terms, of the user's own.
    scales: `isotropic`, one scale a segment, as in the paper; or `anisotropic`, one along each axis of a segment's rest
      frame (`BodyParameters.segment_girth`). The shape prior has to be of the same kind.
    """

    weights: EnergyWeights = dataclasses.field(default_factory=EnergyWeights)
    prior: PosePrior | None = None
    shape: ShapePrior | None = None
    terms: tuple[Term, ...] = struct.static(default=())
    scales: str = struct.static(default="isotropic")

    def reweighted(self, **changes: float | None) -> "Objective":
        """Return the same objective with some of its weights changed."""
        return dataclasses.replace(self, weights=dataclasses.replace(self.weights, **changes))

    def start_from(self, parameters: BodyParameters) -> BodyParameters:
        """Return a start with the unknowns that the objective has: a girth, segment girths or neither."""
        prior = self.active_shape()
        if self.scales == "anisotropic":
            return kinematics.with_segment_girth(parameters, None if prior is None else prior.mean[23:])
        if parameters.segment_girth is not None:
            parameters = dataclasses.replace(parameters, segment_girth=None)
        if prior is None or prior.girth is None:
            return dataclasses.replace(parameters, girth=None)
        if parameters.girth is not None:
            return parameters
        mean = jnp.exp(jnp.asarray(prior.girth)[0])
        return dataclasses.replace(parameters, girth=mean * jnp.ones_like(parameters.camera_scale))

    def active_shape(self) -> ShapePrior | None:
        """Return the shape prior, or None where the weights switch its term off.

        Raises:
          ValueError: there is a weight but no prior, or one of other scales.
        """
        if self.scales not in SCALES:
            raise ValueError(f"scales '{self.scales}' is not one of {', '.join(SCALES)}")
        if self.weights.shape is None:
            return None
        if self.shape is None:
            raise ValueError(f"weights.shape is {self.weights.shape}, but the objective has no shape prior")
        if self.shape.scales != self.scales:
            raise ValueError(f"scales are {self.scales}, but the shape prior is one of {self.shape.scales} scales")
        if self.scales == "anisotropic" and self.shape.girth is not None:
            raise ValueError("a shape prior of anisotropic scales has a girth: segment girths stand for it")
        return self.shape


def as_arrays(objective: Objective) -> Objective:
    """Return an objective whose numbers are arrays of floats: a whole number among them would be compiled anew."""
    return jax.tree.map(lambda number: np.asarray(number, float), objective)


@struct.dataclass
class Unknowns:
    """theta = [a, S, R, s, t] as free numbers (leading axes batch).

    pose: axis-angle; raw_rotation: nine numbers, orthonormalised inside. log_girth: None where girth is no unknown;
    log_segment_girth: None where scales are isotropic.
    Note: scales are optimised as logarithms, so that none can become negative (the paper does not say).
    """

    pose: Float[Array | np.ndarray, "*batch 23 3"]
    log_segment_scale: Float[Array | np.ndarray, "*batch 24"]
    raw_rotation: Float[Array | np.ndarray, "*batch 3 3"]
    log_camera_scale: float | Float[Array | np.ndarray, "*batch"]
    translation: Float[Array | np.ndarray, "*batch axes"]
    log_girth: Float[Array | np.ndarray, "*batch"] | None = None
    log_segment_girth: Float[Array | np.ndarray, "*batch 24 2"] | None = None


def from_parameters(parameters: BodyParameters) -> Unknowns:
    """Return the unknowns at given parameters."""
    return Unknowns(
        pose=parameters.pose,
        log_segment_scale=jnp.log(parameters.segment_scale),
        raw_rotation=parameters.rotation,
        log_camera_scale=jnp.log(parameters.camera_scale),
        translation=parameters.translation,
        log_girth=None if parameters.girth is None else jnp.log(parameters.girth),
        log_segment_girth=None if parameters.segment_girth is None else jnp.log(parameters.segment_girth),
    )


def scale_residual(template: Template, unknowns: Unknowns) -> Float[Array, "residuals"]:
    """Return log s_child - log s_parent over the skeleton's edges (23), and of anisotropic scales log b (48).

    Note: L_scale is in a supplement that is not at hand. In logarithms it does not depend on the gauge of s.
    """
    scale, girths = jnp.asarray(unknowns.log_segment_scale), unknowns.log_segment_girth
    stretch = scale[1:] - scale[jnp.array(template.parents[1:])]
    return stretch if girths is None else jnp.concatenate([stretch, jnp.ravel(girths)])


def joint_residual(
    pose: Float[Array | np.ndarray, "23 3"], prior: PosePrior | None = None
) -> Float[Array | np.ndarray, "23 3"]:
    """Return the axis-angle vectors, a quadratic pull to the T-pose, or the standardised deviations from a prior.

    Note: the paper raises w_joint to make the body stiff, so we read L_joint as sum |a_j|^2.
    """
    return pose if prior is None else prior.residual(pose)


def shape_residual(
    template: Template, unknowns: Unknowns, prior: ShapePrior | None
) -> Float[Array | np.ndarray, "residuals"]:
    """Return how proportions deviate from a prior, whitened, and girth after them; nothing without a prior.

    Not in the paper.
    """
    if prior is None:
        return np.zeros(0)
    return prior.residual(scale_residual(template, unknowns), unknowns.log_girth)


def expected_residual(template: Template, posed: "PosedBody", expected: Expected | None) -> Float[Array, "residuals"]:
    """Return how a body deviates from what its track expects, whitened; nothing without a track (not in the paper)."""
    if expected is None:
        return jnp.zeros(0)
    unknowns, rotation = posed.unknowns, posed.segments.rotation
    apart = rotations.matrix_to_axis_angle(
        jnp.matmul(rotation, jnp.swapaxes(jnp.asarray(expected.rotation), -1, -2), precision="highest")
    )
    apart = jnp.einsum("kij,kj->ki", expected.rotation_root, apart, precision="highest")
    stretch = scale_residual(template, unknowns)[:23] - expected.stretch
    scale = unknowns.log_camera_scale + jnp.asarray(unknowns.log_segment_scale)[0]
    place = jnp.append(jnp.asarray(unknowns.translation)[:2], scale) - expected.place
    parts = [apart.ravel(), jnp.sqrt(expected.stretch_weight) * stretch, jnp.sqrt(expected.place_weight) * place]
    if (girths := unknowns.log_girth if unknowns.log_segment_girth is None else unknowns.log_segment_girth) is not None:
        parts.append(jnp.ravel(jnp.sqrt(expected.girth_weight) * (girths - expected.log_girth)))
    return jnp.concatenate(parts)


def det_residual(raw_rotation: Float[Array | np.ndarray, "3 3"]) -> Float[Array, "1"]:
    """Return max(0, 1 - det) of the nine raw numbers, which keeps Gram-Schmidt from returning a reflection.

    Note: the form of L_det is in the supplement; a hinge at 1 is zero at every proper rotation.
    """
    return jnp.maximum(0.0, _DET_MARGIN - jnp.linalg.det(raw_rotation))[None]


@dataclasses.dataclass(frozen=True)
class PosedBody:
    """One person's body at given unknowns: what residuals are made of.

    Camera axes (x right, y down, z away), metres, pelvis at the origin.
    unknowns: the free numbers; scales are logarithms.
    segments: rotation (24, 3, 3), position (24, 3) and scale (24,) of every segment.
    joints: SMPL's; joints_h36m: Human3.6M's, regressed from the skin.
    pinhole: the camera, if it is known. views: those of a moment that several see, whose shared axes all is in then.
    """

    template: Template
    unknowns: Unknowns
    segments: Segments
    joints: Float[Array, "24 3"]
    joints_h36m: Float[Array, "17 3"]
    pinhole: Pinhole | None = None
    views: Views | None = None

    def project(self, points: Float[Array, "points 3"]) -> Float[Array, "*views points 2"]:
        """Return eq. 1, x = s Pi(X) + t: points (camera axes, metres) in the crop's [-1, 1], or that of each view."""
        if self.views is not None:
            return self.views.project(self.shared(points))
        scale = jnp.exp(self.unknowns.log_camera_scale)
        return cameras.project(points, scale, self.unknowns.translation, self.pinhole)

    def shared(self, points: Float[Array, "points 3"]) -> Float[Array, "points 3"]:
        """Return points (shared axes, metres) at their place in the frame that several views share, in its unit."""
        return jnp.exp(self.unknowns.log_camera_scale) * points + jnp.asarray(self.unknowns.translation)[None]


def pose_body(
    template: Template, unknowns: Unknowns, pinhole: Pinhole | None = None, views: Views | None = None
) -> PosedBody:
    """Return the body at given unknowns, before a camera, or several."""
    segments = segments_at(template, unknowns, rotations.gram_schmidt(unknowns.raw_rotation))
    joints_h36m = skinning.h36m_joints(template, segments)
    return PosedBody(template, unknowns, segments, segments.position, joints_h36m, pinhole, views)


def segments_at(template: Template, unknowns: Unknowns, rotation: Float[Array | np.ndarray, "3 3"]) -> Segments:
    """Return the posed segments at given unknowns, whose rotation is orthonormal already."""
    segments = kinematics.pose_skeleton(template, rotation, unknowns.pose, jnp.exp(unknowns.log_segment_scale))
    girth = None if unknowns.log_girth is None else jnp.exp(unknowns.log_girth)
    segment_girth = None if unknowns.log_segment_girth is None else jnp.exp(unknowns.log_segment_girth)
    return dataclasses.replace(segments, girth=girth, segment_girth=segment_girth)


def residuals(
    template: Template, target: Target, unknowns: Unknowns, objective: Objective
) -> dict[str, Float[Array | np.ndarray, "..."]]:
    """Return every term of eq. 2, and the objective's own, as an unweighted residual array, by name.

    The weights are read for the form of a term (`outlier`) alone.
    """
    posed = pose_body(template, unknowns, target.observation.pinhole, target.observation.views)
    joints = skinning.keypoints(template, posed.segments, target.observation.keypoint_set)
    if posed.views is None:
        points = posed.project(skinning.skin_points(template, posed.segments, target.points))
        depth = jnp.exp(unknowns.log_camera_scale) * joints[:, 2:]
        keypoint = keypoint_residual(jnp.concatenate([posed.project(joints), depth], axis=1), target)
    else:
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), target.points)
        points = posed.shared(skinning.skin_points(template, posed.segments, flat))
        points = posed.views.project_own(points.reshape(*target.observation.point_confidence.shape, 3))
        keypoint = views_residual(posed.project(joints), target, objective.weights.outlier)
    own = {
        "dense": dense_residual(points, target, objective.weights.outlier),
        "keypoint": keypoint,
        "scale": scale_residual(template, unknowns),
        "joint": joint_residual(unknowns.pose, objective.prior),
        "det": det_residual(unknowns.raw_rotation),
        "limit": skeleton.limit_excess(unknowns.pose),
        "shape": shape_residual(template, unknowns, objective.active_shape()),
        "expected": expected_residual(template, posed, target.observation.expected),
    }
    return own | {term.name: term.residual(posed) for term in objective.terms}


def weighted_residuals(
    terms: Mapping[str, Float[Array | np.ndarray, "..."]], objective: Objective
) -> Float[Array, "residuals"]:
    """Return one flat vector whose sum of squares is eq. 2: the only place where weights are applied.

    Raises:
      ValueError: the names are not those of eq. 2 and of the objective's own terms, each once.
    """
    expected = [*TERMS, *(term.name for term in objective.terms)]
    if sorted(terms) != sorted(expected):
        raise ValueError(f"terms {sorted(terms)} are not {sorted(expected)}")
    weights = {name: getattr(objective.weights, name, 1.0) for name in TERMS}
    weights |= {term.name: term.weight for term in objective.terms}
    used = {name: weight for name, weight in weights.items() if weight is not None}
    return jnp.concatenate([jnp.sqrt(jnp.asarray(weight)) * terms[name].ravel() for name, weight in used.items()])


def energy(template: Template, target: Target, unknowns: Unknowns, objective: Objective) -> Float[Array, ""]:
    """Return L_regist of eq. 2."""
    return jnp.sum(weighted_residuals(residuals(template, target, unknowns, objective), objective) ** 2)


def to_parameters(unknowns: Unknowns) -> BodyParameters:
    """Return finished parameters: a proper rotation, mean log s = 0."""
    return fix_gauge(
        BodyParameters(
            pose=unknowns.pose,
            segment_scale=jnp.exp(unknowns.log_segment_scale),
            rotation=rotations.nearest_rotation(rotations.gram_schmidt(unknowns.raw_rotation)),
            camera_scale=jnp.exp(unknowns.log_camera_scale),
            translation=unknowns.translation,
            girth=None if unknowns.log_girth is None else jnp.exp(unknowns.log_girth),
            segment_girth=None if unknowns.log_segment_girth is None else jnp.exp(unknowns.log_segment_girth),
        )
    )


def parameter_energy(
    template: Template, target: Target, parameters: BodyParameters, objective: Objective
) -> Float[Array, ""]:
    """Return L_regist of eq. 2 at given parameters: how fits from anywhere are compared."""
    return energy(template, target, from_parameters(parameters), objective)
