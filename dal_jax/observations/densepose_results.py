"""DensePose's predictions of whole photographs in one file: detectron2's dump, and DensePose's results.json.

Both hold, for each person, a box and the part, u and v of every pixel in it: a small IUV picture, read as such.
"""

import base64
import binascii
import dataclasses
import io
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from dal_jax.body.formats import torch_file
from dal_jax.body.formats.array_pickle import reason
from dal_jax.body.formats.pickles import Record, record
from dal_jax.body.formats.torch_file import Arrays
from dal_jax.observations import densepose, iuv, photographs, pose_files
from dal_jax.observations.coco import BadEntry
from dal_jax.observations.formats import are_numbers, short
from dal_jax.observations.person import AnnotatedPerson, Annotations, Rejected
from dal_jax.observations.pose_files import Images
from dal_jax.runtime import door, files
from dal_jax.runtime.errors import InputError

LEAST_SCORE = 0.8
"""People of lower scores are left out: most are second detections of one person. detectron2's `show` does the same."""

_PLACE = "densepose.structures"
_CLASSES = {
    f"{_PLACE}.chart_result": {
        "DensePoseChartResult": record("chart"), "DensePoseChartResultWithConfidences": record("chart"),
        "DensePoseChartResultQuantized": record("quantized"), "DensePoseChartResultCompressed": record("compressed"),
    },
    f"{_PLACE}.cse": {"DensePoseEmbeddingPredictorOutput": record("embedding")},
    f"{_PLACE}.cse_confidence": {"DensePoseEmbeddingPredictorOutput": record("embedding")},
    _PLACE: {"DensePoseResult": record("encoded")},
    "densepose.data.structures": {"DensePoseResult": record("encoded")},
}  # fmt: skip
"""What detectron2's dumps name; the last two as versions before 2020 did."""

_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_BORDER = 4  # pixels; further than `iuv` looks for other labels
_LOOKED_AT = 1 << 16  # bytes in which results.json names its field: beside the data its entries are short


class _Box(NamedTuple):
    """One predicted person: v, u, part of each pixel of a box x, y, width, height, px; `picture` as in `Found`."""

    where: str
    picture: Any
    box_px: Float[np.ndarray, "4"]
    pixels: UInt8[np.ndarray, "h w 3"]


def is_one(path: pathlib.Path) -> bool:
    """Tell whether a file is such a dump or such a results.json, from its first bytes."""
    if not path.is_file():
        return False
    with door.opened(path) as stream:
        start = stream.read(_LOOKED_AT)
    return start.startswith(_PICKLES) or (start.lstrip()[:1] == b"[" and b'"uv_data"' in start)


def read(path: pathlib.Path, images: Images = None, skip_invalid: bool = False) -> Annotations:
    """Read people with `iuv.MATCHES` points each, as of an IUV picture of their own; there are no key points.

    Args:
      path: what `apply_net.py dump` wrote, which is never unpickled, or DensePose's results.json.
      images: photographs, with whose names the file's are matched.
      skip_invalid: keep going over bad people and list them as rejected.

    Raises:
      errors.InputError: the file is neither, or without `skip_invalid` the first bad person; one line.
    """
    names = pose_files.by_name(images)
    places = pose_files.places_of(names)
    entries: list[AnnotatedPerson | Rejected] = []
    notes, low = [], 0
    for found in _people(path):
        if found is None:
            low += 1
            continue
        try:
            if isinstance(found, InputError):
                raise found
            name = pose_files.match(found.picture, places)
            if images is not None and name is None:
                raise InputError(f"{found.where}: there is no photograph {short(found.picture)}")
            one = _of_box(found, len(entries) + 1, name, photographs.upright_size(names[name]) if name else None)
        except InputError as error:
            if not skip_invalid:
                raise
            entries.append(Rejected(-1, len(entries) + 1, "", "bad entry", str(error)))
            continue
        entries += one.entries
        notes += one.notes[: len(notes) == 0]  # what is odd about one is about all of a network's
    if low:
        notes.append(f"{path}: {low} people of a score below {LEAST_SCORE} are left out")
    annotations = Annotations(entries, predicted=True, notes=notes)
    if not annotations.people:
        rejected = annotations.rejected
        raise InputError("; ".join([rejected[0].message if rejected else f"{path}: shows no person", *notes[-1:]]))
    return annotations


def _of_box(found: _Box, number: int, name: str | None, size: tuple[int, int] | None) -> Annotations:
    """Return the person of a box, whose pixels lie evenly in it; name, size: of the photograph, if it is known."""
    try:
        densepose.require_box(found.box_px, size)
    except BadEntry as bad:
        raise InputError(f"{found.where}: {bad.detail}") from bad
    file_name = name or (found.picture if isinstance(found.picture, str) else "")
    height, width = found.pixels.shape[:2]
    pixels = np.pad(
        found.pixels, [(_BORDER, _BORDER), (_BORDER, _BORDER), (0, 0)]
    )  # off the body, as round a picture's
    own = iuv.people_of(pixels, (pixels[..., 2] > 0).astype(np.uint8), found.where, file_name=file_name, image_id=0)
    step = found.box_px[2:] / (width, height)
    image_id = found.picture if isinstance(found.picture, int) else file_name
    entries = [
        dataclasses.replace(
            one,
            image_id=image_id,
            annotation_id=number,
            picture_size=size,
            bbox_px=np.concatenate([found.box_px[:2] + (one.bbox_px[:2] - _BORDER) * step, one.bbox_px[2:] * step]),
            point_px=found.box_px[:2] + (one.point_px - _BORDER) * step,
        )
        if isinstance(one, AnnotatedPerson)
        else dataclasses.replace(one, image_id=image_id, annotation_id=number)
        for one in own.entries
    ]
    return dataclasses.replace(own, entries=entries or [_nobody(found, image_id, number, file_name)])


def _nobody(found: _Box, image_id: int | str, number: int, file_name: str) -> Rejected:
    return Rejected(image_id, number, file_name, "too few pixels", f"{found.where}: no pixel belongs to a person")


def _people(path: pathlib.Path) -> Iterator[_Box | InputError | None]:
    """Yield the people of a file, what is wrong with one, or None for one of a low score."""
    with door.opened(path) as stream:
        packed = stream.read(2) in {start[:2] for start in _PICKLES}
    yield from _of_dump(path) if packed else _of_json(path)


# --- detectron2's dump ---


def _of_dump(path: pathlib.Path) -> Iterator[_Box | InputError | None]:
    content, array = torch_file.read(path, _CLASSES)
    if not isinstance(content, list) or not all(isinstance(one, dict) for one in content):
        raise InputError(f"{path}: holds a {type(content).__name__}, expected what apply_net.py dump writes: a list")
    for one in content:
        name = str(one.get("file_name", "")).replace("\\", "/").rpartition("/")[2]
        where = f"{path}: '{name}'"
        if "pred_densepose" not in one and "pred_boxes_XYXY" in one:
            raise InputError(f"{where}: holds boxes alone, of a network without DensePose")
        if "pred_densepose" not in one:
            continue
        try:
            people, scores = _listed(one["pred_densepose"], where), array(_field(one, "scores"))
            corners = array(_field(one, "pred_boxes_XYXY")).astype(np.float64)
            if not len(people) == len(scores) == len(corners) or corners.shape[1:] != (4,):
                raise ValueError(f"{len(people)} people, {len(scores)} scores, boxes of shape {corners.shape}")
        except door.UNREADABLE as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{where}: {_why(error)}") from error
        for row, (person, score, corner) in enumerate(zip(people, scores, corners, strict=True)):
            if score < LEAST_SCORE:
                yield None
                continue
            at = f"{where}: person {row}"
            try:
                box = np.concatenate([corner[:2], corner[2:] - corner[:2]])
                yield _box(at, name, box, _chart(array, person))
            except door.UNREADABLE as error:
                yield InputError(f"{at}: {_why(error)}")


def _listed(people: Any, where: str) -> list[Any]:
    """Return what stands for each person, in any version of detectron2."""
    if isinstance(people, Record) and people.kind == "encoded":
        people = [list(one) for one in _field(people.state, "results")]
    if isinstance(people, Record) or any(isinstance(one, Record) and one.kind == "embedding" for one in people):
        raise InputError(
            f"{where}: holds continuous surface embeddings (CSE), whose places on the chart are not in the file: dump "
            "with a network for charts"
        )
    return list(people)


def _chart(array: Arrays, person: Any) -> np.ndarray:
    """Return (3, h, w): part, and u and v in 0..255, of a person in a dump."""
    if isinstance(person, Record) and person.kind == "chart":
        part, uv = (array(_field(person.state, name)) for name in ("labels", "uv"))
        if part.ndim != 2 or uv.shape != (2, *part.shape):
            raise ValueError(f"labels of shape {part.shape}, uv of shape {uv.shape}")
        if not np.isfinite(uv).all():
            raise ValueError("a u or v is not finite")
        return np.concatenate([part[None], np.rint(np.clip(uv, 0.0, 1.0) * 255.0)])
    if isinstance(person, Record) and person.kind == "quantized":
        return array(_field(person.state, "labels_uv_uint8"))
    if isinstance(person, Record) and person.kind == "compressed":
        person = [_field(person.state, name) for name in ("shape_chw", "labels_uv_str")]
    if isinstance(person, list) and len(person) == 2:
        return _unpacked(*person)
    raise ValueError(f"holds {short(getattr(person, 'kind', person))}, expected a chart's labels and uv")


def _field(fields: Any, name: str) -> Any:
    if not isinstance(fields, dict) or name not in fields:
        raise ValueError(f"field '{name}' is missing")
    return fields[name]


def _why(error: BaseException) -> str:
    return reason(error).removeprefix("not a readable file: ")


# --- results.json ---


def _of_json(path: pathlib.Path) -> Iterator[_Box | InputError | None]:
    content = files.read_json(path)
    for row, one in enumerate(content if isinstance(content, list) else []):
        at = f"{path}: entry {row}"
        fields = one if isinstance(one, dict) else {}
        score = fields.get("score", 1.0)
        if are_numbers([score]) and score < LEAST_SCORE:
            yield None
            continue
        box = fields.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not are_numbers(box):
            yield InputError(f"{at}: bbox is {short(box)}, expected x, y, width, height")
            continue
        try:
            chart = _unpacked(_field(fields, "uv_shape"), _field(fields, "uv_data"))
            yield _box(at, fields.get("image_id"), np.array(box, np.float64), chart)
        except door.UNREADABLE as error:
            yield InputError(f"{at}: {_why(error)}")


def _unpacked(shape: Any, text: Any) -> np.ndarray:
    """Return (3, h, w) from a PNG in base64, whose channels are part, u and v; `shape` is that."""
    try:
        content = base64.b64decode(text)
    except (binascii.Error, TypeError, ValueError):
        raise ValueError(f"{short(text)} is no base64") from None
    with photographs.opened(io.BytesIO(content)) as picture:
        if picture.mode != "RGB":
            raise ValueError(f"a picture in {picture.mode}, expected RGB")
        pixels = np.moveaxis(np.asarray(picture), -1, 0)
    if list(shape) != list(pixels.shape):
        raise ValueError(f"shape is {short(shape)}, but its picture has {pixels.shape}")
    return pixels


def _box(where: str, picture: Any, box_px: np.ndarray, chart: np.ndarray) -> _Box:
    """Return a person from (3, h, w): part, u and v in 0..255; the picture's order is v, u, part."""
    if chart.ndim != 3 or chart.shape[0] != 3 or not chart.size:
        raise ValueError(f"part, u and v have shape {chart.shape}, expected (3, height, width)")
    if chart[0].min() < 0 or chart[0].max() > 24:
        wrong = chart[0].max() if chart[0].max() > 24 else chart[0].min()
        raise ValueError(f"part is {wrong:g}, a part is 0 to 24")
    if not np.isfinite(box_px).all():
        raise ValueError(f"box is {box_px.tolist()}")
    return _Box(where, picture, box_px, np.moveaxis(chart[::-1], 0, -1).astype(np.uint8))
