r"""Photographs in, bodies out: a trained ConvNet predicts every person, and registration refines where it is annotated.

  python -m experiments.predict --images=photos --checkpoint=runs/demo --out=bodies
  python -m experiments.predict --images=photos --boxes=boxes.json --checkpoint=runs/demo --out=bodies --export=glb
  python -m experiments.predict --images=photos --annotations=people.json --chart=UV_Processed.mat --refine \
      --checkpoint=runs/demo --out=bodies

Boxes come from --boxes, --keypoints or --annotations; with none of them each picture shows one person who fills
it. --boxes: JSON, {"a.jpg": [[x, y, width, height], ...]}, a list of boxes for one picture, or what a detector writes
(docs/formats.md). --keypoints: what a pose detector writes. Pictures are rotated upright as their EXIF says; files
named *_IUV.png and *_INDS.png are passed over.

Writes OUT/fits.npz (one row a person, as `register` does), index.html to look at, summary.json, overlays/*.png and,
with --export, meshes/* and (glb) scenes/*.
With --focal_px fits.npz also has joints_camera, joints_h36m_camera (metres, in the camera's frame), rotation_camera and
intrinsics_px. All appears at once at the end; the same command goes on with what a killed one has done.
"""

import hashlib
import json
import pathlib

import numpy as np
from absl import flags

import dal_jax as dal
from dal_jax.body.formats.load import FREE_BODY
from dal_jax.fits import export, file, fitting, output, page, stream
from dal_jax.fits.fits import Fits
from dal_jax.loop import prediction
from dal_jax.loop.prediction import TrainedRegressor
from dal_jax.observations import detections, photographs
from dal_jax.observations.person import AnnotatedPerson, Annotations
from dal_jax.registration.solvers import solve
from dal_jax.runtime import cli, files, machine
from dal_jax.runtime.errors import InputError

_IMAGES = flags.DEFINE_string("images", None, "Folder of the photographs, or one photograph.", required=True)
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Folder of a deform_and_learn run, or the checkpoints/ in it.", required=True
)
_OUT = flags.DEFINE_string("out", None, "Folder for the results.", required=True)
_BOXES = flags.DEFINE_string("boxes", None, "The people's boxes: JSON, or what a detector writes.")
_KEYPOINTS = flags.DEFINE_string("keypoints", None, "The people's key points, as a pose detector writes them.")
_ANNOTATIONS = flags.DEFINE_string(
    "annotations", None, "COCO-style JSON with dense points, as for `register`: the people, and how far off they are."
)
_CHART = flags.DEFINE_string("chart", None, "DensePose's UV_Processed.mat for --annotations. Left out: the body's own.")
_REFINE = flags.DEFINE_bool(
    "refine", False, "Register every predicted body to its --annotations (eq. 2, soft weights)."
)
_OPTIMIZER = flags.DEFINE_string("optimizer", "lm", "Of --refine: what `register --optimizer` takes.")
_BODY = flags.DEFINE_string("body", None, "Where the body file of the checkpoint's run lies now, if it has moved.")
_FOCAL = flags.DEFINE_float("focal_px", None, "Focal length of the camera: adds joints in its frame.", 1e-3)
_PRINCIPAL = flags.DEFINE_list("principal_px", None, "Principal point x,y. Left out: each picture's centre.")
_BATCH = flags.DEFINE_integer("batch", 64, "People the network sees at once.", 1)
_OVERLAYS = flags.DEFINE_bool(
    "overlays", True, "Draw every body over its photograph and from the side, and a page to look at."
)
_EXPORT = flags.DEFINE_string(
    "export", "", "Write bodies, as in glb,bvh: rigs glb, usd, bvh; meshes obj, ply; SMPL's npz (docs/exports.md)."
)
_COMPARE = flags.DEFINE_string(
    "compare", None, "Folder of earlier results on the same people: OUT/index.html shows both beside each other."
)
_VIEWER = flags.DEFINE_enum(
    "viewer", "none", list(stream.VIEWERS), "rerun: show the results in rerun's viewer, too (extra `viewer`)."
)
_SKIP_INVALID = flags.DEFINE_bool("skip_invalid", False, "Run the good pictures and entries where there are bad ones.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the results in --out, and start anew.")

_SHOWN_ROWS = 40


def main(_: list[str]) -> None:
    """Find the people, predict, refine, draw, write, print."""
    formats = export.parse_formats(_EXPORT.value)
    _check_flags()
    people, trained = _people(), prediction.load(_CHECKPOINT.value)
    if _COMPARE.value:
        page.Earlier.read(_COMPARE.value)  # refused now, not after the predictions
    if files.is_unfinished(_OUT.value) and not _OVERWRITE.value:
        print(f"resuming: batches that are done in {_OUT.value} stay")
    with files.making(_OUT.value, output.NAMES, _run(people, trained), _OVERWRITE.value) as building:
        bodies = _bodies(people, trained, building)
        bodies.write_into(building, formats, overlays=_OVERLAYS.value, other=_COMPARE.value)
    if _ANNOTATIONS.value or _KEYPOINTS.value:
        print(output.table(bodies.report_rows(), _SHOWN_ROWS))
    print(output.written(_OUT.value))
    if _VIEWER.value == "rerun":
        stream.show(bodies)


def _bodies(people: Annotations, trained: TrainedRegressor, building: pathlib.Path) -> Fits:
    """Return predicted people, refined on request, with places in the camera's frame if its focal length is known."""
    body = dal.load_body(_BODY.value or trained.body or FREE_BODY)
    export.check(export.parse_formats(_EXPORT.value), body)
    done = building / "predicted"
    with machine.compiling("predict", "half a minute"):
        bodies = prediction.predict_people(trained, people, body, done, _BATCH.value, _SKIP_INVALID.value)
    used = bodies.annotations or people
    print(f"{used.summary()}; checkpoint {trained.step} of {trained.folder}")
    if trained.data.startswith("synthetic"):
        print("  this network has seen made-up people alone (synthetic data): of photographs it gives a guess at best")
    for note in people.notes:
        print(f"  {note}")
    for rejected in used.rejected[:_SHOWN_ROWS]:
        print(f"  skipped: {rejected.message}")
    if _REFINE.value:
        before, bodies = bodies.report_rows(), fitting.refine(bodies, _OPTIMIZER.value)
        names = ("dense_error_px", "keypoint_error_px")
        bodies.summary = {f"predicted_{name}": [row[name] for row in before] for name in names}
    bodies.extra = _camera_fields(bodies, used)
    return bodies


def _check_flags() -> None:
    """Refuse before the work what would fail after it."""
    if _VIEWER.value == "rerun":
        stream.check()
    if not files.is_unfinished(_OUT.value):
        files.refuse_taken(_OUT.value, output.NAMES, _OVERWRITE.value)
    named = {"boxes": _BOXES.value, "keypoints": _KEYPOINTS.value, "annotations": _ANNOTATIONS.value}
    given = [f"--{name}" for name, value in named.items() if value]
    if len(given) > 1:
        raise InputError(f"{given[0]} and {given[1]} both say where people are; give one")
    for name in ("refine", "chart"):
        if flags.FLAGS[name].value and not _ANNOTATIONS.value:
            raise InputError(f"--{name}: needs --annotations=FILE.json")
    try:
        solve.check(_OPTIMIZER.value)
    except ValueError as error:
        raise InputError(f"--optimizer={_OPTIMIZER.value}: {str(error).split(': ', 1)[-1]}") from error
    if _FOCAL.value is not None and not np.isfinite(_FOCAL.value):
        raise InputError(f"--focal_px={_FOCAL.value}: not a finite number")
    if _COMPARE.value and not _OVERLAYS.value:
        raise InputError(f"--compare={_COMPARE.value}: is shown on the page, which --nooverlays leaves out")
    if _PRINCIPAL.value is not None and not _FOCAL.value:
        raise InputError("--principal_px: needs --focal_px")
    _principal_px()


def _principal_px() -> tuple[float, float] | None:
    if _PRINCIPAL.value is None:
        return None
    text = ",".join(_PRINCIPAL.value)
    try:
        x, y = (float(value) for value in _PRINCIPAL.value)
    except ValueError:
        raise InputError(f"--principal_px={text}: not two numbers such as 320,240") from None
    if not np.isfinite([x, y]).all():
        raise InputError(f"--principal_px={text}: not two finite numbers")
    return x, y


def _people() -> Annotations:
    """Return the people to predict."""
    if _ANNOTATIONS.value:
        return dal.read_annotations(_ANNOTATIONS.value, _IMAGES.value, _CHART.value, skip_invalid=_SKIP_INVALID.value)
    pictures = detections.list_photographs(_IMAGES.value)
    found = None
    if _BOXES.value:
        found = detections.read_boxes(_BOXES.value, pictures)
    elif _KEYPOINTS.value:
        found = detections.read_keypoints(_KEYPOINTS.value, pictures)
    return detections.people(pictures, found, _SKIP_INVALID.value)


def _run(people: Annotations, trained: TrainedRegressor) -> dict:
    """Return what the results depend on: with another value, the unfinished work of a killed run is of no use."""
    digest = hashlib.sha256()
    for one in people.people:
        stat = people.photograph(one).stat()
        identity = [one.file_name, one.annotation_id, stat.st_size, stat.st_mtime_ns]
        digest.update(json.dumps(identity).encode())
        for array in (one.crop_px, one.point_px, one.part, one.uv, *one.keypoints):
            digest.update(np.ascontiguousarray(array).tobytes())
    return {
        "checkpoint": f"{trained.folder.absolute()}, step {trained.step}",
        "people": digest.hexdigest(),
        "chart": _CHART.value or "",
        "body": _BODY.value or "",
        "batch": _BATCH.value,
        "refine": _OPTIMIZER.value if _REFINE.value else "",
        "skip_invalid": _SKIP_INVALID.value,
        "overlays": _OVERLAYS.value,
        "export": _EXPORT.value,
    }


def _camera_fields(bodies: Fits, people: Annotations) -> dict[str, np.ndarray]:
    if not _FOCAL.value:
        return {}
    intrinsics_px = np.full((len(bodies), 4), np.nan, np.float32)
    for row, entry in enumerate(people.entries):
        if isinstance(entry, AnnotatedPerson):
            size = entry.picture_size or photographs.upright_size(people.photograph(entry))
            centre = _principal_px() or (size[0] / 2, size[1] / 2)
            intrinsics_px[row] = (_FOCAL.value, _FOCAL.value, *centre)
    return file.in_camera(bodies, intrinsics_px)


if __name__ == "__main__":
    cli.run(main, "finished batches are kept in --out; the same command goes on")
