"""Fit a COCO-style file of DensePose annotation, save and export.

Run with the path of your file and, in the code, chart="UV_Processed.mat". Without a path it writes a file of its own,
annotated in the body's own chart.
"""

import json
import pathlib
import sys
import tempfile

import numpy as np

import dal_jax as dal


def write_example(path: pathlib.Path, body) -> pathlib.Path:
    """Write two people in the T-pose: points of the rest mesh seen from the front, in 0..255 of their boxes."""
    random, annotations = np.random.default_rng(0), []
    for number in (1, 2):
        faces = random.integers(len(body.faces), size=120)
        place = body.vertices[body.faces[faces]].mean(axis=1)[:, :2] * (1, -1)  # metres: x right, y down
        low, side = place.min(axis=0), np.ptp(place, axis=0)
        x, y = (255 * (place - low) / side).T
        u, v = body.uv[faces].mean(axis=1).T
        annotations.append({
            "id": number, "image_id": 1, "category_id": 1, "bbox": [400.0 * number, 50.0, *(300 * side).tolist()],
            "dp_x": x.tolist(), "dp_y": y.tolist(), "dp_I": body.part[faces].tolist(), "dp_U": u.tolist(),
            "dp_V": v.tolist(),
        })  # fmt: skip
    image = {"id": 1, "file_name": "two_people.jpg", "width": 1400, "height": 700}
    path.write_text(json.dumps({"images": [image], "annotations": annotations, "categories": [{"id": 1}]}))
    return path


def main() -> None:
    """Fit, print, save, export."""
    folder = pathlib.Path(tempfile.mkdtemp())
    body = dal.load_body()
    path = sys.argv[1] if len(sys.argv) > 1 else write_example(folder / "people.json", body)
    people = dal.read_annotations(path)
    print(people.summary())
    options = dal.FitOptions(quality=False, held_out_share=0.0)  # the report on each fit takes most of the time
    fits = dal.fit(people, body, options)
    print("dense error, px:", np.round(fits.dense_error_px, 2), "head at", np.round(fits.joints_px[:, 15]))
    fits.save(folder / "out")
    print("wrote", sorted(one.name for one in fits.export(folder / "meshes", formats=("glb", "obj"))))


if __name__ == "__main__":
    main()
