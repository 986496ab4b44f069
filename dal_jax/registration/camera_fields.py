"""What fits say about the camera's own frame once its focal length is known: extra fields of fits.npz."""

import jax
import numpy as np
from jaxtyping import Array, Float

from dal_jax.body import perspective
from dal_jax.registration import fits_file


def in_camera(fits: fits_file.Fits, intrinsics_px: Float[np.ndarray, "n 4"]) -> dict[str, np.ndarray]:
    """Return `joints_camera` (n, 24, 3), `joints_h36m_camera` (n, 17, 3), `rotation_camera` (n, 3, 3), `intrinsics_px`.

    Joints stand at their distance from the camera, metres; the rotation is body to camera. Both are turned by the ray
    through the crop's centre. The distance is that of a body of the size which segment scales of mean log 0 have.

    Args:
      intrinsics_px: fx, fy, cx, cy of each row's photograph.
    """
    intrinsics_px = np.asarray(intrinsics_px, np.float32)
    camera = (fits.camera_scale, fits.translation, fits.box_px, intrinsics_px)
    return {
        "joints_camera": np.asarray(_placed(fits.joints, *camera)),
        "joints_h36m_camera": np.asarray(_placed(fits.joints_h36m, *camera)),
        "rotation_camera": np.asarray(_turned(fits.rotation, fits.box_px, intrinsics_px)),
        "intrinsics_px": intrinsics_px,
    }


_placed = jax.jit(jax.vmap(perspective.camera_from_crop))


@jax.jit
@jax.vmap
def _turned(
    rotation: Float[Array, "3 3"], box_px: Float[Array, "4"], intrinsics_px: Float[Array, "4"]
) -> Float[Array, "3 3"]:
    return perspective.crop_rotation(box_px, intrinsics_px) @ rotation
