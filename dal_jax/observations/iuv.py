"""DensePose's predictions: IUV pictures (part, u, v of every pixel) and INDS pictures (whose pixel it is) to people."""

import pathlib

import numpy as np
from jaxtyping import Float, Int, UInt8

from dal_jax.observations import keypoints, observation, photographs
from dal_jax.observations.person import AnnotatedPerson, Annotations, Rejected
from dal_jax.runtime.errors import InputError

MATCHES = 180
"""Pixels sampled a person, spread over the visible parts."""

SMALLEST_PERSON = 50
"""Pixels below which a person is a splinter left by overlapping detections, not someone to fit."""

_SMALLEST_PATCH = 6  # pixels of one part; fewer are most often a wrong label at a border
_FINEST = 4096  # pixels a part among which the sample is chosen


def read_iuv(
    iuv: str | pathlib.Path, inds: str | pathlib.Path | None = None, *, file_name: str = "", image_id: int = 0
) -> Annotations:
    """Read one picture's people; without INDS the whole picture is one person.

    A person's `annotation_id` is its number in INDS (1 without it); one of fewer than `SMALLEST_PERSON` pixels is
    rejected. There are no key points.

    Raises:
      errors.InputError: as `read_pictures`.
    """
    pixels, owner = read_pictures(iuv, inds)
    return people_of(pixels, owner, str(inds or iuv), file_name=file_name, image_id=image_id)


def read_pictures(
    iuv: str | pathlib.Path, inds: str | pathlib.Path | None = None
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
    """Return (v, u, part) and the owner of each pixel: 0 off every person, without INDS 1 on the body.

    DensePose writes its pictures by OpenCV, so that a reader in RGB order finds v, u, part: the part, 0 to 24, LAST.

    Raises:
      errors.InputError: a file that is not a picture, not three channels, a part above 24, sizes that differ.
    """
    pixels = _read_picture(iuv, channels=3)
    part = pixels[..., 2]
    if part.max() > 24:
        row, column = np.argwhere(part > 24)[0]
        raise InputError(
            f"{iuv}: pixel ({column}, {row}): part (last channel) is {part[row, column]}, a part is 0 to 24"
        )
    owner = np.ones(part.shape, np.uint8)
    if inds is not None:
        owner = _read_picture(inds, channels=1)
        if owner.shape != part.shape:
            raise InputError(
                f"{inds}: {owner.shape[1]}x{owner.shape[0]} px, but {iuv} has {part.shape[1]}x{part.shape[0]}"
            )
    return pixels, np.where(part > 0, owner, 0).astype(np.uint8)


def people_of(
    pixels: UInt8[np.ndarray, "h w 3"], owner: UInt8[np.ndarray, "h w"], where: str, *, file_name: str, image_id: int
) -> Annotations:
    """Return the people of what `read_pictures` returned; `where` is named in the lines of rejected ones."""
    entries = []
    for number in np.unique(owner[owner > 0]).tolist():
        mask = owner == number
        if mask.sum() < SMALLEST_PERSON:
            message = f"{where}: person {number}: {mask.sum()} pixels, at least {SMALLEST_PERSON} are needed"
            entries.append(Rejected(image_id, number, file_name, "too few pixels", message))
        else:
            entries.append(_person(pixels, mask, image_id, number, file_name))
    return Annotations(entries)


def _read_picture(path: str | pathlib.Path, channels: int) -> UInt8[np.ndarray, "..."]:
    with photographs.opened(path) as picture:
        pixels = np.asarray(picture)
    if channels == 1 and pixels.ndim == 3 and (pixels[..., :1] == pixels[..., :3]).all():
        pixels = pixels[..., 0]  # grey saved as colour
    expected = 3 if channels == 3 else 2
    if pixels.ndim != expected or (channels == 3 and pixels.shape[2] != 3) or pixels.dtype != np.uint8:
        raise InputError(
            f"{path}: {pixels.dtype} picture of shape {pixels.shape}, expected {channels} channel(s) of 8 bits"
        )
    return pixels


def _person(pixels: np.ndarray, mask: np.ndarray, image_id: int, number: int, file_name: str) -> AnnotatedPerson:
    rows, columns = np.nonzero(mask)
    box = np.array([columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1], np.float64)
    chosen = sample_pixels(np.stack([columns, rows], axis=-1), pixels[rows, columns, 2], MATCHES)
    values = pixels[rows[chosen], columns[chosen]]
    return AnnotatedPerson(
        image_id=image_id,
        annotation_id=number,
        file_name=file_name,
        picture_size=(mask.shape[1], mask.shape[0]),
        bbox_px=box,
        point_px=np.stack([columns[chosen], rows[chosen]], axis=-1) + 0.5,  # a pixel's centre
        part=values[:, 2].astype(np.int64),
        uv=values[:, 1::-1] / 255.0,
        keypoints=keypoints.missing(),
    )


def sample_pixels(position: Int[np.ndarray, "n 2"], part: Int[np.ndarray, "n"], count: int) -> Int[np.ndarray, "m"]:
    """Choose at most `count` pixels, well spread inside every part; the same choice every time.

    Note: a part's share goes with the square root of its pixels: hands and feet say more about the pose than their
    area, and a back is told by fewer points than its area.
    """
    chosen = []
    numbers, areas = np.unique(part, return_counts=True)
    large = areas >= min(_SMALLEST_PATCH, areas.max())
    numbers, areas = numbers[large], areas[large]
    for number, share in zip(numbers, _shares(np.sqrt(areas), areas, count), strict=True):
        rows = np.flatnonzero(part == number)
        rows = rows[observation.evenly(len(rows), _FINEST)]
        chosen.append(rows[_farthest_points(position[rows].astype(np.float64), share)])
    return np.sort(np.concatenate(chosen))


def _shares(weight: Float[np.ndarray, "k"], limit: Int[np.ndarray, "k"], count: int) -> list[int]:
    """Split `count` by weight, at least 1 each, no more than there are pixels, largest remainders first."""
    exact = weight / weight.sum() * count
    share = np.clip(np.floor(exact), 1, limit)
    order = np.argsort(share - exact, kind="stable")
    for index in order[: max(0, int(count - share.sum()))]:
        share[index] = min(share[index] + 1, limit[index])
    return share.astype(int).tolist()


def _farthest_points(position: Float[np.ndarray, "n 2"], count: int) -> list[int]:
    """Start at the pixel nearest the middle, then always take the pixel farthest from those taken."""
    taken = [int(np.argmin(np.sum((position - position.mean(axis=0)) ** 2, axis=1)))]
    gap = np.sum((position - position[taken[0]]) ** 2, axis=1)
    while len(taken) < min(count, len(position)):
        taken.append(int(np.argmax(gap)))
        gap = np.minimum(gap, np.sum((position - position[taken[-1]]) ** 2, axis=1))
    return taken
