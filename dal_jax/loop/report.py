"""The report of a run: the history, Fig. 2, and Fig. 1 for random people and for the worst fits.

Pictures lie beside the page as PNG, so the folder can be moved or zipped; the page loads nothing from elsewhere. All
text from outside is escaped. The page is built under another name and then renamed, so that a reader never meets half
a report.
"""

import dataclasses
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from dal_jax.algorithm import LoopState, Run
from dal_jax.body.kinematics import BodyParameters
from dal_jax.body.template import Template
from dal_jax.data.people import People, Truth
from dal_jax.evaluation import metrics
from dal_jax.fits import overlays
from dal_jax.fits.fits import Fits
from dal_jax.loop.judge import Judge
from dal_jax.observations import photographs, residuals
from dal_jax.observations.keypoints import Keypoints
from dal_jax.observations.observation import Observation
from dal_jax.observations.observations import Observations
from dal_jax.observations.person import AnnotatedPerson, Annotations
from dal_jax.runtime import files, mesh, progress
from dal_jax.runtime.files import PathLike
from dal_jax.viewing import html, plots

PLOT_NAME = "history.png"
EXAMPLES = 6
"""People a gallery: as many are drawn at random, the same ones in every round, as have the largest errors."""
CARDS = 3
"""People of each gallery who also have a card: half a second and 240 kB each."""
TILE_PX = 256
"""Side of each of a person's four pictures."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """The bodies that one stage of a run has made of a set of people.

    title: "Registration, training people", for instance.
    names: (n,) of the people; shown as they are.
    images: (n, S, S, 3) uint8 crops, an array or a sequence that decodes what is indexed.
    parameters: (n, ...), in those crops.
    error: (n,) what makes a fit bad, or None; sorts the worst cases.
    error_name, error_unit: what `error` is.
    observations: (n, ...); drawn on the image, or None.
    """

    title: str
    names: Sequence[str] | np.ndarray
    images: Any
    parameters: BodyParameters
    error: np.ndarray | None = None
    error_name: str = "MPJPE"
    error_unit: str = "mm"
    observations: Observation | None = None


def write(
    directory: pathlib.Path,
    judge: Judge,
    state: LoopState,
    history: list[dict[str, Any]],
    log_path: pathlib.Path,
) -> pathlib.Path:
    """Write DIR/report and return the path of its page."""
    run = judge.run
    stages = [_stage(judge, "Registration, training people", run.people, state.fits, judge.train_truth)]
    if judge.test.truth is None:
        stages.append(_stage(judge, "Regressor, the same people", run.people, state.predictions, None))
    else:
        predicted = judge.predict_test(state)
        stages.append(_stage(judge, "Regressor, test people", judge.test, predicted, judge.test.truth))
    if not mesh.is_first():  # has helped to predict
        return directory / "index.html"
    return write_page(directory, run, history, stages, _loss_plots(log_path))


def _stage(
    judge: Judge,
    title: str,
    people: People,
    bodies: BodyParameters,
    truth: Truth | None,
) -> Stage:
    """Return a stage whose people are sorted by MPJPE where it is known, else by the dense error in px."""
    errors, name, unit = judge.errors_mm(bodies, people, truth), "MPJPE", "mm"
    if errors is None:
        dense, _ = residuals.errors_px(judge.run.template, bodies, people.observations)
        errors = residuals.root_mean_square(dense, np.asarray(people.observations.point_confidence))
        name, unit = "dense error", "px"
    return Stage(title, people.names, people.images, bodies, errors, name, unit, people.observations)


def _loss_plots(log_path: pathlib.Path) -> dict[str, bytes]:
    """Plot what the log holds of the two networks' training."""
    lines = progress.read_metrics(log_path)
    lifting = [line for line in lines if "lifting_step" in line]
    learning = [line for line in lines if line.get("phase") == "learn"]
    found = {}
    for caption, chosen, axis in (("Lifting", lifting, "lifting_step"), ("Regressor", learning, "epoch")):
        names = sorted({name for line in chosen for name in line if "loss" in name or "realism" in name})
        series = {
            name: ([line[axis] for line in chosen if name in line], [line[name] for line in chosen if name in line])
            for name in names
        }
        if series:
            found[caption] = plots.plot_curves(series, axis.replace("_", " "), "loss")
    return found


# --- The page ---


def write_page(
    directory: PathLike,
    run: Run,
    history: Sequence[Mapping[str, float | int | None]],
    stages: Sequence[Stage],
    loss_plots: Mapping[str, bytes],
) -> pathlib.Path:
    """Draw and write everything; an older report in `directory` is replaced as a whole.

    Args:
      directory: becomes the report's folder; its old content is removed.
      run: its configuration is shown, field by field under dotted names; its template is the stages' body.
      history: the entries of history.json.
      stages: two galleries each (random people, the worst fits), in this order.
      loss_plots: PNG bytes by caption (`plots.plot_curves`).

    Returns:
      The path of index.html.
    """
    plot_files = [(f"plot-{index}.png", caption) for index, caption in enumerate(loss_plots)]
    with files.directory(directory, overwrite=True) as folder:
        if history:
            files.write_bytes(folder / PLOT_NAME, plots.plot_history(history))
        for name, caption in plot_files:
            files.write_bytes(folder / name, loss_plots[caption])
        galleries = [
            gallery
            for number, stage in enumerate(stages)
            for gallery in _draw_galleries(folder, f"stage-{number}", stage, run.template)
        ]
        cards = [
            (f"cards-{number}.html", stage) for number, stage in enumerate(stages) if stage.observations is not None
        ]
        for name, stage in cards:
            _write_cards(folder / name, stage, run.template)
        page = html.render(
            "report.html",
            title=f"Deform-and-learn: {run.config.preset}",
            config=_flatten(dataclasses.asdict(run.config)),
            columns=list(metrics.HISTORY_COLUMNS.values()),
            history=[[metrics.cell_text(entry.get(field)) for field in metrics.HISTORY_COLUMNS] for entry in history],
            plot_name=PLOT_NAME if history else None,
            plot_files=plot_files,
            galleries=galleries,
            cards=[(name, stage.title) for name, stage in cards],
            tile_px=TILE_PX,
        )
        files.write_text(folder / "index.html", page)
    return pathlib.Path(directory) / "index.html"


def draw_person(stage: Stage, index: int, template: Template, tile_px: int) -> np.ndarray:
    """Return one row of Fig. 1, (tile, 4 tiles, 3) uint8: image with its annotation, overlay, front, side."""
    image = overlays.resize(np.asarray(stage.images[index]), tile_px)
    body = overlays.select(stage.parameters, index)
    seen = None if stage.observations is None else overlays.select(stage.observations, index)
    vertices, faces = overlays.posed_vertices(template, body), np.asarray(template.faces)
    if np.isfinite(vertices).all():
        before = None if seen is None else seen.pinhole
        tiles = [overlays.overlay(image, overlays.posed_vertices(template, body, before), faces)]
        tiles += overlays.front_and_side(vertices, faces, tile_px)
    else:
        tiles = [np.full_like(image, 128)] * 3  # a fit that is not finite has no picture
    if seen is not None:
        image = overlays.draw_observation(image, seen)
    return np.concatenate([image, *tiles], axis=1)


def _draw_galleries(folder: pathlib.Path, prefix: str, stage: Stage, template: Template) -> list[dict[str, Any]]:
    """Draw people under two headings; return each heading's title and rows for the page."""
    galleries = []
    for kind, chosen in _choose(stage).items():
        rows = []
        for rank, index in enumerate(chosen):
            file = f"{prefix}-{kind}-{rank}.png"  # not the person's name: that comes from outside
            files.write_bytes(folder / file, photographs.png(draw_person(stage, index, template, TILE_PX), effort=4))
            rows.append({"file": file, "name": str(stage.names[index]), "error": _error_text(stage, index)})
        galleries.append({"title": f"{stage.title}: {_KINDS[kind]}", "rows": rows})
    return galleries


def _write_cards(path: pathlib.Path, stage: Stage, template: Template) -> None:
    """Write the page of `Fits.page` for the first people of a stage's galleries; their crops are the photographs."""
    rows = list(dict.fromkeys(index for chosen in _choose(stage).values() for index in chosen[:CARDS]))
    with tempfile.TemporaryDirectory() as crops:
        entries = [_annotated(pathlib.Path(crops), stage, index) for index in rows]
        boxes = np.stack([one.bbox_px for one in entries]).astype(np.float32)
        seen, bodies = jax.tree.map(lambda leaf: np.asarray(leaf)[rows], (stage.observations, stage.parameters))
        observed = Observations(
            dataclasses.replace(seen, box_px=boxes), boxes, [one.image_id for one in entries],
            [one.annotation_id for one in entries], [one.file_name for one in entries],
        )  # fmt: skip
        Fits.of(observed, template, bodies, annotations=Annotations(entries, images=crops)).page(path)


def _annotated(folder: pathlib.Path, stage: Stage, index: int) -> AnnotatedPerson:
    """Return a person whose photograph is the crop, written to a folder."""
    image, file = np.asarray(stage.images[index]), f"{index}.png"
    files.write_bytes(folder / file, photographs.png(image, effort=4))
    height, width = image.shape[:2]
    none = Keypoints(np.zeros((0, 2)), np.zeros(0), np.zeros(0, int), "h36m")
    return AnnotatedPerson(
        index, str(stage.names[index]), file, (width, height), np.array([0.0, 0.0, width, height]),
        np.zeros((0, 2)), np.zeros(0, int), np.zeros((0, 2)), none, crop_margin=1.0,
    )  # fmt: skip


_KINDS = {"random": "drawn at random", "worst": "the worst"}


def _choose(stage: Stage) -> dict[str, list[int]]:
    count = len(stage.names)
    drawn = np.random.default_rng(0).permutation(count)[:EXAMPLES]
    chosen = {"random": sorted(drawn.tolist())}
    if stage.error is not None:
        error = np.asarray(stage.error, np.float64)
        # a fit that is not finite is the worst
        order = np.argsort(-np.where(np.isfinite(error), error, np.inf), kind="stable")
        chosen["worst"] = order[:EXAMPLES].tolist()
    return chosen


def _error_text(stage: Stage, index: int) -> str:
    if stage.error is None:
        return ""
    return f"{stage.error_name} {float(stage.error[index]):.1f} {stage.error_unit}"


def _flatten(config: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    rows = []
    for name, value in config.items():
        if isinstance(value, Mapping):
            rows += _flatten(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", value))
    return rows
