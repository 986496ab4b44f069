"""People and their key points in photographs and videos alone, by MediaPipe's Pose Landmarker.

Its three-dimensional `world` landmarks are not read: depth is the lifter's, as for key points of any other detector.
"""

import contextlib
import os
import pathlib
import sys
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float, UInt8

from dal_jax.body import skeleton
from dal_jax.observations import coco, detections, keypoints, photographs
from dal_jax.observations.densepose import FEWEST_KEYPOINTS
from dal_jax.observations.keypoints import SEEN, UNLABELLED, Keypoints
from dal_jax.observations.person import AnnotatedPerson, Annotations, Rejected
from dal_jax.runtime import progress as bars
from dal_jax.runtime.errors import InputError, needs_extra

MODEL_URL = "https://storage.googleapis.com/mediapipe-models/pose_landmarker/"
"""Where MediaPipe offers the model files (Apache-2.0): pose_landmarker_lite, _full and _heavy."""

EXTRA = "detect"
NOBODY = "nobody found"
"""The kind of a rejected entry that stands for a picture without people."""

_USED = [row for row, name in enumerate(skeleton.MEDIAPIPE_NAMES) if name in skeleton.BODY_25B_NAMES]
"""Landmarks that are key points of BODY_25B by name.

Note: the conventions differ a little: hips are an eighth closer together than OpenPose's on the same pictures, and 3 cm
lower; shoulders are a twentieth further apart.
"""

_LandmarksOf = Callable[[UInt8[np.ndarray, "h w 3"]], Float[np.ndarray, "people 33 3"]]
"""Returns x, y, px, and the score of every landmark of the people in a picture, as files of landmarks have it."""


def detect(
    images: str | os.PathLike[str],
    model: str | os.PathLike[str],
    *,
    most_people: int = 10,
    skip_invalid: bool = False,
    progress: bool = False,
) -> Annotations:
    """Find people and their key points in photographs or in a video; fit them with `dal.fit`.

    Example:
        people = dal.detect("photos", "pose_landmarker_full.task")
        fits = dal.fit(people)

    Args:
      images: folder of photographs, one photograph, or one video, whose frames are called NAME_000123.
      model: a model file of MediaPipe's Pose Landmarker, see `MODEL_URL`.
      most_people: to look for in a picture.
      skip_invalid: keep going over photographs that cannot be read and list them as rejected.
      progress: show a bar on stderr.

    Returns:
      People in the order of the pictures, as of `read_annotations`; a picture without people is a rejected entry.

    Raises:
      errors.InputError: a file is missing or damaged, MediaPipe is not installed, or nobody is found; one line.
    """
    if most_people < 1:
        raise ValueError(f"most_people is {most_people}: at least 1")
    source, entries, found = pathlib.Path(images), [], 0
    with _landmarker(pathlib.Path(model), most_people) as landmarks_of:
        total, pictures = _pictures(source)
        for row, (name, read) in enumerate(bars.bar("detect", pictures, total, "picture", progress)):
            try:
                pixels = read()
            except InputError as error:
                if not skip_invalid:
                    raise
                entries.append(Rejected(row, -1, name, "unreadable picture", str(error)))
                continue
            people = [marked for one in landmarks_of(pixels) if (marked := _keypoints(one)) is not None]
            for marked in people:
                found += 1
                entries.append(_person(row, found, name, (pixels.shape[1], pixels.shape[0]), marked))
            if not people:
                entries.append(Rejected(row, -1, name, NOBODY, f"{source}: nobody is found in {name}"))
    if not found:
        raise InputError(f"{source}: nobody is found in {len(entries)} pictures")
    return Annotations(entries, images=os.fspath(source), detected=True)


def _pictures(source: pathlib.Path) -> tuple[int | None, Iterator[tuple[str, Callable[[], np.ndarray]]]]:
    """Return how many pictures there are, if that is known, and of each its name and what reads it."""
    if photographs.is_video(source):
        frames = photographs.frames(source, extra=EXTRA)
        named = ((photographs.frame_name(source, number), lambda frame=frame: frame) for number, frame in frames)
        return photographs.frames_and_rate(source, EXTRA)[0], named
    paths = detections.list_photographs(source)
    return len(paths), ((path.name, lambda path=path: photographs.read_picture(path)) for path in paths)


def _keypoints(landmarks: Float[np.ndarray, "33 3"]) -> Keypoints | None:
    """Return BODY_25B's key points of a person (x, y, score); None where fewer than five are seen."""
    seen = landmarks[_USED]
    seen[:, 2] = np.where(seen[:, 2] >= coco.SEEN_SCORE, SEEN, UNLABELLED)
    marked = keypoints.from_named([skeleton.MEDIAPIPE_NAMES[row] for row in _USED], seen)
    return marked if np.sum(marked.flag > 0) >= FEWEST_KEYPOINTS else None


def _person(row: int, number: int, name: str, size: tuple[int, int], marked: Keypoints) -> AnnotatedPerson:
    return AnnotatedPerson(
        image_id=row, annotation_id=number, file_name=name, picture_size=size, bbox_px=coco.box_round(marked),
        point_px=np.zeros((0, 2)), part=np.zeros(0, np.int64), uv=np.zeros((0, 2)), keypoints=marked,
    )  # fmt: skip


@contextlib.contextmanager
def _landmarker(model: pathlib.Path, most_people: int) -> Iterator[_LandmarksOf]:
    """Open a model, and yield what finds people in pictures."""
    if not model.is_file():
        raise InputError(f"{model}: no such file; MediaPipe offers its Pose Landmarker's at {MODEL_URL}")
    with needs_extra(EXTRA):
        try:
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision

            options = vision.PoseLandmarkerOptions(
                base_options=BaseOptions(model_asset_path=os.fspath(model)), num_poses=most_people
            )
            with _quiet():
                landmarker = vision.PoseLandmarker.create_from_options(options)
        except ModuleNotFoundError:
            raise
        except (ImportError, OSError, AttributeError) as error:  # such as a graphics library of the system
            raise InputError(f"mediapipe is installed, but cannot be loaded: {error}") from error
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{model}: is no model of MediaPipe's Pose Landmarker: {error}") from error

    def landmarks_of(pixels: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "people 33 3"]:
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(pixels))
        with _quiet():
            found = landmarker.detect(image).pose_landmarks
        places = np.array([[(one.x, one.y, one.presence) for one in person] for person in found])
        return places.reshape(-1, len(skeleton.MEDIAPIPE_NAMES), 3) * (pixels.shape[1], pixels.shape[0], 1)

    try:
        yield landmarks_of
    finally:
        with _quiet():
            landmarker.close()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Send what is written to stderr nowhere: MediaPipe's C++ logs to it, and has no switch for that."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
