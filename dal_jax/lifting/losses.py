"""What a lifter learns by, and the figures it is judged by, one a function: 2D poses and 3D ones alone, no network.

Most terms of the loss are of one pose, and the caller takes their mean. Frame: x right, y down, z away from the camera;
joints in Human3.6M's order.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dal_jax.body import skeleton

_THORAX, _NOSE, _LEFT_SHOULDER, _RIGHT_SHOULDER = 8, 9, 11, 14


def generator_realism(logit_fake: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Softplus GAN, the generator's side: softplus(-D(fake)), the non-saturating form."""
    return jax.nn.softplus(-logit_fake)


def discriminator_realism(logit_real: Float[Array, "*n"], logit_fake: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Softplus GAN, the discriminator's side: softplus(-D(real)) + softplus(D(fake))."""
    return jax.nn.softplus(-logit_real) + jax.nn.softplus(logit_fake)


def facing(points: Float[Array, "17 2"], depth: Float[Array, "17"]) -> Float[Array, ""]:
    """Sine, seen from above, of the angle between n = nose - thorax and s = right shoulder - left shoulder.

    sin = (z_n x_s - z_s x_n) / (|n| |s|) in the x-z plane. A pose whose nose is in front of the chest scores above 0
    at any azimuth, +1 if n is square to the shoulders; the same pose with its depth reversed scores the opposite. 0
    where n or s has no length.
    """
    ground = jnp.stack([points[:, 0], depth], axis=-1)
    nose = ground[_NOSE] - ground[_THORAX]
    shoulders = ground[_RIGHT_SHOULDER] - ground[_LEFT_SHOULDER]
    squared = jnp.sum(nose**2) * jnp.sum(shoulders**2)
    defined = squared > 1e-12  # below, the root's slope would swamp every other gradient
    length = jnp.sqrt(jnp.where(defined, squared, 1.0))
    return jnp.where(defined, (nose[1] * shoulders[0] - shoulders[1] * nose[0]) / length, 0.0)


def mirror_ambiguity(
    points: Float[Array, "17 2"],
    depth: Float[Array, "17"],
    visible: Bool[Array | np.ndarray, "17"],
    margin: float = 0.0,
) -> Float[Array, ""]:
    """relu(margin - sin) of `facing`: of a depth and its reverse, equal in 2D, choose the one that a neck allows.

    0 where one of the four joints is missing. Kudo et al. have margin 0, at which a network can get the nose right and
    reverse everything else; a margin asks for a nose square to the shoulders, which a reversed body cannot have.
    """
    judged = visible[jnp.array([_THORAX, _NOSE, _LEFT_SHOULDER, _RIGHT_SHOULDER])].all()
    return jnp.where(judged, jax.nn.relu(margin - facing(points, depth)), 0.0)


def cycle_consistency(
    rotated_depth: Float[Array, "17"], lifted_again: Float[Array, "17"], visible: Bool[Array | np.ndarray, "17"]
) -> Float[Array, ""]:
    """Mean squared distance between a lifted pose and the same pose rotated, lifted again and rotated back.

    Chen et al. 2019 rotate the second 3D pose back before comparing. Rotations keep lengths and lifting copies x and y,
    so |R'(p2 - p1)|^2 = (z2 - z1)^2 in the rotated camera, which is computed here. Missing joints do not count.
    """
    return _mean((lifted_again - rotated_depth) ** 2, visible)


def reprojection_consistency(
    rotation: Float[Array, "3 3"],
    rotated_depth: Float[Array, "17"],
    lifted_again: Float[Array, "17"],
    visible: Bool[Array | np.ndarray, "17"],
) -> Float[Array, ""]:
    """Mean squared distance in the image between a 2D pose and its cycle: lift, rotate, lift, rotate back, project.

    The two 3D poses differ by (0, 0, z2 - z1) in the rotated camera; rotated back, the x and y of that difference are
    what the image sees (Chen et al. 2019's 2D loss; of a near camera, to first order).
    """
    seen = jnp.sum(rotation[2, :2] ** 2)
    return seen * _mean((lifted_again - rotated_depth) ** 2, visible)


BONES = tuple((joint, parent) for joint, parent in enumerate(skeleton.H36M_PARENTS) if parent >= 0)
"""Human3.6M's 16 bones, (joint, parent)."""

_SHORTEST = 0.01  # of a pose's size: below it a bone's logarithm would be all noise


def bone_vectors(joints: Float[Array, "*n 17 d"]) -> Float[Array, "*n 16 d"]:
    """Return joint - parent of every bone."""
    joint, parent = (jnp.array(ends) for ends in zip(*BONES, strict=True))
    return joints[..., joint, :] - joints[..., parent, :]


def log_proportions(points: Float[Array, "*n 17 2"], depth: Float[Array, "*n 17"]) -> Float[Array, "*n 16"]:
    """Return the logarithm of each bone's share of the sum of all bone lengths."""
    vectors = bone_vectors(jnp.concatenate([points, depth[..., None]], axis=-1))
    log_length = 0.5 * jnp.log(jnp.sum(vectors**2, axis=-1) + _SHORTEST**2)
    return log_length - jax.nn.logsumexp(log_length, axis=-1, keepdims=True)


def bone_asymmetry(log_proportion: Float[Array, "*n 16"]) -> Float[Array, "*n 16"]:
    """Return log(left / right) of every bone (right / left on the right, 0 in the middle)."""
    return log_proportion - log_proportion[..., jnp.array(_MIRRORED_BONE)]


HUMAN36M_BONES_MM = (133.0, 442.9, 454.2, 133.0, 442.9, 454.2, 233.4, 257.1, 121.1, 115.0) + 2 * (151.0, 278.9, 251.7)
"""Lengths of `BONES` in the skeleton that Human3.6M publishes: knowledge of 3D, which the published record uses."""


def bone_unlikeness(
    log_proportion: Float[Array, "n 16"],
    known: Bool[Array | np.ndarray, "n 16"],
    expected: Float[Array | np.ndarray, "16"] | None = None,
) -> Float[Array, ""]:
    """Return how much the bodies of a batch differ in their proportions, plus how much left differs from right.

    Both are mean squares of logarithms. People differ by some percent, wrong depths by far more. The reference is
    `expected`, logarithms of lengths, or where it is not given the batch's own mean, made symmetric. Bones with a
    missing end do not count.
    """
    if expected is None:
        mean = jnp.sum(log_proportion, axis=0, where=known) / jnp.maximum(jnp.sum(known, axis=0), 1)
        reference = (mean + mean[jnp.array(_MIRRORED_BONE)]) / 2
    else:
        reference = jax.nn.log_softmax(jnp.asarray(expected))
    both = known & known[:, jnp.array(_MIRRORED_BONE)]
    spread = _mean((log_proportion - reference[None]) ** 2, known)
    return spread + _mean(bone_asymmetry(log_proportion) ** 2, both)


def track_unlikeness(log_proportion: Float[Array, "n 16"], known: Bool[Array | np.ndarray, "n 16"]) -> Float[Array, ""]:
    """Return how much proportions differ between two frames of the same person: mean squares of logarithms.

    The first of the batch are one frame each, as many after them the other (`training`). A person's bones do not
    change, so this holds closer than `bone_unlikeness`, which is between people.
    """
    count = len(log_proportion) // 2
    one, other = slice(0, count), slice(count, 2 * count)
    return _mean((log_proportion[one] - log_proportion[other]) ** 2, jnp.asarray(known)[one] & known[other])


def known_bones(visible: Bool[Array, "*n 17"]) -> Bool[Array, "*n 16"]:
    """Return which bones have both ends visible."""
    joint, parent = (jnp.array(ends) for ends in zip(*BONES, strict=True))
    return visible[..., joint] & visible[..., parent]


def negative_log_likelihood(error: Float[Array, "*#n"], log_sd: Float[Array, "*#n"]) -> Float[Array, "*n"]:
    """Return the negative log likelihood of a Gaussian with mean 0, less its constant."""
    return 0.5 * error**2 * jnp.exp(-2 * log_sd) + log_sd


# --- Figures of many poses, without truth: do bones agree, and are two samples of poses alike? ---


def bone_figures(joints: Float[Array, "n 17 3"]) -> dict[str, Float[Array, ""]]:
    """Return how much left and right, and people, differ in lifted (or true) poses of any unit.

    bone_asymmetry: mean of |log(left / right)| over the bones that have a side; bone_spread: mean over bones of the
    standard deviation, over people, of the logarithm of the bone's share of all bone lengths.
    """
    joints = joints - joints[:, :1]
    size = jnp.mean(jnp.linalg.norm(joints[..., :2], axis=-1), axis=-1)[:, None]
    size = jnp.where(size > 0, size, 1.0)
    proportions = log_proportions(joints[..., :2] / size[..., None], joints[..., 2] / size)
    asymmetry = jnp.abs(bone_asymmetry(proportions))
    sided = jnp.array([skeleton.H36M_MIRROR[joint] != joint for joint, _ in BONES])
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


_KERNEL_VARIANCES = (1.0, 2.0, 4.0, 8.0)  # of pose space (34 numbers of size about 1 in all), from near to far
_MIRRORED_BONE = tuple([joint for joint, _ in BONES].index(skeleton.H36M_MIRROR[joint]) for joint, _ in BONES)


def _mean(values: Array, counted: Array | np.ndarray) -> Array:
    return jnp.sum(values, where=counted) / jnp.maximum(jnp.sum(counted), 1)
