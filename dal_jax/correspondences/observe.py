"""From an annotated person to the fixed-size, masked `Observation` that registration and training read."""

import dataclasses

import numpy as np
from jaxtyping import Int

from dal_jax.correspondences import chart as chart_lib, observations, person as person_lib

POINTS = 200
"""Matches kept a person; DensePose-COCO has at most 196 (14 in each of 14 regions)."""


def observe(
    person: person_lib.AnnotatedPerson, chart: chart_lib.Chart, points: int = POINTS
) -> observations.Observation:
    """Return one person's observation with NumPy leaves; of more than `points` matches an even choice is kept."""
    kept = evenly(len(person.part), points)
    face, barycentric = chart.to_surface(person.part[kept], person.uv[kept])
    box = person.crop_px
    confidence = person.keypoints.confidence
    keypoint = observations.crop_from_px(person.keypoints.position_px.astype(np.float64), box)
    return observations.Observation(
        point_position=_pad(observations.crop_from_px(person.point_px[kept], box), points, np.float32),
        point_face=_pad(face, points, np.int32),
        point_barycentric=_pad(barycentric, points, np.float32, fill=(1.0, 0.0, 0.0)),
        point_confidence=_pad(np.ones(len(kept)), points, np.float32),
        keypoint_position=np.where(confidence[:, None] > 0, keypoint, 0.0).astype(np.float32),
        keypoint_confidence=confidence.astype(np.float32),
        depth=np.zeros(observations.KEYPOINTS, np.float32),
        depth_confidence=np.zeros(observations.KEYPOINTS, np.float32),
        box_px=box.astype(np.float32),
    )


def observe_all(
    people: list[person_lib.AnnotatedPerson], chart: chart_lib.Chart, points: int = POINTS
) -> observations.Observation:
    """Return the observations of several people, stacked."""
    each = [observe(person, chart, points) for person in people]
    fields = {
        field.name: np.stack([getattr(one, field.name) for one in each])
        for field in dataclasses.fields(observations.Observation)
    }
    return observations.Observation(**fields)


def hold_out(observation: observations.Observation, fold: int, folds: int) -> tuple[np.ndarray, np.ndarray]:
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


def _pad(values: np.ndarray, length: int, dtype: type, fill: tuple | float = 0.0) -> np.ndarray:
    padded = np.empty((length, *values.shape[1:]), dtype)
    padded[:] = fill
    padded[: len(values)] = values
    return padded
