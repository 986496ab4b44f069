"""Write an annotated folder of rendered people: what the commands of the README read when no photographs are at hand.

  python docs/made_people.py FOLDER [PEOPLE]

FOLDER gets `people.json` (COCO's form: dense points in the free body's own chart, named key points) and `photos/`.
The picture of the README is the overlay that `register` draws of the sixth of six people (docs/development.md).
"""

import io
import json
import pathlib
import sys

import numpy as np
import PIL.Image

import dal_jax as dal
from dal_jax.body.skeleton import H36M_JOINT_NAMES
from dal_jax.synthetic.annotator import Recipe
from dal_jax.synthetic.people import make_person

SIDE_PX = 384
"""Side of each square photograph."""

_COCO_NAME = {"right_foot": "right_ankle", "left_foot": "left_ankle", "neck_nose": "nose", "head": "head_top"}
_DERIVED = ("hip", "spine", "thorax")


def write(folder: pathlib.Path, people: int = 2) -> None:
    """Render `people` people into a folder and annotate them as an annotator would: clicks that are a little off."""
    recipe = Recipe("made", people, people, SIDE_PX, seed=9, heading_spread_deg=60.0, occluder_rate=0.0)
    named = [joint for joint, name in enumerate(H36M_JOINT_NAMES) if name not in _DERIVED]
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    body, images, annotations = dal.load_body(), [], []
    for number in range(people):
        made = make_person(recipe, "train", number)
        name = f"person_{number}.jpg"
        PIL.Image.open(io.BytesIO(made["image"])).save(folder / "photos" / name, quality=92)
        images.append({"id": number, "file_name": name, "width": SIDE_PX, "height": SIDE_PX})
        annotations.append({"id": number, "image_id": number, "category_id": 1} | _annotation(body, made, named))
    names = [_COCO_NAME.get(H36M_JOINT_NAMES[joint], H36M_JOINT_NAMES[joint]) for joint in named]
    categories = [{"id": 1, "name": "person", "keypoints": names}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "people.json").write_text(json.dumps(content))


def _annotation(body, made: dict, named: list[int]) -> dict:
    """Return a person's box, dense points and key points in the pixels of its own photograph."""
    corner, to_px = made["box_px"][:2], SIDE_PX / made["box_px"][2]
    used = made["point_confidence"] > 0
    points = (made["point_px"][used] - corner) * to_px
    keypoints = np.column_stack([(made["keypoints_px"][named] - corner) * to_px, made["keypoint_visible"][named]])
    rows, columns = np.nonzero(np.asarray(PIL.Image.open(io.BytesIO(made["iuv"])))[..., 0])
    low = np.minimum([columns.min(), rows.min()], points.min(axis=0))
    high = np.maximum([columns.max() + 1, rows.max() + 1], points.max(axis=0))
    face = made["point_face"][used]
    uv = np.einsum("pc,pcd->pd", made["point_barycentric"][used], np.asarray(body.uv)[face])
    in_box = (points - low) / (high - low) * 255.0  # DensePose's unit of dp_x and dp_y
    return {
        "bbox": [*low.tolist(), *(high - low).tolist()],
        "dp_I": np.asarray(body.part)[face].tolist(),
        "dp_U": np.clip(uv[:, 0], 0, 1).tolist(),
        "dp_V": np.clip(uv[:, 1], 0, 1).tolist(),
        "dp_x": in_box[:, 0].tolist(),
        "dp_y": in_box[:, 1].tolist(),
        "keypoints": keypoints.ravel().tolist(),
    }


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:3]))
