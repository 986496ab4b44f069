"""What pulls at joints and sizes whatever the image says: priors on pose and proportions, and joint limits."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from dal_jax.body import rotations, skeleton
from dal_jax.registration.energy import Objective
from dal_jax.registration.priors import PosePrior
from dal_jax.registration.solvers.tree import state as state_lib
from dal_jax.runtime import struct


@struct.dataclass
class ShapeTerm:
    """The prior on proportions by segments, the root's row zero: its weight, and m, R, L and 1 / D of `priors`.

    Of anisotropic scales the 48 rows of the segment girths come after those of the segments.

    girth: m_g and 1 / sd_g^2; None where girth is no unknown.
    """

    weight: Float[Array, ""]
    mean: Float[Array, "r"]
    root: Float[Array, "r r"]
    factors: Float[Array, "r factors"]
    precision: Float[Array, "r"]
    girth: tuple[Float[Array, ""], Float[Array, ""]] | None

    def coupling(self) -> Float[Array, "r factors"]:
        """Return the block of the quadratic by a segment's stretch (or girth) and the factors z, -w D^-1 L."""
        return -self.weight * self.precision[:, None] * self.factors

    def stiffness(self) -> Float[Array, "factors factors"]:
        """Return its block by the factors, w (I + L' D^-1 L)."""
        size = self.factors.shape[1]
        of_edges = jnp.matmul(self.factors.T, self.precision[:, None] * self.factors, precision="highest")
        return self.weight * (jnp.eye(size, dtype=of_edges.dtype) + of_edges)


def shape_term(objective: Objective) -> ShapeTerm | None:
    """Return the prior on proportions of an objective; None without one."""
    prior = objective.active_shape()
    if prior is None:
        return None
    mean, root, factors = (jnp.asarray(each) for each in (prior.mean, prior.root, prior.factors))
    return ShapeTerm(
        weight=jnp.asarray(objective.weights.shape),
        mean=jnp.pad(mean, (1, 0)),
        root=jnp.pad(root, (1, 0)),
        factors=jnp.pad(factors, ((1, 0), (0, 0))),
        precision=jnp.pad(1.0 / jnp.asarray(prior.variance), (1, 0)),
        girth=None if prior.girth is None else (jnp.asarray(prior.girth)[0], 1.0 / jnp.asarray(prior.girth)[1] ** 2),
    )


def proportions(shape: ShapeTerm, stretch: Float[Array, "r ..."]):
    """Return w |R (r - m)|^2, its half gradient by r, and w / D."""
    mean, precision = (each.reshape(-1, *(1,) * (stretch.ndim - 1)) for each in (shape.mean, shape.precision))
    whitened = state_lib.over_segments(shape.root, stretch - mean)
    pull = shape.weight * state_lib.over_segments(shape.root.T, whitened)
    return jnp.sum(shape.weight * whitened**2, axis=0), pull, shape.weight * precision


def by_segment(prior: PosePrior) -> tuple[Float[Array, "24 3 3"], Float[Array, "24 3 3"]]:
    """Return Abar and P of all segments; nothing pulls at the root."""
    mean = rotations.axis_angle_to_matrix(prior.mean)
    precision = jnp.einsum("kij,kil->kjl", prior.root, prior.root, precision="highest")
    identity = jnp.eye(3, dtype=mean.dtype)[None]
    return jnp.concatenate([identity, mean]), jnp.concatenate([jnp.zeros_like(identity), precision])


def pose_prior(
    weight: Float[Array, ""], mean: Float[Array, "24 3 3"], precision: Float[Array, "24 3 3"],
    parent: Float[Array, "24 3 3 ..."], axes: Float[Array, "24 3 3 ..."],
):  # fmt: skip
    """Return w_joint d' P d, its half gradient and its Gauss-Newton matrix by rotations.

    d, the deviations from the prior's mean, is measured in the frames G_p Abar_j.
    """
    batch = (1,) * (axes.ndim - 3)
    mean, precision = (each.reshape(*each.shape, *batch) for each in (mean, precision))
    frame = state_lib.sum_of(mean[:, d, :, None] * parent[:, d, None] for d in range(3))  # its axes, G_p Abar
    world, angle = state_lib.rotation_vector(frame, axes)
    local = state_lib.sum_of(frame[:, :, i] * world[:, None, i] for i in range(3))
    force = weight * state_lib.sum_of(precision[:, :, j] * local[:, None, j] for j in range(3))

    def by_rotation(matrix):
        return jnp.stack([state_lib.by_rotation(local, angle, matrix[:, :, j]) for j in range(3)], axis=2)

    def in_world(rows):
        return state_lib.sum_of(frame[:, c, :, None] * rows[:, c, None] for c in range(3))

    pull = in_world(state_lib.by_rotation(local, angle, force)[:, :, None])[:, :, 0]
    curvature = weight * by_rotation(jnp.swapaxes(by_rotation(precision), 1, 2))
    return jnp.sum(force * local, axis=(0, 1)), pull, in_world(jnp.swapaxes(in_world(curvature), 1, 2))


def limits(parent: Float[Array, "24 3 3 ..."], world: Float[Array, "24 3 ..."], angle: Float[Array, "24 ..."]):
    """Return |h|^2 of the excess h beyond the joint limits, its half gradient, and which joints are beyond.

    h is of log A_j in the parent's axes.
    """
    local = state_lib.sum_of(parent[:, :, i] * world[:, None, i] for i in range(3))
    pose = jnp.moveaxis(local[1:], (0, 1), (-2, -1))
    excess = jnp.moveaxis(skeleton.limit_excess(pose), (-2, -1), (0, 1))
    excess = jnp.concatenate([jnp.zeros_like(excess[:1]), excess])
    squared = jnp.sum(excess**2, axis=1)
    gradient = state_lib.by_rotation(local, angle, excess)
    in_world_axes = state_lib.sum_of(parent[:, c] * gradient[:, c, None] for c in range(3))
    return jnp.sum(squared, axis=0), in_world_axes, (squared > 0).astype(angle.dtype)
