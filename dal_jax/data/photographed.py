"""An annotated person and their photograph, as an example of the schema; and whether they can be used at all."""

from typing import Any

import numpy as np
from jaxtyping import UInt8

from dal_jax.correspondences import observe, person as person_lib
from dal_jax.data import files as files_lib, pictures, schema

FEWEST_POINTS = 10
"""Dense points below which a person needs key points."""

FEWEST_KEYPOINTS = 5
"""Labelled key points below which a person needs dense points; as many as lifting needs."""

_FEW_POINTS = 30


def make_example(
    person: person_lib.AnnotatedPerson,
    photograph: UInt8[np.ndarray, "h w 3"],
    files: files_lib.Files,
    mask: UInt8[np.ndarray, "s s"] | None = None,
    iuv: UInt8[np.ndarray, "s s 3"] | None = None,
    **known: Any,
) -> dict[str, object]:
    """Return the example of a person of whom nothing is known in 3D.

    Args:
      person: annotation in the photograph's pixels.
      photograph: the whole of it.
      files: chart and size of the crop.
      mask, iuv: maps of the crop, as the schema has them.
      known: features that the annotation cannot tell: subject, action, video, frame, truth_*.
    """
    kept = observe.evenly(len(person.part), schema.POINTS)
    face, barycentric = files.load_chart().to_surface(person.part[kept], person.uv[kept])
    keypoints = person.keypoints
    return schema.unknown_truth() | {
        "image": pictures.jpeg(pictures.crop(photograph, person.crop_px, files.image_size)),
        "name": f"{person.file_name}#{person.annotation_id}",
        "subject": "",
        "action": "",
        "video": "",
        "frame": np.int32(-1),
        "box_px": person.crop_px.astype(np.float32),
        "keypoints_px": keypoints.position_px.astype(np.float32),
        "keypoint_visible": keypoints.flag.astype(np.uint8),
        "keypoint_derived": keypoints.derived.astype(np.uint8),
        **schema.point_features(person.point_px[kept], face, barycentric),
        "iuv": b"" if iuv is None else pictures.png(iuv),
        "mask": b"" if mask is None else pictures.png(mask),
        **known,
    }


def why_unusable(person: person_lib.AnnotatedPerson) -> str | None:
    """Say why nobody could fit a body to a person, None where one can: points or key points are enough."""
    points, labelled = len(person.part), labelled_keypoints(person)
    if points >= FEWEST_POINTS or labelled >= FEWEST_KEYPOINTS:
        return None
    return f"{points} dense points and {labelled} key points; {FEWEST_POINTS} or {FEWEST_KEYPOINTS} of them are needed"


def labelled_keypoints(person: person_lib.AnnotatedPerson) -> int:
    """Return how many joints somebody has labelled, derived ones left out."""
    return int(np.sum((person.keypoints.flag > 0) & ~person.keypoints.derived))


def notes(person: person_lib.AnnotatedPerson, photograph: UInt8[np.ndarray, "h w 3"]) -> list[str]:
    """Return what is worth counting about a person who is used."""
    x, y, width, height = person.bbox_px
    limit = photograph.shape[1::-1]
    over = x < 0 or y < 0 or x + width > limit[0] + 1 or y + height > limit[1] + 1  # COCO's boxes round to a pixel
    points = len(person.part)
    return (
        ["box over the border"] * bool(over)
        + ["without dense points"] * (points == 0)
        + [f"fewer than {_FEW_POINTS} dense points"] * (0 < points < _FEW_POINTS)
        + ["without key points"] * (labelled_keypoints(person) == 0)
    )
