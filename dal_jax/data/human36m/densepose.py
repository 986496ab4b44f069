"""What either route of dense annotation says of one video frame."""

import pathlib
import re
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from dal_jax.data.human36m.release import Sequence
from dal_jax.observations import iuv
from dal_jax.observations.chart import Chart
from dal_jax.observations.person import AnnotatedPerson, Rejected
from dal_jax.runtime.errors import InputError
from dal_jax.viewing.raycast import Points

Dense = tuple[Float[np.ndarray, "4"], Points]
"""A person's square crop, px, and annotated surface points, on the free body."""


# --- Dense correspondences from a DensePose network's predictions (paper, 6.1): an IUV picture a video frame ---


def find(folder: pathlib.Path, sequence: Sequence) -> dict[int, pathlib.Path]:
    """Return a sequence's pictures by frame: `S1/Directions 1.54138969/ANYTHING_000005_IUV.png` is frame 5.

    The first frame is 0. Two pictures of one frame are refused, none at all too.

    Raises:
      errors.InputError: one line that names the folder or the file.
    """
    place = folder / sequence.subject / f"{sequence.stem}.{sequence.camera}"
    found: dict[int, pathlib.Path] = {}
    for path in sorted(place.glob("*_IUV.png")):
        match = re.search(r"(\d{1,9})_IUV\.png$", path.name)
        if not match:
            raise InputError(f"{path}: no number of a frame before _IUV.png")
        if int(match[1]) in found:
            raise InputError(f"{path}: is frame {int(match[1])}, as {found[int(match[1])].name} is")
        found[int(match[1])] = path
    if not found:
        raise InputError(f"{place}: no file is named NUMBER_IUV.png")
    return found


def annotate(
    folder: pathlib.Path,
    sequence: Sequence,
    chart: Chart,
    joints_px: Float[np.ndarray, "frames 17 2"],
    wanted: Int[np.ndarray, "k"],
) -> Iterator[Dense | Rejected | str]:
    """Yield for each wanted frame the points of its picture, on the chart's body.

    Raises:
      errors.InputError: there are no pictures, or two of one frame.
    """
    pictures = find(folder, sequence)
    for frame in wanted.tolist():
        if frame not in pictures:
            yield "frame without a prediction"
            continue
        try:
            found = read(pictures[frame], joints_px[frame])
        except InputError as error:
            found = Rejected(sequence.name, frame, pictures[frame].name, "unreadable picture", str(error))
        if found is None:
            yield "frame in which the network found no person"
        elif isinstance(found, Rejected):
            yield found
        else:
            yield found.crop_px, Points(found.point_px, *chart.to_surface(found.part, found.uv))


def read(path: pathlib.Path, joints_px: Float[np.ndarray, "17 2"]) -> AnnotatedPerson | Rejected | None:
    """Return the person of a picture (beside it NUMBER_INDS.png, if there are more) whose box holds most of the joints.

    None where the network found no person; where all are too small, one of them, rejected.

    Raises:
      errors.InputError: the picture, or that of ids, cannot be read.
    """
    inds = path.with_name(path.name.replace("_IUV.png", "_INDS.png"))
    entries = iuv.read_iuv(path, inds if inds.is_file() else None, file_name=path.name)
    if not entries.people:
        return entries.rejected[0] if entries.rejected else None
    best = max(entries.people, key=lambda one: _inside(one.bbox_px, joints_px))
    return best if _inside(best.bbox_px, joints_px) else None


def _inside(box_px: Float[np.ndarray, "4"], joints_px: Float[np.ndarray, "17 2"]) -> int:
    low, high = box_px[:2], box_px[:2] + box_px[2:]
    return int(((joints_px >= low) & (joints_px <= high)).all(axis=1).sum())
