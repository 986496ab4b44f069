"""Two thousand annotations with anything in any field: everybody is counted once, and nothing crashes."""

import copy
import json

import numpy as np
import PIL.Image

from dal_jax.data import catalogue
from dal_jax.data.files import Files
from dal_jax.data.preparing import prepare
from tests.data.sources import made_folders

PEOPLE, PHOTOGRAPHS = 2000, 200
JUNK = (
    None, True, "x", "../x", "\ud800", "a\nb", -1, 0, 1, 2**31, 2**70, 10**400, 1e308, -0.5, float("nan"), float("inf"),
    [], {}, [[]], [None], [1.5] * 4, [1, 2, 3], ["1"] * 4, [[1.0] * 6], [0] * 51, [0] * 400, {"size": [4, 4]},
    {"size": [1 << 40, 1], "counts": "0"}, {"size": [160, 100], "counts": "PPPP"}, [{"size": [2, 2], "counts": "o"}],
)  # fmt: skip
NAMES = (
    "../secret.jpg",
    "/secret.jpg",
    "a/../../secret.jpg",
    "..\\secret.jpg",
    "C:\\secret.jpg",
    "a\0.jpg",
    "",
    7,
    None,
)


def _nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def _spoiled(entry: dict, rng: np.random.Generator) -> object:
    """Return an entry with junk in one to three places, deep or not, or junk instead of it."""
    if rng.random() < 0.02:
        return copy.deepcopy(JUNK[rng.integers(len(JUNK))])
    for _ in range(rng.integers(1, 4)):
        field = str(rng.choice(list(entry) or ["id"]))
        junk = _nested(40) if rng.random() < 0.02 else copy.deepcopy(JUNK[rng.integers(len(JUNK))])
        inside = entry.get(field)
        if isinstance(inside, list) and inside and rng.random() < 0.5:
            inside[rng.integers(len(inside))] = junk
        elif rng.random() < 0.2:
            entry.pop(field, None)
        else:
            entry[field] = junk
    return entry


def _content(rng: np.random.Generator) -> dict:
    pattern = [
        made_folders.entry(number, 0, points=10, **({"dp_masks": None} if number else {})) for number in range(6)
    ]
    pattern.append(made_folders.without_points(pattern[0]))
    entries = []
    for number in range(PEOPLE):
        entry = {
            name: list(value) if isinstance(value, list) else value
            for name, value in pattern[number % len(pattern)].items()
        }
        entry |= {"id": number, "image_id": number % PHOTOGRAPHS}
        if rng.random() < 0.05:
            entry["id"] = int(rng.integers(max(number, 1)))  # somebody else's
        entries.append(_spoiled(entry, rng) if rng.random() < 0.9 else entry)
    images = [
        {"id": number, "file_name": f"{number}.jpg", "width": 100, "height": 160} for number in range(PHOTOGRAPHS)
    ]
    for image in images[::10]:
        image["file_name"] = NAMES[rng.integers(len(NAMES))]
    for image in images[5::10]:
        image[str(rng.choice(["width", "height"]))] = JUNK[rng.integers(len(JUNK))]
    return {"images": images, "annotations": entries, "categories": JUNK[rng.integers(len(JUNK))]}


def test_anything_in_any_field_is_counted_and_never_crashes(tmp_path):
    content = _content(np.random.default_rng(0))
    folder = tmp_path / "coco"
    (folder / "train2014").mkdir(parents=True)
    (folder / "densepose_coco_2014_train.json").write_text(json.dumps(content))
    PIL.Image.new("RGB", (100, 160)).save(folder / "train2014" / "0.jpg")
    for number in range(1, PHOTOGRAPHS):
        (folder / "train2014" / f"{number}.jpg").hardlink_to(folder / "train2014" / "0.jpg")
    PIL.Image.new("RGB", (100, 160)).save(folder / "secret.jpg")
    (folder / "train2014" / "7.jpg").unlink()
    (folder / "train2014" / "8.jpg").unlink()
    (folder / "train2014" / "8.jpg").write_bytes(b"\xff\xd8 cut off")
    source = catalogue.source_of("densepose_coco", Files(str(folder), image_size=16))
    builder, summary = prepare(source, tmp_path / "data", workers=0)
    assert sum(summary.prepared.values()) + sum(summary.skipped.values()) == PEOPLE
    assert 200 < summary.prepared["train"] < 800
    expected = {
        "wrong type", "wrong length", "missing field", "not finite", "duplicate id", "degenerate box", "unknown part",
        "image not listed", "unsafe file name", "image missing or unreadable", "outside the chart",
        "point outside the box", "without points",
    }  # fmt: skip
    assert expected <= summary.skipped.keys() and summary.noted["damaged mask"] > 2
    assert not any("\n" in line for line in summary.first.values())
    names = [one["name"] for one in builder.as_data_source(split="train")]
    assert len(set(names)) == len(names) and not any(b"secret" in name for name in names)
