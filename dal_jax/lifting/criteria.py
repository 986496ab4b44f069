"""How good a lifter is, judged by 2D poses alone: what stands for the truth in choosing steps, seeds and settings.

Held-out poses are lifted, rotated and projected, as in training. A good lifter's fakes are distributed like annotated
poses, are lifted again to what they were, and have equal proportions, with the nose in front.
`experiments.compare_lifters` measures how these figures go with the true error.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from dal_jax.body import skeleton
from dal_jax.lifting import losses, networks, normalise, views
from dal_jax.lifting.adversarial import Member
from dal_jax.lifting.config import Config
from dal_jax.lifting.normalise import Normalised

_KERNEL_VARIANCES = (1.0, 2.0, 4.0, 8.0)  # of pose space (34 numbers of size about 1 in all), from near to far
_ROTATIONS = 4  # of every pose
_MATURE = 1 << 20  # step at which rotations are drawn as at the end of training
# Weights in the one number of the mean of relu(-sin): a body whose depth is reversed everywhere is as realistic in 2D.
_REFLECTION, _COLLAPSE_REFLECTION = 0.5, 0.1


def measure(config: Config, member: Member, poses: Normalised, key: PRNGKeyArray) -> dict[str, Float[Array, ""]]:
    """Return the figures of one member on held-out prepared poses; low is good in all of them.

    criterion: bone_spread + mmd + reflection / 2, the number to choose steps, seeds and settings by: proportions rank
    lifters that have learned, the other two find those that have not, or have learned the reverse. A larger
    `bone_weight` can buy equal proportions with wrong poses: compare `mmd` then.
    collapse_score: mmd + reflection / 10, near 0 for a lifter that has learned people, whichever way.
    mmd: squared maximum mean discrepancy (Gretton et al. 2012, unbiased, a sum of Gaussian kernels) between the fakes
    of one half of the poses and the other half, as annotated. reflection: mean relu(-sin) of `losses.facing`.
    cycle_consistency: root mean square, in normalised units. bone_spread: mean over bones of the standard deviation of
    the logarithm of their proportion.
    """
    depth = networks.depth(config, member.generator, poses.points)
    joints = views.unproject(member.camera.inverse_distance, poses.points, depth)
    reflection = jnp.mean(jax.vmap(losses.mirror_ambiguity)(joints, depth, poses.visible))
    half = len(depth) // 2

    def rotated(key: PRNGKeyArray) -> tuple[Array, Array]:
        number = jnp.asarray(_MATURE)
        rotation = views.sample_rotations(config, key, member.camera.elevation, (joints, depth), number)
        _, fakes, turned = views.rotate_and_project(config, member.camera.inverse_distance, rotation, poses, depth)
        again = networks.depth(config, member.generator, fakes.points) * fakes.scale[:, None]
        shown, annotated = fakes.points[half : 2 * half].reshape(half, -1), poses.points[:half].reshape(half, -1)
        return discrepancy(annotated, shown), jnp.mean((again - turned) ** 2, where=poses.visible)

    mmd, inconsistency = (jnp.mean(each) for each in jax.lax.map(rotated, jax.random.split(key, _ROTATIONS)))
    known = losses.known_bones(poses.visible)
    spread = jnp.nanmean(jnp.std(losses.log_proportions(joints, depth), axis=0, where=known))
    return {
        "criterion": spread + mmd + _REFLECTION * reflection,
        "collapse_score": mmd + _COLLAPSE_REFLECTION * reflection,
        "mmd": mmd,
        "reflection": reflection,
        "cycle_consistency": jnp.sqrt(inconsistency),
        "bone_spread": spread,
    }


def bone_figures(joints: Float[Array, "n 17 3"]) -> dict[str, Float[Array, ""]]:
    """Return how much left and right, and people, differ in lifted (or true) poses of any unit.

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
