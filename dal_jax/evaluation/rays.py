"""Predictions in the camera's frame: what was seen in a crop away from the image's centre is turned by the crop's ray.

Truth stands in the camera's frame. Scored both ways, a prediction's error tells how much of it is that turn.
"""

import jax
import numpy as np
from jaxtyping import Array, Float

from dal_jax.body import perspective


def turned(
    joints: Float[np.ndarray, "n j 3"], box_px: Float[np.ndarray, "n 4"], intrinsics_px: Float[np.ndarray, "n 4"]
) -> Float[np.ndarray, "n j 3"]:
    """Return joints, in any unit, turned about the origin from their crops' frames into their cameras'."""
    return np.asarray(_turned(*(np.asarray(values, np.float32) for values in (joints, box_px, intrinsics_px))))


@jax.jit
@jax.vmap
def _turned(
    joints: Float[Array, "j 3"], box_px: Float[Array, "4"], intrinsics_px: Float[Array, "4"]
) -> Float[Array, "j 3"]:
    return joints @ perspective.crop_rotation(box_px, intrinsics_px).T
