"""Many people to be fitted: what their images say, stacked; from arrays or from annotation files."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from absl import logging
from jaxtyping import Float, Int

from dal_jax.body import skeleton
from dal_jax.body.cameras import Pinhole
from dal_jax.body.template import Template
from dal_jax.observations import observation as one_observation
from dal_jax.observations.chart import Chart, load_chart
from dal_jax.observations.observation import POINTS, Observation, crop_from_px
from dal_jax.observations.person import AnnotatedPerson, Annotations, square_crop

_SUM_TOLERANCE = 1e-3  # of barycentric coordinates


@dataclasses.dataclass(frozen=True, eq=False)
class Observations:
    """People, stacked: one row each.

    stacked: an `Observation` whose leaves have the people first (host arrays).
    bbox_px: x, y, width, height of each person in the photograph.
    image_id, annotation_id, file_name: who they are, in the words of the annotation.
    track_id: likewise, over the frames of a video; None of people who have none.
    """

    stacked: Observation
    bbox_px: Float[np.ndarray, "n 4"]
    image_id: list[int | str]
    annotation_id: list[int | str]
    file_name: list[str]
    track_id: Sequence[int | str | None] = ()

    def __len__(self) -> int:
        """Return the number of people."""
        return len(self.bbox_px)

    @classmethod
    def from_points(
        cls,
        points_px: np.ndarray | None = None,
        faces: np.ndarray | None = None,
        barycentrics: np.ndarray | None = None,
        *,
        keypoints_px: np.ndarray | None = None,
        box_px: np.ndarray | None = None,
        keypoint_set: str = "h36m",
    ) -> "Observations":
        """Make observations of arrays: dense points with the surface points they show, key points, or both.

        Example:
            obs = dal.Observations.from_points(points_px, faces, barycentrics, keypoints_px=keypoints_px)
            fits = dal.fit(obs, body)

        Args:
          points_px: (n, p, 2) image points, px, y down; NaN where a person has fewer. One person: (p, 2).
          faces: (n, p) faces of the body's mesh (`body.faces`) that the points show; not read where the point is NaN.
          barycentrics: (n, p, 3) places on these faces; three shares of sum 1.
          keypoints_px: (n, k, 2), px, in the order of `keypoint_set`; NaN where unknown. (n, k, 3) adds confidences in
            [0, 1].
          box_px: (n, 4) x, y, width, height of each person, px. Left out: the box round the points.
          keypoint_set: `h36m` (Human3.6M's 17), `coco` (17) or `body_25b` (OpenPose's 25, COCO's first).

        Raises:
          ValueError: a shape, a face, a share or a box that cannot be; names the argument, the person and the value.
        """
        if points_px is None and keypoints_px is None:
            raise ValueError("points_px or keypoints_px is needed")
        points, faces, shares = _dense(points_px, faces, barycentrics)
        keypoints, confidence = _keypoints(keypoints_px, keypoint_set)
        people = max(len(points), len(keypoints))
        if points_px is None:
            points, faces, shares = _no_points(people)
        if keypoints_px is None:
            keypoints, confidence = (np.repeat(each, people, axis=0) for each in _no_keypoints(keypoint_set))
        if len(points) != len(keypoints):
            raise ValueError(f"points_px has {len(points)} people, keypoints_px {len(keypoints)}")
        seen, known = np.all(np.isfinite(points), axis=-1), confidence > 0
        empty = ~np.any(seen, axis=1) & ~np.any(known, axis=1)
        if np.any(empty):
            raise ValueError(f"person {np.argmax(empty)} has neither a point nor a key point")
        bbox = _boxes(box_px, points, seen, keypoints, known)
        crop = np.stack([square_crop(one) for one in bbox])
        marked, position = seen[..., None], crop_from_px(keypoints, crop)
        stacked = Observation(
            point_position=np.where(marked, crop_from_px(np.where(marked, points, 0.0), crop), 0.0).astype(np.float32),
            point_face=np.where(seen, faces, 0).astype(np.int32),
            point_barycentric=np.where(marked, shares, (1.0, 0.0, 0.0)).astype(np.float32),
            point_confidence=np.asarray(seen, np.float32),
            keypoint_position=np.where(known[..., None], position, 0.0).astype(np.float32),
            keypoint_confidence=np.asarray(confidence, np.float32),
            depth=np.zeros(known.shape, np.float32),
            depth_confidence=np.zeros(known.shape, np.float32),
            box_px=crop.astype(np.float32),
            keypoint_set=_stored(keypoint_set),
        )
        return cls(stacked, bbox, list(range(people)), [0] * people, [""] * people)

    @classmethod
    def of_annotations(cls, annotations: Annotations, template: Template) -> "Observations":
        """Look up annotated people's points on a body; entries that were rejected are left out.

        Raises:
          errors.InputError: the chart cannot be read, or does not fit the body.
        """
        people, chart = annotations.people, load_chart(annotations.chart, template)
        if annotations.chart:
            _look_at_chart(people, chart, annotations.chart)
        return cls(
            one_observation.observe_all(people, chart),
            np.stack([person.bbox_px for person in people]),
            [person.image_id for person in people],
            [person.annotation_id for person in people],
            [person.file_name for person in people],
            [person.track_id for person in people],
        )

    def with_frames(
        self, frame: Int[np.ndarray, "n"], track_id: Sequence[int | str | None] | None = None
    ) -> "Observations":
        """Return the same people as those of a video's frames.

        Args:
          frame: the number of each person's frame, which becomes the image's id.
          track_id: who is who; left out: people are followed by where they are.

        Raises:
          ValueError: a shape that does not fit.
        """
        track_id = [None] * len(self) if track_id is None else list(track_id)
        if len(frame) != len(self) or len(track_id) != len(self):
            raise ValueError(f"{len(frame)} frames and {len(track_id)} track ids for {len(self)} people")
        return dataclasses.replace(self, image_id=[int(one) for one in frame], track_id=track_id)

    def with_views(self, camera: Sequence[str], frame: Int[np.ndarray, "n"]) -> "Observations":
        """Return the same people as those whom several cameras see, for `FitOptions(cameras=...)`.

        Args:
          camera: the name of the camera that saw each of them, as the calibration has it.
          frame: the number of the moment; pictures of one number were taken together.

        Raises:
          ValueError: a shape that does not fit.
        """
        if len(camera) != len(self) or len(frame) != len(self):
            raise ValueError(f"{len(camera)} cameras and {len(frame)} frames for {len(self)} people")
        names = [f"{one}/{int(number):06d}" for one, number in zip(camera, frame, strict=True)]
        return dataclasses.replace(self, file_name=names)

    def with_camera(
        self, focal_px: float | Float[np.ndarray, "n"], principal_px: Float[np.ndarray, "*n 2"]
    ) -> "Observations":
        """Return the same people before a camera of full perspective; without it the camera is weak (eq. 1).

        Args:
          focal_px: focal length, px; one, or one a person.
          principal_px: principal point in the photograph, px, usually its middle; one, or one a person.

        Raises:
          ValueError: a focal length that is not positive, or a shape that does not fit.
        """
        focal = np.broadcast_to(np.asarray(focal_px, np.float64), len(self))
        if not (np.isfinite(focal) & (focal > 0)).all():
            raise ValueError(f"focal_px is {focal_px}: positive, in pixels")
        principal = np.broadcast_to(np.asarray(principal_px, np.float64), (len(self), 2))
        box = np.asarray(self.stacked.box_px, np.float64)
        pinhole = Pinhole(
            focal=(focal / box[:, 2] * 2.0).astype(np.float32),
            centre=crop_from_px(principal[:, None], box)[:, 0].astype(np.float32),
        )
        return self.replace(lambda stacked: dataclasses.replace(stacked, pinhole=pinhole))

    def replace(self, change: Callable[[Observation], Observation]) -> "Observations":
        """Return the same people with another stacked observation."""
        return dataclasses.replace(self, stacked=change(self.stacked))


_LOOKED_AT = 2000  # points: enough to tell charts apart
_OUTSIDE, _OUTSIDE_SHARE = 0.02, 0.1
"""Points this far (in u and v) from all triangles of their part lie outside the chart; so many of them are suspicious.

A seventh of the points of the free body's chart lie outside DensePose's; of DensePose's own points one in a hundred.
"""


def _look_at_chart(people: Sequence[AnnotatedPerson], chart: Chart, path: str) -> None:
    """Warn where people's points do not look like points of this chart."""
    part = np.concatenate([one.part for one in people])
    uv = np.concatenate([one.uv for one in people])
    rows = one_observation.evenly(len(part), _LOOKED_AT)
    _, _, distance = chart.locate(part[rows], uv[rows])
    outside = float(np.mean(distance > _OUTSIDE)) if len(rows) else 0.0
    if outside > _OUTSIDE_SHARE:
        logging.warning(
            "%.0f%% of the dense points lie outside the chart %s: are they in the body's own chart?",
            100 * outside,
            path,
        )


def _dense(points_px, faces, barycentrics) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return points (n, p, 2), faces and shares, checked and padded to the usual number of points."""
    if points_px is None:
        if faces is not None or barycentrics is not None:
            raise ValueError("faces and barycentrics belong to points_px, which is missing")
        return _no_points(0)
    if faces is None or barycentrics is None:
        raise ValueError("points_px needs faces and barycentrics: the surface points that they show")
    points, faces, shares = (np.asarray(values) for values in (points_px, faces, barycentrics))
    if points.ndim == 2:
        points, faces, shares = points[None], faces[None], shares[None]
    people, count = points.shape[:2]
    for name, values, shape in (
        ("points_px", points, (people, count, 2)),
        ("faces", faces, (people, count)),
        ("barycentrics", shares, (people, count, 3)),
    ):
        if values.shape != shape:
            raise ValueError(f"{name} has shape {values.shape}, not {shape}")
    points = points.astype(np.float64)
    seen = np.all(np.isfinite(points), axis=-1)
    faces = np.where(seen, faces, 0)
    if not np.array_equal(faces, faces.astype(np.int64)) or (faces < 0).any():
        person, point = np.argwhere((faces < 0) | (faces != np.floor(faces)))[0]
        raise ValueError(f"faces[{person}, {point}] is {faces[person, point]}: not the number of a face")
    wrong = seen & ~((np.abs(shares.sum(axis=-1) - 1.0) < _SUM_TOLERANCE) & (shares > -_SUM_TOLERANCE).all(axis=-1))
    if wrong.any():
        person, point = np.argwhere(wrong)[0]
        raise ValueError(f"barycentrics[{person}, {point}] is {shares[person, point]}: not three shares of sum 1")
    more = [(0, 0), (0, max(POINTS - count, 0))]
    return (
        np.pad(points, [*more, (0, 0)], constant_values=np.nan),
        np.pad(faces.astype(np.int64), more),
        np.pad(np.where(seen[..., None], shares, 0.0), [*more, (0, 0)]),
    )


def _no_points(people: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros((people, 0, 2)), np.zeros((people, 0), np.int64), np.zeros((people, 0, 3))


def _stored(keypoint_set: str) -> str:
    """Return the set that an observation has: COCO's key points are BODY_25B's first."""
    return "body_25b" if keypoint_set == "coco" else keypoint_set


def _no_keypoints(keypoint_set: str) -> tuple[np.ndarray, np.ndarray]:
    """Return one person's positions and confidences, none of them known."""
    count = len(skeleton.KEYPOINT_SETS[_stored(keypoint_set)])
    return np.zeros((1, count, 2)), np.zeros((1, count))


def _keypoints(keypoints_px, keypoint_set: str) -> tuple[np.ndarray, np.ndarray]:
    """Return positions (n, k, 2), finite, and confidences (n, k)."""
    sizes = {"coco": len(skeleton.COCO_NAMES)} | {name: len(of) for name, of in skeleton.KEYPOINT_SETS.items()}
    if keypoint_set not in sizes:
        raise ValueError(f"keypoint_set '{keypoint_set}' is not one of {', '.join(sorted(sizes))}")
    if keypoints_px is None:
        return np.zeros((0, sizes[keypoint_set], 2)), np.zeros((0, sizes[keypoint_set]))
    count = sizes[keypoint_set]
    keypoints = np.asarray(keypoints_px, np.float64)
    keypoints = keypoints[None] if keypoints.ndim == 2 else keypoints
    if keypoints.ndim != 3 or keypoints.shape[1] != count or keypoints.shape[2] not in (2, 3):
        raise ValueError(f"keypoints_px has shape {keypoints.shape}, not (n, {count}, 2) or (n, {count}, 3)")
    known = np.all(np.isfinite(keypoints), axis=-1)
    confidence = np.asarray(known, np.float64)
    if keypoints.shape[2] == 3:
        confidence = np.where(known, keypoints[..., 2], 0.0)
        if ((confidence < 0) | (confidence > 1)).any():
            person, joint = np.argwhere((confidence < 0) | (confidence > 1))[0]
            raise ValueError(
                f"keypoints_px[{person}, {joint}, 2] is {confidence[person, joint]}: a confidence is 0 to 1"
            )
    more = len(skeleton.KEYPOINT_SETS[_stored(keypoint_set)]) - count
    position = np.where(known[..., None], keypoints[..., :2], 0.0)
    return np.pad(position, [(0, 0), (0, more), (0, 0)]), np.pad(confidence, [(0, 0), (0, more)])


def _boxes(box_px, points, seen, keypoints, known) -> Float[np.ndarray, "n 4"]:
    """Return each person's box: the given one, or the one round the points."""
    if box_px is None:
        places = np.concatenate([points, keypoints], axis=1)
        marked = np.concatenate([seen, known], axis=1)[..., None]
        low = np.min(np.where(marked, places, np.inf), axis=1)
        high = np.max(np.where(marked, places, -np.inf), axis=1)
        boxes = np.concatenate([low, high - low], axis=1)
    else:
        boxes = np.asarray(box_px, np.float64)
        boxes = boxes[None] if boxes.ndim == 1 else boxes
        if boxes.shape != (len(points), 4):
            raise ValueError(f"box_px has shape {boxes.shape}, not ({len(points)}, 4)")
    good = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:].max(axis=1) > 0) & (boxes[:, 2:] >= 0).all(axis=1)
    if not good.all():
        raise ValueError(f"the box of person {good.argmin()} is {boxes[good.argmin()]}: x, y, width, height, not empty")
    return boxes
