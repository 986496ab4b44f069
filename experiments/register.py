"""Fit the body to people: annotated as COCO is, by what pose detectors write, DensePose's IUV pictures, or MediaPipe.

  python -m experiments.register --annotations=people.json --images=photos --chart=UV_Processed.mat --out=fits
  python -m experiments.register --iuv=a_IUV.png --inds=a_INDS.png --images=a.jpg --chart=UV_Processed.mat --out=fits
  python -m experiments.register --images=photos --detect=pose_landmarker_full.task --out=fits
  python -m experiments.register --annotations=people.json --cameras=Calib.toml --tracks --out=fits

Writes OUT/fits.npz (one row a person), OUT/index.html to look at, OUT/summary.json, OUT/overlays/*.png where
photographs are given, and OUT/meshes/* with --export, with its glb also OUT/scenes/*, one a photograph, or with
--tracks OUT/motion/*, one a track. Everything is written or nothing. The first run compiles for about a minute on
two cores, later ones take seconds. A row of fits.npz whose annotation was skipped has `valid` false and holds NaN.
"""

from absl import flags

import dal_jax as dal
from dal_jax.body.formats.load import FREE_BODY
from dal_jax.fits import export, fitting, output, page, stream
from dal_jax.fits.options import CAMERAS, FitOptions
from dal_jax.observations import cameras_file
from dal_jax.observations.detect import MODEL_URL
from dal_jax.observations.person import Annotations
from dal_jax.registration import energy, schedules
from dal_jax.registration.solvers import solve
from dal_jax.registration.starts import STARTS
from dal_jax.runtime import cli, files, machine
from dal_jax.runtime.errors import InputError
from dal_jax.uncertainty import measurements

_ANNOTATIONS = flags.DEFINE_string(
    "annotations",
    None,
    "COCO-style JSON with bbox and dp_I, dp_U, dp_V, dp_x, dp_y, keypoints, or both; or what a pose detector writes, a "
    "file or a folder with one for each photograph: docs/formats.md.",
)
_IUV = flags.DEFINE_string("iuv", None, "IUV picture as DensePose writes it, or a folder of NAME_IUV.png.")
_INDS = flags.DEFINE_string("inds", None, "INDS picture (one id a person), or a folder of NAME_INDS.png.")
_IMAGES = flags.DEFINE_string(
    "images", None, "Folder of the photographs, or the one photograph: for overlays. With --detect also a video."
)
_DETECT = flags.DEFINE_string(
    "detect",
    None,
    "Without annotation: find people and key points in --images by this model file of MediaPipe's Pose Landmarker, for "
    f"instance {MODEL_URL}pose_landmarker_full/float16/latest/pose_landmarker_full.task (extra 'detect').",
)
_CHART = flags.DEFINE_string("chart", None, "DensePose's UV_Processed.mat. Left out: the body's own chart.")
_BODY = flags.DEFINE_string(
    "body",
    None,
    "Body file: our own (.npz), a model of SMPL or SMPL-H (.npz, .pkl), or a rigged human as glTF (.glb, .gltf); see "
    "docs/smpl.md. Left out: the free body.",
)
_BLENDSHAPES = flags.DEFINE_bool(
    "pose_blendshapes", False, "Use the pose blendshapes of --body (SMPL's); not with the optimiser lm."
)
_LIFTING = flags.DEFINE_string(
    "lifting",
    None,
    "The lifter that gives key points their depth (eq. 4): the folder or the small .npz of train_lifting; shipped; or "
    "none. Left out: shipped for people without dense points, where the weights are pose_prior.",
)
_CAMERA = flags.DEFINE_enum(
    "camera", None, CAMERAS,
    "weak: the paper's; perspective: with joints in the camera's axes and the focal length of --focal_px or, left out, "
    "of the photographs' EXIF; assumed: that, or the longer side of photographs that do not say. Left out: assumed "
    "with --detect, else weak.",
)  # fmt: skip
_FOCAL = flags.DEFINE_float(
    "focal_px", None, "Focal length of the camera, px of the photograph, which makes it perspective.", 1
)
_PITCH = flags.DEFINE_float(
    "pitch_deg",
    None,
    "How far the camera looks down, degrees: upright people are then expected to be seen so.",
    -60,
    60,
)
_CAMERAS = flags.DEFINE_string(
    "cameras",
    None,
    "Calibrated cameras, K, distortion and where each stands: our JSON, Qualisys' QCA, Pose2Sim's or Anipose's TOML, "
    "OpenCV's YAML, Human3.6M's metadata.xml or JSON. What several of them see of a moment is fitted as one body, in "
    "metres in their world; photographs' names tell camera and moment (docs/several_cameras.md). Or, without "
    "calibration, their names, as in cam01,cam02: each then has a weak-perspective camera of its own.",
)
_HEIGHT = flags.DEFINE_float(
    "height_cm", None, "True height of everybody: measurements are then in cm, else shares of the height.",
    measurements.LEAST_CM, measurements.MOST_CM,
)  # fmt: skip
_TRACKS = flags.DEFINE_bool(
    "tracks",
    False,
    "The photographs are a video's frames, by the last number in their names: people are followed, by the annotation's "
    "track_id where it has them, and have one shape and smooth motion. See docs/tracks.md.",
)
_FPS = flags.DEFINE_float(
    "fps",
    None,
    "Frames a second, as photographs are numbered; with --tracks. Left out: what the video says, else 30.",
    0.1,
)
_INITIAL = flags.DEFINE_string("initial", None, "An earlier fits.npz of the same people, as one more start.")
_STARTS = flags.DEFINE_enum(
    "starts", "headings4", [name for name in STARTS if name != "given"], "Where the fit starts."
)
_OPTIMIZER = flags.DEFINE_string(
    "optimizer",
    "lm",
    "lm, dense_lm, gauss_newton, adam, lbfgs, any of optax as in 'optax.adabelief(learning_rate=0.05)', or a solver "
    "of your own as package.module:function (examples/05_own_solver.py).",
)
_STEPS = flags.DEFINE_integer(
    "steps", None, "Steps from each start, a stage. Left out: 30 of lm, dense_lm and gauss_newton, 300 of others.", 1
)
_TOLERANCE = flags.DEFINE_float(
    "tolerance", 0.0, "A person is finished when a step gains less than this share of the energy; 0: all steps.", 0, 1
)
_SCHEDULE = flags.DEFINE_enum(
    "schedule", None, list(schedules.SCHEDULES),
    "constant; stiff_to_soft: the paper's stiff weights first; graduated: a robust loss against wrong correspondences. "
    "Left out: graduated for IUV pictures, which a network made, constant for annotation and the paper's weights.",
)  # fmt: skip
_LIMITS = flags.DEFINE_float("joint_limits", 0.0, "Weight of joint angles beyond anatomical limits; 0: off.", 0)
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 0.1, "Of first-order optimisers (paper: 0.1).", 1e-9)
_WEIGHTS = flags.DEFINE_enum(
    "weights", "pose_prior", [*schedules.WEIGHTS, "estimated"],
    "Of eq. 2: paper_stiff, the paper's of the first round; paper_soft, those of later rounds; pose_prior, soft with a "
    "pull to how people hold their joints and to the proportions they have, instead of to the T-pose of the template; "
    "estimated: the inverse variances that the "
    "residuals of all people together speak for, and how they hold their joints (three rounds of fits; give it a "
    "hundred or more).",
)  # fmt: skip
_SCALES = flags.DEFINE_enum(
    "scales", "isotropic", list(energy.SCALES),
    "Of segments: isotropic, one each (paper), and one girth for all with --weights=pose_prior; anisotropic, one along "
    "the bone and two across it, for people who are wide where others are not.",
)  # fmt: skip
_QUALITY = flags.DEFINE_bool("quality", True, "Report on every fit: what it misses, what else it could be, how sure.")
_HOLDOUT = flags.DEFINE_float("holdout", 0.2, "Share of points left out to measure the fit there; 0: not.", 0, 0.5)
_SKIP_INVALID = flags.DEFINE_bool("skip_invalid", False, "Run the good entries of a file that has bad ones.")
_EXPORT = flags.DEFINE_string(
    "export", "", "Write bodies, as in glb,bvh: rigs glb, usd, bvh; meshes obj, ply; SMPL's npz (docs/exports.md)."
)
_FRAGMENTS = flags.DEFINE_bool("keep_fragments", False, "Export people of whom less than a third is seen, too.")
_COMPARE = flags.DEFINE_string(
    "compare", None, "Folder of earlier results on the same people: OUT/index.html shows both beside each other."
)
_VIEWER = flags.DEFINE_enum(
    "viewer", "none", list(stream.VIEWERS), "rerun: show the results in rerun's viewer, too (extra `viewer`)."
)
_OUT = flags.DEFINE_string("out", None, "Folder for the results.", required=True)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the results in --out.")

_SHOWN_ROWS = 40


def main(_: list[str]) -> None:
    """Read, fit, measure, draw, write, print."""
    formats, options = export.parse_formats(_EXPORT.value), _options()
    if _VIEWER.value == "rerun":
        stream.check()
    files.refuse_taken(_OUT.value, output.NAMES, _OVERWRITE.value)
    body = dal.load_body(_BODY.value or FREE_BODY, pose_blendshapes=_BLENDSHAPES.value)
    export.check(formats, body)
    people = _people()
    print(people.summary())
    for note in people.notes:
        print(f"  {note}")
    for rejected in people.rejected[:_SHOWN_ROWS]:
        print(f"  skipped: {rejected.message}")
    if _COMPARE.value:
        page.Earlier.read(_COMPARE.value)  # refused now, not after the fit
    initial = dal.load_fits(_INITIAL.value) if _INITIAL.value else None
    if (lifter := fitting.chosen_lifter(people, options, _LIFTING.value)) is not None:
        by_default = ", for people without dense points; --lifting=none: no depths"
        print(f"lifter of depths: {lifter}{by_default if _LIFTING.value is None else ''}")
    if (camera := fitting.chosen_camera(people, options)) == "assumed":
        print("focal length: as photographs' EXIF says, else assumed: their longer side; --focal_px=F if it is known")
    with machine.compiling(_program(camera), "a minute"):
        fits = dal.fit(people, body, options, lifting=_LIFTING.value, initial=initial, progress=True)
    fits.save(_OUT.value, formats, keep_fragments=_FRAGMENTS.value, overwrite=_OVERWRITE.value, other=_COMPARE.value)
    if fits.world is not None:
        print(f"{len(fits.world)} moments, {len(set(fits.world.person.tolist()))} people")
        for line in dict.fromkeys(line for flags_of in fits.summary["camera_flags"] for line in flags_of):
            print(f"  {line}")
    elif _TRACKS.value:
        print(f"{fits.extra['track_id'].max() + 1} tracks")
        if exchanged := fits.extra["sides_exchanged"].sum():
            print(f"  left and right of key points were exchanged in {exchanged} frames, as others have them")
    print(output.table(fits.report_rows(), _SHOWN_ROWS))
    print(output.written(_OUT.value))
    if _VIEWER.value == "rerun":
        stream.show(fits)


def _people() -> Annotations:
    if [bool(flag.value) for flag in (_ANNOTATIONS, _IUV, _DETECT)].count(True) != 1:
        raise InputError("give one of --annotations=FILE, --iuv=PICTURE and --detect=MODEL.task")
    if _DETECT.value:
        if not _IMAGES.value:
            raise InputError(f"--detect={_DETECT.value}: needs --images, where people are looked for")
        for flag in (_INDS, _CHART):
            if flag.value:
                raise InputError(f"--{flag.name}={flag.value}: of dense points, which --detect does not find")
        return dal.detect(_IMAGES.value, _DETECT.value, skip_invalid=_SKIP_INVALID.value, progress=True)
    if _ANNOTATIONS.value and _INDS.value:
        raise InputError(f"--inds={_INDS.value}: belongs to --iuv, not to --annotations")
    path = _ANNOTATIONS.value or _IUV.value or ""
    return dal.read_annotations(path, _IMAGES.value, _CHART.value, _INDS.value, _SKIP_INVALID.value)


def _program(camera: str) -> str:
    """Return the name of the program that the flags ask for: another one compiles anew."""
    kinds = [camera, *(flag.name for flag in (_CAMERAS, _TRACKS) if flag.value), _SCALES.value]
    return "-".join(["register", _OPTIMIZER.value.partition("(")[0], *kinds])


def _options() -> FitOptions:
    """Return the options of the fit, refused before the work where they would fail after it."""
    try:
        solve.check(_OPTIMIZER.value)
    except ValueError as error:
        raise InputError(f"--optimizer={_OPTIMIZER.value}: {str(error).split(': ', 1)[-1]}") from error
    if _BLENDSHAPES.value and _OPTIMIZER.value == "lm":
        raise InputError("--pose_blendshapes: the optimiser lm knows none; take --optimizer=dense_lm")
    if _TRACKS.value and _OPTIMIZER.value != "lm":
        raise InputError(f"--tracks: are fitted by the optimiser lm, not by --optimizer={_OPTIMIZER.value}")
    if _CAMERAS.value and _WEIGHTS.value == "estimated":
        raise InputError("--weights=estimated: are of single images, not of several --cameras")
    for flag in (_CAMERA, _FOCAL, _PITCH, _INITIAL) if _CAMERAS.value else ():
        if flag.value is not None:
            raise InputError(f"--{flag.name}={flag.value}: is of one camera; --cameras has those of several")
    if _CAMERAS.value:
        cameras_file.read(_CAMERAS.value)  # refused now, not after the annotation
    if _PITCH.value is not None and _WEIGHTS.value != "pose_prior":
        raise InputError(f"--pitch_deg: belongs to --weights=pose_prior, not to {_WEIGHTS.value}")
    if _WEIGHTS.value == "estimated" and _SCALES.value != "isotropic":
        raise InputError(f"--scales={_SCALES.value}: not with --weights=estimated")
    return FitOptions(
        optimizer=_OPTIMIZER.value,
        steps=_STEPS.value,
        learning_rate=_LEARNING_RATE.value,
        starts=_STARTS.value,
        schedule=_SCHEDULE.value,
        weights=_WEIGHTS.value,
        scales=_SCALES.value,
        joint_limits=_LIMITS.value,
        camera=_CAMERA.value,
        cameras=_CAMERAS.value,
        focal_px=_FOCAL.value,
        pitch_deg=_PITCH.value,
        height_cm=_HEIGHT.value,
        tracks=_TRACKS.value,
        fps=_FPS.value,
        tolerance=_TOLERANCE.value,
        quality=_QUALITY.value,
        held_out_share=_HOLDOUT.value,
    )


if __name__ == "__main__":
    cli.run(main)
