"""How far human joints rotate: anatomical ranges of motion as a box on the axis-angle components of every joint.

Ranges are those of the American Academy of Orthopaedic Surgeons ("Joint Motion: Method of Measuring and Recording",
1965; reprinted in Norkin and White, "Measurement of Joint Motion"; Boone and Azen 1979 measured the same), degrees:

    hip        flexion 120, extension 30, abduction 45, adduction 30, rotation 45 either way
    knee       flexion 135-150, hyperextension up to 10          ankle     plantar 50, dorsal 20, in 35, out 15
    spine      flexion 80, extension 25, sideways 35, rotation 45    neck  45 each way, rotation 60-80
    shoulder   flexion 180, extension 60, abduction 180, rotation 70 in, 90 out, across the chest 130
    elbow      flexion 150, hyperextension up to 10              forearm   80 either way
    wrist      flexion 80, extension 70, radial 20, ulnar 30     toes      extension 70, flexion 45

Frame: the T-pose, axes of the body (y up, facing +z, its left to +x), so at the left hip flexion is -x, abduction +z,
rotation of the toes outwards +y; flexion is +x at the knees and -y at the left elbow.

Note: a box is our choice: one subtraction a component, exact for hinges and generous for ball joints. Published ranges
are of one anatomical motion at a time; a composed rotation (a thigh flexed and rotated) has axis-angle components
beyond each alone, and SMPL splits the spine in three, the neck in two and the shoulder in two joints in a way that no
image determines. There the box is widened, up to two thirds of the whole range for a part of a split one.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.body import skeleton

_RANGE_DEG = {
    "hip": ((-135, 35), (-60, 80), (-60, 70)),
    "knee": ((-10, 150), (-30, 30), (-15, 15)),
    "ankle": ((-30, 55), (-35, 35), (-30, 40)),
    "foot": ((-70, 45), (-15, 15), (-15, 15)),
    "spine1": ((-20, 50), (-30, 30), (-25, 25)),
    "spine2": ((-20, 50), (-30, 30), (-25, 25)),
    "spine3": ((-20, 50), (-30, 30), (-25, 25)),
    "neck": ((-35, 35), (-50, 50), (-35, 35)),
    "head": ((-35, 35), (-50, 50), (-35, 35)),
    "collar": ((-30, 30), (-35, 25), (-15, 45)),
    "shoulder": ((-120, 100), (-130, 70), (-115, 95)),
    "elbow": ((-80, 80), (-155, 10), (-70, 70)),
    "wrist": ((-80, 80), (-65, 45), (-85, 75)),
    "hand": ((-20, 20), (-20, 20), (-95, 40)),
}
"""Lower and upper rotation about x, y, z of midline and left joints, degrees; right ones are their mirror images."""


@functools.cache
def limits_rad() -> tuple[Float[np.ndarray, "23 3"], Float[np.ndarray, "23 3"]]:
    """Return the least and the greatest axis-angle components of SMPL's joints 1..23, radians.

    The mirror image of an axis-angle (a, b, c) in the plane x = 0 is (a, -b, -c).
    """
    lower, upper = np.empty((23, 3)), np.empty((23, 3))
    for joint, name in enumerate(skeleton.SMPL_JOINT_NAMES[1:]):
        low, high = np.radians(_RANGE_DEG[name.removeprefix("left_").removeprefix("right_")]).T
        if name.startswith("right_"):
            low, high = np.array([low[0], -high[1], -high[2]]), np.array([high[0], -low[1], -low[2]])
        lower[joint], upper[joint] = low, high
    lower.flags.writeable = upper.flags.writeable = False  # shared by every caller
    return lower, upper


def excess(pose: Float[Array | np.ndarray, "*batch 23 3"]) -> Float[Array, "*batch 23 3"]:
    """Return by how much each component lies beyond its range, radians: negative below, positive above, 0 inside."""
    lower, upper = (
        jnp.asarray(bound, pose.dtype).reshape((1,) * (pose.ndim - 2) + bound.shape) for bound in limits_rad()
    )
    return jnp.asarray(pose) - jnp.clip(pose, lower, upper)
