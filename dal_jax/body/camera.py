"""Weak perspective, eq. 1: x = s Pi(R X(S, a)) + t, in a square crop that spans [-1, 1]."""

from jaxtyping import Array, Float


def project(
    points_camera: Float[Array, "*points 3"], camera_scale: Float[Array, ""], translation: Float[Array, "2"]
) -> Float[Array, "*points 2"]:
    """Project points (camera axes: x right, y down, z away; metres; already turned by R) into the crop's [-1, 1]."""
    planar = camera_scale * points_camera[..., :2]
    return planar + translation.reshape((1,) * (planar.ndim - 1) + (2,))
