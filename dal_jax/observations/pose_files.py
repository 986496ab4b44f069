"""Files of 2D poses of any format (`formats`), read as COCO's container, their people matched with photographs."""

import os
import pathlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dal_jax.body import skeleton
from dal_jax.observations import formats, photographs
from dal_jax.observations.formats import Format, Found, Names, short
from dal_jax.runtime import files
from dal_jax.runtime.errors import InputError

Path = str | os.PathLike[str]
Images = Path | Sequence[Path] | None
"""Photographs: their folder, the only one, or all of them."""


Container = dict[str, Any]
"""COCO's `images`, `annotations` (a list) and `categories`, which name the key points; nothing in them is checked."""


def read(path: Path, images: Images = None) -> tuple[Container, list[str], bool]:
    """Read a file, or a folder with a file for each photograph.

    Args:
      path: .json, a YOLO label .txt, or a folder of either.
      images: photographs, with whose names those in the file are matched. None: people keep the names in the file.

    Returns:
      the container; file and entry of each annotation, to begin a line with; and whether the third value of each key
      point is a detector's score, not a visibility.

    Raises:
      errors.InputError: no such file, of no known format, or a photograph's size is needed and not known; one line.
    """
    path = pathlib.Path(path)
    parts = _parts(path) if path.is_dir() else [path]
    contents = [(part, _content(part)) for part in parts]
    if len(parts) == 1 and isinstance(contents[0][1], dict) and "annotations" in contents[0][1]:
        return *_container(parts[0], contents[0][1]), False
    names, alone = by_name(images), path.is_file()
    kind, found = formats.FORMATS[0], []
    for part, content in contents:
        if content in ([], ()) and len(parts) > 1:  # a picture without people, whatever wrote it
            continue
        if found and not kind.matches(content):
            raise InputError(f"{part}: looks like {_format(part, content).name}, others beside it like {kind.name}")
        kind, stem = _format(part, content), _stem(part)
        picture = next(iter(names)) if alone and len(names) == 1 else stem
        if alone and kind in formats.ONE_PICTURE and images is not None and match(picture, places_of(names)) is None:
            raise InputError(f"{part}: names no picture, there are {len(names)} pictures, and none is called '{stem}'")
        found += kind.people(content, str(part), picture)
    return _as_coco(kind, found, names, images is not None), [one.where for one in found], kind.scores


def _parts(folder: pathlib.Path) -> list[pathlib.Path]:
    for ending in (".json", ".txt"):
        found = sorted(one for one in folder.iterdir() if one.suffix.lower() == ending and one.name != "classes.txt")
        if found:
            return found
    raise InputError(
        f"{folder}: holds no .json and no .txt, which pose detectors write for each picture, nor *_IUV.png"
    )


def _stem(path: pathlib.Path) -> str:
    """Return the photograph's stem: OpenPose adds `_keypoints` to it, MMPose's demo puts `results_` before it."""
    return path.stem.removesuffix("_keypoints").removeprefix("results_")


def _content(path: pathlib.Path) -> Any:
    """Return a file's content; a text file's as YOLO's: a tuple, which no JSON holds, of rows of numbers."""
    if path.suffix.lower() != ".txt":
        return files.read_json(path)
    rows: list[list[float]] = []
    for number, line in enumerate(files.read_text(path).splitlines()):
        try:
            rows += [[float(word) for word in line.split()]] if line.strip() else []
        except ValueError:
            raise InputError(f"{path}: line {number + 1} is {short(line)}, expected YOLO's numbers") from None
    return tuple(rows)


def _format(where: Path, content: Any) -> Format:
    for one in formats.FORMATS:
        if one.matches(content):
            return one
    if isinstance(content, dict) and "annotations" in content:
        raise InputError(f"{where}: looks like COCO's images and annotations, which is read alone, not with others")
    what = f"an object of {', '.join(map(short, list(content)[:4]))}" if isinstance(content, dict) else short(content)
    known = (
        "neither a list, nor an object of lists, nor COCO's images and annotations, nor what a known detector writes"
    )
    raise InputError(f"{where}: is {known} (docs/formats.md), but {what}")


# --- into COCO's container ---


def _container(path: pathlib.Path, content: dict[str, Any]) -> tuple[Container, list[str]]:
    """Return COCO's own, and where its annotations are; COCO-WholeBody's feet are joined to the other key points."""
    entries, categories = content["annotations"], content.get("categories")
    if not isinstance(entries, list):
        raise InputError(f"{path}: field 'annotations' is missing or not a list")
    where = [
        f"{path}: annotation {entry['id']}" if isinstance(entry, dict) and formats.is_id(entry.get("id"))
        else f"{path}: annotations[{row}]"
        for row, entry in enumerate(entries)
    ]  # fmt: skip
    if any(formats.has_feet(entry) for entry in entries):
        entries = [formats.with_feet(entry) for entry in entries]
        kinds = categories if isinstance(categories, list) else []
        kinds = [one for one in kinds if isinstance(one, dict) and one.get("name") == "person"] or [{}]
        categories = [one | {"keypoints": list(formats.BODY_AND_FEET)} for one in kinds]
    return {"images": content.get("images"), "annotations": entries, "categories": categories}, where


def _as_coco(kind: Format, found: list[Found], names: Mapping[str, pathlib.Path], given: bool) -> Container:
    order, places = _order(kind, found), places_of(names)
    pictures: dict[str, dict[str, Any]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    annotations = []
    for row, one in enumerate(found):
        said = one.fields.get("file_name", one.picture)
        name, fields = match(said, places), one.fields
        if one.shares:
            if name is None:
                needed = f"there is no photograph {short(said)}" if given else "no photographs are given"
                raise InputError(f"{one.where}: x and y are shares of the picture, whose size is needed: {needed}")
            if name not in sizes:
                sizes[name] = photographs.upright_size(names[name])
            fields = _in_px(fields, sizes[name])
        if formats.is_id(one.picture):
            shown = name or (str(said) if given or isinstance(said, str) else "")
            pictures.setdefault(repr(one.picture), {"id": one.picture, "file_name": shown})
        annotations.append({"id": row + 1, "category_id": 1} | fields | {"image_id": one.picture})
    categories = [{"id": 1, "name": "person", "keypoints": list(order)}]
    return {"images": list(pictures.values()), "annotations": annotations, "categories": categories}


def _in_px(fields: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """Return key points and box whose x, y are shares in px; what holds no numbers stays, for `coco` to name."""
    scaled = {}
    for name, factors in (("keypoints", (*size, 1)), ("bbox", size)):
        values = formats.flat(fields) if name == "keypoints" else fields.get(name)
        if isinstance(values, list) and formats.are_numbers(values):
            scaled[name] = [value * factors[row % len(factors)] for row, value in enumerate(values)]
    return fields | scaled


def _order(kind: Format, found: list[Found]) -> Names:
    """Return the names of the key points of a file's people: stated, or those of the order that has as many.

    Raises:
      errors.InputError: no order has that many, or two have and the people do not tell which is theirs.
    """
    known = [one for one in found if isinstance(values := formats.flat(one.fields), list) and values]
    stated = next((one.names for one in known if one.names is not None), None)
    if not known or stated is not None:
        return stated or skeleton.COCO_NAMES
    usual = Counter(len(formats.flat(one.fields)) for one in known).most_common(1)[0][0]
    fitting = {name: names for name, names in kind.orders.items() if 3 * len(names) == usual}
    first = next(one for one in known if len(formats.flat(one.fields)) == usual)
    if not fitting:
        sizes = ", ".join(f"{len(names)} ({name})" for name, names in kind.orders.items())
        text = f"keypoints has {usual} values, which is {usual / 3:.4g} key points of x, y and score"
        raise InputError(f"{first.where}: {text}; of {kind.name} are known {sizes}")
    people = [formats.flat(one.fields) for one in known if len(formats.flat(one.fields)) == usual]
    lengths = {name: _bone_length(names, people) for name, names in fitting.items()}
    best, *others = sorted(fitting, key=lambda name: lengths[name])
    if others and not _CLEARLY * lengths[best] < lengths[others[0]]:
        raise InputError(f"{first.where}: key points may be {' or '.join(fitting)}: too few are known to tell")
    return fitting[best]


def order_of_count(entries: Iterable[Any]) -> Names:
    """Return the names that annotations have if nothing names their key points: by their number, else COCO's."""
    counts = Counter(len(values) for entry in entries if isinstance(values := formats.flat(entry), list) and values)
    usual = counts.most_common(1)[0][0] if counts else 0
    return next((names for names in formats.BY_COUNT.values() if 3 * len(names) == usual), skeleton.COCO_NAMES)


_CLEARLY = 1.25
"""How many times longer bones must be in a wrong order. Note: ours; of 400 real people, each alone, 1.65 or more."""


def _bone_length(names: Names, people: Iterable[list[Any]]) -> float:
    """Return the mean length of the bones of people if their key points have these names; inf where none is known."""
    lengths = []
    for values in people:
        numbers = [value if formats.are_numbers([value]) else np.nan for value in values]
        rows = np.array(numbers, np.float64).reshape(-1, 3)
        place = {name: row[:2] for name, row in zip(names, rows, strict=True) if row[2] > 0}
        for child, parent in zip(skeleton.BODY_25B_NAMES, skeleton.BODY_25B_PARENTS, strict=True):
            other = skeleton.BODY_25B_NAMES[parent]
            if parent >= 0 and child in place and other in place:
                with np.errstate(over="ignore"):  # of a key point at 1e300, which is refused when it is used
                    lengths.append(np.linalg.norm(place[child] - place[other]))
    return float(np.mean(lengths)) if lengths else np.inf


# --- photographs ---


def by_name(images: Images) -> dict[str, pathlib.Path]:
    """Return photographs by the names that people will have: below their folder, or in its images/."""
    if images is None:
        return {}
    if not isinstance(images, str | os.PathLike):
        return {pathlib.Path(one).name: pathlib.Path(one) for one in images}
    folder = pathlib.Path(images)
    if folder.is_file():
        return {folder.name: folder}
    paths = [one for place in (folder, folder / "images") if place.is_dir() for one in sorted(place.iterdir())]
    paths = [one for one in paths if one.suffix in photographs.ENDINGS]
    paths = [one for one in paths if not one.name.lower().endswith(photographs.DENSEPOSE_OUTPUT)]
    return {one.relative_to(folder).as_posix(): one for one in paths}


def places_of(names: Iterable[str]) -> dict[Any, str]:
    """Return photographs by name, by name without its folder, by stem, and by the number that the stem ends in."""
    found: dict[Any, str] = {}
    for name in names:
        path = pathlib.PurePosixPath(name)
        for key in (name, path.name, path.stem, _numbered(path.stem)):
            if key is not None:
                found.setdefault(key, name)
    return found


def match(said: Any, places: Mapping[Any, str]) -> str | None:
    """Return the photograph that a file means by a name, a stem, a number, or a stem that ends in a frame's number."""
    if not isinstance(said, str | int):
        return None
    stem = re.sub(r"\.(jpe?g|png|webp|bmp)$", "", said, flags=re.IGNORECASE) if isinstance(said, str) else said
    number = _numbered(stem) if isinstance(stem, str) else ("", stem)
    return next((places[key] for key in (said, stem, number) if key is not None and key in places), None)


def _numbered(stem: str) -> tuple[str, int] | None:
    """Return what stands before the number that a stem ends in, and the number: a video's frame, or COCO's picture."""
    match = re.fullmatch(r"(.*?)[_-]?(\d{1,18})", stem)
    return (match[1], int(match[2])) if match else None
