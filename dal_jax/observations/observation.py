"""What one image says about one person: dense matches, key points, depths; fixed size, masked by confidence."""

import dataclasses

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from dal_jax.body import cameras
from dal_jax.body.cameras import Pinhole, Views
from dal_jax.observations.chart import Chart
from dal_jax.observations.person import AnnotatedPerson
from dal_jax.runtime import struct


@struct.dataclass
class Expected:
    """What the other frames of a track say about a person's body in this one: Gaussians about a body (batch leading).

    rotation: of every segment, body to camera; by d = log(G Gbar'), in camera axes, radians.
    rotation_root: R with the energy |R d|^2.
    stretch: log scales of the segments against their parents'; stretch_weight: of their squared deviations.
    log_girth, girth_weight: likewise, where girth is an unknown; of anisotropic scales the log segment girths.
    place: of the pelvis in the crop, and the log scale of its segment in it, crop units a metre; place_weight.
    """

    rotation: Float[Array | np.ndarray, "*batch 24 3 3"]
    rotation_root: Float[Array | np.ndarray, "*batch 24 3 3"]
    stretch: Float[Array | np.ndarray, "*batch 23"]
    stretch_weight: Float[Array | np.ndarray, "*batch 23"]
    log_girth: Float[Array | np.ndarray, "*batch_and_girths"]
    girth_weight: Float[Array | np.ndarray, "*batch_and_girths"]
    place: Float[Array | np.ndarray, "*batch 3"]
    place_weight: Float[Array | np.ndarray, "*batch 3"]


@struct.dataclass
class Observation:
    """One person's annotation in crop coordinates: the square crop is [-1, 1], y down (leading axes batch).

    A confidence of 0 marks padding or a missing entry, whose other values must be finite and are never read.

    point_position: annotated image points p_i of eq. 3.
    point_face, point_barycentric: the surface points they show, on the template.
    keypoint_position: x and y of eq. 4, in the order of their set.
    depth: z of eq. 4 from the lifting, crop units, z away from the camera; from where is left open.
    box_px: x, y, width, height of the square crop in the photograph, px.
    depth_turns: how depths may be off in common (`residuals.depth_residual`); None: not at all, as in the paper.
    pinhole: the camera, if it is known; None: weak perspective, as in the paper.
    expected: of a frame of a track what the others say; None: nothing, as in the paper.
    views: the cameras of a moment that several see; None: one image. With it all leaves but those of `expected` have an
      axis for the views, the last of the batch, and `pinhole` is None. Depths are not read.
    keypoint_set: which places on the body the key points are, a name of `skeleton.KEYPOINT_SETS`.
    """

    point_position: Float[Array | np.ndarray, "*batch points 2"]
    point_face: Int[Array | np.ndarray, "*batch points"]
    point_barycentric: Float[Array | np.ndarray, "*batch points 3"]
    point_confidence: Float[Array | np.ndarray, "*batch points"]
    keypoint_position: Float[Array | np.ndarray, "*batch k 2"]
    keypoint_confidence: Float[Array | np.ndarray, "*batch k"]
    depth: Float[Array | np.ndarray, "*batch k"]
    depth_confidence: Float[Array | np.ndarray, "*batch k"]
    box_px: Float[Array | np.ndarray, "*batch 4"]
    depth_turns: Float[Array | np.ndarray, "*batch 2 k"] | None = None
    pinhole: Pinhole | None = None
    expected: Expected | None = None
    views: Views | None = None
    keypoint_set: str = struct.static(default="h36m")


def crop_from_px(
    points_px: Float[Array | np.ndarray, "*batch points 2"], box_px: Float[Array | np.ndarray, "*batch 4"]
):
    """Return photograph pixels in the crop's [-1, 1]."""
    corner, side = box_px[..., None, :2], box_px[..., None, 2:3]
    return (points_px - corner) / side * 2.0 - 1.0


def px_from_crop(
    points_crop: Float[Array | np.ndarray, "*batch points 2"], box_px: Float[Array | np.ndarray, "*batch 4"]
):
    """Return crop points in photograph pixels: the inverse of `crop_from_px`."""
    corner, side = box_px[..., None, :2], box_px[..., None, 2:3]
    return (points_crop + 1.0) / 2.0 * side + corner


TYPICAL_DEPTH_SD = 0.15
"""Deviation of a good lifted depth, of the pose's size: about 7 cm for an upright person. Its confidence is a half.

Note: our choice. It keeps the weights that depths had before deviations were made as large as errors are (by 1.5): the
demo's first round is 59.7 mm off on 1,024 training people with it, 62.9 with 0.1, 58.1 with 0.2.
"""

TURN, HEADING = 0.2, 3.0
"""How freely eq. 4 lets lifted depths turn: radians about the image's x, and how many times that about its y.

Note: our choice, on 192 synthetic training people before known cameras that look down by 5 to 25 degrees, by key points
alone: scale-matched 48.4 mm (48.2 where the pitch is known) with these, 50.0 (48.4) with 0.1, 48.5 (48.4) with 0.4,
55.1 (50.5) where depths do not turn, and 52.3 (49.6) without a lifter, the shipped one, whose slopes err by 0.14 and
0.22 there.
"""


def with_turns(observation: Observation) -> Observation:
    """Return stacked observations whose lifted depths may turn in common about the image's x and y.

    Depths that were turned by (a, b) about y and x are z + a x + b y, x and y the key points' places about their mean.
    The least of sum d (z - a x - b y)^2 + (a / sd_a)^2 + (b / sd_b)^2 over turns, in the unit of eq. 4, is
    |v - h'(h v)|^2, v the weighted depths (`residuals.depth_residual`) and h what is attached.
    """
    mass = np.asarray(observation.depth_confidence, np.float64)
    mass = np.where(np.asarray(observation.keypoint_confidence) > 0, mass, 0.0)
    place = np.asarray(observation.keypoint_position, np.float64)
    total = np.maximum(mass.sum(axis=1), _FLAT)[:, None]
    place = place - (np.einsum("pk,pkc->pc", mass, place) / total)[:, None]
    size = np.sqrt(np.einsum("pk,pkc->p", mass, place**2) / total[:, 0])
    rows = np.sqrt(mass)[..., None] * place
    stiffness = np.diag([(TURN * HEADING) ** -2, TURN**-2]) * (TYPICAL_DEPTH_SD * size)[:, None, None] ** 2
    normal = np.einsum("pki,pkj->pij", rows, rows) + stiffness + _FLAT * np.eye(2)
    half = np.linalg.cholesky(np.linalg.inv(normal))
    directions, cosine, _ = np.linalg.svd(rows @ half, full_matrices=False)
    share = 1.0 - np.sqrt(1.0 - np.minimum(cosine, 1.0) ** 2)
    turns = np.sqrt(share)[:, :, None] * np.swapaxes(directions, 1, 2)
    return dataclasses.replace(observation, depth_turns=turns.astype(np.float32))


_FLAT = 1e-9  # key points at one place tell no turn


def with_depth(observation: Observation, depth: np.ndarray, confidence: np.ndarray | None = None) -> Observation:
    """Attach lifted depths; by default they are trusted where the key point itself is (paper: all alike)."""
    trusted = observation.keypoint_confidence if confidence is None else confidence
    return dataclasses.replace(
        observation, depth=np.asarray(depth, np.float32), depth_confidence=np.asarray(trusted, np.float32)
    )


def along_ray(observation: Observation, intrinsics_px: Float[np.ndarray, "people 4"]) -> Observation:
    """Return stacked observations as cameras of full perspective see them that look at the middles of their crops.

    A crop's picture tells a regressor nothing of where in the photograph it lay, and what it shows looks along its own
    ray, not along the optical axis. So each camera is turned to the ray through the middle of the crop, at its place,
    with its image plane through the same pixel: there the scale of the crop is that of the photograph.
    `cameras.crop_rotation` turns bodies seen so into the photograph's axes.

    Args:
      observation: of people, as in photographs.
      intrinsics_px: fx, fy, cx, cy of each photograph's camera; NaN where it is not known: that one is taken to be far
        away, which is weak perspective.
    """
    box, intrinsics = np.asarray(observation.box_px, np.float64), np.asarray(intrinsics_px, np.float64)
    far = np.concatenate([np.full_like(box[:, 2:], _FAR) * box[:, 2:] / 2.0, box[:, :2] + box[:, 2:] / 2.0], axis=1)
    intrinsics = np.where(np.isfinite(intrinsics).all(axis=1, keepdims=True), intrinsics, far)
    focal, principal = intrinsics[:, :2], intrinsics[:, 2:]
    rotation = cameras.crop_rotations(box, intrinsics).astype(np.float64)
    middle = (box[:, :2] + box[:, 2:] / 2.0 - principal) / focal
    length = np.sqrt(focal.prod(axis=1) * (1.0 + np.sum(middle**2, axis=1))) * 2.0 / box[:, 2]

    def seen(position: Array | np.ndarray) -> Float[np.ndarray, "people points 2"]:
        across = (px_from_crop(np.asarray(position, np.float64), box) - principal[:, None]) / focal[:, None]
        ray = np.concatenate([across, np.ones_like(across[..., :1])], axis=-1) @ rotation
        ahead = np.maximum(ray[..., 2:], _AHEAD)  # entries without confidence may lie anywhere
        return (length[:, None, None] * ray[..., :2] / ahead).astype(np.float32)

    return dataclasses.replace(
        observation,
        point_position=seen(observation.point_position),
        keypoint_position=seen(observation.keypoint_position),
        pinhole=Pinhole(length.astype(np.float32), np.zeros((len(box), 2), np.float32)),
    )


_AHEAD = 1e-3
_FAR = 1e4  # half sides of the crop: a body there is seen without perspective, to its ten thousandth


# --- From an annotated person to the fixed-size, masked `Observation` that registration and training read ---

POINTS = 200
"""Matches kept a person; DensePose-COCO has at most 196 (14 in each of 14 regions)."""


def observe(person: AnnotatedPerson, chart: Chart, points: int = POINTS) -> Observation:
    """Return one person's observation with NumPy leaves; of more than `points` matches an even choice is kept."""
    kept = evenly(len(person.part), points)
    face, barycentric = chart.to_surface(person.part[kept], person.uv[kept])
    box = person.crop_px
    confidence = person.keypoints.confidence
    keypoint = crop_from_px(person.keypoints.position_px.astype(np.float64), box)
    return Observation(
        point_position=_pad(crop_from_px(person.point_px[kept], box), points, np.float32),
        point_face=_pad(face, points, np.int32),
        point_barycentric=_pad(barycentric, points, np.float32, fill=(1.0, 0.0, 0.0)),
        point_confidence=_pad(np.ones(len(kept)), points, np.float32),
        keypoint_position=np.where(confidence[:, None] > 0, keypoint, 0.0).astype(np.float32),
        keypoint_confidence=confidence.astype(np.float32),
        depth=np.zeros(len(confidence), np.float32),
        depth_confidence=np.zeros(len(confidence), np.float32),
        box_px=box.astype(np.float32),
        keypoint_set=person.keypoints.keypoint_set,
    )


def observe_all(people: list[AnnotatedPerson], chart: Chart, points: int = POINTS) -> Observation:
    """Return the observations of several people, stacked; their key points are of one set.

    Where nobody has dense points there is no room for them: fits to key points are then as fast as they can be.
    """
    points = points if any(len(person.part) for person in people) else 0
    each = [observe(person, chart, points) for person in people]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *each)


def hold_out(observation: Observation, fold: int, folds: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the point confidences to fit with and those left out: every `folds`-th point, starting at `fold`.

    Annotations list points part by part, so that every part loses its share. Works on any leading axes.
    """
    confidence = np.asarray(observation.point_confidence)
    left_out = np.arange(confidence.shape[-1]) % folds == fold
    return np.where(left_out, 0.0, confidence), np.where(left_out, confidence, 0.0)


def evenly(count: int, limit: int) -> Int[np.ndarray, "kept"]:
    """Return at most `limit` of the indices 0..count-1, evenly spaced: the same choice every time."""
    if count <= limit:
        return np.arange(count)
    return (np.arange(limit) * count) // limit


def _pad(values: Array | np.ndarray, length: int, dtype: type, fill: tuple | float = 0.0) -> np.ndarray:
    padded = np.empty((length, *values.shape[1:]), dtype)
    padded[:] = fill
    padded[: len(values)] = values
    return padded
