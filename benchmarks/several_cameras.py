"""Single views of a real person before four calibrated cameras, scored against triangulated joints.

    python -m benchmarks.several_cameras --data=DIR [--lifting=DIR] [--camera=weak] --out=several_cameras.json
    python -m benchmarks.several_cameras --data=DIR --detect=MODEL.task [--camera=assumed] --out=detected.json
    python -m benchmarks.several_cameras --data=DIR --lifting=shipped --every=1 --tracks --fps=60 --out=tracks.json

DIR holds `cameras.json` (K, distortion, world to camera), `openpose_body25b.npz` (`keypoints_px`, cameras x frames x 25
x (x, y, score)) and `triangulated.npz` (`joints_m`, frames x 25 x 3, world; NaN where unknown). Every view is fitted by
itself, from its key points alone, or with --tracks those of a camera together; nothing here reads the triangulated
joints but the scores, and --exact. Minutes on two cores. With --detect the views are DIR's
`photographs/CAMERA_FRAME.jpg` with MediaPipe's key points, and a further row scores MediaPipe's own 3D landmarks, which
nothing else reads.
"""

import functools
import json
import pathlib
import typing
from collections.abc import Sequence

import jax
import numpy as np
from absl import flags
from jaxtyping import Float
from scipy import stats

import dal_jax as dal
from benchmarks import results
from dal_jax.body import kinematics, skeleton, skinning
from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.template import Template
from dal_jax.evaluation import metrics
from dal_jax.observations import coco
from dal_jax.runtime import cli
from dal_jax.runtime.errors import InputError
from dal_jax.uncertainty.verdict import Verdict

_DATA = flags.DEFINE_string("data", None, "Folder of the recording.", required=True)
_OUT = flags.DEFINE_string("out", None, "JSON to write.", required=True, allow_override=True)
# allow_override: tests import several benchmarks into one process
_LIFTING = flags.DEFINE_string(
    "lifting", "none", "Folder of a trained lifter, for depths; shipped; or none.", allow_override=True
)
_CAMERA = flags.DEFINE_enum(
    "camera", "perspective", ["perspective", "assumed", "weak"],
    "assumed: a focal length as long as the photograph; weak: as if no calibration were known.",
)  # fmt: skip
_DETECT = flags.DEFINE_string("detect", None, "Model file of MediaPipe's Pose Landmarker: key points of photographs.")
_EXACT = flags.DEFINE_bool(
    "exact", False, "Key points where triangulated joints are seen: tells a detector's errors from the others."
)
_PITCH = flags.DEFINE_bool("pitch", True, "Use how far each camera looks down.")
_EVERY = flags.DEFINE_integer("every", 5, "Which frames: every so many.", lower_bound=1)
_REPORTS = flags.DEFINE_bool("reports", True, "Score what the reports on the fits say, too.")
_TRACKS = flags.DEFINE_bool("tracks", False, "Fit the frames of each camera as a track.")
_FPS = flags.DEFINE_float("fps", 60.0, "Frames a second of the recording.", 0.1)
_WEIGHTS = flags.DEFINE_string("weights", "pose_prior", "See experiments.register.")

LIMBS = tuple(
    f"{side}_{name}" for name in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle") for side in ("left", "right")
)
"""The 12 joints that are scored: those whose place annotators agree on."""

_ROWS = [skeleton.BODY_25B_NAMES.index(name) for name in LIMBS]
_SHOULDERS, _HIPS = [0, 1], [6, 7]


def main(_: list[str]) -> None:
    """Fit all views, score them, write one JSON object."""
    if _EXACT.value and _DETECT.value:
        raise InputError(f"--exact takes no key points of --detect={_DETECT.value}: one of them")
    folder = pathlib.Path(_DATA.value)
    cameras = json.loads((folder / "cameras.json").read_text())
    with np.load(folder / "openpose_body25b.npz") as archive:
        wrong = wrong_shares(archive["keypoints_px"])
        detected, shown = archive["keypoints_px"][:, :: _EVERY.value], slice(None, None, _EVERY.value)
    if _DETECT.value:
        detected, shown = _detected(folder, cameras, _DETECT.value)
    with np.load(folder / "triangulated.npz") as archive:
        world = archive["joints_m"][shown]
    views, frames = detected.shape[:2]
    if _EXACT.value:
        straight = np.stack([projected(world, one) for one in cameras])
    else:
        straight = np.stack([undistorted(view, one) for view, one in zip(detected, cameras, strict=True)])
    people = dal.Observations.from_points(keypoints_px=straight.reshape(-1, 25, 3), keypoint_set="body_25b")
    if _CAMERA.value == "perspective":
        matrices = np.repeat([one["K"] for one in cameras], frames, axis=0)
        people = people.with_camera(matrices[:, 0, 0], matrices[:, :2, 2])
    if _CAMERA.value == "assumed":
        sizes = np.repeat([(one["width"], one["height"]) for one in cameras], frames, axis=0)
        people = people.with_camera(sizes.max(axis=1), sizes / 2)
    up = np.array([one["R_world_to_camera"] for one in cameras])[:, :, 2]  # the world's z axis
    pitch = np.repeat(np.degrees(np.arcsin(-up[:, 2])), frames)
    pitch_deg = tuple(pitch.tolist()) if _PITCH.value and _WEIGHTS.value == "pose_prior" else None
    numbers = np.tile(_EVERY.value * np.arange(frames), views)
    people = people.with_frames(numbers, np.repeat(np.arange(views), frames).tolist())
    options = dal.FitOptions(
        weights=_WEIGHTS.value, held_out_share=0.0, pitch_deg=pitch_deg, tracks=_TRACKS.value, fps=_FPS.value,
        quality=_REPORTS.value,
    )  # fmt: skip
    fits = dal.fit(people, options=options, lifting=_LIFTING.value, progress=True)
    joints = limb_joints(fits.body, fits.fitted())
    truth = np.concatenate([1000 * (world @ np.array(one["R_world_to_camera"]).T) for one in cameras])[:, _ROWS]
    each = scores(joints, truth)
    scale = fits.segment_scale / np.exp(np.log(fits.segment_scale).mean(axis=1, keepdims=True))
    row = {
        "views": views * frames,
        "keypoints": "exact" if _EXACT.value else pathlib.Path(_DETECT.value or "openpose_body25b").stem,
        "lifting": pathlib.Path(_LIFTING.value).name,
        "camera": _CAMERA.value,
        "weights": _WEIGHTS.value,
        "pitch_known": pitch_deg is not None,
        "tracks": _TRACKS.value,
        **{name: float(np.mean(values)) for name, values in each.items()},
        "by_camera": {
            one["name"]: float(np.mean(each["scale_matched_mm"].reshape(views, frames)[view]))
            for view, one in enumerate(cameras)
        },
        "segment_scale": [float(scale.min()), float(scale.max())],
        "wrong_detections": wrong if not _DETECT.value and not _EXACT.value else None,
    }
    if _EVERY.value == 1 and not _DETECT.value:  # of frames further apart it says nothing of jitter
        of_views = (values.reshape(views, frames, *values.shape[1:]) for values in (joints, truth))
        row["acceleration_error_mm"] = acceleration_error_mm(*of_views)
    row |= _of_reports(fits, joints, truth, each) if fits.quality else {}
    rows = [row]
    if _DETECT.value:
        names = [f"{camera['name']}_{frame:03d}.jpg" for camera in cameras for frame in shown]
        each = scores(own_landmarks([folder / "photographs" / name for name in names], _DETECT.value), truth)
        means = {name: float(np.mean(values)) for name, values in each.items()}
        rows.append({"views": views * frames, "keypoints": "MediaPipe's own 3D landmarks", **means})
    results.emit(rows, _OUT.value)


def _of_reports(fits: dal.Fits, joints: np.ndarray, truth_mm: np.ndarray, each: dict[str, np.ndarray]) -> results.Row:
    """Return what the reports say beside the errors of each view."""
    verdicts = typing.get_args(Verdict)
    return {
        "z_within_sd": _within(fits, joints, truth_mm),
        "spearman": {
            "sample_weight": _rank([1 - one.sample_weight for one in fits.quality], each),
            "expected_error": _rank([one.numbers["expected_error_mm"] for one in fits.quality], each),
            "verdict": _rank([verdicts.index(one.verdict) for one in fits.quality], each),
        },
        "by_verdict": {
            name: {"views": int(np.sum(rows)), "scale_matched_mm": float(np.mean(each["scale_matched_mm"][rows]))}
            for name in verdicts
            if np.any(rows := np.array([one.verdict == name for one in fits.quality]))
        },
    }


def wrong_shares(keypoints_px: Float[np.ndarray, "cameras frames 25 3"]) -> dict[str, float]:
    """Return how often detections are wrong, as their neighbours in time tell.

    missing: the share of the 12 joints that are not seen by their score; jumped: farther than `_JUMP` of the height
    from the middle between the frames before and after; exchanged: nearer to the other side's middle, of pairs that are
    apart.
    """
    limbs = keypoints_px[:, :, _ROWS]
    known = limbs[..., 2] >= coco.SEEN_SCORE
    y = np.where(known, limbs[..., 1], np.nan)
    height = np.nanmedian(np.nanmax(y, axis=2) - np.nanmin(y, axis=2), axis=1)[:, None, None]
    here, middle = limbs[:, 1:-1, :, :2], (limbs[:, :-2, :, :2] + limbs[:, 2:, :, :2]) / 2
    told = known[:, 1:-1] & known[:, :-2] & known[:, 2:]
    apart = np.linalg.norm(here - middle, axis=-1)
    left, right = slice(0, None, 2), slice(1, None, 2)
    across = np.linalg.norm(here[:, :, left] - middle[:, :, right], axis=-1)
    across += np.linalg.norm(here[:, :, right] - middle[:, :, left], axis=-1)
    wide = np.linalg.norm(middle[:, :, left] - middle[:, :, right], axis=-1) > _JUMP * height
    both = told[:, :, left] & told[:, :, right] & wide
    return {
        "missing": float(np.mean(~known)),
        "jumped": float(np.mean((apart > _JUMP * height)[told])),
        "exchanged": float(np.mean((across < apart[:, :, left] + apart[:, :, right])[both])),
    }


_JUMP = 0.06


def _detected(
    folder: pathlib.Path, cameras: list[dict], model: str
) -> tuple[Float[np.ndarray, "cameras frames 25 3"], list[int]]:
    """Return the key points (x, y, confidence) of each photograph's largest person, and the photographs' frames."""
    people = dal.detect(folder / "photographs", model, progress=True).people
    shown = sorted({int(one.file_name[-7:-4]) for one in people})
    names, found = [one["name"] for one in cameras], np.zeros((len(cameras), len(shown), 25, 3))
    for one in sorted(people, key=lambda person: person.bbox_px[2:].max()):  # the largest is written last
        where = names.index(one.file_name[:-8]), shown.index(int(one.file_name[-7:-4]))
        found[where] = np.column_stack([one.keypoints.position_px, one.keypoints.confidence])
    return found, shown


def own_landmarks(pictures: Sequence[pathlib.Path], model: str) -> Float[np.ndarray, "n 12 3"]:
    """Return the 12 joints of each picture's first person as MediaPipe has them in 3D, camera axes, metres.

    Nobody found: NaN.
    """
    import mediapipe
    from mediapipe.tasks.python import vision

    rows = [vision.PoseLandmark[name.upper()] for name in LIMBS]
    joints = np.full((len(pictures), len(LIMBS), 3), np.nan)
    with vision.PoseLandmarker.create_from_model_path(model) as landmarker:
        for place, picture in zip(joints, pictures, strict=True):
            found = landmarker.detect(mediapipe.Image.create_from_file(str(picture))).pose_world_landmarks
            if found:
                place[:] = [(found[0][row].x, found[0][row].y, found[0][row].z) for row in rows]
    return joints


def _within(fits: dal.Fits, joints: Float[np.ndarray, "n 12 3"], truth_mm: Float[np.ndarray, "n 12 3"]) -> list[float]:
    """Return the shares of joints whose depth error is within one and within two of the posterior's deviations."""
    rows = [skeleton.H36M_JOINT_NAMES.index(name.replace("ankle", "foot")) for name in LIMBS]
    names = np.array(skeleton.H36M_JOINT_NAMES)[rows]
    deviation = np.array([[one.numbers["joint_sd_mm"][name][2] for name in names] for one in fits.quality])
    apart = np.array([scale_matched(*pair)[:, 2] for pair in zip(joints, truth_mm, strict=True)])
    known = np.isfinite(apart)
    return [float(np.mean(np.abs(apart[known]) < count * deviation[known])) for count in (1, 2)]


def _rank(doubt: list[float], each: dict[str, np.ndarray]) -> float | None:
    """Return Spearman's rank correlation of a doubt with the true errors; None where all views are doubted alike."""
    return float(stats.spearmanr(doubt, each["scale_matched_mm"]).statistic) if len(set(doubt)) > 1 else None


def undistorted(keypoints_px: Float[np.ndarray, "... 3"], camera: dict) -> Float[np.ndarray, "... 3"]:
    """Return detections (x, y, score) as a lens without Brown's distortion has them, by fixed-point iteration."""
    matrix = np.array(camera["K"])
    k1, k2, p1, p2, k3 = camera["distortion_k1k2p1p2k3"]
    focal, centre = matrix[[0, 1], [0, 1]], matrix[:2, 2]
    seen = (keypoints_px[..., :2] - centre) / focal
    place = seen
    for _ in range(10):
        x, y = place[..., 0], place[..., 1]
        square = x**2 + y**2
        radial = 1 + k1 * square + k2 * square**2 + k3 * square**3
        tangential = np.stack(
            [2 * p1 * x * y + p2 * (square + 2 * x**2), p1 * (square + 2 * y**2) + 2 * p2 * x * y], axis=-1
        )
        place = (seen - tangential) / radial[..., None]
    return np.concatenate([place * focal + centre, keypoints_px[..., 2:]], axis=-1)


def projected(joints_m: Float[np.ndarray, "... 25 3"], camera: dict) -> Float[np.ndarray, "... 25 3"]:
    """Return where a camera without distortion sees joints of the world, (x, y, 1), and 0 where they are not known."""
    seen = joints_m @ np.array(camera["R_world_to_camera"]).T + np.array(camera["t_world_to_camera_m"])
    homogeneous = seen @ np.array(camera["K"]).T
    place = np.concatenate([homogeneous[..., :2] / homogeneous[..., 2:], np.ones_like(seen[..., :1])], axis=-1)
    return np.where(np.isfinite(place).all(axis=-1, keepdims=True), place, 0.0)


def limb_joints(body: Template, bodies: BodyParameters) -> Float[np.ndarray, "n 12 3"]:
    """Return the 12 joints of stacked bodies, camera axes, metres."""
    return np.asarray(_keypoints(body, bodies))[:, _ROWS]


@jax.jit
@functools.partial(jax.vmap, in_axes=(None, 0))
def _keypoints(body: Template, one: BodyParameters) -> Float[jax.Array, "25 3"]:
    return skinning.keypoints(body, kinematics.pose_segments(body, one), "body_25b")


def scores(joints: Float[np.ndarray, "n 12 3"], truth_mm: Float[np.ndarray, "n 12 3"]) -> dict[str, np.ndarray]:
    """Return the errors of each view over the joints whose truth is known.

    Scale-matched about the middle of the hips; PA; the angle between the trunks, true and found; and the share along
    the optical axis and across it of the first.
    """
    rows = [_score(*(np.asarray(each, np.float64) for each in pair)) for pair in zip(joints, truth_mm, strict=True)]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def acceleration_error_mm(
    joints: Float[np.ndarray, "views frames 12 3"], truth_mm: Float[np.ndarray, "views frames 12 3"]
) -> float:
    """Return the mean over views of `metrics.acceleration_error_mm`, both relative to the middle of the hips."""
    centred = (
        np.asarray(each - each[:, :, _HIPS].mean(axis=2, keepdims=True), np.float32) for each in (joints, truth_mm)
    )
    return float(np.mean(jax.vmap(metrics.acceleration_error_mm)(*centred)))


def scale_matched(joints: Float[np.ndarray, "12 3"], truth_mm: Float[np.ndarray, "12 3"]) -> Float[np.ndarray, "12 3"]:
    """Return how far joints lie from their truth (NaN: unknown), scaled and moved so that hips lie on hips; mm."""
    centred, true = (each - each[_HIPS].mean(axis=0) for each in (joints.astype(np.float64), truth_mm))
    known = np.isfinite(truth_mm).all(axis=1)
    return max(np.sum(centred[known] * true[known]), 0.0) / np.sum(centred[known] ** 2) * centred - true


def _score(joints: Float[np.ndarray, "12 3"], truth_mm: Float[np.ndarray, "12 3"]) -> dict[str, float]:
    known = np.isfinite(truth_mm).all(axis=1)
    apart = scale_matched(joints, truth_mm)[known]
    trunk, trunk_true = (each[_SHOULDERS].mean(axis=0) - each[_HIPS].mean(axis=0) for each in (joints, truth_mm))
    cosine = trunk @ trunk_true / np.linalg.norm(trunk) / np.linalg.norm(trunk_true)
    return {
        "scale_matched_mm": np.linalg.norm(apart, axis=1).mean(),
        "pa_mm": float(metrics.pa_mpjpe_mm(joints[known].astype(np.float32), truth_mm[known].astype(np.float32))),
        "trunk_degrees": np.degrees(np.arccos(np.clip(cosine, -1, 1))),
        "rms_z_mm": np.sqrt(np.mean(apart[:, 2] ** 2)),
        "rms_xy_mm": np.sqrt(np.mean(np.sum(apart[:, :2] ** 2, axis=1))),
    }


if __name__ == "__main__":
    cli.run(main)
