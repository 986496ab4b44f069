"""Lengths and girths of a person, as a tape has them of the body in its rest pose, each with a standard deviation.

    height          from the soles to the top of the head
    upper_arm       shoulder to elbow; forearm: elbow to wrist; thigh: hip to knee; shin: knee to ankle; between the
                    skeleton's joints, the mean of both sides
    shoulder_width, hip_width     between the joints of both sides
    chest_girth     of the section of the trunk by the level plane through the joint spine3; waist_girth: halfway
                    between spine1 and spine2; hip_girth: halfway between the hips' joints

One image does not show how large a person is, so all are shares of the height, unless that is known. Deviations are
sqrt(G C G'), C the posterior's covariance of log scales and girths (`posterior.Posterior.shape_covariance`), G the
derivative of the measures. That another body than the template has other shapes between its joints is not in them.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dal_jax.body import kinematics, skeleton, skinning
from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.template import WIDENED, Template
from dal_jax.runtime import programs

_BONES = {
    "upper_arm": ("shoulder", "elbow"), "forearm": ("elbow", "wrist"), "thigh": ("hip", "knee"),
    "shin": ("knee", "ankle"),
}  # fmt: skip
_WIDTHS = {"shoulder_width": "shoulder", "hip_width": "hip"}
_PLANES = {
    "chest_girth": ("spine3", "spine3"), "waist_girth": ("spine1", "spine2"), "hip_girth": ("left_hip", "right_hip"),
}  # fmt: skip
_ARMS = ("shoulder", "elbow", "wrist", "hand")

NAMES = ("height", *_BONES, *_WIDTHS, *_PLANES)
"""What is measured."""


class Measurement(NamedTuple):
    """A length: its value and standard deviation, in `unit`: `cm`, or `heights`, shares of the person's height."""

    value: float
    sd: float
    unit: str


def measure(
    template: Template,
    parameters: BodyParameters,
    covariance: Float[np.ndarray, "sizes sizes"],
    height_cm: float | None = None,
) -> dict[str, Measurement]:
    """Return the measurements of one person, by the names of `NAMES`.

    Args:
      template: the body.
      parameters: the person's; only segment scales and girths are read.
      covariance: of log segment scales and log girth, or log segment girths.
      height_cm: the person's true height; None: not known, and all are shares of it.

    Raises:
      ValueError: a height that nobody has.
    """
    if height_cm is not None:
        check_height(height_cm)
    girths = 1.0 if parameters.girth is None else parameters.girth
    if parameters.segment_girth is not None:
        girths = np.asarray(parameters.segment_girth) * np.where(WIDENED[:, None], girths, 1.0)
    log_shape = np.log(np.append(parameters.segment_scale, girths)).astype(np.float32)
    share, deviation = (
        np.asarray(each, np.float64) for each in _shares(template, is_trunk(template), log_shape, covariance)
    )
    factor, unit = (1.0, "heights") if height_cm is None else (height_cm, "cm")
    pairs = zip(NAMES, (factor * share).tolist(), (factor * deviation).tolist(), strict=True)
    return {name: Measurement(value, sd, unit) for name, value, sd in pairs}


def check_height(height_cm: float | tuple[float, ...]) -> None:
    """Refuse heights, one or several, that nobody has.

    Raises:
      ValueError: names the value.
    """
    if not np.all((np.asarray(height_cm) >= LEAST_CM) & (np.asarray(height_cm) <= MOST_CM)):
        raise ValueError(f"height_cm is {height_cm}: between {LEAST_CM:.0f} and {MOST_CM:.0f}")


LEAST_CM, MOST_CM = 40.0, 280.0


@programs.kept
def _shares(
    template: Template,
    trunk: Bool[Array, "faces"],
    log_shape: Float[Array, "sizes"],
    covariance: Float[Array, "sizes sizes"],
) -> tuple[Float[Array, "10"], Float[Array, "10"]]:
    """Return the measures over the height, and their standard deviations."""

    def shares(log_shape):
        girths = jnp.exp(log_shape[24:])
        lengths = lengths_m(
            template, trunk, jnp.exp(log_shape[:24]), girths[0] if len(girths) == 1 else girths.reshape(24, 2)
        )
        return lengths / lengths[0], lengths / lengths[0]

    slope, value = jax.jacrev(shares, has_aux=True)(log_shape)  # 10 measures of a whole mesh by 25 numbers or 72
    return value, jnp.sqrt(jnp.einsum("mi,ij,mj->m", slope, covariance, slope))


def lengths_m(
    template: Template,
    trunk: Bool[Array | np.ndarray, "faces"],
    segment_scale: Float[Array | np.ndarray, "24"],
    girth: Float[Array | np.ndarray, ""] | Float[Array | np.ndarray, "24 2"],
) -> Float[Array, "10"]:
    """Return the measures of `NAMES` of a body in its rest pose, metres: differentiable by scales and girth.

    trunk: `is_trunk(template)`. girth: one for all, or the segments' own.
    """
    segments = kinematics.pose_skeleton(template, jnp.eye(3), jnp.zeros((23, 3)), segment_scale)
    segments = dataclasses.replace(segments, **{"segment_girth" if jnp.ndim(girth) else "girth": girth})
    vertices = skinning.skin_vertices(template, segments)
    corners = vertices[jnp.asarray(template.faces)]

    def place(joint: str) -> Float[Array, "3"]:
        return segments.position[skeleton.SMPL_JOINT_NAMES.index(joint)]

    def apart(first: str, second: str) -> Float[Array, ""]:
        return jnp.linalg.norm(place(first) - place(second))

    def bone(upper: str, lower: str) -> Float[Array, ""]:
        return (apart(f"left_{upper}", f"left_{lower}") + apart(f"right_{upper}", f"right_{lower}")) / 2.0

    return jnp.stack([
        jnp.max(vertices[:, 1]) - jnp.min(vertices[:, 1]),
        *(bone(*ends) for ends in _BONES.values()),
        *(apart(f"left_{name}", f"right_{name}") for name in _WIDTHS.values()),
        *(_section(corners, trunk, (place(one) + place(other))[1] / 2.0) for one, other in _PLANES.values()),
    ])  # fmt: skip


def is_trunk(template: Template) -> Bool[np.ndarray, "faces"]:
    """Return which faces are not of the arms, which a level plane may cut too."""
    of_arm = [name.endswith(_ARMS) for name in skeleton.SMPL_JOINT_NAMES]
    arm = np.asarray(template.skin_weight)[:, of_arm].sum(axis=1) > 0.5
    return ~arm[np.asarray(template.faces)].any(axis=1)


def _section(
    corners: Float[Array, "faces 3 3"], counted: Bool[Array | np.ndarray, "faces"], height: Float[Array, ""]
) -> Float[Array, ""]:
    """Return the length of a mesh's section by the level plane at a height: what it cuts of each face, summed."""
    above = corners[..., 1] - height
    following, next_above = jnp.roll(corners, -1, axis=1), jnp.roll(above, -1, axis=1)
    crossed = (above > 0) != (next_above > 0)
    share = above / jnp.where(crossed, above - next_above, 1.0)
    cut = corners + jnp.where(crossed, share, 0.0)[..., None] * (following - corners)
    # two of a face's three edges are crossed, or none: the piece between them, its root's gradient finite at length 0
    both = crossed & jnp.roll(crossed, -1, axis=1)
    squared = jnp.sum((cut - jnp.roll(cut, -1, axis=1)) ** 2, axis=-1)
    piece = jnp.sqrt(jnp.where(both & (squared > 0), squared, 1.0))
    return jnp.sum(jnp.where(both & (squared > 0) & jnp.asarray(counted)[:, None], piece, 0.0))
