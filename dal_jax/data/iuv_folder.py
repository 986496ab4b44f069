"""A folder of photographs with DensePose's predictions, NAME_IUV.png (and NAME_INDS.png); key points if there are."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import UInt8

from dal_jax.data import coco_sets
from dal_jax.data.coco_sets import Photograph
from dal_jax.data.files import Files, make_example, notes, why_unusable
from dal_jax.data.schema import Item, Source
from dal_jax.observations import coco, iuv, photographs
from dal_jax.observations.coco import BadEntry
from dal_jax.observations.keypoints import Keypoints
from dal_jax.observations.person import AnnotatedPerson, Rejected
from dal_jax.observations.photographs import crop_labels, is_grey, read_picture
from dal_jax.runtime.errors import InputError
from dal_jax.runtime.files import name_inside

_IUV, _INDS = "_IUV.png", "_INDS.png"
_KEYPOINTS = "keypoints.json"


Unit = tuple[int, str, Photograph | None]
"""A unit of work: a photograph's number, its stem, and its annotated key points, if any.

Key points without a prediction are a unit, too: they are counted.
"""


def iuv_folder(files: Files) -> Source:
    """Return the source of photographs and what a DensePose network says of them. docs/iuv_folder.md."""
    return Source(
        name="iuv_folder",
        description="One's own photographs with DensePose's IUV predictions.",
        unit="photograph",
        units_a_chunk=50,
        digest=functools.partial(_digest, files),
        options=files.options,
        splits=functools.partial(_splits, files),
        read=functools.partial(_read, files),
    )


def _digest(files: Files) -> str:
    """Return a name of key points, chart, body, options, and all pictures' names and sizes."""
    labels = files.folder / _KEYPOINTS
    return files.digest([labels] if labels.is_file() else [], [files.folder])


def _splits(files: Files) -> Mapping[str, list[Unit]]:
    """Return the photographs: all of them train."""
    folder = files.folder
    stems = sorted(path.name.removesuffix(_IUV) for path in folder.glob(f"*{_IUV}"))
    if not stems:
        raise InputError(f"{folder}: no file is named *{_IUV}")
    labels = folder / _KEYPOINTS
    labelled = coco_sets.photographs(labels, folder) if labels.is_file() else []
    by_stem = {pathlib.PurePath(_name(one)).stem: one for one in labelled}
    every = stems + sorted(by_stem.keys() - set(stems))
    return {"train": [(number, stem, by_stem.get(stem)) for number, stem in enumerate(every)]}


def _read(files: Files, unit: Unit) -> Iterator[Item]:
    """Yield a photograph's people."""
    number, stem, keypoints = unit
    folder = files.folder
    inds, where = folder / f"{stem}{_INDS}", folder / f"{stem}{_IUV}"
    if not where.is_file():
        yield from ["key points without a prediction"] * len(keypoints.entries if keypoints else ())
        return
    try:
        picture = photographs.of_stem(folder, stem)
        pixels, owner = iuv.read_pictures(where, inds if inds.is_file() else None)
        photograph = read_picture(picture, (pixels.shape[1], pixels.shape[0]))
    except InputError as error:
        yield Rejected(number, -1, where.name, "image missing or unreadable", str(error))
        return
    found = iuv.people_of(pixels, owner, where.name, file_name=picture.name, image_id=number)
    if not found.entries:
        yield "photograph without a person"
    yield from found.rejected
    labelled = yield from _labelled(keypoints)
    if is_grey(photograph):
        yield "grey photograph"
    if len(found.people) > 1:
        yield "photograph of several people"
    for one in _with_keypoints(found.people, owner, labelled):
        why = why_unusable(one)
        if why is not None:
            message = f"{one.file_name}: person {one.annotation_id}: has {why}"
            yield Rejected(one.image_id, one.annotation_id, one.file_name, "too few points", message)
            continue
        yield from notes(one, photograph)
        yield make_example(one, photograph, files, *_maps(one, pixels, owner, files.image_size))


def _maps(one: AnnotatedPerson, pixels: np.ndarray, owner: np.ndarray, size: int) -> tuple:
    """Return the crop's mask and its map of (part, u, v)."""
    own = owner == one.annotation_id
    whole = np.array([0, 0, own.shape[1], own.shape[0]], np.float64)
    part_u_v = pixels[..., ::-1] * own[..., None].astype(np.uint8)
    mask = crop_labels(own.astype(np.uint8) * 255, whole, one.crop_px, size)
    return mask, crop_labels(part_u_v, whole, one.crop_px, size)


def _name(photograph: Photograph) -> str:
    name = (photograph.picture or {}).get("file_name")
    return (name_inside(name) or "") if isinstance(name, str) else ""


def _labelled(photograph: Photograph | None):
    """Yield what is wrong with key points; return the good ones, one for each person."""
    good: list[Keypoints] = []
    if photograph is None:
        return good
    for _, entry, _ in photograph.entries:
        try:
            coco.require_ids(entry)
            found = coco.parse(entry, photograph.labels)
        except BadEntry:
            yield "key points that are damaged"
            continue
        if (found.flag > 0).any():
            good.append(found)
    return good


def _with_keypoints(
    people: list[AnnotatedPerson],
    owner: UInt8[np.ndarray, "h w"],
    labelled: list[Keypoints],
) -> list[AnnotatedPerson]:
    """Give each person the key points of which most lie on their pixels, at least half of the labelled ones.

    The best pair goes first; each person gets at most one set of key points, and each set goes to one person.
    """
    share = np.array([[_share_on(owner == one.annotation_id, keys) for keys in labelled] for one in people])
    given = list(people)
    while share.size and share.max() >= 0.5:
        person, keys = np.unravel_index(np.argmax(share), share.shape)
        given[person] = dataclasses.replace(people[person], keypoints=labelled[keys])
        share[person], share[:, keys] = -1, -1
    return given


def _share_on(mask: np.ndarray, keypoints: Keypoints) -> float:
    """Return which share of the labelled key points lies on a mask."""
    column, row = np.floor(keypoints.position_px[keypoints.flag > 0]).astype(int).T
    inside = (row >= 0) & (row < mask.shape[0]) & (column >= 0) & (column < mask.shape[1])
    return float(np.sum(mask[row[inside], column[inside]]) / len(row))
