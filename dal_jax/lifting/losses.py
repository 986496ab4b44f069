"""What the lifter is trained to minimise, one named term a function, each for one pose; means are taken by the caller.

Frame: x right, y down, z away from the camera; joints in Human3.6M's order.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

_THORAX, _NOSE, _LEFT_SHOULDER, _RIGHT_SHOULDER = 8, 9, 11, 14


def generator_realism(logit_fake: Float[Array, ""]) -> Float[Array, ""]:
    """Softplus GAN, the generator's side: softplus(-D(fake)), the non-saturating form."""
    return jax.nn.softplus(-logit_fake)


def discriminator_realism(logit_real: Float[Array, ""], logit_fake: Float[Array, ""]) -> Float[Array, ""]:
    """Softplus GAN, the discriminator's side: softplus(-D(real)) + softplus(D(fake))."""
    return jax.nn.softplus(-logit_real) + jax.nn.softplus(logit_fake)


def facing(points: Float[Array, "17 2"], depth: Float[Array, "17"]) -> Float[Array, ""]:
    """Sine, seen from above, of the angle between n = nose - thorax and s = right shoulder - left shoulder.

    sin = (z_n x_s - z_s x_n) / (|n| |s|) in the x-z plane. Someone whose nose is in front of the chest scores above
    0 at any heading, +1 if n is square to the shoulders; the same pose with its depth reversed scores the opposite.
    0 where n or s has no length.
    """
    ground = jnp.stack([points[:, 0], depth], axis=-1)
    nose = ground[_NOSE] - ground[_THORAX]
    shoulders = ground[_RIGHT_SHOULDER] - ground[_LEFT_SHOULDER]
    squared = jnp.sum(nose**2) * jnp.sum(shoulders**2)
    defined = squared > 1e-12  # below, the root's slope would swamp every other gradient: no opinion there
    length = jnp.sqrt(jnp.where(defined, squared, 1.0))
    return jnp.where(defined, (nose[1] * shoulders[0] - shoulders[1] * nose[0]) / length, 0.0)


def mirror_ambiguity(
    points: Float[Array, "17 2"], depth: Float[Array, "17"], visible: Bool[Array, "17"]
) -> Float[Array, ""]:
    """relu(-sin) of `facing`: depth and its reverse look the same in 2D; this picks the one a neck can do.

    0 where one of the four joints is missing.
    """
    judged = visible[jnp.array([_THORAX, _NOSE, _LEFT_SHOULDER, _RIGHT_SHOULDER])].all()
    return jnp.where(judged, jax.nn.relu(-facing(points, depth)), 0.0)


def lift_turn_lift(
    turned_depth: Float[Array, "17"], lifted_again: Float[Array, "17"], visible: Bool[Array, "17"]
) -> Float[Array, ""]:
    """Mean squared distance between a lifted pose and the same pose turned, lifted again and turned back.

    Chen et al. 2019 turn the second 3D pose back before comparing. A turn keeps lengths and lifting copies x and y, so
    |R'(p2 - p1)|^2 = (z2 - z1)^2 in the turned camera, and that is computed here. Missing joints do not count.
    """
    return jnp.sum((lifted_again - turned_depth) ** 2, where=visible) / jnp.maximum(jnp.sum(visible), 1)
