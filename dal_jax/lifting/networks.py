"""The networks: four small MLPs of one form, which differ in what they read and answer, and a normalising flow.

Kudo et al. 2018 have the first two. `best` adds two of the same kind: one estimates depths and how uncertain they are,
one places missing joints. Its flow says how likely a 2D pose is (after ElePose, Wandt et al. 2022).

| network       | reads                                            | answers                                         |
|---------------|--------------------------------------------------|-------------------------------------------------|
| generator     | 34: x and y joint by joint                       | 17: depth; `best`: and its camera's elevation   |
| discriminator | 34, or 82 with every bone's vector and length    | 1: logit that the pose is an annotated one      |
| estimator     | 51: x and y joint by joint, 17 x visible         | 17 + 17: depth, log of its standard deviation   |
| completer     | 51                                               | 34 + 17: joint - ancestor, log of its deviation |

Poses are normalised (`normalise`): hip at the origin, mean distance to it 1.
"""

import math
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from dal_jax.lifting.config import LiftingConfig
from dal_jax.lifting.losses import BONES, bone_vectors

JOINTS = 17
"""Human3.6M's joints; joint 0 is the hip."""

_LEAK = 0.2
_INITIAL_SD = 0.02
_FIRST_LOG_SD = -1.5  # about a hand's length in units of the pose's size: where learning the deviations begins
_OUTPUTS = {"generator": JOINTS, "discriminator": 1, "estimator": 2 * JOINTS, "completer": 3 * JOINTS}
_COUPLINGS = 4
_MOST_LOG_SCALE = 2.0  # of a coupling


def initial(
    config: LiftingConfig, name: Literal["generator", "discriminator", "estimator", "completer"], key: PRNGKeyArray
):
    """Draw a network's parameters: weights N(0, 0.02), biases 0."""
    inputs = 2 * JOINTS if name in ("generator", "discriminator") else 3 * JOINTS
    if name == "discriminator" and config.discriminator_bones:
        inputs += 3 * len(BONES)
    return _network(config, name).init(key, jnp.zeros(inputs))


def initial_flow(config: LiftingConfig, key: PRNGKeyArray):
    """Draw the flow's parameters; it begins as the identity, nearly."""
    return _Flow(config.width // 2).init(key, jnp.zeros(2 * (JOINTS - 1)))


def pose_nll(config: LiftingConfig, parameters: Any, points: Float[Array, "*n 17 2"]) -> Float[Array, "*n"]:
    """Return the negative log likelihood of normalised poses under the flow, for each of their 32 numbers.

    Less its constant; the hip, always at 0, is none of them.
    """
    flat = points[..., 1:, :].reshape(*points.shape[:-2], 2 * (JOINTS - 1))
    answer: Any = _Flow(config.width // 2).apply(parameters, flat)
    normal, log_scale = answer
    return (0.5 * jnp.sum(normal**2, axis=-1) - log_scale) / flat.shape[-1]


def depth(config: LiftingConfig, parameters: Any, points: Float[Array, "*n 17 2"]) -> Float[Array, "*n 17"]:
    """Return the generator's depth of normalised poses, hip at 0, in their own unit.

    Note: the published network leaves the hip's own depth free, and no loss decides it; it is subtracted here, so that
    depth is relative to the hip everywhere.
    """
    answer = _apply(config, "generator", parameters, _flat(points))[..., :JOINTS]
    return answer - answer[..., :1]


def elevation(config: LiftingConfig, parameters: Any, points: Float[Array, "*n 17 2"]) -> Float[Array, "*n"]:
    """Return by how much more each pose's camera looks down than all do on average, radians; 0 as published."""
    if not config.elevation_spread_deg:
        return jnp.zeros(points.shape[:-2])
    answer = _apply(config, "generator", parameters, _flat(points))[..., JOINTS]
    return math.radians(config.elevation_spread_deg) * jnp.tanh(answer)


def realism_logit(config: LiftingConfig, parameters: Any, points: Float[Array, "*n 17 2"]) -> Float[Array, "*n"]:
    """Return the discriminator's logit that a pose is annotated; it does not see which pose a fake was made from."""
    if not config.discriminator_bones:
        return _apply(config, "discriminator", parameters, _flat(points))[..., 0]
    bones = bone_vectors(points)
    length = jnp.sqrt(jnp.sum(bones**2, axis=-1) + 1e-4)  # rounded at 0, where the root's slope is infinite
    seen = jnp.concatenate([_flat(points), bones.reshape(*bones.shape[:-2], -1), length], axis=-1)
    return _apply(config, "discriminator", parameters, seen)[..., 0]


def estimate(
    config: LiftingConfig, parameters: Any, points: Float[Array, "*n 17 2"], visible: Bool[Array, "*n 17"]
) -> tuple[Float[Array, "*n 17"], Float[Array, "*n 17"]]:
    """Return the estimator's depth of each joint, hip at 0, and the logarithm of its deviation (not in the paper)."""
    answer = _apply(config, "estimator", parameters, _with_visible(points, visible))
    depth, log_sd = jnp.split(answer, 2, axis=-1)
    return depth - depth[..., :1], log_sd + _FIRST_LOG_SD


def place(
    config: LiftingConfig, parameters: Any, points: Float[Array, "*n 17 2"], visible: Bool[Array, "*n 17"]
) -> tuple[Float[Array, "*n 17 2"], Float[Array, "*n 17"]]:
    """Return where the completer puts each joint, and the log of its deviation along either axis (not in the paper).

    Missing joints come folded onto their nearest visible ancestor, from which the network answers the offset. It
    answers for visible joints, too; those answers are not used.
    """
    answer = _apply(config, "completer", parameters, _with_visible(points, visible))
    offset, log_sd = jnp.split(answer, [2 * JOINTS], axis=-1)
    return points + offset.reshape(points.shape), log_sd + _FIRST_LOG_SD


def _apply(config: LiftingConfig, name: str, parameters: Any, features: Array) -> Array:
    answer: Any = _network(config, name).apply(parameters, features)  # Linen's type has a second case
    return answer


def _network(config: LiftingConfig, name: str) -> "_Network":
    more = name == "generator" and config.elevation_spread_deg > 0
    return _Network(config.width, _OUTPUTS[name] + more)


class _Network(nn.Module):
    """An MLP under the name that checkpoints and first draws know it by."""

    width: int
    outputs: int

    @nn.compact
    def __call__(self, features: Array) -> Array:
        return _Perceptron(self.width, self.outputs, name="mlp")(features)


class _Perceptron(nn.Module):
    """h1 = act(W1 x), h2 = act(W2 h1), h3 = act(W3 h2 + h1), W4 h3: no normalisation, no dropout."""

    width: int
    outputs: int

    @nn.compact
    def __call__(self, features: Array) -> Array:
        hidden1 = _activate(self._dense("first", self.width)(features))
        hidden2 = _activate(self._dense("second", self.width)(hidden1))
        hidden3 = _activate(self._dense("third", self.width)(hidden2) + hidden1)
        return self._dense("last", self.outputs)(hidden3)

    def _dense(self, name: str, units: int) -> nn.Dense:
        return nn.Dense(units, kernel_init=nn.initializers.normal(_INITIAL_SD), name=name)


class _Flow(nn.Module):
    """Affine couplings (Dinh et al. 2017): half of the numbers say how the others are scaled and shifted."""

    width: int

    @nn.compact
    def __call__(self, values: Array) -> tuple[Array, Array]:
        """Return what is normally distributed where poses are as annotated ones, and the logarithm of the volume."""
        count = values.shape[-1]
        log_scale = jnp.zeros(values.shape[:-1])
        for number in range(_COUPLINGS):
            order = np.random.default_rng(number).permutation(count)
            told, changed = jnp.split(values[..., order], 2, axis=-1)
            hidden = _activate(nn.Dense(self.width)(told))
            hidden = _activate(nn.Dense(self.width)(hidden))
            answer = nn.Dense(count, kernel_init=nn.initializers.normal(1e-3))(hidden)
            scale, shift = jnp.split(answer, 2, axis=-1)
            scale = _MOST_LOG_SCALE * jnp.tanh(scale / _MOST_LOG_SCALE)
            values = jnp.concatenate([told, changed * jnp.exp(scale) + shift], axis=-1)
            log_scale += jnp.sum(scale, axis=-1)
        return values, log_scale


def _activate(hidden: Array) -> Array:
    return jnp.where(hidden > 0, hidden, _LEAK * hidden)


def _with_visible(points: Array, visible: Array) -> Array:
    flat = _flat(points)
    return jnp.concatenate([flat, visible.astype(flat.dtype)], axis=-1)


def _flat(points: Array) -> Array:
    return points.reshape(*points.shape[:-2], 2 * JOINTS)
