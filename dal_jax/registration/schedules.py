"""Schedules: the weights of eq. 2 in the order in which they are minimised, each from where the last one ended."""

import dataclasses

from dal_jax.registration import energy

NAMES = ("constant", "stiff_to_soft", "graduated")
DEFAULT_OUTLIER = 0.07  # crop units, 3.5% of the crop's side
_GRADUATION = (4.0, 2.0, 1.0)


def stages(name: str, weights: energy.EnergyWeights) -> tuple[energy.EnergyWeights, ...]:
    """Return the weights of every stage; the last are what fits are judged by.

    constant: `weights`. stiff_to_soft: the paper's stiff w_scale and w_joint first, as its rounds have it. graduated:
    a robust loss of dense points whose scale shrinks to `weights.outlier` (DEFAULT_OUTLIER where that is None), so
    that wrong correspondences lose their pull only after right ones have found their place.

    Raises:
      ValueError: an unknown name.
    """
    if name == "constant":
        return (weights,)
    if name == "stiff_to_soft":
        stiff = energy.stiff_weights()
        return (dataclasses.replace(weights, scale=stiff.scale, joint=stiff.joint), weights)
    if name == "graduated":
        final = DEFAULT_OUTLIER if weights.outlier is None else weights.outlier
        return tuple(dataclasses.replace(weights, outlier=factor * final) for factor in _GRADUATION)
    raise ValueError(f"schedule '{name}' is not one of {', '.join(NAMES)}")
