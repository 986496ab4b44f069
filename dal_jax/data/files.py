"""The files that a data set is made from: their folder, the chart, the body, the size of the crops."""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import UInt8

from dal_jax.body.formats import load
from dal_jax.data import schema
from dal_jax.observations import coco, observation, photographs
from dal_jax.observations.chart import Chart, load_chart
from dal_jax.observations.densepose import FEWEST_KEYPOINTS
from dal_jax.observations.person import AnnotatedPerson, keypoints_outside
from dal_jax.runtime import door
from dal_jax.runtime.errors import InputError

_VERSION = "2"  # of how examples are made from files: raise it and every data set is prepared anew


@dataclasses.dataclass(frozen=True)
class Files:
    """Where a data set's files are, and how its people are cut out.

    source: the folder, laid out as docs/NAME.md says. chart: DensePose's UV_Processed.mat; '': the annotation is in the
    body's own chart. body: a body file; '': the free body. image_size: px, of the square crops.
    """

    source: str
    chart: str = ""
    body: str = ""
    image_size: int = 224

    @property
    def folder(self) -> pathlib.Path:
        """The folder of the files.

        Raises:
          errors.InputError: it is not there.
        """
        folder = pathlib.Path(self.source)
        if folder.is_file():
            raise InputError(f"{folder}: is a file, a folder is needed; link the labels and images/ into one (ln -s)")
        if not self.source or not folder.is_dir():
            raise InputError(f"{self.source}: no such folder")
        return folder

    def load_chart(self) -> Chart:
        """Return the chart that dense points are read in; once a process."""
        return _load_chart(self.chart, self.body)

    def options(self) -> dict[str, Any]:
        """Return what later users of the data set must know of it."""
        chart = pathlib.Path(self.chart).name if self.chart else "the body's own"
        return {"chart": chart, "body": body_digest(self.body), "image_size": self.image_size}

    def digest(self, contents: Iterable[pathlib.Path], listed: Iterable[pathlib.Path]) -> str:
        """Return a short name of options, contents of files, and names and sizes of others (the photographs)."""
        found = hashlib.sha256(json.dumps([_VERSION, schema.VERSION, self.options()]).encode())
        for path in [*contents, *([pathlib.Path(self.chart)] if self.chart else [])]:
            found.update(path.name.encode())
            with _opened(path) as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        for folder in listed:
            for name, size in sorted(_sizes(folder)):
                found.update(f"{name} {size}\n".encode())
        return found.hexdigest()[:12]


def require_pictures(folder: pathlib.Path, wanted: pathlib.Path) -> None:
    """Refuse a folder without any picture in it or below it; `wanted` is where they are expected.

    Raises:
      errors.InputError: there is none; the line says how photographs that lie elsewhere are linked.
    """
    if next(_sizes(folder), None) is None:
        raise InputError(f"{folder}: holds no photographs; if they lie elsewhere: ln -s PHOTOGRAPHS {wanted}")


def body_digest(body: str) -> str:
    """Return a short name of a body file's content ('': the free body's)."""
    with _opened(pathlib.Path(body or load.FREE_BODY)) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


@functools.lru_cache(1)
def _load_chart(chart: str, body: str) -> Chart:
    template = load.load_body(body or load.FREE_BODY)
    return load_chart(chart, template)


def _opened(path: pathlib.Path):
    try:
        return door.opened(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _sizes(folder: pathlib.Path) -> Iterator[tuple[str, int]]:
    """Yield name below the folder and size of each picture in it."""
    for place, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = pathlib.Path(place, name)
            if path.suffix in photographs.ENDINGS and path.exists():
                yield str(path.relative_to(folder)), path.stat().st_size


# --- An annotated person and their photograph, as an example of the schema; and whether they can be used at all ---

FEWEST_POINTS = 10
"""Dense points below which a person needs key points."""

_FEW_POINTS = 30


def make_example(
    person: AnnotatedPerson,
    photograph: UInt8[np.ndarray, "h w 3"],
    files: Files,
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
    kept = observation.evenly(len(person.part), schema.POINTS)
    face, barycentric = files.load_chart().to_surface(person.part[kept], person.uv[kept])
    keypoints = person.keypoints
    return schema.unknown_truth() | {
        "image": photographs.jpeg(photographs.crop(photograph, person.crop_px, files.image_size)),
        "name": f"{person.file_name}#{person.annotation_id}",
        "subject": "",
        "action": "",
        "video": "",
        "frame": np.int32(-1),
        "box_px": person.crop_px.astype(np.float32),
        **schema.unknown_camera(),
        **schema.keypoint_features(keypoints.keypoint_set, keypoints.position_px, keypoints.flag),
        **schema.point_features(person.point_px[kept], face, barycentric),
        "iuv": b"" if iuv is None else photographs.png(iuv),
        "mask": b"" if mask is None else photographs.png(mask),
        **known,
    }


def why_unusable(person: AnnotatedPerson) -> str | None:
    """Return why no body can be fitted to a person, None where one can: points or key points are enough."""
    points, labelled = len(person.part), labelled_keypoints(person)
    if points >= FEWEST_POINTS or labelled >= FEWEST_KEYPOINTS:
        return None
    return f"{points} dense points and {labelled} key points; {FEWEST_POINTS} or {FEWEST_KEYPOINTS} of them are needed"


def labelled_keypoints(person: AnnotatedPerson) -> int:
    """Return how many key points are labelled."""
    return int(np.sum(person.keypoints.flag > 0))


def notes(person: AnnotatedPerson, photograph: UInt8[np.ndarray, "h w 3"]) -> list[str]:
    """Return what is worth counting about a person in use."""
    x, y, width, height = person.bbox_px
    limit = photograph.shape[1::-1]
    over = x < 0 or y < 0 or x + width > limit[0] + 1 or y + height > limit[1] + 1  # COCO's boxes round to a pixel
    points = len(person.part)
    unused = {f"key point {coco.short(name)} {why}" for name, why in person.keypoints.left_out}
    return (
        ["box over the border"] * bool(over)
        + ["without dense points"] * (points == 0)
        + [f"fewer than {_FEW_POINTS} dense points"] * (0 < points < _FEW_POINTS)
        + ["without key points"] * (labelled_keypoints(person) == 0)
        + ["key points outside the box"] * keypoints_outside(person)
        + sorted(unused)
    )
