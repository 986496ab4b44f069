"""theta = [a, S, R, s, t]: the unknowns of the method (paper, sections 3 and 4)."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dal_jax.body.template import WIDENED
from dal_jax.runtime import struct

UPRIGHT_FACING_CAMERA = ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0))
"""Rotation of a person who stands upright and faces the camera (body y up, camera y down)."""


@struct.dataclass
class BodyParameters:
    """Pose, segment scales and weak-perspective camera of one person (leading axes batch).

    pose: axis-angle of the 23 joints below the pelvis, relative to the parent, radians.
    segment_scale: scale of each of the 24 segments, positive; gauge mean log = 0 (see `fix_gauge`).
    rotation: body to camera. Nine free numbers while Adam or a ConvNet handles them (`rotations.gram_schmidt`),
      a proper rotation in every finished fit.
    camera_scale: crop units a metre.
    translation: of the pelvis, in the crop's [-1, 1]; of a body in several views three numbers, in the frame that these
      share (`cameras.Views`), whose axes `rotation` then leads to.
    girth: how much wider than the template trunk and limbs are across their bones (`Template.across_bones`), for flesh
      or clothes; None: 1, the paper's body.
    segment_girth: how much wider than long each segment is, along the two girth axes of its own rest frame
      (`Template.bone_axes`); None: 1, one scale a segment, as in the paper.
    """

    pose: Float[Array | np.ndarray, "*batch 23 3"]
    segment_scale: Float[Array | np.ndarray, "*batch 24"]
    rotation: Float[Array | np.ndarray, "*batch 3 3"]
    camera_scale: Float[Array | np.ndarray, "*batch"]
    translation: Float[Array | np.ndarray, "*batch axes"]
    girth: Float[Array | np.ndarray, "*batch"] | None = None
    segment_girth: Float[Array | np.ndarray, "*batch 24 2"] | None = None


def t_pose(camera_scale: float = 1.0) -> BodyParameters:
    """Return a = 0, S = 1, upright and facing the camera: where the first registration starts."""
    return BodyParameters(
        pose=jnp.zeros((23, 3)),
        segment_scale=jnp.ones(24),
        rotation=jnp.array(UPRIGHT_FACING_CAMERA),
        camera_scale=jnp.asarray(camera_scale, jnp.float32),
        translation=jnp.zeros(2),
    )


def fix_gauge(parameters: BodyParameters) -> BodyParameters:
    """Move the common factor of the segment scales into the camera: mean log s = 0; the projection is unchanged."""
    common = jnp.exp(jnp.mean(jnp.log(parameters.segment_scale), axis=-1))
    return dataclasses.replace(
        parameters,
        segment_scale=parameters.segment_scale / common[..., None],
        camera_scale=parameters.camera_scale * common,
    )


def with_segment_girth(
    parameters: BodyParameters, usual: Float[Array | np.ndarray, "48"] | None = None
) -> BodyParameters:
    """Return parameters of anisotropic scales, whose segment girths are their own, times their girth.

    usual: log girths of bodies that have neither; None: 0.
    """
    own, girth = parameters.segment_girth, parameters.girth
    if own is None and girth is None and usual is not None:
        own = jnp.exp(jnp.asarray(usual).reshape(24, 2))
    own = jnp.broadcast_to(1.0 if own is None else own, (*jnp.shape(parameters.camera_scale), 24, 2))
    if girth is not None:
        own = own * jnp.asarray(girth)[..., None, None] ** np.broadcast_to(WIDENED[:, None], own.shape)
    return dataclasses.replace(parameters, girth=None, segment_girth=own)
