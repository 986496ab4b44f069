"""DensePose's predictions: IUV pictures (part, u, v of every pixel) and INDS pictures (whose pixel it is) to people.

Not every pixel is believed. A picture that was resized linearly has blended labels at the borders of parts, so points
are chosen inside parts; a part that has no inside is believed only in a picture that is not blended. u and v beyond 0
or 255 that were cast to 8 bits come out at the other end, next to pixels at theirs: they are left out.
"""

import dataclasses
import pathlib

import numpy as np
import scipy.ndimage
import scipy.sparse.csgraph
import scipy.spatial
from jaxtyping import Bool, Float, Int, UInt8

from dal_jax.observations import keypoints, observation, photographs
from dal_jax.observations.person import AnnotatedPerson, Annotations, Rejected
from dal_jax.runtime.errors import InputError

MATCHES = 180
"""Pixels sampled a person, spread over the visible parts."""

SMALLEST_PERSON = 50
"""Pixels below which a person is a splinter left by overlapping detections, not someone to fit."""

_SMALLEST_PATCH = 6  # pixels of one part; fewer are most often a wrong label at a border
_FINEST = 4096  # pixels a part among which the sample is chosen
_INSIDE = 2  # pixels to the nearest other label, beyond which blending does not reach
_BLENDED_SHARE = 0.02  # of a picture's pixels; a sharp one has hardly a pixel between labels
_JUMP = 128  # of u or v between neighbours on one part: a chart has no seam inside a part
_ALIKE_PARTS = 3  # of the 14 segments: what lies apart and has so many of them in common is of two people
_MOST_BODIES = 200  # that a picture without INDS is taken to show; what is smaller belongs to these
_SEGMENT = np.array([0, 1, 1, 2, 3, 4, 5, 6, 7, 6, 7, 8, 9, 8, 9, 10, 11, 10, 11, 12, 13, 12, 13, 14, 14])
"""Of each of DensePose's parts, front and back together."""


def read_iuv(
    iuv: str | pathlib.Path, inds: str | pathlib.Path | None = None, *, file_name: str = "", image_id: int = 0
) -> Annotations:
    """Read one picture's people; without INDS bodies that lie apart are people, the largest first.

    A person's `annotation_id` is its number in INDS (1 without it); one of fewer than `SMALLEST_PERSON` pixels is
    rejected. There are no key points.

    Raises:
      errors.InputError: as `read_pictures`.
    """
    pixels, owner = read_pictures(iuv, inds)
    found = people_of(pixels, owner, str(inds or iuv), file_name=file_name, image_id=image_id)
    if inds is None and (count := int(owner.max())) > 1:
        apart = f"{iuv}: bodies lie at {count} places, so {count} people are taken (--inds would tell them apart)"
        found = dataclasses.replace(found, notes=[apart, *found.notes])
    return found


def read_pictures(
    iuv: str | pathlib.Path, inds: str | pathlib.Path | None = None
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
    """Return (v, u, part) and the owner of each pixel: 0 off every person; without INDS as `_bodies_apart` says.

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
    if inds is None:
        owner = _bodies_apart(part)
    else:
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
    believed, notes = _believed(pixels, where)
    for number in np.unique(owner[owner > 0]).tolist():
        mask = owner == number
        if mask.sum() < SMALLEST_PERSON:
            message = f"{where}: person {number}: {mask.sum()} pixels, at least {SMALLEST_PERSON} are needed"
            entries.append(Rejected(image_id, number, file_name, "too few pixels", message))
        else:
            entries.append(_person(pixels, mask, believed, image_id, number, file_name))
    return Annotations(entries, predicted=True, notes=notes)


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


def _person(
    pixels: np.ndarray, mask: np.ndarray, believed: np.ndarray, image_id: int, number: int, file_name: str
) -> AnnotatedPerson:
    rows, columns = np.nonzero(mask)
    box = np.array([columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1], np.float64)
    if (mask & believed).sum() >= SMALLEST_PERSON:
        rows, columns = np.nonzero(mask & believed)
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


def _believed(pixels: UInt8[np.ndarray, "h w 3"], where: str) -> tuple[Bool[np.ndarray, "h w"], list[str]]:
    """Return which pixels can be sampled, inside their part and with the u and v of their neighbours; and lines on it.

    The lines say what is odd about the picture.
    """
    part, notes = pixels[..., 2].astype(int), []
    wrapped = _wrapped(pixels, part)
    if wrapped.any():
        notes.append(f"{where}: u or v of {wrapped.sum()} pixels passed 0 or 255 (cast to 8 bits): not used")
    blended = _between_labels(part).sum() > _BLENDED_SHARE * max((part > 0).sum(), 1)
    if blended:
        notes.append(f"{where}: labels are blended at borders (resized linearly?): inner pixels alone are used")
    believed, depth = np.zeros(part.shape, bool), _depth(part)
    for number in np.unique(part[part > 0]):
        own = (part == number) & ~wrapped
        inside = own & (depth > _INSIDE)
        for least in range(_INSIDE, _INSIDE - 1 if blended else 0, -1):
            if inside.sum() < _SMALLEST_PATCH:
                inside = own & (depth >= least)
        believed |= inside
    return believed, notes


def _depth(part: Int[np.ndarray, "h w"]) -> Int[np.ndarray, "h w"]:
    """Return the (chessboard) distance in pixels to the nearest of another label, up to `_INSIDE` + 1; 1 at borders."""
    depth = np.ones(part.shape, int)
    for reach in range(1, _INSIDE + 1):
        size = 2 * reach + 1
        same = scipy.ndimage.minimum_filter(part, size, mode="nearest") == scipy.ndimage.maximum_filter(
            part, size, mode="nearest"
        )
        depth += same
    return depth


def _between_labels(part: Int[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Return where a label lies between those of its two neighbours across: what blending makes of a border."""
    between = np.zeros(part.shape, bool)
    for axis in (0, 1):
        middle = np.moveaxis(part, axis, 0)
        before, here, after = middle[:-2], middle[1:-1], middle[2:]
        np.moveaxis(between, axis, 0)[1:-1] |= (before - here) * (here - after) > 0
    return between


def _wrapped(pixels: UInt8[np.ndarray, "h w 3"], part: Int[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Return which pixels have a u or v from the other end: of two patches with a jump between, the smaller one."""
    wrapped = np.zeros(part.shape, bool)
    index = np.arange(part.size).reshape(part.shape)
    flat = part.ravel()
    first = np.concatenate([index[:, :-1].ravel(), index[:-1].ravel()])
    second = np.concatenate([index[:, 1:].ravel(), index[1:].ravel()])
    same = (flat[first] == flat[second]) & (flat[first] > 0)
    first, second = first[same], second[same]
    for channel in range(2):
        values = pixels[..., channel].astype(int).ravel()
        jump = np.abs(values[first] - values[second]) > _JUMP
        if not jump.any():
            continue
        smooth = np.ones((~jump).sum()), (first[~jump], second[~jump])
        _, patch = scipy.sparse.csgraph.connected_components(scipy.sparse.coo_array(smooth, (part.size,) * 2), False)
        size = np.bincount(patch)
        one, other = patch[first[jump]], patch[second[jump]]
        smaller = np.where(size[one] < size[other], one, other)[one != other]
        wrapped |= np.isin(patch, smaller).reshape(part.shape)
    return wrapped


def _bodies_apart(part: Int[np.ndarray, "h w"] | UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Return whose body each pixel is, 1 or more, 0 off all, from what hangs together.

    A body cut in two by what stands before it is one: its pieces show different segments. Pieces with several segments
    in common are of two people. A piece goes to the nearest body that it can belong to, the largest first.
    """
    labelled: tuple = scipy.ndimage.label(part > 0, np.ones((3, 3)))  # pyright: ignore[reportAssignmentType]
    piece, count = labelled
    if count < 2:
        return (part > 0).astype(np.uint8)
    kinds = _SEGMENT.max() + 1
    shown = np.bincount((piece * kinds + _SEGMENT[part]).ravel(), minlength=(count + 1) * kinds).reshape(-1, kinds)[1:]
    middle = np.array(scipy.ndimage.center_of_mass(part > 0, piece, np.arange(1, count + 1)))
    large = np.argsort(-shown.sum(axis=1), kind="stable")[:_MOST_BODIES]
    body_of, segments, first = np.zeros(count, int), np.zeros((0, kinds), bool), []
    for number in large:
        own = shown[number] >= _SMALLEST_PATCH
        may_be = np.flatnonzero((segments & own).sum(axis=1) < _ALIKE_PARTS)
        if len(may_be):  # what a body lacks
            away = np.linalg.norm(middle[first] - middle[number], axis=1)
            body = may_be[np.argmin(away[may_be])]
            segments[body] |= own
        else:
            body, segments = len(first), np.concatenate([segments, own[None]])
            first.append(number)
        body_of[number] = body
    small = np.setdiff1d(np.arange(count), large)
    body_of[small] = scipy.spatial.KDTree(middle[first]).query(middle[small])[1]
    return np.concatenate([[0], body_of + 1]).astype(np.uint8)[piece]


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
