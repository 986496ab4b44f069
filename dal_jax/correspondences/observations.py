"""What one image says about one person: dense matches, key points, depths; fixed size, masked by confidence."""

import flax.struct
import numpy as np
from jaxtyping import Array, Float, Int

KEYPOINTS = 17


@flax.struct.dataclass
class Observation:
    """One person's annotation in crop coordinates: the square crop is [-1, 1], y down (leading axes batch).

    A confidence of 0 marks padding or a missing entry, whose other values must be finite and are never read.

    point_position: annotated image points p_i of eq. 3.
    point_face, point_barycentric: the surface points they show, on the template.
    keypoint_position: x and y of eq. 4, Human3.6M order.
    depth: z of eq. 4 from the lifting, relative to the pelvis, crop units, z away from the camera.
    box_px: x, y, width, height of the square crop in the photograph, px.
    """

    point_position: Float[Array, "*batch points 2"]
    point_face: Int[Array, "*batch points"]
    point_barycentric: Float[Array, "*batch points 3"]
    point_confidence: Float[Array, "*batch points"]
    keypoint_position: Float[Array, "*batch 17 2"]
    keypoint_confidence: Float[Array, "*batch 17"]
    depth: Float[Array, "*batch 17"]
    depth_confidence: Float[Array, "*batch 17"]
    box_px: Float[Array, "*batch 4"]


def crop_from_px(points_px: Float[Array, "*batch points 2"], box_px: Float[Array, "*batch 4"]):
    """Return photograph pixels in the crop's [-1, 1]."""
    corner, side = box_px[..., None, :2], box_px[..., None, 2:3]
    return (points_px - corner) / side * 2.0 - 1.0


def px_from_crop(points_crop: Float[Array, "*batch points 2"], box_px: Float[Array, "*batch 4"]):
    """Return crop points in photograph pixels: the inverse of `crop_from_px`."""
    corner, side = box_px[..., None, :2], box_px[..., None, 2:3]
    return (points_crop + 1.0) / 2.0 * side + corner


def with_depth(observation: Observation, depth: np.ndarray, confidence: np.ndarray | None = None) -> Observation:
    """Attach lifted depths; by default they are trusted where the key point itself is (paper: all alike)."""
    trusted = observation.keypoint_confidence if confidence is None else confidence
    return observation.replace(depth=np.asarray(depth, np.float32), depth_confidence=np.asarray(trusted, np.float32))
