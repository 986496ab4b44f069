"""How good a lifter is, judged by 2D poses alone: what stands for the truth in choosing steps, seeds and settings.

Held-out poses are lifted, turned and looked at again, as in training. A lifter that is right makes poses that are
distributed like annotated ones, lifts them again to what they were, and gives everybody the same proportions, with the
nose in front. How these figures go with the true error is measured by `experiments.compare_lifters`.
"""

import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from dal_jax.body import skeleton
from dal_jax.lifting import adversarial, losses, normalise, rotating
from dal_jax.lifting.adversarial import Member
from dal_jax.lifting.normalise import Normalised

if TYPE_CHECKING:
    from dal_jax.lifting import config as config_lib

_KERNEL_VARIANCES = (1.0, 2.0, 4.0, 8.0)  # of pose space (34 numbers of size about 1 in all), from near to far
_TURNS = 4  # of every pose
_MATURE = 1 << 20  # step at which turns are drawn as at the end of training
# Weights in the one number of the mean of relu(-sin): a body whose depth is reversed everywhere is as realistic in 2D.
_MIRRORED, _ASTRAY_MIRRORED = 0.5, 0.1


def measure(
    config: "config_lib.Config", member: Member, poses: Normalised, key: PRNGKeyArray
) -> dict[str, Float[Array, ""]]:
    """Return the figures of one member on held-out prepared poses; of all of them, low is good.

    criterion: bone_spread + unrealism + mirrored / 2, the number to choose steps, seeds and settings by: proportions
    rank lifters that have learned, the other two find those that have not, or have learned the reverse. A larger
    `bone_weight` can buy equal proportions with wrong poses: compare `unrealism` then.
    astray: unrealism + mirrored / 10, near 0 for whatever has learned people, whichever way it did.
    unrealism: squared maximum mean discrepancy (Gretton et al. 2012, unbiased, a sum of Gaussian kernels) between the
    turned poses of one half and the annotated poses of the other. mirrored: mean relu(-sin) of `losses.facing`.
    lift_turn_lift: root mean square, in normalised units. bone_spread: mean over bones of the standard deviation of
    the logarithm of their proportion.
    """
    depth = adversarial.generate(config, member.generator, poses.points)
    joints = rotating.unproject(member.camera.nearness, poses.points, depth)
    mirrored = jnp.mean(jax.vmap(losses.mirror_ambiguity)(joints, depth, poses.visible))
    half = len(depth) // 2

    def turn(key: PRNGKeyArray) -> tuple[Array, Array]:
        rotation = rotating.sample(config, key, member.camera.elevation, joints, depth, jnp.asarray(_MATURE))
        fakes = adversarial.turn_lifted(config, member.camera.nearness, rotation, poses, depth)
        again = adversarial.generate(config, member.generator, fakes.points) * fakes.size[:, None]
        shown, annotated = fakes.points[half : 2 * half].reshape(half, -1), poses.points[:half].reshape(half, -1)
        return discrepancy(annotated, shown), jnp.mean((again - fakes.depth) ** 2, where=poses.visible)

    unrealism, inconsistency = (jnp.mean(each) for each in jax.lax.map(turn, jax.random.split(key, _TURNS)))
    known = losses.known_bones(poses.visible)
    spread = jnp.std(losses.log_proportions(joints, depth), axis=0, where=known)
    return {
        "criterion": jnp.nanmean(spread) + unrealism + _MIRRORED * mirrored,
        "astray": unrealism + _ASTRAY_MIRRORED * mirrored,
        "unrealism": unrealism,
        "mirrored": mirrored,
        "lift_turn_lift": jnp.sqrt(inconsistency),
        "bone_spread": jnp.nanmean(spread),
    }


def bone_figures(joints: Float[Array, "n 17 3"]) -> dict[str, Float[Array, ""]]:
    """Return how alike left and right, and people, are in lifted (or true) poses; no length is known, none is needed.

    bone_asymmetry: mean of |log(left / right)| over the bones that have a side; bone_spread: mean over bones of the
    standard deviation, over people, of the logarithm of the bone's share of all bone lengths.
    """
    joints = joints - joints[:, :1]
    size = normalise.divisor(jnp.mean(jnp.linalg.norm(joints[..., :2], axis=-1), axis=-1))[:, None]
    proportions = losses.log_proportions(joints[..., :2] / size[..., None], joints[..., 2] / size)
    asymmetry = jnp.abs(losses.bone_asymmetry(proportions))
    sided = jnp.array([skeleton.H36M_MIRROR[joint] != joint for joint, _ in losses.BONES])
    return {
        "bone_asymmetry": jnp.mean(asymmetry, where=jnp.broadcast_to(sided, asymmetry.shape)),
        "bone_spread": jnp.mean(jnp.std(proportions, axis=0)),
    }


def discrepancy(one: Float[Array, "m d"], other: Float[Array, "m d"]) -> Float[Array, ""]:
    """Return the unbiased squared maximum mean discrepancy of two samples of one size: near 0 if they are alike."""
    count = len(one)
    inside = sum(jnp.sum(_kernel(sample, sample)) - count * len(_KERNEL_VARIANCES) for sample in (one, other))
    return inside / (count * max(count - 1, 1)) - 2 * jnp.mean(_kernel(one, other))


def _kernel(one: Float[Array, "m d"], other: Float[Array, "n d"]) -> Float[Array, "m n"]:
    squared = jnp.sum(one**2, axis=1)[:, None] + jnp.sum(other**2, axis=1)[None] - 2 * one @ other.T
    return functools.reduce(jnp.add, [jnp.exp(-jnp.maximum(squared, 0) / variance) for variance in _KERNEL_VARIANCES])
