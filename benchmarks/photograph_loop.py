"""The loop on real photographs: frames of a person before four calibrated cameras, taught by their 2D detections alone.

    python -m benchmarks.photograph_loop --data=DIR --detect=MODEL.task --workdir=runs/photographs \
        --seeds=0 --out=benchmarks/photograph_loop.json

DIR is that of `benchmarks.several_cameras`, with `videos/CAMERA.mp4`. WORKDIR/folder becomes a `coco_folder` of its
frames and of OpenPose's key points. The first three cameras' first 80 frames are trained on; tested are their last 20,
and the fourth camera, which no training picture shares. It is one person in one place: what is learned is that person.

A run, for each seed and teacher (a view by itself, or the three cameras of a moment as one body), is two rounds of
`best_small` (`photograph_config`) with the shipped lifter's depths. Its rows have the errors of 12 joints about the
middle of the hips against triangulated ones, which no phase reads; MediaPipe's own 3D landmarks are
scored on the same pictures. Some five minutes a run on two quiet cores.
"""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import numpy as np
import PIL.Image
from absl import flags
from jaxtyping import Float

from benchmarks import measure, results, teachers
from benchmarks.several_cameras import LIMBS, limb_joints, own_landmarks, scores
from dal_jax import config as configurations
from dal_jax.algorithm import LoopState, Run
from dal_jax.body import cameras, skeleton
from dal_jax.body.formats.load import load_body
from dal_jax.body.kinematics import BodyParameters
from dal_jax.config import Config
from dal_jax.data import catalogue, preparing
from dal_jax.data.files import Files
from dal_jax.data.people import People
from dal_jax.lifting import folder as lifters
from dal_jax.loop import run as run_lib
from dal_jax.observations import photographs
from dal_jax.registration import schedules
from dal_jax.regressor import augmentation, model
from dal_jax.runtime import cli, files, machine

_DATA = flags.DEFINE_string("data", None, "Folder of the recording.", required=True, allow_override=True)
# allow_override: tests import several benchmarks into one process
_DETECT = flags.DEFINE_string("detect", None, "Model file of MediaPipe's Pose Landmarker.", allow_override=True)
_WORKDIR = flags.DEFINE_string("workdir", "runs/photographs", "Frames and data set are kept here.", allow_override=True)
_OUT = flags.DEFINE_string("out", None, "JSON to write.", required=True, allow_override=True)
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Of the runs.", allow_override=True)
_EPOCHS = flags.DEFINE_integer("epochs", 100, "Of each round.", lower_bound=1, allow_override=True)

TRAIN_CAMERAS, TRAIN_FRAMES = 3, 80
_LEAST_SCORE = 0.1  # of a detection, to be annotated at all
_MARGIN = 0.1  # of the box about the key points, a side

Truth = dict[str, Float[np.ndarray, "12 3"]]
"""By the photograph's name the 12 joints, mm, in its camera's axes; NaN where unknown."""


def main(_: list[str]) -> None:
    """Make the folder once, run either teacher for every seed, score MediaPipe on the same pictures."""
    machine.configure()
    seeds, recording, workdir = results.seeds(_SEEDS.value), pathlib.Path(_DATA.value), pathlib.Path(_WORKDIR.value)
    folder = workdir / "folder"
    if not (folder / "test.json").exists():
        write_folder(recording, folder)
    source = catalogue.source_of("coco_folder", Files(str(folder)), {"cameras": str(recording / "cameras.json")})
    preparing.prepare(source, workdir / "data")
    train, test = run_lib.load(photograph_config(_EPOCHS.value), workdir / "data")
    truth = true_joints(recording)
    results.emit(_rows(seeds, folder, train, test, truth), _OUT.value)


def _rows(seeds: list[int], folder: pathlib.Path, train: People, test: People, truth: Truth):
    where, (_, lifter) = measure.machine(jax.devices()[:1]), lifters.load(lifters.SHIPPED)
    for seed in seeds:
        for teacher, several in {"one view": False, "three views": True}.items():
            config = dataclasses.replace(photograph_config(_EPOCHS.value), seed=seed, several_views=several)
            run = Run(config, load_body(), train)
            for entry in teachers.rounds_of(run, lifter, _judge(run, test, truth)):
                yield {"teacher": teacher, "seed": seed, "train": len(train.names), **entry, **where}
    if _DETECT.value:
        names = [_picture(name) for name in test.names]
        joints = own_landmarks([folder / "images" / name for name in names], _DETECT.value)
        found = np.isfinite(joints).all(axis=(1, 2))
        yield {
            "teacher": "MediaPipe's own 3D landmarks", "found": int(found.sum()),
            **_by_part([name for name, kept in zip(names, found, strict=True) if kept], joints[found], truth),
        }  # fmt: skip


def photograph_config(epochs: int) -> Config:
    """Return `best_small` for few photographs of one person, with key points alone.

    Few poses of one person are no population, so that the shipped priors on pose and proportions hold in all rounds.
    Lifted depths may turn, as in `dal.fit`.
    """
    config = configurations.best_small()
    config.data, config.rounds, config.lifted_depth = "coco_folder", 2, "turns"
    config.first.weights = config.later.weights = schedules.pose_prior_weights()
    config.later.prior = "population"
    config.lifting, _ = lifters.load(lifters.SHIPPED)
    config.regressor = dataclasses.replace(model.demo(), epochs=epochs, augmentation=augmentation.mild())
    return config


def _judge(run: Run, test: People, truth: Truth):
    def judge(_: int, state: LoopState) -> dict[str, Any]:
        predicted = model.predict(run.config.regressor, state.regressor.learned, test.images)
        train = {"registration": state.fits, "regressor": state.predictions}
        of_train = {
            f"{what}_train_{name}": mean
            for what, bodies in train.items()
            for name, mean in _means(_names(run.people), _joints(run, run.people, bodies), truth).items()
        }
        of_test = _by_part(_names(test), _joints(run, test, predicted), truth)
        return of_train | {f"regressor_{name}": mean for name, mean in of_test.items()}

    return judge


def _joints(run: Run, people: People, bodies: BodyParameters) -> Float[np.ndarray, "n 12 3"]:
    """Return the 12 joints of bodies in their cameras' axes: a crop's body stands in the frame of the crop's ray."""
    joints = limb_joints(run.template, jax.tree.map(np.asarray, bodies))
    turn = cameras.crop_rotations(np.asarray(people.observations.box_px), people.intrinsics_px)
    return np.einsum("nij,nkj->nki", np.asarray(turn), joints)


def _by_part(names: list[str], joints: Float[np.ndarray, "n 12 3"], truth: Truth) -> dict[str, Any]:
    """Return mean errors of the test pictures: all, the trained cameras' later frames, the other camera's frames."""
    cameras_of = sorted({name[: name.index("_")] for name in truth})
    other = np.array([cameras_of.index(name[: name.index("_")]) >= TRAIN_CAMERAS for name in names])
    later = np.array([photographs.frame_number(pathlib.Path(name).stem) >= TRAIN_FRAMES for name in names])
    parts = {"test": np.ones(len(names), bool), "later_frames": ~other, "other_camera": other, "both": other & later}
    return {
        f"{part}_{score}": mean
        for part, rows in parts.items()
        for score, mean in _means([names[row] for row in np.flatnonzero(rows)], joints[rows], truth).items()
    }


def _means(names: list[str], joints: Float[np.ndarray, "n 12 3"], truth: Truth) -> dict[str, float]:
    each = scores(joints, np.stack([truth[name] for name in names]))
    return {name: round(float(np.mean(each[name])), 1) for name in ("scale_matched_mm", "pa_mm", "trunk_degrees")}


def _names(people: People) -> list[str]:
    return [_picture(name) for name in people.names]


def _picture(name: Any) -> str:
    return str(name).partition("#")[0]


def true_joints(recording: pathlib.Path) -> Truth:
    """Return the triangulated joints as each camera sees them."""
    with np.load(recording / "triangulated.npz") as archive:
        world = 1000 * archive["joints_m"][:, [skeleton.BODY_25B_NAMES.index(name) for name in LIMBS]]
    return {
        f"{camera['name']}_{frame:03d}.jpg": joints @ np.array(camera["R_world_to_camera"]).T
        for camera in json.loads((recording / "cameras.json").read_text())
        for frame, joints in enumerate(world)
    }


def write_folder(recording: pathlib.Path, folder: pathlib.Path) -> None:
    """Write a recording's frames and key points as a `coco_folder`: train.json, test.json, images/CAMERA_FRAME.jpg."""
    cameras_named = [one["name"] for one in json.loads((recording / "cameras.json").read_text())]
    with np.load(recording / "openpose_body25b.npz") as archive:
        detected = archive["keypoints_px"]
    with files.directory(folder, overwrite=True) as building:
        (building / "images").mkdir()
        shown: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
        for view, name in enumerate(cameras_named):
            for frame, pixels in photographs.frames(recording / "videos" / f"{name}.mp4"):
                file_name = f"{name}_{frame:03d}.jpg"
                PIL.Image.fromarray(pixels).save(building / "images" / file_name, quality=92)
                split = "train" if view < TRAIN_CAMERAS and frame < TRAIN_FRAMES else "test"
                shown[split].append(_labelled(file_name, pixels.shape[1::-1], detected[view, frame]))
        for split, people in shown.items():
            files.write_json(building / f"{split}.json", _as_coco(people))


def _labelled(file_name: str, size: tuple[int, int], detected: Float[np.ndarray, "25 3"]) -> dict[str, Any]:
    """Return what COCO's JSON says of a picture and its person; a point is annotated where its score says so."""
    seen = detected[:, 2] > _LEAST_SCORE
    low, high = detected[seen, :2].min(axis=0), detected[seen, :2].max(axis=0)
    margin = _MARGIN * (high - low)
    low, high = np.maximum(low - margin, 0), np.minimum(high + margin, size)
    keypoints = np.column_stack([np.where(seen[:, None], detected[:, :2], 0), 2 * seen])
    return {
        "file_name": file_name, "width": size[0], "height": size[1],
        "bbox": [*map(float, low), *map(float, high - low)], "keypoints": keypoints.reshape(-1).tolist(),
    }  # fmt: skip


def _as_coco(people: list[dict[str, Any]]) -> dict[str, Any]:
    of_image = ("file_name", "width", "height")
    return {
        "images": [{"id": row, **{name: one[name] for name in of_image}} for row, one in enumerate(people)],
        "annotations": [
            {"id": row, "image_id": row, "category_id": 1, **{name: one[name] for name in ("bbox", "keypoints")}}
            for row, one in enumerate(people)
        ],
        "categories": [{"id": 1, "name": "person", "keypoints": list(skeleton.BODY_25B_NAMES)}],
    }


if __name__ == "__main__":
    cli.run(main)
