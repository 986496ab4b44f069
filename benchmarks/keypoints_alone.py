"""Fits to key points alone, with and without a lifter's depths, scored on synthetic people of the training subjects.

    python -m benchmarks.keypoints_alone --lifting=none,shipped --out=keypoints_alone.json

They stand before the rendered people's cameras, at the height of eyes, and no lifter has learned from them. Rows, by
`keypoints`: Human3.6M's joints, COCO's key points, and COCO's of people whose knees and ankles are out of the picture.
Errors of Human3.6M's joints, mm. Minutes on two cores.
"""

import jax
import numpy as np
from absl import flags

import dal_jax as dal
from benchmarks import measure, results
from dal_jax.body import skeleton
from dal_jax.evaluation import metrics
from dal_jax.runtime import cli
from dal_jax.synthetic import actors, annotator, people as synthetic_people, view
from dal_jax.synthetic.annotator import Recipe

# allow_override: tests import several benchmarks into one process
_LIFTING = flags.DEFINE_list("lifting", ["none", "shipped"], "Lifters: none, shipped, folders.", allow_override=True)
_PEOPLE = flags.DEFINE_integer("people", 512, "How many.", lower_bound=1, allow_override=True)
_OUT = flags.DEFINE_string("out", None, "JSON to write.", required=True, allow_override=True)

_FIRST, _SEED = 30_000, 5  # rows of people that the shipped lifter has not seen
_CROP = 1.2
_LEGS = [skeleton.COCO_NAMES.index(f"{side}_{name}") for side in ("left", "right") for name in ("knee", "ankle")]


def main(_: list[str]) -> None:
    """Make people, fit them under every lifter, score."""
    keypoints_px, joints_mm = _people(_PEOPLE.value)
    legless = keypoints_px["coco"].copy()
    legless[:, _LEGS] = np.nan
    where = measure.machine(jax.devices()[:1]) | {"people": _PEOPLE.value}
    cases = {"h36m": ("h36m", keypoints_px["h36m"]), "coco": ("coco", keypoints_px["coco"])}
    cases |= {"coco, no knees and ankles": ("coco", legless)}
    rows = (
        {"keypoints": name, "camera": camera, "lifting": lifting, **_scores(*case, camera, lifting, joints_mm), **where}
        for name, case in cases.items()
        for camera in ("weak", "perspective")
        for lifting in _LIFTING.value
    )
    results.emit(rows, _OUT.value)


def _people(count: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return key points by set, px, and where Human3.6M's joints are, mm, camera axes."""
    recipe = Recipe("alone", train_count=_FIRST + count, test_count=0, image_size=1, seed=_SEED)
    made, joints = {"h36m": [], "coco": []}, []
    for row in range(_FIRST, _FIRST + count):
        random = np.random.default_rng((_SEED, row))
        scene = synthetic_people.stage(recipe, "train", row, random)
        joints.append(1000 * scene.joints_h36m)
        for name, points in made.items():
            regressor = np.asarray(actors.surface().regressor("h36m" if name == "h36m" else "body_25b"))
            exact_px = view.project(regressor @ scene.vertices)[: len(skeleton.COCO_NAMES)]
            side_px = _CROP * np.ptp(exact_px, axis=0).max()
            points.append(annotator.keypoints(exact_px, np.ones(len(exact_px), bool), side_px, recipe, random))
    return {name: np.stack(points) for name, points in made.items()}, np.stack(joints)


def _scores(
    keypoint_set: str, keypoints_px: np.ndarray, camera: str, lifting: str, joints_mm: np.ndarray
) -> dict[str, float]:
    people = dal.Observations.from_points(keypoints_px=keypoints_px, keypoint_set=keypoint_set)
    if camera == "perspective":
        people = people.with_camera(view.FOCAL_PX, np.full(2, view.PHOTOGRAPH_PX / 2))
    fits = dal.fit(people, options=dal.FitOptions(quality=False, held_out_share=0.0), lifting=lifting, progress=True)
    found, true = (np.asarray(joints, np.float32) for joints in (fits.joints_h36m, joints_mm))
    each = {
        "scale_matched_mm": jax.vmap(metrics.mpjpe_scale_matched_mm)(found, true),
        "pa_mm": jax.vmap(metrics.pa_mpjpe_mm)(found, true),
    }
    means = {name: float(np.mean(values)) for name, values in each.items()}
    return means | {f"{name[:-3]}_median_mm": float(np.median(values)) for name, values in each.items()}


if __name__ == "__main__":
    cli.run(main)
