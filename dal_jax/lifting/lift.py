"""Using a trained lifter: 2D key points in, 3D joints and what they are worth out."""

import math
from typing import TYPE_CHECKING, Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dal_jax.body import skeleton
from dal_jax.lifting import adversarial, completion, normalise, rotating
from dal_jax.lifting.networks import LogVariance
from dal_jax.lifting.normalise import Normalised

if TYPE_CHECKING:
    from dal_jax.lifting import config as config_lib


@flax.struct.dataclass
class Lifter:
    """What training leaves for use (leading axis of all but the completer: members).

    generators: parameters of `networks.Generator`.
    trust: 1 for members that count, 0 for those that held-out 2D poses showed to be astray.
    nearness: of the camera, `camera.Camera`.
    doubts: parameters of `networks.Doubt`, or None; completer: of `networks.Completer`, or None.
    """

    generators: Any
    trust: Float[Array, "members"]
    nearness: Float[Array, "members"]
    doubts: Any
    completer: Any


@flax.struct.dataclass
class Lifted:
    """Lifted poses: relative to the hip, x right, y down, z away from the camera, in the unit of the key points.

    points: the given x and y; of a missing joint where the others put it.
    depth_sd: standard deviation of the depth; None where the lifter has no doubt (Kudo et al.).
    points_sd: of x and of y of a missing joint; 0 for a given one.
    size: mean distance of the joints to the hip in the image, the unit in which the networks think.
    nearness: one unit of depth over the hip's distance to the camera; 0 for weak perspective.
    """

    points: Float[Array, "*batch 17 2"]
    depth: Float[Array, "*batch 17"]
    depth_sd: Float[Array, "*batch 17"] | None
    points_sd: Float[Array, "*batch 17"]
    size: Float[Array, "*batch"]
    nearness: Float[Array, "*batch"]

    @property
    def joints(self) -> Float[Array, "*batch 17 3"]:
        """The 3D joints: x and y in space, where they are those in the image times the joint's distance."""
        points = rotating.unproject(self.nearness[..., None], self.points, self.depth)
        return jnp.concatenate([points, self.depth[..., None]], axis=-1)


def lift(
    config: "config_lib.Config",
    lifter: Lifter,
    keypoints: Float[Array, "*batch 17 2"],
    visible: Bool[Array, "*batch 17"],
) -> Lifted:
    """Lift poses. The result grows with the pose and does not depend on where the pose is.

    The depth is the mean over the members that count, and where they were trained on mirrored poses, over the pose and
    its mirror image; its variance is their mean variance and the spread between them.
    A pose of no size has depth 0.

    Args:
      config: the one the lifter was trained with.
      lifter: `LiftingState.lifter`.
      keypoints: Human3.6M's joints, x right, y down, any unit; the value at an invisible joint is never used.
      visible: which joints are known.
    """
    batch, count = keypoints.shape[:-2], math.prod(keypoints.shape[:-2])
    lifted = _lift(config, lifter, keypoints.reshape(count, 17, 2), jnp.asarray(visible).reshape(count, 17))
    return jax.tree.map(lambda leaf: leaf.reshape(*batch, *leaf.shape[1:]), lifted)


def surprise(
    config: "config_lib.Config", lifter: Lifter, keypoints: Float[Array, "n 17 2"], visible: Bool[Array, "n 17"]
) -> Float[Array, "n 17"]:
    """Return how far each joint is from where the others put it, in standard deviations; 0 where there is no telling.

    Far above what training poses show is a joint that was clicked wrong, swapped with its neighbour, or belongs to a
    pose unlike any that the lifter knows.
    """
    if lifter.completer is None:
        return jnp.zeros(visible.shape)
    return completion.surprise(config, lifter.completer, keypoints, visible)


def depth_term(
    config: "config_lib.Config",
    lifter: Lifter,
    keypoints: Float[Array, "*batch 17 2"],
    keypoint_confidence: Float[Array, "*batch 17"],
) -> tuple[Float[Array, "*batch 17"], Float[Array, "*batch 17"]]:
    """Return z^GAN of eq. 4 and the confidence in each: that in the key point, times `confidence` in its depth.

    A lifter without doubt (Kudo et al.) gives the paper's plain term: every depth counts as its key point does.
    """
    lifted = lift(config, lifter, keypoints, keypoint_confidence > 0)
    if lifted.depth_sd is None:
        return lifted.depth, keypoint_confidence
    return lifted.depth, keypoint_confidence * confidence(lifted.depth_sd, lifted.size)


def confidence(depth_sd: Float[Array, "*batch 17"], size: Float[Array, "*batch"]) -> Float[Array, "*batch 17"]:
    """Return how much each lifted depth is to be trusted in eq. 4, in (0, 1] (in the paper all are trusted alike).

    The weight of a squared residual goes with the inverse of its variance; `USUAL_SD` is what a good depth has.
    """
    relative = depth_sd / normalise.divisor(size)[..., None]
    return 1 / (1 + (relative / USUAL_SD) ** 2)


USUAL_SD = 0.1
"""Of the pose's size: about 4.5 cm for somebody upright."""

UNUSUAL_SURPRISE = 4.0
"""Above it, a joint is not where training poses have it: three in a thousand joints of held-out poses."""


def _lift(config, lifter: Lifter, keypoints: Array, visible: Array) -> Lifted:
    poses, points_sd = completion.prepare(config, lifter.completer, keypoints, visible)
    depths, variances = _answers(config, lifter, poses)
    trust = lifter.trust
    if config.mirror_poses:  # a network is only nearly as good at left as at right: ask it for both
        mirror = jnp.array(skeleton.H36M_MIRROR)
        both = zip((depths, variances), _answers(config, lifter, normalise.mirrored(poses)), strict=True)
        depths, variances = (None if one is None else jnp.concatenate([one, other[..., mirror]]) for one, other in both)
        trust = jnp.concatenate([trust, trust])
    share = trust / jnp.sum(trust)
    depth = jnp.einsum("m,mnj->nj", share, depths)
    scale = poses.scale[:, None]
    depth_sd = None
    if variances is not None:
        total = jnp.einsum("m,mnj->nj", share, variances + (depths - depth[None]) ** 2)
        depth_sd = (jnp.sqrt(total) * scale).at[:, 0].set(0.0)
    size = normalise.divisor(poses.scale)[:, None]  # a pose of no size was not divided by it
    return Lifted(
        points=poses.points * size[..., None],
        depth=depth * scale,
        depth_sd=depth_sd,
        points_sd=points_sd * scale,
        size=poses.scale,
        nearness=jnp.vdot(lifter.trust / jnp.sum(lifter.trust), lifter.nearness) / size[:, 0],
    )


def _answers(config, lifter: Lifter, poses: Normalised) -> tuple[Array, Array | None]:
    """Return every member's depths, (members, n, 17), and their variances where the lifter has doubts."""
    depths = jax.vmap(lambda generator: adversarial.generate(config, generator, poses.points))(lifter.generators)
    if lifter.doubts is None:
        return depths, None
    doubt, features = LogVariance(config.width), completion.features(poses)
    log_sds = jax.vmap(lambda parameters: doubt.apply(parameters, features))(lifter.doubts)
    return depths, jnp.exp(2 * log_sds)
