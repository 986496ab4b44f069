"""The picture of one fit: what was annotated, the body over the photograph, and the body alone from two sides."""

import numpy as np
from jaxtyping import UInt8

from dal_jax.body import parameters as parameters_lib, template as template_lib
from dal_jax.correspondences import observations as observations_lib
from dal_jax.viewing import overlay

VIEW_PX = 384
"""Side of each of the four squares."""


def fit_picture(
    crop: UInt8[np.ndarray, "s s 3"],
    template: template_lib.Template,
    body: parameters_lib.BodyParameters,
    seen: observations_lib.Observation,
) -> UInt8[np.ndarray, "s w 3"]:
    """Return four squares: annotation, body over the photograph, the body alone from the front and from its left.

    Args:
      crop: the person's square crop, `VIEW_PX` wide.
      body, seen: one person's. Of a body that is not finite the crop alone is returned.
    """
    crop_box = np.array([0, 0, VIEW_PX, VIEW_PX])
    points = observations_lib.px_from_crop(seen.point_position[seen.point_confidence > 0], crop_box)
    keypoints = observations_lib.px_from_crop(seen.keypoint_position, crop_box)
    vertices = overlay.posed_vertices(template, body)
    if not np.isfinite(vertices).all():
        return crop
    drawn = overlay.draw_observation(crop, points, keypoints, seen.keypoint_confidence)
    front, side = overlay.front_and_side(vertices, template.faces, VIEW_PX)
    return np.concatenate([drawn, overlay.overlay(crop, vertices, template.faces), front, side], axis=1)
