"""Photographs in, bodies out: a trained ConvNet predicts every person, and registration refines where it is annotated.

  python -m experiments.predict --images=photos --checkpoint=runs/demo --out=bodies
  python -m experiments.predict --images=photos --boxes=boxes.json --checkpoint=runs/demo --out=bodies --export=glb
  python -m experiments.predict --images=photos --annotations=people.json --chart=UV_Processed.mat --refine \\
      --checkpoint=runs/demo --out=bodies

Who is where comes from --boxes, --keypoints or --annotations; with none of them each picture shows one person who fills
it. --boxes: JSON, {"a.jpg": [[x, y, width, height], ...]}, a list of boxes for one picture, a detector's list of
{"image_id", "bbox"}, or COCO's. --keypoints: the same with COCO's 17 key points. Pictures are turned upright as their
EXIF says; files named *_IUV.png and *_INDS.png are passed over.

Writes OUT/fits.npz (one row a person, as `register` does), summary.json, overlays/*.png and, with --export, meshes/*.
With --focal_px fits.npz also has joints_camera, joints_h36m_camera (metres, in the camera's frame), rotation_camera and
intrinsics_px. All appears at once at the end; the same command goes on with what a killed one has done.
"""

import hashlib
import json
import pathlib

import jax
import numpy as np
from absl import flags

from dal_jax.body.formats import load
from dal_jax.body.template import Template
from dal_jax.fits import export, file, output
from dal_jax.fits.file import Fits
from dal_jax.fits.output import PathOf, Results, summarise, table
from dal_jax.loop import prediction
from dal_jax.loop.prediction import Predicted, TrainedRegressor
from dal_jax.observations import detections, observation, photographs
from dal_jax.observations.annotations import read_annotations
from dal_jax.observations.chart import load_chart
from dal_jax.observations.observation import Observation
from dal_jax.observations.person import AnnotatedPerson, Annotations, Rejected
from dal_jax.registration import register
from dal_jax.registration.energy import Objective
from dal_jax.registration.register import Fit, RegistrationConfig
from dal_jax.registration.solvers import solve
from dal_jax.runtime import cli, files, progress
from dal_jax.runtime.errors import InputError

_IMAGES = flags.DEFINE_string("images", None, "Folder of the photographs, or one photograph.", required=True)
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Folder of a deform_and_learn run, or the checkpoints/ in it.", required=True
)
_OUT = flags.DEFINE_string("out", None, "Folder for the results.", required=True)
_BOXES = flags.DEFINE_string("boxes", None, "JSON with the people's boxes.")
_KEYPOINTS = flags.DEFINE_string("keypoints", None, "JSON with the people's key points (COCO's 17).")
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
_OVERLAYS = flags.DEFINE_bool("overlays", True, "Draw every body over its photograph, and from the side.")
_EXPORT = flags.DEFINE_string("export", "", "Write meshes: glb, obj or both, as in glb,obj.")
_SKIP_INVALID = flags.DEFINE_bool("skip_invalid", False, "Run the good pictures and entries where there are bad ones.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the results in --out, and start anew.")

_SHOWN_ROWS = 40


def main(_: list[str]) -> None:
    """Find the people, predict, refine, draw, write, print."""
    formats = export.parse_formats(_EXPORT.value)
    _check_flags()
    found, path_of = _people()
    trained = prediction.load(_CHECKPOINT.value)
    template = load.load_body(_BODY.value or trained.body or load.FREE_BODY)
    with files.making(_OUT.value, output.NAMES, _run(found, path_of, trained), _OVERWRITE.value) as building:
        rows = _make(building, trained, template, found, path_of, formats)
    if _ANNOTATIONS.value or _KEYPOINTS.value:
        print(table(rows, _SHOWN_ROWS))
    print(f"wrote {_OUT.value}/fits.npz" + (f" and pictures in {_OUT.value}/overlays" if _OVERLAYS.value else ""))


def _make(
    building: pathlib.Path,
    trained: TrainedRegressor,
    template: Template,
    found: Annotations,
    path_of: PathOf,
    formats: tuple[str, ...],
) -> list[dict]:
    """Fill the folder with all results; return what summary.json says of each person."""
    predicted = _predict(trained, path_of, found.people, building)
    found, predicted = _without_problems(found, predicted)
    print(f"{found.summary()}; checkpoint {trained.step} of {trained.folder}")
    for rejected in found.rejected[:_SHOWN_ROWS]:
        print(f"  skipped: {rejected.message}")
    observations = observation.observe_all(found.people, load_chart(_CHART.value or "", template))
    fits, rows = _fits(template, found, observations, predicted)
    shown = path_of if _OVERLAYS.value else None
    extra = _camera_fields(path_of, found, fits)
    output.write(building, Results(template, found, observations, fits, rows, extra), shown, formats)
    return rows


def _check_flags() -> None:
    """Refuse before the work what would fail after it."""
    if not files.is_unfinished(_OUT.value):
        files.refuse_taken(_OUT.value, output.NAMES, _OVERWRITE.value)
    named = {"boxes": _BOXES.value, "keypoints": _KEYPOINTS.value, "annotations": _ANNOTATIONS.value}
    given = [f"--{name}" for name, value in named.items() if value]
    if len(given) > 1:
        raise InputError(f"{given[0]} and {given[1]} both say who is where; give one")
    for name in ("refine", "chart"):
        if flags.FLAGS[name].value and not _ANNOTATIONS.value:
            raise InputError(f"--{name}: needs --annotations=FILE.json")
    if _ANNOTATIONS.value and not _ANNOTATIONS.value.lower().endswith(".json"):
        raise InputError(f"--annotations={_ANNOTATIONS.value}: not a .json file")
    try:
        solve.check(_OPTIMIZER.value)
    except ValueError as error:
        raise InputError(f"--optimizer={_OPTIMIZER.value}: {str(error).split(': ', 1)[-1]}") from error
    if _FOCAL.value is not None and not np.isfinite(_FOCAL.value):
        raise InputError(f"--focal_px={_FOCAL.value}: not a finite number")
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


def _people() -> tuple[Annotations, PathOf]:
    """Return who is to be predicted, and where each one's photograph lies."""
    if _ANNOTATIONS.value:
        found = read_annotations(_ANNOTATIONS.value, _IMAGES.value, _CHART.value, skip_invalid=_SKIP_INVALID.value)
        return found, found.photograph
    pictures = detections.list_photographs(_IMAGES.value)
    names = [path.name for path in pictures]
    boxes = None
    if _BOXES.value:
        boxes = detections.read_boxes(_BOXES.value, names)
    elif _KEYPOINTS.value:
        boxes = detections.read_keypoints(_KEYPOINTS.value, names)
    people = detections.people(pictures, boxes, _SKIP_INVALID.value)
    return people, people.photograph


def _run(found: Annotations, path_of: PathOf, trained: TrainedRegressor) -> dict:
    """Return what the results depend on: another value is another run, whose unfinished work is of no use here."""
    digest = hashlib.sha256()
    for one in found.people:
        stat = path_of(one).stat()
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


def _predict(
    trained: TrainedRegressor,
    path_of: PathOf,
    people: list[AnnotatedPerson],
    building: pathlib.Path,
) -> Predicted:
    return prediction.predict(
        trained, people, path_of, building / "predicted", _BATCH.value, skip_invalid=_SKIP_INVALID.value
    )


def _without_problems(found: Annotations, predicted: Predicted):
    """Return the entries, those whose crop could not be made turned into rejected ones, and the others' bodies."""
    problem_of = dict(zip([id(one) for one in found.people], predicted.problems, strict=True))
    entries = [
        Rejected(one.image_id, one.annotation_id, one.file_name, "unreadable picture", problem_of[id(one)])
        if problem_of.get(id(one))
        else one
        for one in found.entries
    ]
    good = [row for row, problem in enumerate(predicted.problems) if not problem]
    if not good:
        raise InputError(f"{predicted.problems[0]} (none of {len(entries)} people can be used)")
    parameters = jax.tree.map(lambda leaf: leaf[good], predicted.parameters)
    return Annotations(entries, found.without_points), parameters


def _fits(
    template: Template,
    found: Annotations,
    observations: Observation,
    predicted,
) -> tuple[Fits, list[dict]]:
    """Return the rows of fits.npz and what summary.json says of them; refined where that is asked for."""
    fits = file.empty(*zip(*[(e.image_id, e.annotation_id, e.file_name) for e in found.entries], strict=True))
    rows = np.array([isinstance(entry, AnnotatedPerson) for entry in found.entries]).nonzero()[0]
    bbox_px = np.stack([person.bbox_px for person in found.people])
    file.fill(fits, rows, template, predicted, observations, bbox_px)
    summary = summarise(found, fits)
    if not _REFINE.value:
        return fits, summary
    before = {f"predicted_{name}": [row[name] for row in summary] for name in ("dense_error_px", "keypoint_error_px")}
    fit = _refine(template, observations, predicted)
    file.fill(fits, rows, template, fit.parameters, observations, bbox_px, fit.energy, fit.converged)
    summary = summarise(found, fits)
    return fits, [row | {name: values[index] for name, values in before.items()} for index, row in enumerate(summary)]


def _refine(template: Template, observations: Observation, predicted) -> Fit:
    """Register the people from their predictions alone, with the weights of the loop's later rounds."""
    people = len(predicted.camera_scale)
    steps = 30 if _OPTIMIZER.value in ("lm", "dense_lm", "gauss_newton") else 300
    batch = 64 if _OPTIMIZER.value == "lm" else min(64, 1 << (people - 1).bit_length())
    config = RegistrationConfig(_OPTIMIZER.value, steps, starts="given", batch=batch)
    with progress.bar("refine", total=people, unit="person") as bar:
        return register.register(
            template, observations, config, Objective(), [predicted], lambda n: bar.update(n - bar.n)
        )


def _camera_fields(path_of: PathOf, found: Annotations, fits: Fits) -> dict[str, np.ndarray]:
    if not _FOCAL.value:
        return {}
    intrinsics_px = np.full((len(found.entries), 4), np.nan, np.float32)
    for row, entry in enumerate(found.entries):
        if isinstance(entry, AnnotatedPerson):
            size = entry.picture_size or photographs.upright_size(path_of(entry))
            centre = _principal_px() or (size[0] / 2, size[1] / 2)
            intrinsics_px[row] = (_FOCAL.value, _FOCAL.value, *centre)
    return file.in_camera(fits, intrinsics_px)


if __name__ == "__main__":
    cli.run(main)
