"""Annotation in the true formats, small and made up, for tests; and the places of the real ones, where they are."""

import json
import os
import pathlib
import pickle

import numpy as np
import PIL.Image
import pytest
import scipy.io

REAL_DATA = os.environ.get("DAL_REAL_DATA")
needs_real_data = pytest.mark.skipif(not REAL_DATA, reason="DAL_REAL_DATA is not set: no real annotation at hand")


def real(name: str) -> pathlib.Path:
    """Return a file of the real data."""
    return pathlib.Path(REAL_DATA) / name


def entry(number: int = 1, points: int = 6) -> dict:
    """Return one annotation as DensePose-COCO writes it."""
    rng = np.random.default_rng(number)
    return {
        "id": number, "image_id": 10 * number, "category_id": 1, "iscrowd": 0, "bbox": [20.0, 30.0, 51.0, 102.0],
        "keypoints": np.column_stack([rng.integers(20, 70, (17, 2)), np.full(17, 2)]).ravel().tolist(),
        "dp_I": [float(part) for part in rng.integers(1, 25, points)], "dp_U": rng.uniform(0, 1, points).tolist(),
        "dp_V": rng.uniform(0, 1, points).tolist(), "dp_x": rng.uniform(0, 255, points).tolist(),
        "dp_y": rng.uniform(0, 255, points).tolist(),
    }  # fmt: skip


def content(entries: list) -> dict:
    """Return a whole file's content: one 100 x 160 px image an entry."""
    ids = sorted({e["image_id"] for e in entries if isinstance(e, dict) and isinstance(e.get("image_id"), int)})
    images = [{"id": number, "file_name": f"{number}.jpg", "width": 100, "height": 160} for number in ids]
    return {"info": {}, "licenses": [], "images": images, "annotations": entries, "categories": []}


def write_json(path: pathlib.Path, value: dict) -> pathlib.Path:
    """Write a file (NaN as Python's json writes it)."""
    path.write_text(json.dumps(value))
    return path


def write_picture(path: pathlib.Path, width: int = 100, height: int = 160) -> pathlib.Path:
    """Write a photograph: a smooth ramp, so that a crop's place can be told."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 // max(width, 1), y * 255 // max(height, 1), 0 * x], axis=-1)
    PIL.Image.fromarray(pixels.astype(np.uint8)).save(path, quality=95)
    return path


def _shrink(e: dict, share: float) -> None:
    for name in ("dp_I", "dp_U", "dp_V", "dp_x", "dp_y"):
        e[name] = 2 * e[name]
    for name in ("dp_x", "dp_y"):
        e[name] = [value * share for value in e[name]]


BAD_ENTRIES = {
    "no part list": (lambda e: e.pop("dp_I"), "dp_I"),
    "no box": (lambda e: e.pop("bbox"), "bbox"),
    "no image id": (lambda e: e.pop("image_id"), "image_id"),
    "point outside the box": (lambda e: e["dp_x"].__setitem__(2, 300.0), "dp_x[2] is 300"),
    "negative point": (lambda e: e["dp_y"].__setitem__(0, -3.0), "dp_y[0] is -3"),
    "NaN": (lambda e: e["dp_U"].__setitem__(1, float("nan")), "dp_U[1] is nan"),
    "infinite": (lambda e: e["dp_y"].__setitem__(1, float("inf")), "dp_y[1] is inf"),
    "huge integer": (lambda e: e["dp_x"].__setitem__(1, 10**400), "dp_x[1] is 1000"),
    "part 25": (lambda e: e["dp_I"].__setitem__(3, 25.0), "dp_I[3] is 25"),
    "part 0": (lambda e: e["dp_I"].__setitem__(3, 0), "dp_I[3] is 0"),
    "half a part": (lambda e: e["dp_I"].__setitem__(3, 2.5), "dp_I[3] is 2.5"),
    "chart beyond 1": (lambda e: e["dp_V"].__setitem__(4, 1.5), "dp_V[4] is 1.5"),
    "lengths differ": (lambda e: e["dp_V"].pop(), "dp_V has 5 values"),
    "no points": (lambda e: e.update({n: [] for n in ("dp_I", "dp_U", "dp_V", "dp_x", "dp_y")}), "dp_I is empty"),
    "points in 0..1": (lambda e: _shrink(e, 1 / 255), "fill 1/255 of the box; it is 0 to 255"),
    "points in a corner": (lambda e: _shrink(e, 1 / 25), "of the box's 255: too little for 12 points"),
    "text": (lambda e: e["dp_x"].__setitem__(0, "12"), "dp_x[0] is '12'"),
    "nested": (lambda e: e["dp_x"].__setitem__(0, [[1]]), "dp_x[0] is [[1]]"),
    "boolean": (lambda e: e["dp_I"].__setitem__(0, True), "dp_I[0] is True"),
    "an object for a list": (lambda e: e.update(dp_U={}), "dp_U is {}"),
    "placeholder box": (lambda e: e.update(bbox=[0, 0, 1, 1]), "bbox [0.0, 0.0, 1.0, 1.0]"),
    "negative box": (lambda e: e.update(bbox=[20, 30, -5, 40]), "bbox [20.0, 30.0, -5.0, 40.0]"),
    "box of three": (lambda e: e.update(bbox=[1, 2, 3]), "bbox has 3 values"),
    "box beside the image": (lambda e: e.update(bbox=[200, 30, 50, 50]), "lies outside the image"),
    "box that dwarfs the image": (lambda e: e.update(bbox=[0, 0, 9000, 50]), "dwarfs the image"),
    "key points cut short": (lambda e: e.update(keypoints=[1, 2, 3]), "keypoints has 3 values"),
    "wrong visibility": (lambda e: e["keypoints"].__setitem__(2, 7), "visibility is 7"),
    "key point far away": (
        lambda e: e["keypoints"].__setitem__(slice(0, 3), [400, 40, 2]),
        "[400.0, 40.0] lies far outside",
    ),
    "unlisted image": (lambda e: e.update(image_id=999_999), "image_id 999999"),
    "id is a list": (lambda e: e.update(id=[1]), "id is [1]"),
}
"""How to spoil an entry, and what its line must say."""


def demo_annotation() -> dict[str, np.ndarray]:
    """Return the real annotation of one person: ICrop, x, y, I, U, V (a Python 2 pickle of known origin)."""
    with real("densepose_demo/demo_dp_single_ann.pkl").open("rb") as file:
        return pickle.load(file, encoding="latin1")


def smpls_triangles() -> np.ndarray:
    """Return the triangles of the real chart, and the two that close the holes it leaves."""
    fields = scipy.io.loadmat(real("chart/UV_Processed.mat"))
    faces = (fields["All_vertices"].ravel().astype(int) - 1)[fields["All_Faces"].astype(int) - 1]
    half = {tuple(edge) for pair in ([0, 1], [1, 2], [2, 0]) for edge in faces[:, pair].tolist()}
    following = {b: a for a, b in half if (b, a) not in half}
    first, *rest = following
    loop = [first, following[first], following[following[first]]]
    other = next(vertex for vertex in rest if vertex not in loop)
    return np.concatenate([faces, [loop], [[other, following[other], following[following[other]]]]])
