"""One training example on the device: the pixels, what they were annotated with, and the body registered to them."""

import flax.struct
from jaxtyping import Array, Float

from dal_jax.body import parameters as parameters_lib, surface, template as template_lib
from dal_jax.correspondences import observations as observations_lib


@flax.struct.dataclass
class Sample:
    """An image with its supervision (leading axes batch). The crop's frame is [-1, 1], y down.

    image: 0 to 255. points: the annotated surface points by rest position and skinning weights, which a mirror maps
    exactly whatever the triangles are; point_* and keypoint_*, depth_* as in `observations.Observation`.
    fit: the registered body, theta-bar of eq. 6. weight: of this example in every loss (paper: 1).
    """

    image: Float[Array, "*batch s s 3"]
    points: surface.SurfacePoints
    point_position: Float[Array, "*batch points 2"]
    point_confidence: Float[Array, "*batch points"]
    keypoint_position: Float[Array, "*batch 17 2"]
    keypoint_confidence: Float[Array, "*batch 17"]
    depth: Float[Array, "*batch 17"]
    depth_confidence: Float[Array, "*batch 17"]
    fit: parameters_lib.BodyParameters
    weight: Float[Array, "*batch"]


def make_sample(
    template: template_lib.Template,
    image: Array,
    observation: observations_lib.Observation,
    fit: parameters_lib.BodyParameters,
    weight: Float[Array, "*batch"],
) -> Sample:
    """Look the observed surface points up on the template (any leading axes)."""
    return Sample(
        image=image.astype("float32"),
        points=surface.surface_points(template, observation.point_face, observation.point_barycentric),
        point_position=observation.point_position,
        point_confidence=observation.point_confidence,
        keypoint_position=observation.keypoint_position,
        keypoint_confidence=observation.keypoint_confidence,
        depth=observation.depth,
        depth_confidence=observation.depth_confidence,
        fit=fit,
        weight=weight,
    )
