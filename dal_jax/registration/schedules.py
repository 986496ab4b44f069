"""Weights of eq. 2 by name, for flags.

stiff      the paper's of the first round: w_scale 100, w_joint 1, to the T-pose
soft       the paper's of later rounds: w_scale 10, w_joint 0.001
natural    soft, but key points, and with them lifted depths, pull thirty times harder (residuals alone, `noise`, ask
           for more than that), and joints to how people hold them (`poses`), so that what no pixel shows is where it
           usually is. Note: w_joint 0.1 is our choice, by points of real annotation that were left out of the fit and
           by synthetic training people; 0.03 to 0.3 are alike
"""

import dataclasses

from dal_jax.registration import energy, priors
from dal_jax.registration.energy import EnergyWeights

WEIGHTS = ("stiff", "soft", "natural")

NATURAL_KEYPOINT, NATURAL_JOINT = 30.0, 0.1


def weights_by_name(name: str) -> EnergyWeights:
    """Return weights of NAMES.

    Raises:
      ValueError: another name.
    """
    if name not in WEIGHTS:
        raise ValueError(f"weights '{name}' are not among {', '.join(WEIGHTS)}")
    if name == "stiff":
        return energy.stiff_weights()
    soft = EnergyWeights()
    if name == "soft":
        return soft
    return dataclasses.replace(soft, keypoint=NATURAL_KEYPOINT, joint=NATURAL_JOINT, rest=priors.usual().rest_pose())


# --- Schedules: the weights of eq. 2 in the order in which they are minimised, each from where the last one ended ---

SCHEDULES = ("constant", "stiff_to_soft", "graduated")
DEFAULT_OUTLIER = 0.07  # crop units, 3.5% of the crop's side
_GRADUATION = (4.0, 2.0, 1.0)


def stages(name: str, weights: EnergyWeights) -> tuple[EnergyWeights, ...]:
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
    raise ValueError(f"schedule '{name}' is not one of {', '.join(SCHEDULES)}")
