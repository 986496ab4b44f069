"""Whether predicted standard deviations can be believed: how often the truth lies within one and two of them."""

import numpy as np
from jaxtyping import Float

AXES = ("x", "y", "z")


def coverage(
    error_mm: Float[np.ndarray, "n j 3"], deviation_mm: Float[np.ndarray, "n j 3"]
) -> dict[str, dict[str, float]]:
    """Compare errors with the standard deviations predicted for them, axis by axis.

    Of normal errors 68% lie within one and 95% within two. Joints at the origin of both (the pelvis) must be left out.

    Returns:
      By axis: `within_1_sd` and `within_2_sd` (shares), `mean_sd_mm` and `rms_error_mm`.
    """
    ratio = np.abs(error_mm) / deviation_mm
    return {
        name: {
            "within_1_sd": float(np.mean(ratio[..., axis] < 1)),
            "within_2_sd": float(np.mean(ratio[..., axis] < 2)),
            "mean_sd_mm": float(np.mean(deviation_mm[..., axis])),
            "rms_error_mm": float(np.sqrt(np.mean(error_mm[..., axis] ** 2))),
        }
        for axis, name in enumerate(AXES)
    }
