"""Augmentation that keeps image, annotation and registered body in agreement: one example, pure, on the device.

A geometric change of the picture is a similarity p' = zoom Q F p + shift of the crop (F a mirror or the identity, Q a
rotation). Weak perspective commutes with all of it, so the body that explains the new picture is known exactly:
R' = Q F R F, s' = zoom s, t' = zoom Q F t + shift, with left and right exchanged under F.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from dal_jax.body import skeleton
from dal_jax.body.cameras import Pinhole
from dal_jax.body.kinematics import BodyParameters
from dal_jax.observations.residuals import Target
from dal_jax.regressor.batches import Sample
from dal_jax.runtime import struct

_MIRROR = np.array([-1.0, 1.0, 1.0], np.float32)
_MIRROR_AXIS = np.array([1.0, -1.0, -1.0], np.float32)  # an axis-angle is a pseudo-vector
_SMPL_MIRROR = np.array(skeleton.SMPL_MIRROR)


@dataclasses.dataclass
class AugmentationConfig:
    """How far examples are changed; the defaults, as the paper, change nothing."""

    flip_share: float = 0.0  # of examples that are mirrored
    rotation_deg: float = 0.0  # rotated in the image by up to this, either way
    zoom: float = 0.0  # the log of the magnification is within this, either way
    shift: float = 0.0  # moved by up to this, either way, in the crop's [-1, 1]
    brightness: float = 0.0  # added to all pixels, of 255, either way
    contrast: float = 0.0  # the log of the factor about the image's mean, either way
    tint: float = 0.0  # the log of each channel's factor, either way
    erase_share: float = 0.0  # of examples that get a rectangle of plain colour
    erase_side: float = 0.4  # longest side of that rectangle, of the image's


def mild() -> AugmentationConfig:
    """Return what helps on pictures of upright people."""
    return AugmentationConfig(
        flip_share=0.5,
        rotation_deg=10.0,
        zoom=0.1,
        shift=0.08,
        brightness=0.1,
        contrast=0.2,
        tint=0.15,
        erase_share=0.3,
    )


@struct.dataclass
class CropSimilarity:
    """A change of the crop, p' = zoom Q F p + shift.

    flip: whether F mirrors left and right. angle: of Q, from x towards y, radians.
    """

    flip: Bool[Array, ""]
    angle: Float[Array, ""]
    zoom: Float[Array, ""]
    shift: Float[Array, "2"]


def augment(config: AugmentationConfig, key: PRNGKeyArray, sample: Sample) -> Sample:
    """Return a randomly changed example."""
    geometry_key, colour_key, erase_key = jax.random.split(key, 3)
    sample = move(draw_similarity(config, geometry_key), sample)
    image = _recolour(config, colour_key, sample.image)
    return dataclasses.replace(sample, image=_erase(config, erase_key, image))


def draw_similarity(config: AugmentationConfig, key: PRNGKeyArray) -> CropSimilarity:
    """Draw a change of the crop, uniformly within the configuration's limits."""
    flip, angle, zoom, x, y = jax.random.uniform(key, (5,))
    return CropSimilarity(
        flip=flip < config.flip_share,
        angle=jnp.deg2rad(config.rotation_deg) * (2 * angle - 1),
        zoom=jnp.exp(config.zoom * (2 * zoom - 1)),
        shift=config.shift * (2 * jnp.stack([x, y]) - 1),
    )


def move(similarity: CropSimilarity, sample: Sample) -> Sample:
    """Return the example as it looks after a change of the crop: pixels, annotation and registered body."""
    target, fit = jax.tree.map(
        lambda there, here: jnp.where(similarity.flip, there, here),
        (mirror_target(sample.target), mirror_parameters(sample.fit)),
        (sample.target, sample.fit),
    )
    rotation, zoom, observation = _rotation(similarity.angle), similarity.zoom, target.observation
    moved = dataclasses.replace(
        observation,
        point_position=_place(similarity, observation.point_position),
        keypoint_position=_place(similarity, observation.keypoint_position),
        pinhole=_moved(similarity, observation.pinhole),
        depth=zoom * observation.depth,
    )
    return Sample(
        image=_resample(similarity, sample.image),  # mirrored and rotated in one resampling
        target=Target(target.points, moved),
        fit=dataclasses.replace(
            fit,
            rotation=jax.scipy.linalg.block_diag(rotation, jnp.ones((1, 1))) @ fit.rotation,
            camera_scale=zoom * fit.camera_scale,
            translation=zoom * rotation @ fit.translation + similarity.shift,
        ),
        weight=sample.weight,
    )


def mirror_parameters(parameters: BodyParameters) -> BodyParameters:
    """Return the body seen in a mirror: x -> -x in the image and in the body, left and right exchanged."""
    others = _SMPL_MIRROR[1:] - 1
    return BodyParameters(
        pose=parameters.pose[others] * _MIRROR_AXIS[None],
        segment_scale=parameters.segment_scale[_SMPL_MIRROR],
        rotation=parameters.rotation * (_MIRROR[:, None] * _MIRROR[None]),
        camera_scale=parameters.camera_scale,
        translation=parameters.translation * _MIRROR[:2],
        girth=parameters.girth,
        segment_girth=None if parameters.segment_girth is None else parameters.segment_girth[_SMPL_MIRROR],
    )


def mirror_target(target: Target) -> Target:
    """Return the annotation seen in a mirror: x -> -x in the image and on the body, left and right exchanged."""
    points, observation = target.points, target.observation
    other = np.array(skeleton.KEYPOINT_MIRROR[observation.keypoint_set])
    mirrored = dataclasses.replace(
        observation,
        point_position=observation.point_position * _MIRROR[None, :2],
        pinhole=_mirrored(observation.pinhole),
        keypoint_position=observation.keypoint_position[other] * _MIRROR[None, :2],
        keypoint_confidence=observation.keypoint_confidence[other],
        depth=observation.depth[other],
        depth_confidence=observation.depth_confidence[other],
        depth_turns=None if observation.depth_turns is None else observation.depth_turns[:, other],
    )
    rest, weight = points.rest * _MIRROR[None], points.weight[:, _SMPL_MIRROR]
    return Target(dataclasses.replace(points, rest=rest, weight=weight), mirrored)


def _rotation(angle: Float[Array, ""]) -> Float[Array, "2 2"]:
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([jnp.stack([cosine, -sine]), jnp.stack([sine, cosine])])


def _place(similarity: CropSimilarity, points: Float[Array, "points 2"]) -> Float[Array, "points 2"]:
    """Return zoom Q p + shift (a mirror has been applied before)."""
    return similarity.zoom * points @ _rotation(similarity.angle).T + similarity.shift[None]


def _moved(similarity: CropSimilarity, pinhole: Pinhole | None) -> Pinhole | None:
    """Return the camera of the moved crop: full perspective commutes with the change as weak perspective does."""
    if pinhole is None:
        return None
    centre = _place(similarity, jnp.asarray(pinhole.centre)[None])[0]
    return Pinhole(similarity.zoom * pinhole.focal, centre)


def _mirrored(pinhole: Pinhole | None) -> Pinhole | None:
    """Return the camera that sees the mirrored crop."""
    return None if pinhole is None else Pinhole(pinhole.focal, pinhole.centre * _MIRROR[:2])


def _resample(similarity: CropSimilarity, image: Float[Array, "s s 3"]) -> Float[Array, "s s 3"]:
    """Return the image after p' = zoom Q F p + shift, bilinear; what comes from outside repeats the border.

    Note: four gathers cost 2% of a training step (width 16, 64 px, two cores); three shears as matrix products ten
    times that, Pillow on the host twice.
    """
    size = image.shape[0]
    centre = (jnp.arange(size) + 0.5) / size * 2.0 - 1.0
    target = jnp.stack(jnp.meshgrid(centre, centre), axis=-1).reshape(-1, 2)
    source = (target - similarity.shift[None]) @ _rotation(similarity.angle) / similarity.zoom
    source = source * jnp.where(similarity.flip, _MIRROR[:2], 1.0)[None]
    pixel = jnp.clip((source + 1.0) * size / 2.0 - 0.5, 0.0, size - 1.0)
    corner = jnp.clip(jnp.floor(pixel), 0, size - 2).astype(jnp.int32)
    x, y = jnp.split(pixel - corner, 2, axis=-1)
    flat, first = image.reshape(-1, 3), corner[:, 1] * size + corner[:, 0]

    def neighbour(offset: int) -> Float[Array, "pixels 3"]:
        return flat.at[first + offset].get(mode="promise_in_bounds")

    above = neighbour(0) * (1 - x) + neighbour(1) * x
    below = neighbour(size) * (1 - x) + neighbour(size + 1) * x
    return (above * (1 - y) + below * y).reshape(image.shape)


def _recolour(config: AugmentationConfig, key: PRNGKeyArray, image: Float[Array, "s s 3"]) -> Float[Array, "s s 3"]:
    """Change contrast about the mean, brightness and each channel's gain."""
    draws = jax.random.uniform(key, (5,), minval=-1.0, maxval=1.0)
    factor = jnp.exp(config.contrast * draws[0] + config.tint * draws[2:])
    level = jnp.mean(image) * (1.0 - jnp.exp(config.contrast * draws[0])) + 255.0 * config.brightness * draws[1]
    return jnp.clip(image * factor[None, None] + level, 0.0, 255.0)


def _erase(config: AugmentationConfig, key: PRNGKeyArray, image: Float[Array, "s s 3"]) -> Float[Array, "s s 3"]:
    """Cover a rectangle with a plain colour, in a share of the examples."""
    share_key, box_key, colour_key = jax.random.split(key, 3)
    size = image.shape[0]
    draws = jax.random.uniform(box_key, (4,))
    side = draws[:2] * config.erase_side * size
    centre = draws[2:] * size
    pixel = jnp.arange(size) + 0.5
    inside = jnp.abs(pixel[None] - centre[:, None]) < side[:, None] / 2
    covered = inside[0][:, None] & inside[1][None] & (jax.random.uniform(share_key) < config.erase_share)
    colour = jax.random.uniform(colour_key, (1, 1, 3), maxval=255.0)
    return jnp.where(covered[:, :, None], colour, image)
