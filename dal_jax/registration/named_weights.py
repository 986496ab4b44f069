"""Weights of eq. 2 by name, for flags.

stiff      the paper's of the first round: w_scale 100, w_joint 1, to the T-pose
soft       the paper's of later rounds: w_scale 10, w_joint 0.001
natural    soft, but key points, and with them lifted depths, pull thirty times harder (residuals alone, `noise`, ask
           for more than that), and joints to how people hold them (`poses`), so that what no pixel shows is where it
           usually is. Note: w_joint 0.1 is our choice, by points of real annotation that were left out of the fit and
           by synthetic training people; 0.03 to 0.3 are alike
"""

import dataclasses

from dal_jax.registration import energy, poses

NAMES = ("stiff", "soft", "natural")

NATURAL_KEYPOINT, NATURAL_JOINT = 30.0, 0.1


def by_name(name: str) -> energy.EnergyWeights:
    """Return weights of NAMES.

    Raises:
      ValueError: another name.
    """
    if name not in NAMES:
        raise ValueError(f"weights '{name}' are not among {', '.join(NAMES)}")
    if name == "stiff":
        return energy.stiff_weights()
    soft = energy.EnergyWeights()
    if name == "soft":
        return soft
    return dataclasses.replace(soft, keypoint=NATURAL_KEYPOINT, joint=NATURAL_JOINT, rest=poses.usual().rest_pose())
