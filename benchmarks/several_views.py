"""One body for several calibrated views of a moment: error against the number of views, and rates.

    python -m benchmarks.several_views --people=benchmarks/people.json --out=views_synthetic.json
    python -m benchmarks.several_views --data=DIR --out=views_real.json
    python -m benchmarks.several_views --people=benchmarks/people.json --rates --out=views_rates.json

Synthetic people are training subjects of the synthetic set, whose shapes differ from the body that is fitted; four
cameras stand about them in quarter turns, calibrated but for the rows that say otherwise. DIR is the recording of
`benchmarks.several_cameras`. Nothing here reads its triangulated joints but the scores. A camera that is
left out has no weight in the same compiled program.
"""

import dataclasses
import itertools
import pathlib
import time
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from absl import flags
from jaxtyping import Float
from scipy.spatial.transform import Rotation

import dal_jax as dal
from benchmarks import problems, results, several_cameras
from dal_jax.body import kinematics, skinning
from dal_jax.evaluation import metrics
from dal_jax.observations import cameras_file, moments as moments_lib
from dal_jax.observations.cameras_file import Camera
from dal_jax.observations.observations import Observations
from dal_jax.registration import register, schedules, single_views, uncalibrated, views
from dal_jax.registration.register import RegistrationConfig
from dal_jax.registration.views import Together
from dal_jax.runtime import cli, machine, progress
from dal_jax.synthetic import annotator, people as synthetic_people
from dal_jax.synthetic.view import FOCAL_PX, PHOTOGRAPH_PX, View, project

_PEOPLE = flags.DEFINE_string(
    "people", None, "Config of synthetic people; its split is train here.", allow_override=True
)
_COUNT = flags.DEFINE_integer("count", 64, "How many of them.", lower_bound=1)
_DATA = flags.DEFINE_string("data", None, "Folder of the recording.", allow_override=True)
_RATES = flags.DEFINE_bool("rates", False, "Rates against single views' instead of errors.")
_STEPS = flags.DEFINE_integer("steps", 20, "Of lm.", lower_bound=1, allow_override=True)
_EVERY = flags.DEFINE_integer("every", 5, "Which frames: every so many.", lower_bound=1, allow_override=True)
_OUT = flags.DEFINE_string("out", None, "JSON to write.", required=True, allow_override=True)

_VIEWS = 4
_POINTS = 100
_INPUTS = ("keypoints", "dense", "both")
_TURNED_DEG = 5.0


def main(_: list[str]) -> None:
    """Fit, score, write one JSON object a row."""
    machine.configure()
    results.emit(_rows(), _OUT.value)


def _rows() -> Iterator[results.Row]:
    if _PEOPLE.value:
        people, cameras, truth = synthetic(_PEOPLE.value, _COUNT.value)
        yield from [_rate(people, cameras)] if _RATES.value else _synthetic_rows(people, cameras, truth)
    if _DATA.value:
        yield from _real_rows(pathlib.Path(_DATA.value))


def _config() -> RegistrationConfig:
    return RegistrationConfig(steps=_STEPS.value, starts="closed_form")


def _fit(people: Observations, cameras: Sequence[Camera], one_shape: bool = False) -> Together:
    return (views if cameras[0].calibrated else uncalibrated).fit_people(
        dal.load_body(), people, cameras, _config(), schedules.objective_by_name("pose_prior"), one_shape
    )


# --- synthetic people ---


def synthetic(path: str, count: int) -> tuple[Observations, list[Camera], Float[np.ndarray, "count 17 3"]]:
    """Return what four cameras see of training people, and their joints in the world, mm; camera after camera."""
    config = dataclasses.replace(problems.read_config(path), split="train", points=_POINTS, people=count)
    recipe, rows, truth = config.recipe(), [], []
    quarter = [Rotation.from_euler("y", 90.0 * view, degrees=True).as_matrix() for view in range(_VIEWS)]
    matrix = np.array([[FOCAL_PX, 0.0, PHOTOGRAPH_PX / 2], [0.0, FOCAL_PX, PHOTOGRAPH_PX / 2], [0.0, 0.0, 1.0]])
    middle = np.array([0.0, 0.0, 5.0])
    cameras = [
        Camera(f"cam{view}", matrix, np.zeros(5), turn, middle - turn @ middle) for view, turn in enumerate(quarter)
    ]
    for index in progress.bar("people", range(count), unit="person"):
        random = np.random.default_rng((config.seed, 2, index))
        scene = synthetic_people.stage(recipe, "train", index, random)
        moved = middle - scene.joints_h36m[0] + random.normal(0.0, 0.2, 3)
        truth.append(1000 * (scene.joints_h36m + moved))
        for view, camera in enumerate(cameras):
            vertices, joints = (
                (points + moved) @ camera.rotation.T + camera.translation
                for points in (scene.vertices, scene.joints_h36m)
            )
            rows.append((view, index, *_look(config, recipe, vertices, joints, random)))
    rows.sort(key=lambda row: row[:2])
    points, faces, shares, keypoints = (np.stack(each) for each in list(zip(*rows, strict=True))[2:])
    people = Observations.from_points(points, faces, shares, keypoints_px=keypoints)
    people = people.with_views([cameras[row[0]].name for row in rows], np.array([row[1] for row in rows]))
    return people, cameras, np.array(truth)


def _look(config, recipe, vertices: np.ndarray, joints: np.ndarray, random: np.random.Generator):
    """Return a view's dense points, px, the surface points that they show, and key points with confidences."""
    view, outline = View(vertices, np.zeros((0, 8, 3))), project(vertices[::7])
    side = 1.2 * np.ptp(outline, axis=0).max()
    box = np.array([*(outline.min(axis=0) + np.ptp(outline, axis=0) / 2 - side / 2), side, side])
    vertex = problems._visible_vertices(config, view, vertices, box, random)[:_POINTS]
    face, corner = problems._first_corner()[vertex].T
    seen = view.sees_keypoints(joints)
    keypoints = annotator.keypoints(project(joints), seen, side, recipe, random)
    points, shares = np.full((_POINTS, 2), np.nan), np.zeros((_POINTS, 3))
    points[: len(vertex)], shares[: len(vertex)] = project(vertices[vertex]), np.eye(3)[corner]
    faces = np.pad(face, (0, _POINTS - len(face)))
    return points, faces, shares, np.column_stack([np.where(seen[:, None], keypoints, 0.0), seen])


def _synthetic_rows(people: Observations, cameras, truth: np.ndarray) -> Iterator[results.Row]:
    for what, count in itertools.product(_INPUTS, range(1, _VIEWS + 1)):
        seen = _only(people, what)
        used = np.arange(len(people)) // (len(people) // _VIEWS) < count
        if count == 1:
            alone = _take(seen, used).with_camera(FOCAL_PX, np.full(2, PHOTOGRAPH_PX / 2))
            fits = dal.fit(alone, options=dal.FitOptions(quality=False, held_out_share=0.0))
            joints = 1000 * fits.joints_h36m
        else:
            joints = 1000 * _h36m(_fit(_take(seen, used), cameras))
        errors = _errors(joints, truth) | ({"world_mm": None} if count == 1 else {})  # alone it stands nowhere
        yield {"people": len(truth), "inputs": what, "views": count, **errors}
    named = cameras_file.read(",".join(one.name for one in cameras))
    for what in _INPUTS:
        errors = _errors(1000 * _h36m(_fit(_only(people, what), named)), truth)
        row = {"people": len(truth), "inputs": what, "views": _VIEWS, "calibrated": False}
        yield row | {name: errors[name] for name in ("scale_matched_mm", "pa_mm")}


def _only(people: Observations, what: str) -> Observations:
    fields = {"dense": "keypoint_confidence", "keypoints": "point_confidence"}
    if what not in fields:
        return people
    empty = np.zeros_like(getattr(people.stacked, fields[what]))
    return people.replace(lambda one: dataclasses.replace(one, **{fields[what]: empty}))


def _take(people: Observations, rows: np.ndarray) -> Observations:
    kept = np.flatnonzero(rows)
    return Observations(
        jax.tree.map(lambda leaf: np.asarray(leaf)[kept], people.stacked),
        people.bbox_px[kept],
        [people.image_id[row] for row in kept],
        [people.annotation_id[row] for row in kept],
        [people.file_name[row] for row in kept],
    )


def _h36m(together: Together, keypoint_set: str = "h36m") -> Float[np.ndarray, "n k 3"]:
    """Return key points of bodies in the world, metres."""
    bodies = together.bodies
    turned = dataclasses.replace(bodies.parameters, rotation=bodies.rotation)

    @jax.jit
    @jax.vmap
    def place(one):
        return skinning.keypoints(bodies.template, kinematics.pose_segments(bodies.template, one), keypoint_set)

    placed = np.asarray(place(jax.tree.map(np.float32, turned)), np.float64)
    placed = bodies.position[:, None] + bodies.size[:, None, None] * placed
    seen = (together.moments.rows >= 0).sum(axis=1)
    best = {frame: moment for _, frame, moment in sorted(zip(seen, bodies.frame, range(len(seen)), strict=True))}
    return placed[[best[frame] for frame in sorted(best)]]  # of a frame the moment that most cameras see


def _errors(joints: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Return mean errors of 17 joints, mm: in the world, about the pelvis, scale-matched too, and aligned."""
    apart = np.linalg.norm(joints - truth, axis=-1).mean()
    centred, true = joints - joints[:, :1], truth - truth[:, :1]
    size = np.sum(centred * true, axis=(1, 2)) / np.sum(centred**2, axis=(1, 2))
    matched = np.linalg.norm(size[:, None, None] * centred - true, axis=-1).mean()
    pairs = zip(joints.astype(np.float32), truth.astype(np.float32), strict=True)
    aligned = [float(metrics.pa_mpjpe_mm(*pair)) for pair in pairs]
    return {
        "world_mm": float(apart),
        "pelvis_mm": float(np.linalg.norm(centred - true, axis=-1).mean()),
        "scale_matched_mm": float(matched),
        "pa_mm": float(np.mean(aligned)),
    }


# --- the recording ---


def _real_rows(folder: pathlib.Path) -> Iterator[results.Row]:
    cameras = cameras_file.read(folder / "cameras.json")
    with np.load(folder / "openpose_body25b.npz") as archive:
        detected = archive["keypoints_px"][:, :: _EVERY.value]
    with np.load(folder / "triangulated.npz") as archive:
        truth_m = archive["joints_m"][:: _EVERY.value]
    people = recorded(detected, cameras)
    every = len(people) // len(cameras)
    for count in range(2, len(cameras) + 1):
        each = []
        for chosen in itertools.combinations(range(len(cameras)), count):
            together = _fit(_take(people, np.isin(np.arange(len(people)) // every, chosen)), cameras)
            found = _h36m(together, "body_25b")
            errors = _limb_errors(found, truth_m)
            if count == len(cameras) - 1:
                (left,) = set(range(len(cameras))) - set(chosen)
                errors |= _left_out(cameras, left, detected, found, truth_m)
            each.append(errors)
        means = {name: float(np.mean([one[name] for one in each])) for name in each[0]}
        yield {"recording": "several_cameras", "views": count, "moments": every} | means
    shaped = _fit(people, cameras, one_shape=True)
    bones = _bones(shaped)
    spread = float(np.max(bones.std(axis=0) / bones.mean(axis=0)))
    errors = _limb_errors(_h36m(shaped, "body_25b"), truth_m)
    yield {"recording": "several_cameras", "views": len(cameras), "one_shape": True, **errors, "bone_spread": spread}
    for axis, degrees in itertools.product("xyz", (_TURNED_DEG, -_TURNED_DEG)):
        turn = Rotation.from_euler(axis, degrees, degrees=True).as_matrix()
        for view, one in enumerate(cameras):
            wrong = list(cameras)
            wrong[view] = dataclasses.replace(one, rotation=turn @ one.rotation, translation=turn @ one.translation)
            flagged = [each.camera for each in _agreement(people, wrong) if each.contradicts]
            yield {"turned": one.name, "about": axis, "degrees": degrees, "flagged": flagged}
    found = _agreement(people, cameras)
    angles = {
        name: {each.camera: round(getattr(each, name), 2) for each in found} for name in ("apart_deg", "turned_deg")
    }
    yield {"turned": None, "flagged": [each.camera for each in found if each.contradicts]} | angles


def _agreement(people: Observations, cameras: Sequence[Camera]) -> list[moments_lib.Agreement]:
    straight = moments_lib.straight(people, cameras)
    return moments_lib.agreement(straight, moments_lib.find(straight, cameras), cameras)


def recorded(detected: Float[np.ndarray, "cameras frames 25 3"], cameras: Sequence[Camera]) -> Observations:
    """Return a recording's detections as people whose photographs' names tell camera and frame."""
    people = Observations.from_points(keypoints_px=detected.reshape(-1, 25, 3), keypoint_set="body_25b")
    frames = detected.shape[1]
    return people.with_views(
        [one.name for one in cameras for _ in range(frames)], np.tile(np.arange(frames), len(cameras))
    )


def _limb_errors(joints_m: np.ndarray, truth_m: np.ndarray) -> dict[str, float]:
    """Return mean distances of the 12 joints, mm: as they stand, and after one rigid motion of all moments together."""
    rows = several_cameras._ROWS
    found, true = 1000 * joints_m[:, rows].reshape(-1, 3), 1000 * truth_m[:, rows].reshape(-1, 3)
    known = np.isfinite(true).all(axis=1)
    found, true = found[known], true[known]
    turn = Rotation.align_vectors(true - true.mean(axis=0), found - found.mean(axis=0))[0]
    moved = turn.apply(found - found.mean(axis=0)) + true.mean(axis=0)
    return {
        "world_mm": float(np.linalg.norm(found - true, axis=1).mean()),
        "rigid_mm": float(np.linalg.norm(moved - true, axis=1).mean()),
    }


def _left_out(cameras, left: int, detected: np.ndarray, joints_m: np.ndarray, truth_m: np.ndarray) -> dict[str, float]:
    """Return how far the fit of the other cameras puts key points from a camera's detections, px; and triangulation."""
    rows = several_cameras._ROWS
    seen, kept = detected[left][:, rows, :2], [view for view in range(len(cameras)) if view != left]
    places = np.array([cameras[view].position for view in kept])
    threefold = []
    for frame in range(detected.shape[1]):
        rays = np.stack([
            np.column_stack([cameras[view].rays(detected[view, frame][rows, :2]), np.ones(len(rows))])
            @ cameras[view].rotation
            for view in kept
        ])  # fmt: skip
        rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
        threefold.append(moments_lib.triangulate(rays, detected[kept, frame][:, rows, 2], places))

    def off(points: np.ndarray) -> np.ndarray:
        return np.linalg.norm(cameras[left].project(points) - seen, axis=-1)

    of_all, of_three, of_fit = off(truth_m[:, rows]), off(np.array(threefold)), off(joints_m[:, rows])
    known = np.isfinite(of_all) & np.isfinite(of_three) & (detected[left][:, rows, 2] > 0)
    return {
        "left_out_px": float(of_fit[known].mean()),
        "triangulated_by_all_px": float(of_all[known].mean()),
        "triangulated_by_others_px": float(of_three[known].mean()),
        "left_out_median_px": float(np.median(of_fit[known])),
        "triangulated_by_all_median_px": float(np.median(of_all[known])),
    }


def _bones(together: Together) -> Float[np.ndarray, "moments 23"]:
    joints, parents = together.bodies.joints_m, np.array(together.bodies.template.parents)
    return np.linalg.norm(joints[:, 1:] - joints[:, parents[1:]], axis=-1)


# --- rates ---


def _rate(people: Observations, cameras) -> results.Row:
    """Return fits a second of moments and of single views from four starts, in turn, ten steps; and their ratios.

    Of the clock's seconds, and of the processor's, which other programs on the machine disturb less.
    """
    body, objective = dal.load_body(), schedules.objective_by_name("pose_prior")
    straight = moments_lib.straight(people, cameras)
    found = moments_lib.find(straight, cameras)
    extrinsics = np.array([one.extrinsics for one in cameras])[found.of_rows(len(straight))[1]]
    moments, _ = views.observe(single_views.complete(straight.stacked), found, extrinsics)
    single = single_views.complete(dataclasses.replace(people.stacked, pinhole=None))
    single = jax.tree.map(lambda leaf: np.asarray(leaf)[: len(found.rows)], single)
    programs = {
        "moments": (register.fitter(body, RegistrationConfig(steps=10, starts="closed_form"), objective), moments),
        "single": (register.fitter(body, RegistrationConfig(steps=10, starts="headings4"), objective), single),
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for repeat, (name, (fitter, observed)) in itertools.product(range(21), programs.items()):
        start = time.perf_counter(), time.process_time()
        jax.block_until_ready(fitter(observed, ()).energy)
        if repeat:
            seconds[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    row: results.Row = {"views": _VIEWS, "points_a_view": _POINTS}
    for clock, kind in enumerate(("second", "cpu_second")):
        rates = {name: len(found.rows) / np.median(each, axis=0)[clock] for name, each in seconds.items()}
        row |= {f"{name}_a_{kind}": rate for name, rate in rates.items()}
        row |= {f"{kind}_ratio": rates["moments"] / rates["single"]}
    return row


if __name__ == "__main__":
    cli.run(main)
