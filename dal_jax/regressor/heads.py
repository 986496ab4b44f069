"""The ConvNet's head: which numbers stand for a body, and the layers that answer with them.

The paper's is one linear layer that gives theta with axis-angles. Both can be changed, apart or together: six numbers a
rotation (`theta_6d`; Zhou et al. 2019) and iterated regression (Kanazawa et al. 2018, "HMR").
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from dal_jax.body.parameters import BodyParameters
from dal_jax.regressor import theta, theta_6d
from dal_jax.runtime.errors import InputError

ROTATIONS = {"axis_angle": theta, "6d": theta_6d}
_HIDDEN = 16  # channels of a hidden layer, of the first convolution's: HMR's 1024 at ResNet50's 64

Statistics = theta.Statistics | theta_6d.Statistics
"""What encodes a body as theta, and standardises it; a pytree, its type is the kind of rotations."""


def check(rotations: str, iterations: int) -> None:
    """Refuse a head that there is not.

    Raises:
      errors.InputError: names the field of the configuration and its value.
    """
    if rotations not in ROTATIONS:
        raise InputError(f"config.regressor.rotations is '{rotations}': one of {', '.join(ROTATIONS)}")
    if iterations < 0:
        raise InputError(f"config.regressor.iterations is {iterations}: at least 0")


def plain_statistics(rotations: str) -> Statistics:
    """Return the statistics before any registration: an output of zero is the T-pose that faces the camera."""
    return ROTATIONS[rotations].plain_statistics()


def measured_statistics(rotations: str, fits: BodyParameters) -> Statistics:
    """Return the statistics of registered bodies (leading axis people): an output of zero is their mean."""
    return ROTATIONS[rotations].measured_statistics(fits)


def layers(rotations: str, iterations: int, width: int, name: str) -> nn.Module:
    """Return what turns features into outputs; it starts at an output of zero for any features.

    Args:
      rotations: a key of `ROTATIONS`.
      iterations: 0 is one linear layer (paper).
      width: channels of the network's first convolution.
      name: of the layers' variables.
    """
    size = ROTATIONS[rotations].SIZE
    if iterations == 0:
        return nn.Dense(size, kernel_init=nn.initializers.zeros, name=name)
    return Iterated(size, iterations, _HIDDEN * width, name=name)


class Iterated(nn.Module):
    """HMR's regression: the output, at first zero, is changed by what the same layers make of features and output.

    Note: HMR drops half of the hidden units in training; here nothing is dropped. As in HMR, only the last iteration's
    output is compared with anything.
    """

    size: int
    iterations: int
    hidden: int

    @nn.compact
    def __call__(self, features: Float[Array, "n features"]) -> Float[Array, "n size"]:
        first, second = nn.Dense(self.hidden, name="hidden1"), nn.Dense(self.hidden, name="hidden2")
        change = nn.Dense(self.size, kernel_init=nn.initializers.zeros, name="change")
        output = jnp.zeros((len(features), self.size), features.dtype)
        for _ in range(self.iterations):
            hidden = nn.relu(first(jnp.concatenate([features, output], axis=-1)))
            output = output + change(nn.relu(second(hidden)))
        return output
