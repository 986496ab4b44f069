"""The report of a run: one HTML page with the history, Fig. 2, and Fig. 1 for random people and for the worst fits.

Pictures lie beside the page as PNG, so the folder can be moved or zipped; the page loads nothing from elsewhere. It is
built under another name and then renamed, so that a reader never meets half a report.
"""

import dataclasses
import io
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from dal_jax.body import parameters as parameters_lib, template as template_lib
from dal_jax.correspondences import observations as observations_lib
from dal_jax.runtime import atomic
from dal_jax.viewing import overlay, plots, report_page

PLOT_NAME = "history.png"


@dataclasses.dataclass(frozen=True)
class Fits:
    """The bodies that one stage found for a set of people, as it hands them over: nothing is drawn yet.

    title: "Registration, training people", for instance.
    names: (n,) of the people; shown as they are, however they are written.
    images: (n, S, S, 3) uint8 crops, an array or a sequence that decodes what it is asked for.
    parameters: (n, ...), in those crops.
    error: (n,) what makes a fit bad, or None; sorts the worst cases.
    error_name, error_unit: what `error` is.
    observations: (n, ...); drawn on the image, or None.
    """

    title: str
    names: Sequence[str]
    images: Sequence[np.ndarray]
    parameters: parameters_lib.BodyParameters
    error: np.ndarray | None = None
    error_name: str = "MPJPE"
    error_unit: str = "mm"
    observations: observations_lib.Observation | None = None


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """How much a report shows.

    examples, worst: people a gallery, drawn at random and by largest error.
    tile_px: side of each of a person's four pictures.
    seed: of the random choice, the same in every round so that one can compare.
    """

    examples: int = 6
    worst: int = 6
    tile_px: int = 256
    seed: int = 0


def write_report(
    directory: str | os.PathLike[str],
    *,
    title: str,
    config: Mapping[str, object],
    history: Sequence[Mapping[str, float | int | None]],
    fits: Sequence[Fits],
    template: template_lib.Template,
    loss_plots: Mapping[str, bytes] | None = None,
    report_config: ReportConfig | None = None,
) -> pathlib.Path:
    """Draw and write everything; an older report in `directory` is replaced as a whole.

    Args:
      directory: becomes the report's folder; whatever was in it goes.
      title: of the page.
      config: of the run; nested mappings are shown with dotted names.
      history: the entries of history.json.
      fits: one gallery pair (random, worst) each, in this order.
      template: the body they are fits of.
      loss_plots: PNG bytes by caption (`plots.plot_curves`).
      report_config: how much to draw.

    Returns:
      The path of index.html.
    """
    report_config = report_config or ReportConfig()
    plot_files = [(f"plot-{index}.png", caption) for index, caption in enumerate(loss_plots or {})]
    with atomic.directory(directory, overwrite=True) as folder:
        if history:
            atomic.write_bytes(folder / PLOT_NAME, plots.plot_history(history))
        for (name, _), content in zip(plot_files, (loss_plots or {}).values(), strict=True):
            atomic.write_bytes(folder / name, content)
        galleries = [
            gallery
            for number, stage in enumerate(fits)
            for gallery in _draw_galleries(folder, f"stage-{number}", stage, template, report_config)
        ]
        page = report_page.render(
            title=title,
            config=_flatten(config),
            history=history,
            plot_name=PLOT_NAME if history else None,
            plot_files=plot_files,
            galleries=galleries,
            tile_px=report_config.tile_px,
        )
        atomic.write_text(folder / "index.html", page)
    return pathlib.Path(directory) / "index.html"


def draw_person(stage: Fits, index: int, template: template_lib.Template, tile_px: int) -> np.ndarray:
    """Return one row of Fig. 1, (tile, 4 tiles, 3) uint8: image with its annotation, overlay, front, side."""
    image = overlay.resize(np.asarray(stage.images[index]), tile_px)
    vertices = overlay.posed_vertices(template, overlay.select(stage.parameters, index))
    if np.isfinite(vertices).all():
        tiles = [overlay.overlay(image, vertices, template.faces)]
        tiles += overlay.front_and_side(vertices, template.faces, tile_px)
    else:
        tiles = [np.full_like(image, 128)] * 3  # a fit that is not finite has no picture
    if stage.observations is not None:
        image = _draw_annotation(image, overlay.select(stage.observations, index))
    return np.concatenate([image, *tiles], axis=1)


def _draw_annotation(image: np.ndarray, observation: observations_lib.Observation) -> np.ndarray:
    tile = np.array([0.0, 0.0, image.shape[1], image.shape[0]])
    points = np.asarray(observation.point_position)[np.asarray(observation.point_confidence) > 0]
    return overlay.draw_observation(
        image,
        observations_lib.px_from_crop(points, tile),
        observations_lib.px_from_crop(np.asarray(observation.keypoint_position), tile),
        np.asarray(observation.keypoint_confidence),
    )


def _draw_galleries(
    folder: pathlib.Path, prefix: str, stage: Fits, template: template_lib.Template, config: ReportConfig
) -> list[report_page.Gallery]:
    galleries = []
    for kind, chosen in _choose(stage, config).items():
        rows = []
        for rank, index in enumerate(chosen):
            name = f"{prefix}-{kind}-{rank}.png"  # not the person's name: that comes from outside
            atomic.write_bytes(folder / name, _png(draw_person(stage, index, template, config.tile_px)))
            rows.append(report_page.Row(name, str(stage.names[index]), _error_text(stage, index)))
        galleries.append(report_page.Gallery(f"{stage.title}: {_KINDS[kind]}", rows))
    return galleries


_KINDS = {"random": "drawn at random", "worst": "the worst"}


def _choose(stage: Fits, config: ReportConfig) -> dict[str, list[int]]:
    count = len(stage.names)
    drawn = np.random.default_rng(config.seed).permutation(count)[: config.examples]
    chosen = {"random": sorted(drawn.tolist())}
    if stage.error is not None and config.worst:
        error = np.asarray(stage.error, np.float64)
        # A fit that is not finite is the worst there is.
        order = np.argsort(-np.where(np.isfinite(error), error, np.inf), kind="stable")
        chosen["worst"] = order[: config.worst].tolist()
    return chosen


def _error_text(stage: Fits, index: int) -> str:
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


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="png")
    return buffer.getvalue()
