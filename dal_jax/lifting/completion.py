"""Missing joints, learned from the same 2D poses: hide some that are known, and say where they are and how surely.

Not in the paper, whose poses are whole. The same network, asked for a joint that is known with that joint hidden, tells
how surprising its annotated place is.
"""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from dal_jax.lifting import losses, networks, normalise
from dal_jax.lifting.networks import Completer
from dal_jax.lifting.normalise import Normalised

if TYPE_CHECKING:
    from dal_jax.lifting import config as config_lib

_HIP = 0
_MOST_HIDDEN = 0.4  # a pose hides each joint at a rate up to this; drawn pose by pose


def prepare(
    config: "config_lib.Config",
    completer: Any | None,
    keypoints: Float[Array, "*n 17 2"],
    visible: Bool[Array, "*n 17"],
) -> tuple[Normalised, Float[Array, "*n 17"]]:
    """Return poses as the lifter sees them, no joint missing, and each joint's standard deviation in their unit.

    That is 0 for a visible joint. Without a completer missing joints are folded onto their ancestors, as `normalise`
    does, and nothing is known of their deviation (0 too).

    Args:
      config: the one the networks are trained with.
      completer: parameters of `networks.Completer`, or None.
      keypoints: x right, y down, any unit; the value at an invisible joint is never used.
      visible: which joints are known.
    """
    poses = normalise.normalise_all(keypoints, visible)
    if completer is None:
        return poses, jnp.zeros(poses.visible.shape)
    placed, log_sd = _place(config, completer, poses)
    points = jnp.where(poses.visible[..., None], poses.points, placed)
    points, size = normalise.unit_size_all(points, jnp.ones_like(poses.visible))
    sd = jnp.where(poses.visible, 0.0, jnp.exp(log_sd) / normalise.divisor(size)[..., None])
    own = jnp.broadcast_to(jnp.arange(networks.JOINTS), poses.stand_in.shape)
    return poses._replace(points=points, scale=poses.scale * size, stand_in=own), sd


def loss(config: "config_lib.Config", completer: Any, poses: Normalised, key: PRNGKeyArray) -> Float[Array, ""]:
    """Return the mean negative log-likelihood of hidden joints that are known."""
    seen = poses.visible & ~hide(key, poses.visible)
    masked = normalise.normalise_all(poses.points, seen)
    placed, log_sd = _place(config, completer, masked)
    target = (poses.points - masked.hip[..., None, :]) / normalise.divisor(masked.scale)[..., None, None]
    judged = poses.visible & ~seen & (masked.scale > 0)[..., None]
    return jnp.sum(_negative_log_likelihood(target - placed, log_sd), where=judged) / jnp.maximum(jnp.sum(judged), 1)


def hide(key: PRNGKeyArray, visible: Bool[Array, "*n 17"]) -> Bool[Array, "*n 17"]:
    """Choose joints to hide, the hip never: every pose at a rate of its own, half of them none."""
    rate_key, joint_key = jax.random.split(key)
    rate = jax.random.uniform(rate_key, (*visible.shape[:-1], 1), minval=-_MOST_HIDDEN, maxval=_MOST_HIDDEN)
    return (jax.random.uniform(joint_key, visible.shape) < rate).at[..., _HIP].set(False)


def surprise(
    config: "config_lib.Config", completer: Any, keypoints: Float[Array, "n 17 2"], visible: Bool[Array, "n 17"]
) -> Float[Array, "n 17"]:
    """Return how far each visible joint is from where the others put it, in standard deviations.

    0 for missing joints and for the hip, from which everything is measured.
    """

    def leave_out(joint: Array) -> Array:
        others = visible.at[:, joint].set(False)
        poses = normalise.normalise_all(keypoints, others)
        placed, log_sd = _place(config, completer, poses)
        given = (keypoints[:, joint] - poses.hip) / normalise.divisor(poses.scale)[:, None]
        away = jnp.linalg.norm(jnp.where(visible[:, joint, None], given - placed[:, joint], 0.0), axis=-1)
        return away * jnp.exp(-log_sd[:, joint])

    visible = jnp.asarray(visible)
    keypoints = jnp.where(visible[..., None], keypoints, 0.0)
    return jax.lax.map(leave_out, jnp.arange(networks.JOINTS)).T.at[:, _HIP].set(0.0)


def features(poses: Normalised) -> Float[Array, "*n 51"]:
    """Return x and y joint by joint, and which joints were seen."""
    flat = poses.points.reshape(*poses.points.shape[:-2], 2 * networks.JOINTS)
    return jnp.concatenate([flat, poses.visible.astype(flat.dtype)], axis=-1)


def _place(config, completer: Any, poses: Normalised) -> tuple[Array, Array]:
    """Return where each joint is from the others, and the logarithm of its deviation.

    Note: the network answers for the joints that it sees, too, but is never asked for those.
    """
    offset, log_sd = Completer(config.width).apply(completer, features(poses))
    return poses.points + offset, log_sd


def _negative_log_likelihood(error: Float[Array, "*n 17 2"], log_sd: Float[Array, "*n 17"]) -> Float[Array, "*n 17"]:
    """Return that of a round Gaussian in the plane, less its constant."""
    return jnp.sum(losses.negative_log_likelihood(error, log_sd[..., None]), axis=-1)
