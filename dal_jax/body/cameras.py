"""Cameras of one person: weak perspective in a crop (eq. 1) and in the photograph, full perspective; all ways round.

    x = s Pi(R X(S, a)) + t                                                                                    (1)

Camera axes: x right, y down, z away, metres. Photograph: px, the first pixel covers [0, 1] x [0, 1]; `intrinsics_px`:
fx, fy, cx, cy, focal lengths and principal point. A crop is the square `box_px` (x, y, width, height) as [-1, 1].

Weak perspective looks at the person along the ray through the crop's centre, not along the optical axis. Away from the
principal point the two differ by the rotation `ray_rotation`, and what was seen in a crop is rotated by that much in
the camera's own frame.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.runtime import struct


@struct.dataclass
class Pinhole:
    """Full perspective, as a crop sees it (leading axes batch).

    focal: length, in half sides of the crop.
    centre: the principal point, in the crop's [-1, 1]; it may lie outside.
    """

    focal: Float[Array | np.ndarray, "*batch"]
    centre: Float[Array | np.ndarray, "*batch 2"]


@struct.dataclass
class Views:
    """Cameras of full perspective that see one moment (leading axes batch), about a frame that they share.

    Lengths are in the unit of that frame, its origin near the body: camera axes Y = R X + o.

    rotation: R, shared axes to the camera's. origin: o.
    focal, centre: as a crop in each view sees them, see `Pinhole`. Weak perspective is a camera that is far away.
    """

    rotation: Float[Array | np.ndarray, "*batch views 3 3"]
    origin: Float[Array | np.ndarray, "*batch views 3"]
    focal: Float[Array | np.ndarray, "*batch views"]
    centre: Float[Array | np.ndarray, "*batch views 2"]

    def project(self, points: Float[Array, "points 3"]) -> Float[Array, "views points 2"]:
        """Return where each view's crop has points of the shared frame."""
        return self.project_own(jnp.broadcast_to(points[None], (len(jnp.asarray(self.focal)), *points.shape)))

    def project_own(self, points: Float[Array, "views points 3"]) -> Float[Array, "views points 2"]:
        """Return where each view's crop has points of its own, given in the shared frame."""
        origin = jnp.asarray(self.origin)
        seen = jnp.einsum("vij,vpj->vpi", self.rotation, points, precision="highest") + origin[:, None]
        depth = jnp.maximum(seen[..., 2:], NEAREST * origin[:, None, 2:])
        return jnp.asarray(self.centre)[:, None] + jnp.asarray(self.focal)[:, None, None] * seen[..., :2] / depth


def project(
    points_camera: Float[Array, "*points 3"],
    camera_scale: float | Float[Array | np.ndarray, ""],
    translation: Float[Array | np.ndarray, "2"],
    pinhole: Pinhole | None = None,
) -> Float[Array, "*points 2"]:
    """Return eq. 1: points (camera axes, metres, relative to the pelvis) in the crop's [-1, 1].

    Under full perspective the camera's axes are those of the photograph, s is the scale at the pelvis' depth f / s and
    t still the pelvis' place:  x = c + (s Pi(X) + t - c) / (1 + s Z / f).
    """
    planar = jnp.multiply(camera_scale, points_camera[..., :2])
    leading = (1,) * (planar.ndim - 1)
    weak = planar + jnp.asarray(translation).reshape(*leading, 2)
    if pinhole is None:
        return weak
    centre = jnp.asarray(pinhole.centre).reshape(*leading, 2)
    stretch = foreshortening(jnp.multiply(camera_scale, points_camera[..., 2:]), pinhole.focal)
    return centre + (weak - centre) / stretch


def foreshortening(
    depth: Float[Array, "*points"], focal: float | Float[Array | np.ndarray, "*points"]
) -> Float[Array, "*points"]:
    """Return a point's distance over the pelvis': 1 + z / f, z relative to the pelvis in crop units.

    Bounded below: what comes near the camera, or behind it, is on its way to somewhere else.
    """
    return jnp.maximum(1.0 + depth / focal, NEAREST)


NEAREST = 0.1


def photograph_from_crop(
    camera_scale: Float[Array, ""], translation: Float[Array, "2"], box_px: Float[Array, "4"]
) -> tuple[Float[Array, ""], Float[Array, "2"]]:
    """Return (pixels a metre, place of the pelvis in px) of a crop's weak perspective."""
    half_side = box_px[2] / 2.0
    return camera_scale * half_side, box_px[:2] + (translation + 1.0) * half_side


def crop_from_photograph(
    scale_px: Float[Array, ""], pelvis_px: Float[Array, "2"], box_px: Float[Array, "4"]
) -> tuple[Float[Array, ""], Float[Array, "2"]]:
    """Return (camera_scale, translation) in a crop: the inverse of `photograph_from_crop`."""
    half_side = box_px[2] / 2.0
    return scale_px / half_side, (pelvis_px - box_px[:2]) / half_side - 1.0


def position_from_weak(
    scale_px: Float[Array, ""], pelvis_px: Float[Array, "2"], intrinsics_px: Float[Array, "4"]
) -> Float[Array, "3"]:
    """Return where the pelvis is, camera axes, metres: on the ray through its pixel, at the depth of that scale.

    A focal length f shows a metre at depth z as f / z pixels; where fx and fy differ their geometric mean is f.
    """
    depth = jnp.sqrt(intrinsics_px[0] * intrinsics_px[1]) / scale_px
    return depth * _ray(pelvis_px, intrinsics_px)


def weak_from_position(
    position: Float[Array, "3"], intrinsics_px: Float[Array, "4"]
) -> tuple[Float[Array, ""], Float[Array, "2"]]:
    """Return (pixels a metre, place in px) of a pelvis in front of the camera: the inverse of `position_from_weak`."""
    return jnp.sqrt(intrinsics_px[0] * intrinsics_px[1]) / position[2], project_perspective(position, intrinsics_px)


def project_perspective(
    points: Float[Array, "*points 3"], intrinsics_px: Float[Array, "4"]
) -> Float[Array, "*points 2"]:
    """Return the pixels of points in front of the camera, through full perspective."""
    planar = points[..., :2] / points[..., 2:]
    leading = (1,) * (planar.ndim - 1)
    return planar * intrinsics_px[:2].reshape(*leading, 2) + intrinsics_px[2:].reshape(*leading, 2)


def ray_rotation(point_px: Float[Array, "2"], intrinsics_px: Float[Array, "4"]) -> Float[Array, "3 3"]:
    """Return the smallest rotation that takes the optical axis to the ray through a pixel.

    With the ray's direction d and v = z x d it is I + [v] + [v]^2 / (1 + d_z); d_z > 0, so nothing is singular.
    """
    ray = _ray(point_px, intrinsics_px)
    x, y, z = ray / jnp.linalg.norm(ray)
    zero = jnp.zeros_like(x)
    cross = jnp.stack([jnp.stack([zero, zero, x]), jnp.stack([zero, zero, y]), jnp.stack([-x, -y, zero])])
    return jnp.eye(3, dtype=cross.dtype) + cross + cross @ cross / (1.0 + z)


def crop_rotation(box_px: Float[Array, "4"], intrinsics_px: Float[Array, "4"]) -> Float[Array, "3 3"]:
    """Return the rotation from a crop's frame, which looks along the ray through its centre, to the camera's."""
    return ray_rotation(box_px[:2] + box_px[2:] / 2.0, intrinsics_px)


def camera_from_crop(
    points: Float[Array, "points 3"],
    camera_scale: Float[Array, ""],
    translation: Float[Array, "2"],
    box_px: Float[Array, "4"],
    intrinsics_px: Float[Array, "4"],
) -> Float[Array, "points 3"]:
    """Return points that are relative to the pelvis, as seen in a crop, at their place in the camera's frame.

    Note: rotated by the ray of the crop's centre (not of the pelvis), because the crop was centred on that.
    """
    weak = photograph_from_crop(camera_scale, translation, box_px)
    rotated = points @ crop_rotation(box_px, intrinsics_px).T
    return rotated + position_from_weak(*weak, intrinsics_px)[None]


def rotate_from_crop(
    joints: Float[np.ndarray, "n j 3"], box_px: Float[np.ndarray, "n 4"], intrinsics_px: Float[np.ndarray, "n 4"]
) -> Float[np.ndarray, "n j 3"]:
    """Return joints, in any unit, rotated about the origin from their crops' frames into their cameras'.

    Truth stands in the camera's frame. Scored with this rotation and without, a prediction tells how much of its error
    is the crop's ray.
    """
    return np.einsum("nij,nkj->nki", crop_rotations(box_px, intrinsics_px), np.asarray(joints, np.float32))


def crop_rotations(
    box_px: Float[Array | np.ndarray, "n 4"], intrinsics_px: Float[np.ndarray, "n 4"]
) -> Float[np.ndarray, "n 3 3"]:
    """Return `crop_rotation` of every person."""
    return np.asarray(_crop_rotations(np.asarray(box_px, np.float32), np.asarray(intrinsics_px, np.float32)))


_crop_rotations = jax.jit(jax.vmap(crop_rotation))


def _ray(point_px: Float[Array, "2"], intrinsics_px: Float[Array, "4"]) -> Float[Array, "3"]:
    """Return the direction of a pixel's ray, its z one."""
    return jnp.append((point_px - intrinsics_px[2:]) / intrinsics_px[:2], 1.0)
