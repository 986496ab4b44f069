"""The two networks of Kudo et al. 2018, the same small MLP with a skip: once with 17 depths, once with one logit; and
two more of its kind, which `best` needs: one that places missing joints, one that says how far off depths may be.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

JOINTS = 17
"""Human3.6M's joints; joint 0 is the hip."""

_LEAK = 0.2
_INITIAL_SD = 0.02
_FIRST_LOG_SD = -1.5  # about a hand's length in units of the pose's size: where learning the deviations begins


class Generator(nn.Module):
    """Depth of the joints given their normalised 2D position (x and y are copied, so only z is made).

    Note: the published network leaves the hip's own depth free, which nothing in the losses but chance then decides;
    it is subtracted here, so depth is relative to the hip everywhere.

    Attributes:
      width: hidden units; 1024 as published.
    """

    width: int = 1024

    @nn.compact
    def __call__(self, features: Float[Array, "*batch features"]) -> Float[Array, "*batch 17"]:
        """Map 34 numbers, x and y joint by joint, to depth."""
        depth = _Perceptron(self.width, JOINTS, name="mlp")(features)
        return depth - depth[..., :1]


class Discriminator(nn.Module):
    """Logit that a normalised 2D pose is an annotated one; not conditional (the generator is: on the 2D pose).

    Attributes:
      width: hidden units; 1024 as published.
    """

    width: int = 1024

    @nn.compact
    def __call__(self, features: Float[Array, "*batch features"]) -> Float[Array, "*batch"]:
        """Map a pose's numbers to one logit."""
        return _Perceptron(self.width, 1, name="mlp")(features)[..., 0]


class LogVariance(nn.Module):
    """Logarithm of the standard deviation of each joint's lifted depth, in normalised units (not in the paper).

    Attributes:
      width: hidden units.
    """

    width: int

    @nn.compact
    def __call__(self, features: Float[Array, "*batch 51"]) -> Float[Array, "*batch 17"]:
        """Map x and y joint by joint, and whether each joint was seen, to 17 numbers."""
        return _Perceptron(self.width, JOINTS, name="mlp")(features) + _FIRST_LOG_SD


class Completer(nn.Module):
    """Where a missing joint is, from the others (not in the paper).

    Attributes:
      width: hidden units.
    """

    width: int

    @nn.compact
    def __call__(self, features: Float[Array, "*batch 51"]) -> tuple[Array, Array]:
        """Map x and y joint by joint (missing ones folded onto their ancestors), and whether each was seen.

        Returns:
          The way from each joint's ancestor to the joint, (*batch, 17, 2), and the logarithm of its standard deviation
          along either axis, (*batch, 17), both in normalised units.
        """
        out = _Perceptron(self.width, 3 * JOINTS, name="mlp")(features)
        offset, log_sd = jnp.split(out, [2 * JOINTS], axis=-1)
        return offset.reshape(*out.shape[:-1], JOINTS, 2), log_sd + _FIRST_LOG_SD


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


def _activate(hidden: Array) -> Array:
    return jnp.where(hidden > 0, hidden, _LEAK * hidden)
