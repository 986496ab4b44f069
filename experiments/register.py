"""Fit the body to annotated people: DensePose-COCO style JSON, or DensePose's IUV pictures.

  python -m experiments.register --annotations=people.json --images=photos --chart=UV_Processed.mat --out=fits
  python -m experiments.register --iuv=a_IUV.png --inds=a_INDS.png --images=a.jpg --chart=UV_Processed.mat --out=fits

Writes OUT/fits.npz (one row a person), OUT/summary.json, OUT/overlays/*.png where photographs are given, and
OUT/meshes/* with --export. Everything is written or nothing. The first run compiles for about half a minute on two
cores, later ones take seconds. A row of fits.npz whose annotation was skipped has `valid` false and holds NaN.
"""

import functools
import pathlib
import tempfile

import jax
import numpy as np
from absl import flags

from dal_jax.body.formats import load
from dal_jax.body.template import Template
from dal_jax.fits import export, file, output
from dal_jax.fits.file import Fits
from dal_jax.fits.output import Results
from dal_jax.lifting import folder as folder_lib, lift
from dal_jax.observations import observation
from dal_jax.observations.annotations import read_annotations
from dal_jax.observations.chart import load_chart
from dal_jax.observations.observation import Observation
from dal_jax.observations.person import AnnotatedPerson, Annotations
from dal_jax.registration import register, schedules, starts as starts_lib
from dal_jax.registration.energy import Objective
from dal_jax.registration.register import Fit, RegistrationConfig
from dal_jax.registration.solvers import solve
from dal_jax.runtime import cli, files, progress
from dal_jax.runtime.errors import InputError
from dal_jax.uncertainty import held_out_points, noise, quality
from dal_jax.uncertainty.noise import NoiseLevels
from dal_jax.uncertainty.sandwich import Precisions

_ANNOTATIONS = flags.DEFINE_string("annotations", None, "COCO-style JSON with bbox, dp_I, dp_U, dp_V, dp_x, dp_y.")
_IUV = flags.DEFINE_string("iuv", None, "IUV picture as DensePose writes it, or a folder of NAME_IUV.png.")
_INDS = flags.DEFINE_string("inds", None, "INDS picture (one id a person), or a folder of NAME_INDS.png.")
_IMAGES = flags.DEFINE_string("images", None, "Folder of the photographs, or the one photograph: for overlays.")
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
_LIFTING = flags.DEFINE_string("lifting", None, "Folder of a trained lifter, for the depth of key points (eq. 4).")
_INITIAL = flags.DEFINE_string("initial", None, "An earlier fits.npz of the same people, as one more start.")
_STARTS = flags.DEFINE_enum(
    "starts", "headings4", [name for name in starts_lib.STARTS if name != "given"], "Where the fit starts."
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
    "schedule", "constant", list(schedules.SCHEDULES),
    "constant; stiff_to_soft: the paper's stiff weights first; graduated: a robust loss against wrong correspondences.",
)  # fmt: skip
_LIMITS = flags.DEFINE_float("joint_limits", 0.0, "Weight of joint angles beyond anatomical limits; 0: off.", 0)
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 0.1, "Of first-order optimisers (paper: 0.1).", 1e-9)
_WEIGHTS = flags.DEFINE_enum(
    "weights", "pose_prior", [*schedules.WEIGHTS, "estimated"],
    "Of eq. 2: paper_stiff, the paper's of the first round; paper_soft, those of later rounds; pose_prior, soft with a "
    "pull to how people hold their joints instead of to the T-pose; estimated: the inverse variances that the "
    "residuals of all people together speak for, and how they hold their joints (three rounds of fits; give it a "
    "hundred or more).",
)  # fmt: skip
_QUALITY = flags.DEFINE_bool("quality", True, "Report on every fit: what it misses, what else it could be, how sure.")
_HOLDOUT = flags.DEFINE_float("holdout", 0.2, "Share of points left out to measure the fit there; 0: not.", 0, 0.5)
_SKIP_INVALID = flags.DEFINE_bool("skip_invalid", False, "Run the good entries of a file that has bad ones.")
_EXPORT = flags.DEFINE_string("export", "", "Write meshes: glb, obj or both, as in glb,obj.")
_OUT = flags.DEFINE_string("out", None, "Folder for the results.", required=True)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the results in --out.")

_SHOWN_ROWS = 40


def main(_: list[str]) -> None:
    """Read, fit, measure, draw, write, print."""
    formats = export.parse_formats(_EXPORT.value)
    _check_flags()
    template = load.load_body(_BODY.value or load.FREE_BODY, pose_blendshapes=_BLENDSHAPES.value)
    chart = load_chart(_CHART.value or "", template)
    path = _ANNOTATIONS.value or _IUV.value
    found = read_annotations(path, _IMAGES.value, _CHART.value, _INDS.value, _SKIP_INVALID.value)
    print(found.summary())
    for rejected in found.rejected[:_SHOWN_ROWS]:
        print(f"  skipped: {rejected.message}")
    observations = _with_depth(observation.observe_all(found.people, chart))
    fits, held_out, qualities = _fit(template, found, observations)
    rows = output.summarise(found, fits, held_out)
    rows = [row | {"quality": report} for row, report in zip(rows, qualities, strict=True)]
    out = pathlib.Path(_OUT.value).absolute()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".register.", dir=out) as building:
        path_of = found.photograph if found.images else None
        folder = pathlib.Path(building)
        output.write(folder, Results(template, found, observations, fits, rows), path_of, formats)
        files.publish(folder, out, output.NAMES)
    print(output.table(rows, _SHOWN_ROWS))
    print(f"wrote {_OUT.value}/fits.npz" + (f" and overlays in {_OUT.value}/overlays" if found.images else ""))


def _check_flags() -> None:
    """Refuse before the work what would fail after it."""
    if bool(_ANNOTATIONS.value) == bool(_IUV.value):
        raise InputError("give either --annotations=FILE.json or --iuv=PICTURE")
    if _ANNOTATIONS.value and not _ANNOTATIONS.value.lower().endswith(".json"):
        raise InputError(f"--annotations={_ANNOTATIONS.value}: not a .json file (IUV pictures go to --iuv)")
    if _ANNOTATIONS.value and _INDS.value:
        raise InputError(f"--inds={_INDS.value}: belongs to --iuv, not to --annotations")
    try:
        solve.check(_OPTIMIZER.value)
    except ValueError as error:
        raise InputError(f"--optimizer={_OPTIMIZER.value}: {str(error).split(': ', 1)[-1]}") from error
    if _BLENDSHAPES.value and _OPTIMIZER.value == "lm":
        raise InputError("--pose_blendshapes: the optimiser lm knows none; take --optimizer=dense_lm")
    files.refuse_taken(_OUT.value, output.NAMES, _OVERWRITE.value)


def _with_depth(observations: Observation) -> Observation:
    """Lift the key points, where there is a lifter; without one, or without key points, eq. 4 has no z term."""
    if not _LIFTING.value:
        return observations
    config, lifter = folder_lib.load(_LIFTING.value)
    term = jax.jit(functools.partial(lift.depth_term, config))
    depth, confidence = term(lifter, observations.keypoint_position, observations.keypoint_confidence)
    return observation.with_depth(observations, np.asarray(depth), np.asarray(confidence))


def _fit(
    template: Template, found: Annotations, observations: Observation
) -> tuple[Fits, np.ndarray | None, list[dict | None]]:
    """Return the fits, their errors at points left out, and the report on each."""
    people = found.people
    steps = _STEPS.value or (30 if _OPTIMIZER.value in ("lm", "dense_lm", "gauss_newton") else 300)
    # `lm` is so fast that one compiled shape, kept on disk, beats a smaller batch; the others are padded less
    batch = 64 if _OPTIMIZER.value == "lm" else min(64, 1 << (len(people) - 1).bit_length())
    config = RegistrationConfig(
        _OPTIMIZER.value, steps, _LEARNING_RATE.value, _STARTS.value, batch, _TOLERANCE.value, _SCHEDULE.value
    )
    objective = schedules.objective_by_name(_WEIGHTS.value if _WEIGHTS.value in schedules.WEIGHTS else "paper_soft")
    objective = objective.reweighted(limit=_LIMITS.value or None)
    objective = schedules.stages(_SCHEDULE.value, objective)[-1]
    observed, levels = observations, None
    if _WEIGHTS.value == "estimated":
        weights = objective.weights
        _, levels = noise.alternate(template, observations, config, outlier=weights.outlier)
        objective = noise.objective(levels).reweighted(outlier=weights.outlier, limit=weights.limit)
        observations = noise.reweighted(observations, levels)
    given = [_initial(people, observations)] if _INITIAL.value else []
    with progress.bar("register", total=len(people), unit="person") as bar:
        fit = register.register(template, observations, config, objective, given, lambda n: bar.update(n - bar.n))
    qualities = _qualities(template, observed, fit, objective, levels)
    fits = file.empty(*zip(*[(e.image_id, e.annotation_id, e.file_name) for e in found.entries], strict=True))
    rows = np.array([isinstance(entry, AnnotatedPerson) for entry in found.entries]).nonzero()[0]
    boxes = np.stack([person.bbox_px for person in people])
    file.fill(fits, rows, template, fit.parameters, observations, boxes, fit.energy, fit.converged)
    if not _HOLDOUT.value:
        return fits, None, qualities
    folds = round(1 / _HOLDOUT.value)
    with progress.bar("held-out points", total=len(people) * folds, unit="fit") as bar:
        update = lambda n: bar.update(n - bar.n)  # noqa: E731
        return (
            fits,
            held_out_points.held_out_error_px(template, observations, config, objective, folds, update),
            qualities,
        )


def _qualities(
    template: Template,
    observed: Observation,
    fit: Fit,
    objective: Objective,
    levels: NoiseLevels | None,
) -> list[dict | None]:
    """Return what there is to say about each fit to what was `observed`.

    levels: of the noise, where the fit was made with weights from them; else the residuals of all fits tell.
    """
    if not _QUALITY.value:
        return [None] * len(fit.energy)
    template = template.replace(pose_blendshapes=None)  # rivals are fitted by lm; a report can do without wrinkles
    if levels is None:
        seen = noise.robust_weights(template, observed, fit.parameters, objective.weights.outlier)
        levels = noise.estimate(template, seen, fit.parameters, Precisions.of_objective(objective), noise.initial())
        assessed = quality.assess(template, observed, fit, levels, objective)
    elif objective.weights.outlier is None and objective.weights.limit is None:
        assessed = quality.assess(template, observed, fit, levels)
    else:  # rivals have to be fitted with these terms too, on the depths as the fit trusted them
        assessed = quality.assess(template, noise.reweighted(observed, levels), fit, levels, objective)
    return [quality.describe(assessed, row) for row in range(len(fit.energy))]


def _initial(people: list[AnnotatedPerson], observations: Observation):
    identity = [(person.image_id, person.annotation_id) for person in people]
    try:
        return file.starts_for(file.read(_INITIAL.value), identity, observations.box_px)
    except InputError as error:
        raise InputError(f"--initial={_INITIAL.value}: {error}") from error


if __name__ == "__main__":
    cli.run(main)
